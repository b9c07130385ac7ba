"""The commands `harness cache list` and `harness cache prune`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import cache_option, results_option, verbosity_options
from harness.errors import ExitCode, HarnessError, counted


@click.group("cache")
def cache_command() -> None:
    """List or remove cached stages, encoded examples and augmented data.

    \b
    Examples:
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
    help="Output format.",
)
@results_option
@cache_option
@verbosity_options
def list_command(
    form: str, results_dir: Path, cache_dir: Path | None, verbose: bool, quiet: bool
) -> int:
    """List the entries of the cache, largest first, with the stored runs that use them.

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
        click.echo(text(rows) if rows else f"no cache entries in {folder}")
        click.echo(f"{sum(entry.size_bytes for entry in found) / 1e6:.1f} MB")
    return ExitCode.OK


@cache_command.command("prune")
@click.option(
    "--unused", is_flag=True, help="Remove only entries that no run in the results folder uses."
)
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Remove only entries not used for this many days.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    envvar="HARNESS_CACHE_PRUNE_ALL",
    help="Remove all entries.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
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
    """Remove stages, encoded examples and augmented data from the cache folder.

    A stored run needs its entries only for `harness time`, `export` and `submit`. A stage that is
    being fitted is kept. Other entries may still be needed by running commands and by runs in other
    results folders.

    \b
    Example:
      harness cache prune --unused --older-than 30 --dry-run
    """
    from harness.errors import IncompleteError
    from harness.store.results import ResultsStore
    from harness.store.stage_cache import cache_folder, entries, remove

    if everything == (unused or older_than is not None):
        raise HarnessError(
            "harness cache prune: give --all, or one or both of --unused and --older-than DAYS"
        )
    records, problems = ResultsStore(results_dir).records()
    if unused and not records and not problems:
        raise HarnessError(
            f"no runs in {results_dir}, so every entry would count as unused: "
            "set --results-dir, or give --all"
        )
    if unused and problems:
        raise IncompleteError(
            f"{counted(len(problems), 'run')} in {results_dir} cannot be read, so the entries that "
            "they use are unknown; nothing was removed"
        )
    chosen = [
        entry
        for entry in entries(cache_folder(cache_dir), records)
        if not (unused and entry.runs) and entry.days >= (older_than or 0)
    ]
    freed_bytes = 0
    for entry in chosen:
        if dry_run or remove(entry):
            freed_bytes += entry.size_bytes
            action = "would remove" if dry_run else "removed"
        else:
            action = "kept, in use:"
        if not quiet:
            size = f"{entry.size_bytes / 1e6:.1f} MB"
            click.echo(
                f"{action} {entry.kind} {entry.key} ({size}, {counted(len(entry.runs), 'run')})"
            )
    click.echo(f"{freed_bytes / 1e6:.1f} MB {'would be freed' if dry_run else 'freed'}")
    return ExitCode.OK
