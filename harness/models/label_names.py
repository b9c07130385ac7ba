"""Class names of fine-tuned checkpoints, and how they correspond to a task's labels."""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.data.tasks import Task
from harness.errors import HarnessError, counted
from harness.files.text import join_quoted, same_text
from harness.models.checkpoint_files import CONFIG, read_json

MULTI_LABEL = "multi_label_classification"

_GENERIC_NAME = re.compile(r"label_?\d+")


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the class names in config.json in output order; a regression has one.

    Raises: HarnessError if config.json cannot be read, does not number its classes from 0, or
    describes a multi-label classifier.
    """
    file = folder / CONFIG
    config: dict[str, object] = {**read_json(file)}
    if config.get("problem_type") == MULTI_LABEL:
        raise HarnessError(
            f"{file}: problem_type {MULTI_LABEL}, expected a checkpoint that predicts one label "
            "per example"
        )
    count = config.get("num_labels", 2)  # 2 is the default of transformers
    named = config.get("id2label") or {
        str(number): f"LABEL_{number}" for number in range(count if isinstance(count, int) else 0)
    }
    if (
        not isinstance(named, dict)
        or not named
        or set(named) != {str(number) for number in range(len(named))}
    ):
        raise HarnessError(
            f"{file}: id2label {str(named)[:60]}, expected a name for each class, numbered from 0"
        )
    return tuple(str(named[str(number)]) for number in range(len(named)))


def label_positions(labels: Sequence[str], task: Task) -> tuple[int, ...]:
    """Return the index of each of the task's labels among a checkpoint's class names.

    For a regression return (0,). A class may be named as the label or as its value in the data
    files. Equal names come first; otherwise case, `-`, `_` and spaces are ignored, unless that
    makes two of the names equal.

    Raises: HarnessError for a wrong number of classes, for generic names (LABEL_0, ...), and for
    names of another task.
    """
    if len(labels) != task.classes:
        expected = (
            "1 output for a regression"
            if task.regression
            else f"{task.classes}: {join_quoted(task.labels)}"
        )
        got = counted(len(labels), "class")
        raise HarnessError(
            f"the checkpoint has {got} ({_abbreviated(labels)}), "
            f"but task {task.name} needs {expected}: give another --checkpoint or other --tasks"
        )
    if task.regression:
        return (0,)
    for form in (same_text, normalized):
        given = [form(label) for label in labels]
        for known in (task.labels, task.values):
            names = [form(name) for name in known]
            if sorted(given) == sorted(set(names)):  # no two of them are equal in this form
                return tuple(given.index(name) for name in names)
    why = (
        "have only generic names"
        if all(map(_GENERIC_NAME.fullmatch, given))
        else f"are not those of task {task.name}"
    )
    order = join_quoted(task.labels)
    raise HarnessError(
        f"the checkpoint's classes {_abbreviated(labels)} {why}: "
        f"give the task's labels in the checkpoint's order, such as --labels {order}"
    )


def normalized(name: str) -> str:
    """Return a name without the differences in spelling that do not matter."""
    return re.sub(r"[-_\s]+", "_", same_text(name).casefold())


def _abbreviated(labels: Sequence[str]) -> str:
    shown = ", ".join(label[:40] for label in labels[:4])
    return f"{shown}, ..." if len(labels) > 4 else shown
