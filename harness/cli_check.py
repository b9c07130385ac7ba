"""The gate: `harness check`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli_options import results_option, verbosity_options
from harness.errors import ExitCode


@click.command("check")
@click.option("--baseline", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE",
              help="What the runs must not fall behind.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "github", "junit", "json", "markdown"]), default="text",
              envvar="HARNESS_CHECK_FORMAT", show_default=True)  # fmt: skip
@click.option("--update", is_flag=True, help="Make the runs in the results folder the baseline.")
@click.option("--score-margin", type=click.FloatRange(0, 1), default=0.005, show_default=True,
              help="A smaller drop of a score is none, whatever its interval.")  # fmt: skip
@click.option("--exit-margin", type=click.FloatRange(0, 1), default=0.02, show_default=True,
              help="Total-variation distance of where rows leave; in an equal environment it must be 0.")  # fmt: skip
@click.option("--latency-margin", type=click.FloatRange(0, 1), default=0.10, show_default=True,
              help="A smaller drop of a latency ratio, as a share of it, is none.")  # fmt: skip
@results_option
@verbosity_options
def check_command(
    baseline: Path,
    form: str,
    update: bool,
    score_margin: float,
    exit_margin: float,
    latency_margin: float,
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
    """
    from harness.baseline import baseline_of, read_baseline, write_baseline
    from harness.errors import IncompleteError
    from harness.regress import Limits, check, exit_code
    from harness.store import ResultsStore
    from harness.verdicts import FORMS, summary

    store = ResultsStore(results_dir)
    records, problems = store.records()
    for problem in problems:
        click.echo(f"harness: {problem.folder}: {problem.reason}", err=True)
    limits = Limits(score_margin, exit_margin, latency_margin)
    if not update:
        checks = check(read_baseline(baseline), store, records, limits)
        code = exit_code(checks, len(problems))
        click.echo(FORMS[form](checks, code), nl=False)
        return code
    if problems or not records:
        found = f"{len(problems)} runs cannot be read" if problems else f"no runs in {results_dir}"
        raise IncompleteError(f"{baseline} stays as it is: {found}")
    made = baseline_of(store, records)
    if baseline.is_file():
        click.echo(f"before: {summary(check(read_baseline(baseline), store, records, limits))}")
    write_baseline(baseline, made)
    click.echo(f"{baseline}: {len(made.runs)} runs")
    return ExitCode.OK
