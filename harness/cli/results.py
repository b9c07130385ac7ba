"""Commands on stored runs: report, check, schema. Like cli.py they import inside functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import (
    reference_option,
    report_form_option,
    results_option,
    verbosity_options,
)
from harness.errors import ExitCode, HarnessError, IncompleteError

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
    help="What the runs must not fall behind.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Read every trace and timing in the results folder, and compute all scores and MACs again.",
)
@click.option("--format", "form", type=click.Choice(["text", "github", "junit", "json", "markdown"]), default="text",
              envvar="HARNESS_CHECK_FORMAT", show_default=True)  # fmt: skip
@click.option("--update", is_flag=True, help="Make the runs in the results folder the baseline.")
@click.option("--score-margin", type=click.FloatRange(0, 1), default=0.005, show_default=True,
              help="A smaller drop of a score is none, whatever its interval.")  # fmt: skip
@click.option("--exit-margin", type=click.FloatRange(0, 1), default=0.02, show_default=True,
              help="Total-variation distance of where rows leave; in an equal environment it must be 0.")  # fmt: skip
@click.option("--latency-margin", type=click.FloatRange(0, 1), default=0.10, show_default=True,
              help="A smaller drop of a latency ratio, as a share of it, is none.")  # fmt: skip
@click.option("--latency/--no-latency", default=True, show_default=True,
              help="Compare latency ratios: of runs that were timed for long, with nothing beside them.")  # fmt: skip
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
    results_dir: Path,
    verbose: bool,
    quiet: bool,
) -> int:
    """Hold the stored runs against a baseline: the CI gate.

    Exit code 1: a regression; 3: a run is missing; 4: a run is of other data or settings.

    A score is a regression when it dropped by more than the margin and the paired 95 % bootstrap interval of new - old lies below 0. MACs
    and parameters must be the same. Latency is compared as the ratio to the reference, paired in the same rounds, on the same processor
    alone.

    \b
    Examples:
      harness check --baseline baseline.json --update      # once, and when a change is wanted
      harness check --baseline baseline.json --format github
      harness check --baseline baseline.json --format junit --no-latency
      harness check --deep                                 # no baseline: are the files what their records say?
    """
    from harness.gate.baseline import read_baseline
    from harness.gate.check import check, exit_code, unreadable, verified
    from harness.gate.findings import Limits
    from harness.gate.formats import FORMS
    from harness.store.results import ResultsStore

    if baseline is None and (update or not deep):
        raise HarnessError(
            "check wants --baseline FILE; with --deep it looks at the results folder alone"
        )
    store = ResultsStore(results_dir)
    records, problems = store.records()
    limits = Limits(score_margin, exit_margin, latency_margin if latency else None)
    if baseline is not None and update:
        return _update(baseline, store, records, problems, limits)
    checks = check(read_baseline(baseline), store, records, limits) if baseline is not None else []
    checks += (verified(store, records) if deep else []) + unreadable(problems)
    if not records and not problems:
        click.echo(
            f"harness: no runs in {results_dir}: the results folder is --results-dir", err=True
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
    """Make the runs the baseline, and say what this changes."""
    from harness.gate.baseline import baseline_of, read_baseline, write_baseline
    from harness.gate.check import check, exit_code
    from harness.gate.formats import FORMS

    if problems or not records:
        found = (
            "; ".join(f"{problem.folder}: {problem.reason}" for problem in problems)
            or f"no runs in {store.root}"
        )
        raise IncompleteError(f"{baseline} stays as it is: {found}")
    made = baseline_of(store, records)
    if baseline.is_file():
        try:
            before = check(read_baseline(baseline), store, records, limits)
            click.echo(f"before: {FORMS['text'](before, exit_code(before))}", nl=False)
        except (
            HarnessError
        ) as error:  # a damaged file, or one of an earlier form, is what is to be replaced
            click.echo(f"before: {error}")
    write_baseline(baseline, made)
    further = (
        f", those that the report shows of {len(records)} stored ones"
        if len(made.runs) < len(records)
        else ""
    )
    click.echo(f"{baseline}: {len(made.runs)} runs{further}")
    return ExitCode.OK


@click.command("report")
@report_form_option
@click.option("--tasks", metavar="A,B", help="Only these tasks.")
@click.option("--methods", metavar="A,B", help="Only these methods.")
@click.option("--wnli", is_flag=True, help="Count WNLI in GLUE's average.")
@reference_option
@click.option(
    "--budget",
    metavar="10ms|100MMAC",
    help="Only the best of each method within it: milliseconds at batch 1, or MACs a row.",
)
@click.option("--differences-from", "against", metavar="ROW", envvar="HARNESS_REPORT_DIFFERENCES_FROM",
              help="Only paired differences from this row of the report; plain: of each method with several its plain row.")  # fmt: skip
@click.option(
    "--into",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Put the report between the markers of this file.",
)
@results_option
@verbosity_options
def report_command(
    form: str,
    tasks: str | None,
    methods: str | None,
    wnli: bool,
    reference: str,
    budget: str | None,
    against: str | None,
    into: Path | None,
    results_dir: Path,
    verbose: bool,
    quiet: bool,
) -> int:
    """Compare the stored runs: scores, MACs, layers and latency, mean over seeds.

    \b
    Examples:
      harness report --format markdown --tasks mrpc,sst2
      harness report --format latex --wnli
      harness report --budget 100MMAC --tasks sst2
      harness report --differences-from deebert --methods bert,deebert
    """
    from harness.analysis.ranking import parse_budget
    from harness.analysis.selection import gather, whole
    from harness.cli.parsing import names_in
    from harness.methods.registry import find_method
    from harness.report.differences import render_differences
    from harness.report.overview import insert, render
    from harness.report.ranking import render_budget
    from harness.store.results import ResultsStore

    if into is not None and form != "markdown":
        raise HarnessError(f"--into puts markdown into a file: not with --format {form}")
    if budget is not None and against is not None:
        raise HarnessError("--budget and --differences-from are two reports: give one of them")
    store = ResultsStore(results_dir)
    named = names_in("--methods", methods) if methods is not None else None
    found = gather(store, names_in("--tasks", tasks) if tasks is not None else None, named)
    base = None if reference == "none" else reference
    if base is not None:
        find_method(base)

    def rendered(records: list[RunRecord]) -> str:
        if budget is not None:
            return render_budget(store, records, parse_budget(budget), form, named)
        if against is not None:
            return render_differences(store, records, against, base, form, named)
        return render(store, records, base, form, named, wnli)

    _tell(found.problems)
    try:
        text = rendered(found.records)
    except IncompleteError:  # of a trace or a timing, perhaps: those of all runs are looked at
        before, found = found, whole(store, found)
        _tell(found.problems[len(before.problems) :])
        text = rendered(found.records)
    if into is not None and found.problems:
        raise IncompleteError(
            f"{into} stays as it is: {len(found.problems)} of the runs cannot be read, and a report without them would take its place"
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
            f"harness: no run of the reference {base}, and so no ratios: see --reference", err=True
        )
    return ExitCode.INCOMPLETE if found.problems or found.missing else ExitCode.OK


def _tell(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(f"harness: {problem.folder}: {problem.reason}", err=True)


@click.command("schema")
@click.argument("what", type=click.Choice(["record", "timing", "baseline"]))
@verbosity_options
def schema_command(what: str, verbose: bool, quiet: bool) -> int:
    """The form of a JSON file as JSON Schema, for programs that read it; every field is described.

    \b
    Example:
      harness schema record
    """
    import json

    from harness.cli.catalogue import KINDS
    from harness.files.json_schema import schema_of

    click.echo(json.dumps(schema_of(KINDS[what]), indent=1))
    return ExitCode.OK
