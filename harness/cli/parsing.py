"""Parsing of option values and of grid files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.tasks import known_tasks
from harness.errors import HarnessError, unknown
from harness.files.text import join_quoted, read_toml, split_quoted
from harness.methods.registry import CHECKPOINT

OptionValue = str | list[str]
"""Value of an option as typed on the command line; a list for an option that may be repeated."""


def split_names(option: str, text: str) -> list[str]:
    """Return the comma-separated names; a name in double quotes may contain commas.

    Raises: HarnessError if there are none.
    """
    names = [word.strip() for word in split_quoted(text) if word.strip()]
    if not names:
        raise HarnessError(f"{option} {text!r}: expected one or more comma-separated names")
    return names


def optional_names(option: str, text: str | None) -> list[str] | None:
    """Return the comma-separated names, or None if the option was not given.

    Raises: HarnessError if there are none.
    """
    return None if text is None else split_names(option, text)


def parse_methods(text: str | None, checkpoint: str | None, default: Sequence[str]) -> list[str]:
    """Return the comma-separated methods, followed by `checkpoint` if a checkpoint is given.

    If the text is None, return only the checkpoint, or the default methods without one.
    Raises: HarnessError if the text has no names.
    """
    if text is None:
        return [*default] if checkpoint is None else [CHECKPOINT]
    names = split_names("--methods", text)
    return names if checkpoint is None else list(dict.fromkeys((*names, CHECKPOINT)))


def labels_setting(labels: Sequence[str], checkpoint: str | None) -> list[str]:
    """Return --labels in the form of --set.

    One value is a comma-separated list of names; each of several values is a name.

    Raises: HarnessError without a checkpoint, or if the option has no names.
    """
    if not labels:
        return []
    if checkpoint is None:
        given = " --labels ".join(labels)
        raise HarnessError(f"--labels {given} needs --checkpoint, whose classes it names")
    names = split_names("--labels", labels[0]) if len(labels) == 1 else labels
    return [f"{CHECKPOINT}.labels={join_quoted(names)}"]


def parse_integers(option: str, text: str) -> list[int]:
    """Return the comma-separated integers, without duplicates.

    Raises: HarnessError for anything else.
    """
    return list(dict.fromkeys(_integer(option, word) for word in split_names(option, text)))


def _integer(option: str, word: str) -> int:
    """Return a non-negative integer.

    Raises: HarnessError for anything else.
    """
    if not (word.isascii() and word.isdecimal() and len(word) <= 9):
        raise HarnessError(f"{option}: got {word[:40]!r}, expected integers from 0 to 999999999")
    return int(word)


def parse_train_rows(
    values: tuple[str, ...], tasks: list[str], defaults: tuple[str, ...] = ()
) -> dict[str, int]:
    """Return TASK=N values as a mapping.

    `values` override `defaults`; `defaults` of tasks outside the grid are ignored.
    Raises: HarnessError for another form, or a task that is not in the grid.
    """
    rows = {}
    for value in (*defaults, *values):
        task, equals, count = value.partition("=")
        if not equals:
            raise HarnessError(f"--train-rows {value}: expected TASK=N")
        number = _integer(f"--train-rows {task}", count)
        if task in tasks:
            rows[task] = number
        elif value in values or task not in known_tasks():
            raise unknown("task of this grid", task, tasks)
    return rows


def read_grid(path: Path, repeated: Mapping[str, bool]) -> dict[str, OptionValue]:
    """Read the options of a grid from a TOML file: option without dashes -> its value.

    `repeated` maps every allowed option to whether it may be repeated. Lists of other options are
    joined by commas. A table becomes a list of NAME=VALUE, with dots between the names of nested
    tables (`[set.pabee] epochs = 5` is --set pabee.epochs=5).
    Raises: HarnessError for a file that is not TOML, an unknown option, or a value that no option
    takes.
    """
    found: dict[str, OptionValue] = {}
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
    """Return a TOML value as the command line spells it.

    Raises: TypeError for anything but text, a number or a boolean.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(
        f"got a {type(value).__name__}, expected text, numbers, true or false, or a list of them"
    )
