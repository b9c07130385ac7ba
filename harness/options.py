"""What the words of the command line mean."""

import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, unknown
from harness.methods import Method, load_method


def names_in(option: str, text: str) -> list[str]:
    """Names between commas.

    Raises: HarnessError when there is none.
    """
    names = [word.strip() for word in text.split(",") if word.strip()]
    if not names:
        raise HarnessError(f"{option} {text!r} names nothing: wanted words between commas")
    return names


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


def rows_of(words: tuple[str, ...], tasks: list[str]) -> dict[str, int]:
    """TASK=N words as a table.

    Raises: HarnessError for another form, or a task that is not in the grid.
    """
    rows = {}
    for word in words:
        task, equals, count = word.partition("=")
        if not equals:
            raise HarnessError(f"--train-rows {word}: wanted TASK=N")
        if task not in tasks:
            raise unknown("task of this grid", task, tasks)
        rows[task] = _whole_number(f"--train-rows {task}", count)
    return rows


@dataclass(frozen=True)
class Reference:
    """What ratios are against."""

    name: str
    method: Method
    """With the settings that it has in the grid; with its own defaults where the grid does not have it."""


def reference_named(name: str, grid: dict[str, Method]) -> Reference | None:
    """The reference of that name, None for none.

    Raises: HarnessError for an unknown method.
    """
    if name == "none":
        return None
    return Reference(name, grid[name] if name in grid else load_method(name))


def cache_folder(folder: Path | None) -> Path:
    """The given folder, or harness in the user's cache folder."""
    return folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"
