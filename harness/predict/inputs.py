"""Rows of one or two texts to be answered, from a file or the command line."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError
from harness.files.text import lines_of

KEYS = ("text", "second")
"""Of an object in JSON lines."""


class TextRow(NamedTuple):
    """A row as a file holds it."""

    line: int
    """From 1."""
    texts: tuple[str, ...]


def text_rows(path: Path) -> list[TextRow]:
    """The rows of a file, whose ending says how it is read: .tsv one or two texts between tabs, .jsonl a text, a list of one or two, or an
    object with `text` and perhaps `second`; any other, but for .csv, a text a line. No line of names; empty lines have no row.

    Raises: HarnessError with file and line for what does not fit.
    """
    if path.suffix == ".csv":
        raise HarnessError(
            f"{path}: wanted .tsv (no quoting, no line of names), .jsonl, or a text a line in a file of another ending"
        )
    readers: dict[str, Callable[[str], list[str]]] = {".tsv": _from_tabs, ".jsonl": _from_json}
    read = readers.get(path.suffix, _whole)
    rows = []
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            try:
                texts = read(line)
            except (ValueError, RecursionError) as error:
                raise HarnessError(f"{path} line {number}: {error}") from None
            if len(texts) not in (1, 2):
                raise HarnessError(
                    f"{path} line {number}: got {len(texts)} texts, wanted one or two"
                )
            rows.append(TextRow(number, tuple(texts)))
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return rows


def rows_of(texts: Sequence[str], of_each: int | None) -> list[TextRow]:
    """Texts of the command line as rows of so many; None: all of them are one row.

    Raises: HarnessError when some are left over.
    """
    size = of_each or len(texts)
    if len(texts) % size:
        raise HarnessError(
            f"got {len(texts)} texts, wanted them in pairs: the task has two texts a row"
        )
    return [
        TextRow(place // size + 1, tuple(texts[place : place + size]))
        for place in range(0, len(texts), size)
    ]


def _whole(line: str) -> list[str]:
    return [line]


def _from_tabs(line: str) -> list[str]:
    return line.split("\t")


def _from_json(line: str) -> list[str]:
    """Raises: ValueError for what holds no texts."""
    value = json.loads(line)
    if isinstance(value, dict):
        if KEYS[0] not in value:
            raise ValueError(f"an object without {KEYS[0]!r}")
        value = [value[key] for key in KEYS if key in value]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"got {line[:40]!r}, wanted a text, a list of texts, or an object with 'text' and 'second'"
        )
    return texts
