"""Data options and the command fetch. Imports are inside functions, as in app.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from harness.cli.options import backbone_variables, combine_options
from harness.errors import ExitCode, HarnessError, IncompleteError

if TYPE_CHECKING:
    from harness.data.tasks import Task

Command = TypeVar("Command", bound=Callable[..., object])

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")
"""Environment variables that keep the libraries, and child processes, off the network."""

_ALLOW_CODE_KEY = "harness.allow_metric_code"
"""Key under which click's context keeps --allow-metric-code until the task files are read."""


def _stay_offline(context: click.Context, option: click.Parameter, offline: bool) -> None:
    if offline:
        os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
        # this module has read the environment already if it was imported before
        import huggingface_hub.constants

        huggingface_hub.constants.HF_HUB_OFFLINE = True


def _allow_code(context: click.Context, option: click.Parameter, allowed: bool) -> None:
    context.meta[_ALLOW_CODE_KEY] = allowed


def _read_task_files(
    context: click.Context, option: click.Parameter, paths: tuple[Path, ...]
) -> tuple[Task, ...]:
    if not paths:
        return ()
    from harness.data.custom_tasks import read_task_files

    # a command without --allow-metric-code computes no metrics
    return read_task_files(paths, bool(context.meta.get(_ALLOW_CODE_KEY, True)))


offline_option = click.option(
    "--offline",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_stay_offline,
    envvar="HARNESS_OFFLINE",
    show_envvar=True,
    help="Never use the network; cached files still work.",
)
allow_code_option = click.option(
    "--allow-metric-code",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_allow_code,
    help="Allow evaluate:NAME in a task file to run code from the hub or a script.",
)


pretraining_options = combine_options(
    click.option(
        "--corpus",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Sentences for pre-training, one per line; may be repeated.  [default: the tasks' "
        "training parts]",
    ),
    click.option(
        "--glove",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Word vectors for data augmentation.  [default: the backbone's own input embeddings]",
    ),
)


def task_file_option(name: str) -> Callable[[Command], Command]:
    """Return the option --task-file of the command of this name."""
    return click.option(
        "--task-file",
        "own_tasks",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        callback=_read_task_files,
        envvar=f"HARNESS_{name.upper()}_TASK_FILE",
        help="TOML file of a custom task; may be repeated.",
    )


def fetch_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of `harness fetch`."""
    tasks = click.option("--tasks", metavar="A,B", help="Tasks or groups to fetch.")
    backbone = click.option(
        "--backbone",
        metavar="A,B",
        envvar=backbone_variables("fetch"),
        show_envvar=True,
        help="Backbones to fetch.",
    )
    return tasks(task_file_option("fetch")(backbone(offline_option(command))))


def fetch(
    tasks: str | None,
    own_tasks: tuple[Task, ...],
    backbone: str | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Download data and weights into the hub's caches, for use without a network.

    \b
    Example:
      harness fetch --tasks glue --backbone bert-base-uncased
    """
    from functools import partial

    from harness.cli.parsing import split_names
    from harness.data.tasks import find_tasks
    from harness.models.backbones import DEFAULT_BACKBONE, find_backbone
    from harness.runs.prefetch import fetch_backbone, fetch_task

    if tasks is None and backbone is None and not own_tasks:
        raise HarnessError("nothing to fetch: give --tasks, --task-file or --backbone")
    chosen = find_tasks(split_names("--tasks", tasks)) if tasks is not None else []
    chosen += own_tasks
    found = (
        [find_backbone(name) for name in split_names("--backbone", backbone)]
        if backbone is not None
        else []
    )
    downloads = {f"task {task.name}": partial(fetch_task, task) for task in chosen}
    downloads |= {f"backbone {one.name}": partial(fetch_backbone, one) for one in found}
    failures: dict[str, list[str]] = {}
    for label, download in downloads.items():
        try:
            click.echo(f"{label}: {download()}")
        except HarnessError as error:
            failures.setdefault(str(error), []).append(label)
    if failures:
        raise IncompleteError(
            "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in failures.items())
        )
    if backbone is None and any(not task.is_demo for task in chosen):
        click.echo(
            f"harness: no backbone was fetched: give --backbone too, such as {DEFAULT_BACKBONE}, "
            "the default of harness run",
            err=True,
        )
    return ExitCode.OK
