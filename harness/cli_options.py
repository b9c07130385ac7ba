"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])

FORMATS = click.Choice(["markdown", "csv", "json"])
POLICY_NAMES = click.Choice(["entropy", "confidence", "patience"])
DEFAULT_RESULTS = Path("results")


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


verbosity_options = together(
    click.option("-v", "--verbose", is_flag=True, help="Say more; show where an internal error came from."),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors."),
)
results_option = click.option(
    "--results-dir", type=click.Path(file_okay=False, path_type=Path), default=DEFAULT_RESULTS, show_default=True,
    help="Folder of the records.",
)  # fmt: skip
cache_option = click.option(
    "--cache-dir", type=click.Path(file_okay=False, path_type=Path), envvar="HARNESS_CACHE_DIR", show_envvar=True,
    help="Folder of fitted stages and models.  [default: harness in the user's cache folder]",
)  # fmt: skip
data_option = click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), envvar="HARNESS_DATA_DIR", show_envvar=True,
    help="Folder of GLUE's TSV files: CoLA/, SST-2/, MRPC/, ...",
)  # fmt: skip
compute_options = together(
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option("--threads", type=click.IntRange(1, 1024), help="Processor threads.  [default: all usable cores; the run's in time]"),
)
reference_option = click.option(
    "--reference", default="bert", show_default=True, metavar="METHOD", help="What ratios are against; none for no reference."
)
