"""The command line. Commands import what they need in their bodies, so that --help is fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import __version__
from harness.cli.again import rerun_command
from harness.cli.cache import cache_command
from harness.cli.data import fetch, fetch_options
from harness.cli.gate import check_command
from harness.cli.measure import flops_command, sweep_command, time_command
from harness.cli.models import export_command, predict_command, submit_command
from harness.cli.options import PREFIX, results_option, verbosity_options
from harness.cli.results import plot_command, report_command, schema_command, show_command
from harness.cli.run import run_command
from harness.errors import ExitCode, HarnessError

if TYPE_CHECKING:
    from harness.store.results import Problem

CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "auto_envvar_prefix": PREFIX,
}


COMMANDS = [
    *(
        cache_command,
        check_command,
        export_command,
        flops_command,
        plot_command,
        predict_command,
        report_command,
        rerun_command,
        run_command,
    ),
    *(schema_command, show_command, submit_command, sweep_command, time_command),
]


@click.group(commands=COMMANDS, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Compare accuracy, FLOPs and measured latency of early-exit and compressed BERTs.

    Every option can also be set by an environment variable: HARNESS_RUN_SEEDS=1,2 is
    run --seeds 1,2.

    \b
    Examples:
      harness run                                         # a first look, without data or network
      harness run --methods bert,deebert --tasks mrpc --backbone minilm --data-dir GLUE_DIR
      harness report --format markdown
    """


@cli.command("list")
@click.argument("what", type=click.Choice(["methods", "tasks", "backbones", "runs"]))
@click.argument("method", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="HARNESS_LIST_FORMAT",
    show_default=True,
    help="Output format.",
)
@results_option
@verbosity_options
def list_command(
    what: str, method: str | None, form: str, results_dir: Path, verbose: bool, quiet: bool
) -> int:
    """List methods, tasks, backbones or stored runs.

    With -v, methods are listed with the settings that --set takes. With a METHOD, its settings
    are described one by one.

    \b
    Examples:
      harness list methods costeff
      harness list runs --format json
    """
    import json

    from harness.report.listings import text, with_short_ids

    problems: list[Problem] = []
    render = text
    if method is not None and what != "methods":
        raise HarnessError(f"list {what} takes no METHOD, got {method}")
    if what == "runs":
        rows, problems = _runs(results_dir)
        rows = rows if form == "json" else with_short_ids(rows)
    else:
        from harness.cli.catalogue import backbones, methods, settings, settings_text, tasks

        if method is not None:
            rows, render = settings(method), settings_text
        else:
            rows = (
                methods(verbose)
                if what == "methods"
                else {"tasks": tasks, "backbones": backbones}[what]()
            )
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo(render(rows) if rows else f"no {what} in {results_dir}")
    for problem in problems:
        click.echo(f"harness: {problem.folder}: {problem.reason}", err=True)
    return ExitCode.INCOMPLETE if problems else ExitCode.OK


def _runs(results_dir: Path) -> tuple[list[dict[str, object]], list[Problem]]:
    """Return the listed rows and the unreadable runs; the records are freed on return."""
    from harness.report.listings import runs
    from harness.store.results import ResultsStore, collector_paused

    with collector_paused():
        records, problems = ResultsStore(results_dir).records()
        return runs(records), problems


fetch_command = cli.command("fetch")(fetch_options(verbosity_options(fetch)))
