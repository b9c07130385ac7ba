"""Options that several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from harness.errors import HarnessError, unknown

F = TypeVar("F", bound=Callable[..., object])

FORMATS = click.Choice(["markdown", "csv", "json"])
DEFAULT_RESULTS = Path("results")
PREFIX = "HARNESS"
"""Prefix of environment variables."""


class LateChoice(click.types.StringParamType):
    """One of several names, which are loaded only when the option or its help is used."""

    def __init__(self, name: str, known: Callable[[], Iterable[str]]) -> None:
        self.name = name
        self.known = known

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return all names, as `click.Choice` does."""
        return f"[{'|'.join(self.known())}]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return the name; raise click.BadParameter if it is not one of them."""
        names = list(self.known())
        if value not in names:
            self.fail(str(unknown(self.name, str(value), names)), param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin with the incomplete one."""
        return [CompletionItem(name) for name in self.known() if name.startswith(incomplete)]


def _policies() -> Iterable[str]:
    from harness.evaluation.policies import known_policies

    return known_policies()


def _budgets() -> Iterable[str]:
    from harness.analysis.operating_points import BUDGETS

    return BUDGETS


def _levels() -> Iterable[str]:
    from harness.analysis.frames import LEVELS

    return LEVELS


def _picture_kinds() -> Iterable[str]:
    from harness.report.plots import KINDS

    return KINDS


def _picture_costs() -> Iterable[str]:
    from harness.report.plots import COSTS

    return COSTS


POLICY, BUDGET = LateChoice("policy", _policies), LateChoice("budget", _budgets)
LEVEL = LateChoice("level", _levels)
PICTURE_KIND = LateChoice("kind", _picture_kinds)
PICTURE_COST = LateChoice("cost", _picture_costs)


def combine_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return several options as one decorator, shown in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


verbosity_options = combine_options(
    click.option(
        "-v", "--verbose", is_flag=True, help="Show more, and the traceback of an internal error."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show only results and errors."),
)
results_option = click.option(
    "--results-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_RESULTS,
    show_default=True,
    envvar="HARNESS_RESULTS_DIR",
    show_envvar=True,
    help="Folder of the stored runs.",
)
cache_option = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HARNESS_CACHE_DIR",
    show_envvar=True,
    help="Folder of cached stages of training and encoded examples.  "
    "[default: harness in the user's cache folder]",
)


def backbone_variables(command: str) -> list[str]:
    """Return the variables of a command's --backbone: its own and that of all commands."""
    return [f"{PREFIX}_{command.upper()}_BACKBONE", f"{PREFIX}_BACKBONE"]


data_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HARNESS_DATA_DIR",
    show_envvar=True,
    help="Folder of GLUE's TSV files: CoLA/, SST-2/, MRPC/, ...",
)
compute_options = combine_options(
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        envvar="HARNESS_DEVICE",
        show_envvar=True,
        help="Device to run on; auto uses CUDA if available.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        envvar="HARNESS_THREADS",
        show_envvar=True,
        help="CPU threads.  [default: OMP_NUM_THREADS or all usable cores; for harness time, "
        "those of the run]",
    ),
)
reference_option = click.option(
    "--reference",
    default="bert",
    show_default=True,
    metavar="METHOD",
    envvar="HARNESS_REFERENCE",
    show_envvar=True,
    help="Method that ratios compare with; none for no reference.",
)


def selection_options(verb: str) -> Callable[[F], F]:
    """Return the options that choose stored runs; the verb says what is done with them."""
    return combine_options(
        click.option("--tasks", metavar="A,B", help=f"{verb} only these tasks."),
        click.option("--methods", metavar="A,B", help=f"{verb} only these methods."),
        click.option("--backbone", metavar="NAME", help=f"{verb} only runs on this backbone."),
    )


def environment_variables(group: click.Group) -> set[str]:
    """Return the environment variables of all options of a group's commands.

    These are the variables that options name, and HARNESS_COMMAND_OPTION by click's rule.
    """
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


def name_completion(
    known: Callable[[], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return the shell completion of an option that takes comma-separated names."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
        before, comma, last = typed.rpartition(",")
        return [f"{before}{comma}{name}" for name in known() if name.startswith(last)]

    return complete


CONFIG_KEY = "harness.config"
"""Key under which click's context keeps the --set and --train-rows values of a --config file."""


def _read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make the file's options defaults, which the command line and the environment override."""
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
    context.meta[CONFIG_KEY] = {name: tuple(given.pop(name, ())) for name in ("set", "train-rows")}
    context.default_map = {str(options[name].name): value for name, value in given.items()}


config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    metavar="FILE.toml",
    help="Options of a whole grid; the command line and the environment override them.",
)


class ShellWords(click.types.StringParamType):
    """Text; an environment variable holds several values, quoted and split as in a shell."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Split the variable as a shell would."""
        try:
            return shlex.split(rv)
        except ValueError as error:
            raise HarnessError(f"HARNESS_SET={rv}: {error}") from None


class UnsplitVariable(click.types.StringParamType):
    """Text of a repeated option whose environment variable holds one value."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the variable as it is; click would split it at spaces."""
        return [rv]


settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    type=ShellWords(),
    metavar="METHOD.FIELD=VALUE",
    envvar="HARNESS_SET",
    show_envvar=True,
    help="Set a hyper-parameter; all.FIELD sets it for every method.",
)
format_option = click.option(
    "--format",
    "form",
    type=FORMATS,
    default="markdown",
    envvar="HARNESS_FORMAT",
    show_envvar=True,
    show_default=True,
    help="Output format.",
)
report_format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "latex", "csv", "json", "parquet"]),
    envvar="HARNESS_REPORT_FORMAT",
    show_envvar=True,
    help="Output format; parquet needs --level.  [default: a table on a terminal, else markdown; "
    "with --level csv]",
)
