"""The commands report, plot and schema. Imports are inside functions, as in app.py."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import (
    BUDGET,
    LEVEL,
    PICTURE_COST,
    PICTURE_KIND,
    reference_option,
    report_format_option,
    results_option,
    selection_options,
    verbosity_options,
)
from harness.errors import ExitCode, HarnessError, IncompleteError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.records import RunRecord
    from harness.store.results import Problem


@click.command("report")
@report_format_option
@selection_options("Report")
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
    "--level",
    type=LEVEL,
    help="Write a tidy table with one row per run, exit, operating point or dev example and exit, "
    "as csv or parquet.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to a file instead of standard output.",
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
    form: str | None,
    tasks: str | None,
    methods: str | None,
    backbone: str | None,
    wnli: bool,
    reference: str,
    budget: str | None,
    against: str | None,
    level: str | None,
    out: Path | None,
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
      harness report --level exit --format csv --out exits.csv
    """
    from harness.analysis.frames import Runs, frame
    from harness.analysis.ranking import parse_budget
    from harness.analysis.selection import intact_runs, select_runs
    from harness.cli.parsing import optional_names
    from harness.methods.registry import find_method
    from harness.report.differences import render_differences
    from harness.report.formats import csv_text, parquet_bytes
    from harness.report.overview import insert, render, render_terminal
    from harness.report.ranking import render_budget
    from harness.store.results import ResultsStore

    kinds = {"--budget": budget, "--differences-from": against, "--level": level}
    given = [option for option, value in kinds.items() if value is not None]
    if len(given) > 1:
        raise HarnessError(f"{' and '.join(given)} are different reports: give one of them")
    form = _report_format(form, bool(given), level, into, out)
    store = ResultsStore(results_dir)
    named = optional_names("--methods", methods)
    found = select_runs(
        store, optional_names("--tasks", tasks), named, optional_names("--backbone", backbone)
    )
    base = None if reference == "none" else reference
    if base is not None:
        find_method(base)

    def rendered(records: list[RunRecord]) -> str | bytes:
        if level is not None:
            kept = [one for one in records if named is None or one.spec.method in named]
            table = frame(level, Runs(store, kept, base))
            return csv_text(table) if form == "csv" else parquet_bytes(table)
        if form == "table":
            width, _ = shutil.get_terminal_size()
            return render_terminal(store, records, base, named, width, sys.stdout.isatty())
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
        insert(into, str(text))
    else:
        _write(text, out)
    if base is not None and not given:
        _warn_without_reference(base, found.records)
    return ExitCode.INCOMPLETE if found.problems or found.missing else ExitCode.OK


def _warn_without_reference(reference: str, records: Sequence[RunRecord]) -> None:
    if not any(record.spec.method == reference for record in records):
        click.echo(
            f"harness: no ratios, since no run of the reference {reference} is stored: see "
            "--reference",
            err=True,
        )


def _report_format(
    form: str | None, special: bool, level: str | None, into: Path | None, out: Path | None
) -> str:
    """Return the format of a report, which must suit the other options.

    Raises: HarnessError if it does not.
    """
    if form is None:
        plain = special or into is not None or out is not None or not sys.stdout.isatty()
        form = "csv" if level else "markdown" if plain else "table"
    if into is not None and form != "markdown":
        raise HarnessError(f"--into writes markdown and cannot be used with --format {form}")
    if level is not None and form not in ("csv", "parquet"):
        raise HarnessError(f"--level {level} is written as csv or parquet, not as {form}")
    if level is None and form == "parquet":
        raise HarnessError("--format parquet needs --level")
    if form == "parquet" and out is None:
        raise HarnessError("--format parquet needs --out FILE")
    if special and form == "table":
        raise HarnessError("--format table shows the main report only: give another --format")
    return form


def _write(text: str | bytes, out: Path | None) -> None:
    """Write a report to a file or, page by page where it is long, to the terminal."""
    from harness.files.atomic import atomic_write

    if out is not None:
        with atomic_write(out) as temporary:
            temporary.write_bytes(text if isinstance(text, bytes) else text.encode())
        click.echo(f"{out} written", err=True)
    elif sys.stdout.isatty() and str(text).count("\n") > shutil.get_terminal_size().lines:
        click.echo_via_pager(str(text))
    else:
        click.echo(text, nl=False)


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
    type=PICTURE_KIND,
    default="tradeoff",
    show_default=True,
    help="Score against cost, score of each exit, or share of the examples that take each exit.",
)
@click.option(
    "--x",
    type=PICTURE_COST,
    default="macs",
    show_default=True,
    help="Cost in a trade-off: MACs, or the latency ratio to the reference.",
)
@click.option("--y", metavar="SCORE", help="Score to draw.  [default: each task's main metric]")
@click.option(
    "--budget",
    type=BUDGET,
    default="1/2",
    show_default=True,
    help="Budget of a histogram, as a share of the reference's MACs.",
)
@selection_options("Draw")
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
    from harness.analysis.selection import select_runs
    from harness.cli.parsing import optional_names
    from harness.report.overview import comparisons_of
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
    comparisons = comparisons_of(store, found.records, base, named)
    save(draw(comparisons, Picture(kind, x, y, budget)), out)
    click.echo(f"{out}: {counted(len(comparisons), 'task')}")
    return ExitCode.INCOMPLETE if found.problems or found.missing else ExitCode.OK


@click.command("show")
@click.argument("run_id")
@results_option
@verbosity_options
def show_command(run_id: str, results_dir: Path, verbose: bool, quiet: bool) -> int:
    """Show one run: its exits, operating points, stages, environment, and how to fit it again.

    \b
    Example:
      harness show 3f2a
    """
    from harness.report.run_page import run_page
    from harness.store.results import ResultsStore

    store = ResultsStore(results_dir)
    click.echo(run_page(store, store.find(run_id)), nl=False)
    return ExitCode.OK


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
