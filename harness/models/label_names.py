"""What a checkpoint that others have fine-tuned calls its classes, and which of a task's labels they are."""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.models.checkpoint_files import CONFIG, read_json

MANY_LABELS = "multi_label_classification"

_NAMELESS = re.compile(r"label_?\d+")


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of a checkpoint's classes in the order of its outputs, as its config.json has them; one for a regression.

    Raises: HarnessError for a config.json that cannot be read, whose classes are not numbered from 0, or of a row that may have several.
    """
    file = folder / CONFIG
    config: dict[str, object] = {**read_json(file)}
    if config.get("problem_type") == MANY_LABELS:
        raise HarnessError(
            f"{file}: problem_type {MANY_LABELS}: wanted a checkpoint that gives a row one label"
        )
    count = config.get("num_labels", 2)  # the library's own number where the file says nothing
    named = config.get("id2label") or {
        str(number): f"LABEL_{number}" for number in range(count if isinstance(count, int) else 0)
    }
    if (
        not isinstance(named, dict)
        or not named
        or set(named) != {str(number) for number in range(len(named))}
    ):
        raise HarnessError(
            f"{file}: id2label {str(named)[:60]}: wanted a name for each class, numbered from 0"
        )
    return tuple(str(named[str(number)]) for number in range(len(named)))


def label_positions(labels: Sequence[str], task: Task) -> tuple[int, ...]:
    """Where each of the task's labels stands among a checkpoint's classes of these names; (0,) for a regression.

    Names are a label's, or what the files write for it; case, `-`, `_` and spaces make no difference.
    Raises: HarnessError for another number of classes, for names without meaning (LABEL_0, ...), and for those of another task.
    """
    if len(labels) != task.classes:
        wanted = (
            "1 output: it is a regression"
            if task.regression
            else f"{task.classes}: {', '.join(task.labels)}"
        )
        got = f"{len(labels)} class{'es' * (len(labels) != 1)}"
        raise HarnessError(
            f"the checkpoint has {got} ({_short(labels)}), task {task.name} wants {wanted}"
        )
    if task.regression:
        return (0,)
    given = [plain(label) for label in labels]
    for known in (task.labels, task.values):
        wanted_names = [plain(name) for name in known]
        if sorted(given) == sorted(wanted_names):
            return tuple(given.index(name) for name in wanted_names)
    why = (
        "have no names of their own"
        if all(map(_NAMELESS.fullmatch, given))
        else f"are not those of task {task.name}"
    )
    order = ",".join(task.labels)
    raise HarnessError(
        f"the checkpoint's classes {_short(labels)} {why}: name them in the checkpoint's order, such as --labels {order} (of these names)"
    )


def plain(name: str) -> str:
    """A name as it is compared."""
    return re.sub(r"[-_\s]+", "_", name.strip().casefold())


def _short(labels: Sequence[str]) -> str:
    shown = ", ".join(label[:40] for label in labels[:4])
    return f"{shown}, ..." if len(labels) > 4 else shown
