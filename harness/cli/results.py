"""The commands check, report and schema. Imports are inside functions, as in app.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import (
    BUDGET_NAMES,
    reference_option,
    report_format_option,
    results_option,
    verbosity_options,
)
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
@click.option("--tasks", metavar="A,B", help="Compare only these tasks of the baseline.")
@click.option("--methods", metavar="A,B", help="Compare only these methods of the baseline.")
@click.option("--backbone", metavar="NAME", help="Compare only runs on this backbone.")
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


@click.command("report")
@report_format_option
@click.option("--tasks", metavar="A,B", help="Report only these tasks.")
@click.option("--methods", metavar="A,B", help="Report only these methods.")
@click.option("--backbone", metavar="NAME", help="Report only runs on this backbone.")
@click.option("--wnli", is_flag=True, help="Include WNLI in the GLUE average.")
@reference_option
@click.option(
    "--budget",
    metavar="10ms|100MMAC",
    help="Report only each method's best operating point within this budget: milliseconds at "
    "batch size 1, or MACs per example.",
)
@click.option(
    "--differences-from",
    "against",
    metavar="ROW",
    envvar="HARNESS_REPORT_DIFFERENCES_FROM",
    help="Report only paired differences from the row of this name in column `method`; "
    "`default` compares each row with its method's default row.",
)
@click.option(
    "--into",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report between this file's lines `<!-- report: begin ... -->` and "
    "`<!-- report: end -->`.",
)
@results_option
@verbosity_options
def report_command(
    form: str,
    tasks: str | None,
    methods: str | None,
    backbone: str | None,
    wnli: bool,
    reference: str,
    budget: str | None,
    against: str | None,
    into: Path | None,
    results_dir: Path,
    verbose: bool,
    quiet: bool,
) -> int:
    """Compare the scores, MACs, layers and latency of stored runs, averaged over seeds.

    \b
    Examples:
      harness report --format markdown --tasks mrpc,sst2
      harness report --format latex --wnli
      harness report --budget 100MMAC --tasks sst2
      harness report --differences-from deebert --methods bert,deebert
    """
    from harness.analysis.ranking import parse_budget
    from harness.analysis.selection import intact_runs, select_runs
    from harness.cli.parsing import optional_names
    from harness.methods.registry import find_method
    from harness.report.differences import render_differences
    from harness.report.overview import insert, render
    from harness.report.ranking import render_budget
    from harness.store.results import ResultsStore

    if into is not None and form != "markdown":
        raise HarnessError(f"--into writes markdown and cannot be used with --format {form}")
    if budget is not None and against is not None:
        raise HarnessError(
            "--budget and --differences-from are different reports: give one of them"
        )
    store = ResultsStore(results_dir)
    named = optional_names("--methods", methods)
    found = select_runs(
        store, optional_names("--tasks", tasks), named, optional_names("--backbone", backbone)
    )
    base = None if reference == "none" else reference
    if base is not None:
        find_method(base)

    def rendered(records: list[RunRecord]) -> str:
        if budget is not None:
            return render_budget(store, records, parse_budget(budget), form, named)
        if against is not None:
            return render_differences(store, records, against, base, form, named)
        return render(store, records, base, form, named, wnli)

    _print_problems(found.problems)
    try:
        text = rendered(found.records)
    except IncompleteError:  # a trace or timing may be damaged: check those of all runs
        before, found = found, intact_runs(store, found)
        _print_problems(found.problems[len(before.problems) :])
        text = rendered(found.records)
    if into is not None and found.problems:
        raise IncompleteError(
            f"{into} was not changed: {counted(len(found.problems), 'run')} cannot be read, "
            "and would be missing from the report"
        )
    for name in found.missing:
        click.echo(f"harness: no runs of {name} in {results_dir}", err=True)
    if into is not None:
        insert(into, text)
    else:
        click.echo(text, nl=False)
    if (
        base is not None
        and budget is None
        and against is None
        and not any(record.spec.method == base for record in found.records)
    ):
        click.echo(
            f"harness: no ratios, since no run of the reference {base} is stored: see --reference",
            err=True,
        )
    return ExitCode.INCOMPLETE if found.problems or found.missing else ExitCode.OK


def _print_problems(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(f"harness: {problem.folder}: {problem.reason}", err=True)


@click.command("plot")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE.svg|png|pdf",
    help="Picture to write.",
)
@click.option(
    "--kind",
    type=click.Choice(["tradeoff", "exits", "histogram"]),
    default="tradeoff",
    show_default=True,
    help="Score against cost, score of each exit, or share of the examples that take each exit.",
)
@click.option(
    "--x",
    type=click.Choice(["macs", "latency"]),
    default="macs",
    show_default=True,
    help="Cost in a trade-off: MACs, or the latency ratio to the reference.",
)
@click.option("--y", metavar="SCORE", help="Score to draw.  [default: each task's main metric]")
@click.option(
    "--budget",
    type=click.Choice(BUDGET_NAMES),
    default="1/2",
    show_default=True,
    help="Budget of a histogram, as a share of the reference's MACs.",
)
@click.option("--tasks", metavar="A,B", help="Draw only these tasks.")
@click.option("--methods", metavar="A,B", help="Draw only these methods.")
@click.option("--backbone", metavar="NAME", help="Draw only runs on this backbone.")
@reference_option
@results_option
@verbosity_options
def plot_command(
    out: Path,
    kind: str,
    x: str,
    y: str | None,
    budget: str,
    tasks: str | None,
    methods: str | None,
    backbone: str | None,
    reference: str,
    results_dir: Path,
    verbose: bool,
    quiet: bool,
) -> int:
    """Draw stored runs, with one panel for each task.

    A line is a method through its operating points, and a single marker is a model with one exit.
    Bands and bars are one standard deviation over seeds. Needs matplotlib (extra `plots`).

    \b
    Examples:
      harness plot --out tradeoff.svg --tasks mrpc,sst2
      harness plot --out speed.png --x latency
      harness plot --out exits.pdf --kind histogram --budget 1/4 --tasks sst2
    """
    from harness.analysis.comparison import compare
    from harness.analysis.selection import no_runs, select_runs
    from harness.cli.parsing import optional_names
    from harness.report.plots import Picture, check_ending, draw, save
    from harness.store.results import ResultsStore

    check_ending(out)
    store = ResultsStore(results_dir)
    named = optional_names("--methods", methods)
    found = select_runs(
        store, optional_names("--tasks", tasks), named, optional_names("--backbone", backbone)
    )
    _print_problems(found.problems)
    for name in found.missing:
        click.echo(f"harness: no runs of {name} in {results_dir}", err=True)
    base = None if reference == "none" else reference
    comparisons = [one for one in compare(store, found.records, base, named) if one.rows]
    if not comparisons:
        raise no_runs(store)
    save(draw(comparisons, Picture(kind, x, y, budget)), out)
    click.echo(f"{out}: {counted(len(comparisons), 'task')}")
    return ExitCode.INCOMPLETE if found.problems or found.missing else ExitCode.OK


@click.command("schema")
@click.argument("what", type=click.Choice(["record", "timing", "baseline"]))
@verbosity_options
def schema_command(what: str, verbose: bool, quiet: bool) -> int:
    """Print the JSON Schema of a file that harness writes, with every field described.

    \b
    Example:
      harness schema record
    """
    import json

    from harness.cli.catalogue import SCHEMA_CLASSES
    from harness.files.json_schema import json_schema_of

    click.echo(json.dumps(json_schema_of(SCHEMA_CLASSES[what]), indent=1))
    return ExitCode.OK
