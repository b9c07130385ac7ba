"""What the words of the command line mean."""

from collections.abc import Mapping
from pathlib import Path

from harness.data.tasks import known_tasks
from harness.errors import HarnessError, unknown
from harness.files.toml import read_toml
from harness.methods.registry import CHECKPOINT

FIRST_LOOK = ("bert", "deebert", "pabee")
"""Methods of `harness run` where none are named."""

Words = str | list[str]
"""What stands behind an option, or behind each of an option that may be repeated."""


def names_in(option: str, text: str) -> list[str]:
    """Names between commas.

    Raises: HarnessError when there is none.
    """
    names = [word.strip() for word in text.split(",") if word.strip()]
    if not names:
        raise HarnessError(f"{option} {text!r} names nothing: wanted words between commas")
    return names


def methods_in(text: str | None, checkpoint: str | None) -> list[str]:
    """Names of methods between commas, and the checkpoint's where there is one; without names those of a first look, or that alone.

    Raises: HarnessError when the text names nothing.
    """
    if text is None:
        return [*FIRST_LOOK] if checkpoint is None else [CHECKPOINT]
    names = names_in("--methods", text)
    return names if checkpoint is None else list(dict.fromkeys((*names, CHECKPOINT)))


def labels_setting(labels: str | None, checkpoint: str | None) -> list[str]:
    """--labels in the form of --set.

    Raises: HarnessError without a checkpoint, or when it names nothing.
    """
    if labels is None:
        return []
    if checkpoint is None:
        raise HarnessError(
            f"--labels {labels} names the classes of a fine-tuned checkpoint: wanted --checkpoint, too"
        )
    return [f"{CHECKPOINT}.labels={','.join(names_in('--labels', labels))}"]


def numbers_in(option: str, text: str) -> list[int]:
    """Whole numbers between commas, each once.

    Raises: HarnessError for anything else.
    """
    return list(dict.fromkeys(_whole_number(option, word) for word in names_in(option, text)))


def _whole_number(option: str, word: str) -> int:
    """A whole number from 0.

    Raises: HarnessError for anything else.
    """
    if not (word.isascii() and word.isdecimal() and len(word) <= 9):
        raise HarnessError(f"{option}: got {word[:40]!r}, wanted whole numbers from 0 to 999999999")
    return int(word)


def rows_of(
    words: tuple[str, ...], tasks: list[str], spare: tuple[str, ...] = ()
) -> dict[str, int]:
    """TASK=N words as a table. Of the `spare` ones, which the others override, those of tasks outside the grid are left out.

    Raises: HarnessError for another form, or a task that is not in the grid.
    """
    rows = {}
    for word in (*spare, *words):
        task, equals, count = word.partition("=")
        if not equals:
            raise HarnessError(f"--train-rows {word}: wanted TASK=N")
        number = _whole_number(f"--train-rows {task}", count)
        if task in tasks:
            rows[task] = number
        elif word in words or task not in known_tasks():
            raise unknown("task of this grid", task, tasks)
    return rows


def read_grid(path: Path, repeated: Mapping[str, bool]) -> dict[str, Words]:
    """The options of a grid in a TOML file: option (no dashes in front) -> its words as on the command line.

    `repeated`: every option that may stand there, and whether it may be repeated. Lists of others are joined by commas; a table is a
    list of NAME=VALUE, with dots between the names of nested ones (`[set.pabee] epochs = 5` is --set pabee.epochs=5).
    Raises: HarnessError for a file that is not TOML, an unknown option, or a value that no option takes.
    """
    found: dict[str, Words] = {}
    for key, value in read_toml(path, "--config").items():
        name = key.replace("_", "-")
        if name not in repeated:
            raise HarnessError(f"--config {path}: {unknown('option', key, repeated)}")
        try:
            words = (
                _pairs(value)
                if isinstance(value, dict)
                else [_word(item) for item in value]
                if isinstance(value, list)
                else _word(value)
            )
        except TypeError as error:
            raise HarnessError(f"--config {path}: {key}: {error}") from None
        if repeated[name]:
            found[name] = [words] if isinstance(words, str) else words
        else:
            found[name] = words if isinstance(words, str) else ",".join(words)
    return found


def _pairs(table: Mapping[str, object], prefix: str = "") -> list[str]:
    found = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += _pairs(value, f"{prefix}{name}.")
        else:
            words = (
                ",".join(_word(item) for item in value) if isinstance(value, list) else _word(value)
            )
            found.append(f"{prefix}{name}={words}")
    return found


def _word(value: object) -> str:
    """Raises: TypeError for anything but text, a number or a truth value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(
        f"got a {type(value).__name__}, wanted text, numbers, true or false, or a list of them"
    )
