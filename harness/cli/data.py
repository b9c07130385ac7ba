"""The command line's words about data: offline, a user's own tasks, and fetching ahead. Like cli.py it imports inside functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.errors import ExitCode, HarnessError, IncompleteError

if TYPE_CHECKING:
    from harness.data.tasks import Task

LIBRARIES_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")
"""What tells the libraries, and the processes that are started, to stay off the network."""

_ALLOWED = "harness.allow_metric_code"
"""Where click keeps --allow-metric-code until the task files are read."""


def _stay_offline(context: click.Context, option: click.Parameter, offline: bool) -> None:
    if offline:
        os.environ.update(dict.fromkeys(LIBRARIES_OFFLINE, "1"))
        import huggingface_hub.constants  # has read the environment when it was imported, which may be long ago

        huggingface_hub.constants.HF_HUB_OFFLINE = True


def _allow_code(context: click.Context, option: click.Parameter, allowed: bool) -> None:
    context.meta[_ALLOWED] = allowed


def _read_task_files(
    context: click.Context, option: click.Parameter, paths: tuple[Path, ...]
) -> tuple[Task, ...]:
    if not paths:
        return ()
    from harness.data.custom_tasks import read_task_files

    return read_task_files(paths, bool(context.meta[_ALLOWED]))


offline_option = click.option(
    "--offline", is_flag=True, is_eager=True, expose_value=False, callback=_stay_offline, envvar="HARNESS_OFFLINE", show_envvar=True,
    help="Never try the network; what is cached still serves.",
)  # fmt: skip
allow_code_option = click.option(
    "--allow-metric-code", is_flag=True, is_eager=True, expose_value=False, callback=_allow_code,
    help="Let a task file's evaluate:NAME run code from the hub or of a script.",
)  # fmt: skip
task_file_option = click.option(
    "--task-file", "own_tasks", multiple=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", callback=_read_task_files,
    envvar="HARNESS_RUN_TASK_FILE", help="A task of your own, in TOML; may be repeated.",
)  # fmt: skip


def fetch_options(command: Callable[..., int]) -> Callable[..., int]:
    """What `harness fetch` takes."""
    tasks = click.option("--tasks", metavar="A,B", help="Tasks or groups.")
    backbone = click.option("--backbone", metavar="A,B", help="Backbones.")
    return tasks(backbone(offline_option(command)))


def fetch(tasks: str | None, backbone: str | None, verbose: bool, quiet: bool) -> int:
    """Fetch data and weights from the hub into its caches, for a machine without a network.

    \b
    Example:
      harness fetch --tasks glue --backbone bert-base-uncased
    """
    from functools import partial

    from harness.cli.parsing import names_in
    from harness.data.tasks import find_tasks
    from harness.models.backbones import find_backbone
    from harness.runs.prefetch import fetch_backbone, fetch_task

    if tasks is None and backbone is None:
        raise HarnessError("nothing to fetch: name --tasks, --backbone or both")
    chosen = find_tasks(names_in("--tasks", tasks)) if tasks is not None else []
    found = (
        [find_backbone(name) for name in names_in("--backbone", backbone)]
        if backbone is not None
        else []
    )
    jobs = {f"task {task.name}": partial(fetch_task, task) for task in chosen}
    jobs |= {f"backbone {one.name}": partial(fetch_backbone, one) for one in found}
    wrong: dict[str, list[str]] = {}
    for label, fetched in jobs.items():
        try:
            click.echo(f"{label}: {fetched()}")
        except HarnessError as error:
            wrong.setdefault(str(error), []).append(label)
    if wrong:
        raise IncompleteError(
            "; ".join(f"{', '.join(labels)}: {said}" for said, labels in wrong.items())
        )
    return ExitCode.OK
