"""The command check. Imports are inside functions, as in app.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import results_option, selection_options, verbosity_options
from harness.errors import ExitCode, HarnessError, IncompleteError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gate.findings import Limits
    from harness.records import RunRecord
    from harness.store.results import Problem, ResultsStore


@click.command("check")
@click.option(
    "--baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Baseline to compare the runs with.  [default: baseline.json in the results folder; with "
    "--deep none]",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Read every trace and timing in the results folder, and recompute all scores and MACs.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github", "junit", "json", "markdown"]),
    default="text",
    envvar="HARNESS_CHECK_FORMAT",
    show_default=True,
    help="Output format.",
)
@click.option("--update", is_flag=True, help="Make the runs in the results folder the baseline.")
@click.option(
    "--score-margin",
    type=click.FloatRange(0, 1),
    default=0.005,
    show_default=True,
    help="Ignore smaller drops of a score, whatever their interval.",
)
@click.option(
    "--exit-margin",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Largest total-variation distance between exit distributions; with the same hardware and "
    "software it must be 0.",
)
@click.option(
    "--latency-margin",
    type=click.FloatRange(0, 1),
    default=0.10,
    show_default=True,
    help="Ignore smaller relative drops of a latency ratio.",
)
@click.option(
    "--latency/--no-latency",
    default=True,
    show_default=True,
    help="Compare latency ratios; needs long timings on an otherwise idle machine.",
)
@selection_options("Compare")
@results_option
@verbosity_options
def check_command(
    baseline: Path | None,
    deep: bool,
    form: str,
    update: bool,
    score_margin: float,
    exit_margin: float,
    latency_margin: float,
    latency: bool,
    tasks: str | None,
    methods: str | None,
    backbone: str | None,
    results_dir: Path,
    verbose: bool,
    quiet: bool,
) -> int:
    """Compare the stored runs with a baseline, as a gate for CI.

    Exit code 1: a regression; 3: a run is missing; 4: a run has other data or settings.

    A score regresses if it drops by more than the margin and the paired 95 % bootstrap interval
    of new - old lies below 0. MACs and parameters must be equal. Latency is compared as the ratio
    to the reference, paired in the same rounds, and only on the same processor.

    \b
    Examples:
      harness check --baseline baseline.json --update      # once, and after an intended change
      harness check --baseline baseline.json --format github
      harness check --baseline baseline.json --format junit --no-latency
      harness check --baseline baseline.json --tasks rte,sst2
      harness check --deep                                 # no baseline: verify the stored files
    """
    from dataclasses import replace

    from harness.analysis.selection import runs_of
    from harness.cli.parsing import optional_names
    from harness.gate.baseline import read_baseline
    from harness.gate.check import check, exit_code, unreadable_runs, verify_runs
    from harness.gate.findings import Limits
    from harness.gate.formats import FORMS
    from harness.store.results import ResultsStore

    if baseline is None and (update or not deep):
        baseline = results_dir / "baseline.json"
    store = ResultsStore(results_dir)
    records, problems = store.records()
    limits = Limits(score_margin, exit_margin, latency_margin if latency else None)
    named = (
        optional_names("--tasks", tasks),
        optional_names("--methods", methods),
        optional_names("--backbone", backbone),
    )
    if update and any(named):
        raise HarnessError("--update takes all runs: omit --tasks, --methods and --backbone")
    if baseline is not None and update:
        return _update(baseline, store, records, problems, limits)
    checks = []
    if baseline is not None:
        pinned = read_baseline(baseline)
        pinned = replace(pinned, runs=tuple(runs_of(pinned.runs, *named)))
        checks = check(pinned, store, records, limits)
    deeply = verify_runs(store, runs_of(records, *named)) if deep else []
    checks += deeply + unreadable_runs(problems)
    if not records and not problems:
        click.echo(
            f"harness: no runs in {results_dir}: set --results-dir to their folder", err=True
        )
    code = exit_code(checks)
    click.echo(FORMS[form](checks, code), nl=False)
    return code


def _update(
    baseline: Path,
    store: ResultsStore,
    records: Sequence[RunRecord],
    problems: Sequence[Problem],
    limits: Limits,
) -> ExitCode:
    """Make the runs the baseline, and print what this changes."""
    from harness.gate.baseline import baseline_of, read_baseline, write_baseline
    from harness.gate.check import check, exit_code
    from harness.gate.formats import FORMS

    if problems or not records:
        found = (
            "; ".join(f"{problem.folder}: {problem.reason}" for problem in problems)
            or f"no runs in {store.root}"
        )
        raise IncompleteError(f"{baseline} was not changed: {found}")
    made = baseline_of(store, records)
    if baseline.is_file():
        try:
            before = check(read_baseline(baseline), store, records, limits)
            click.echo(f"before: {FORMS['text'](before, exit_code(before))}", nl=False)
        except HarnessError as error:  # a damaged or outdated file may be replaced
            click.echo(f"before: {error}")
    write_baseline(baseline, made)
    further = (
        f", those that the report selects from {len(records)} stored runs"
        if len(made.runs) < len(records)
        else ""
    )
    click.echo(f"{baseline}: {counted(len(made.runs), 'run')}{further}")
    return ExitCode.OK
