"""The cache folder: `harness cache list` and `harness cache prune`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import cache_option, results_option, verbosity_options
from harness.errors import ExitCode, HarnessError


@click.group("cache")
def cache_command() -> None:
    """What is kept of fitted stages, and making room.

    \b
    Example:
      harness cache list
      harness cache prune --unused --older-than 30
    """


@cache_command.command("list")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar="HARNESS_CACHE_LIST_FORMAT",
)
@results_option
@cache_option
@verbosity_options
def list_command(
    form: str, results_dir: Path, cache_dir: Path | None, verbose: bool, quiet: bool
) -> int:
    """Stages and rows in the cache folder, the largest first, with the stored runs that they are part of.

    \b
    Example:
      harness cache list --format json
    """
    import json

    from harness.report.listings import text
    from harness.store.results import ResultsStore
    from harness.store.stage_cache import cache_folder, entries

    folder = cache_folder(cache_dir)
    found = entries(folder, ResultsStore(results_dir).records()[0])
    rows: list[dict[str, object]] = [
        {
            "what": entry.kind,
            "key": entry.key,
            "MB": round(entry.size_bytes / 1e6, 1),
            "days": round(entry.days, 1),
            "runs": len(entry.runs),
            "of": ", ".join(entry.cells) or "-",
        }
        for entry in found
    ]
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo(text(rows) if rows else f"nothing in {folder}")
        click.echo(f"{sum(entry.size_bytes for entry in found) / 1e6:.1f} MB")
    return ExitCode.OK


@cache_command.command("prune")
@click.option("--unused", is_flag=True, help="Only what is part of no run in the results folder.")
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Only what was not used for so long.",
)
@click.option(
    "--all", "everything", is_flag=True, envvar="HARNESS_CACHE_PRUNE_ALL", help="Everything."
)
@click.option("--dry-run", is_flag=True, help="Say what would go.")
@results_option
@cache_option
@verbosity_options
def prune_command(
    unused: bool,
    older_than: float | None,
    everything: bool,
    dry_run: bool,
    results_dir: Path,
    cache_dir: Path | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Remove stages and rows from the cache folder; a stored run needs them for `harness time`, `export` and `submit` alone.

    A stage that is being fitted stays; runs that are under way may still need others, and so may runs in another results folder than this
    one.

    \b
    Example:
      harness cache prune --unused --older-than 30 --dry-run
    """
    from harness.errors import IncompleteError
    from harness.store.results import ResultsStore
    from harness.store.stage_cache import cache_folder, entries, remove

    if everything == (unused or older_than is not None):
        raise HarnessError(
            "harness cache prune: wanted --all, or one or both of --unused and --older-than DAYS"
        )
    records, problems = ResultsStore(results_dir).records()
    if unused and not records and not problems:
        raise HarnessError(
            f"no runs in {results_dir}, so that everything would be unused: give their folder as --results-dir, or --all"
        )
    if unused and problems:
        raise IncompleteError(
            f"{len(problems)} runs in {results_dir} cannot be read: what they are made of is not known; nothing was removed"
        )
    chosen = [
        entry
        for entry in entries(cache_folder(cache_dir), records)
        if not (unused and entry.runs) and entry.days >= (older_than or 0)
    ]
    gone = 0
    for entry in chosen:
        if dry_run or remove(entry):
            gone += entry.size_bytes
            said = "would remove" if dry_run else "removed"
        else:
            said = "in use:"
        if not quiet:
            click.echo(
                f"{said} {entry.kind} {entry.key} ({entry.size_bytes / 1e6:.1f} MB, {len(entry.runs)} runs)"
            )
    click.echo(f"{gone / 1e6:.1f} MB {'would go' if dry_run else 'gone'}")
    return ExitCode.OK
