"""Options that several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import click

from harness.errors import HarnessError

F = TypeVar("F", bound=Callable[..., object])

FORMATS = click.Choice(["markdown", "csv", "json"])
POLICY_NAMES = click.Choice(["entropy", "confidence", "patience"])
DEFAULT_RESULTS = Path("results")
PREFIX = "HARNESS"
"""Of environment variables."""


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


verbosity_options = together(
    click.option(
        "-v", "--verbose", is_flag=True, help="Say more; show where an internal error came from."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors."),
)
results_option = click.option(
    "--results-dir", type=click.Path(file_okay=False, path_type=Path), default=DEFAULT_RESULTS, show_default=True,
    envvar="HARNESS_RESULTS_DIR", show_envvar=True, help="Folder of the records.",
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
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
                 envvar="HARNESS_DEVICE", show_envvar=True),
    click.option("--threads", type=click.IntRange(1, 1024), envvar="HARNESS_THREADS", show_envvar=True,
                 help="Processor threads.  [default: all usable cores; the run's in time]"),
)  # fmt: skip
reference_option = click.option(
    "--reference", default="bert", show_default=True, metavar="METHOD", envvar="HARNESS_REFERENCE", show_envvar=True,
    help="What ratios are against; none for no reference.",
)  # fmt: skip


def variables(group: click.Group) -> set[str]:
    """The environment variables of all options of a group's commands: those that are named, and by click's rule HARNESS_COMMAND_OPTION."""
    found: set[str] = set()
    waiting: list[tuple[tuple[str, ...], click.Command]] = [((PREFIX,), group)]
    while waiting:
        path, command = waiting.pop()
        if isinstance(command, click.Group):
            waiting += [((*path, name), inner) for name, inner in command.commands.items()]
        for option in command.params:
            if isinstance(option, click.Option):
                named = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
                found |= {*named, "_".join((*path, str(option.name))).upper().replace("-", "_")}
    return found


def names_completed(
    known: Callable[[], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completion of an option that takes names between commas."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
        before, comma, last = typed.rpartition(",")
        return [f"{before}{comma}{name}" for name in known() if name.startswith(last)]

    return complete


FROM_FILE = "harness.config"
"""Where a context keeps what its --config file says of single methods and tasks: option -> words."""


def _read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """The file's options stand behind those of the command line and of the environment."""
    from harness.cli.parsing import read_grid

    options = {
        word[2:]: option
        for option in context.command.params
        for word in option.opts
        if word.startswith("--")
    }
    del options["config"]
    known = {
        name: option.multiple
        for name, option in options.items()
        if isinstance(option, click.Option)
    }
    given = {} if path is None else read_grid(path, known)
    context.meta[FROM_FILE] = {name: tuple(given.pop(name, ())) for name in ("set", "train-rows")}
    context.default_map = {str(options[name].name): words for name, words in given.items()}


config_option = click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), is_eager=True, expose_value=False,
    callback=_read_config, metavar="FILE.toml",
    help="Options of a whole grid; the command line and the environment override it.",
)  # fmt: skip


class Words(click.types.StringParamType):
    """Text; several in an environment variable stand between blanks, one with a blank in quotes."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """As a shell would."""
        try:
            return shlex.split(rv)
        except ValueError as error:
            raise HarnessError(f"HARNESS_SET={rv}: {error}") from None


settings_option = click.option(
    "--set", "settings", multiple=True, type=Words(), metavar="METHOD.FIELD=VALUE", envvar="HARNESS_SET", show_envvar=True,
    help="A hyper-parameter; all.FIELD for every method.",
)  # fmt: skip
form_option = click.option(
    "--format",
    "form",
    type=FORMATS,
    default="markdown",
    envvar="HARNESS_FORMAT",
    show_envvar=True,
    show_default=True,
)
report_form_option = click.option(
    "--format", "form", type=click.Choice(["markdown", "latex", "csv", "json"]), default="markdown", show_default=True,
    envvar="HARNESS_REPORT_FORMAT", show_envvar=True,
)  # fmt: skip
