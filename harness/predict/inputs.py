"""Examples of one or two texts to predict, from a file or the command line."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.data.custom_files import FORMATS, column_names, file_rows
from harness.errors import HarnessError, counted
from harness.files.text import decode_lines, read_lines

KEYS = ("text", "second")
"""Keys of an example that is an object in JSON lines."""


STANDARD_INPUT = Path("-")


class TextRow(NamedTuple):
    """An example from a file or from the command line."""

    line: int
    """Line number in the file, or number on the command line, from 1."""
    texts: tuple[str, ...]
    label: str | None = None
    """Its label, if the file has a label column."""


class Columns(NamedTuple):
    """Names of the columns of a task's files."""

    texts: tuple[str, ...]
    label: str


def text_rows(
    path: Path, per_row: int | None = None, columns: Columns | None = None
) -> list[TextRow]:
    """Return the rows of a file, in the format of its suffix; `-` is standard input.

    .csv and .parquet, and .tsv and .jsonl with the names of the task's text columns: these columns,
    and the label column if there is one. A task without column names has `text`, `second` and
    `label`. Other .tsv: one or two texts separated by a tab. Other .jsonl: a text, a list of one or
    two, or an object with `text` and optionally `second`. Other suffixes and standard input: as
    .tsv, but if `per_row` is 1 a tab is part of the text. Empty lines are skipped.
    Raises: HarnessError with file and line if a row cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in FORMATS and path != STANDARD_INPUT:
        named = columns or Columns(KEYS[: per_row or 1], "label")
        names = column_names(path)
        if suffix in (".csv", ".parquet") or (columns and set(columns.texts) <= set(names)):
            return _from_columns(path, named, names)
    readers = {".tsv": _from_tsv, ".jsonl": _from_json}
    read: Callable[[str], list[str]]
    lines = (
        decode_lines(sys.stdin.buffer.read(), "standard input")
        if path == STANDARD_INPUT
        else read_lines(path)
    )
    read = readers.get(suffix, _from_line if per_row == 1 else _from_tsv)
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                texts = read(line)
            except (ValueError, RecursionError) as error:
                raise HarnessError(f"{path} line {number}: {error}") from None
            if len(texts) not in (1, 2):
                raise HarnessError(
                    f"{path} line {number}: got {len(texts)} texts, expected one or two"
                )
            rows.append(TextRow(number, tuple(texts)))
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return rows


def _from_columns(path: Path, columns: Columns, names: Sequence[str]) -> list[TextRow]:
    """Read the text columns, and the label column if it is one of the file's names."""
    labelled = columns.label in names
    wanted = (*columns.texts, columns.label) if labelled else columns.texts
    return [
        TextRow(row.line, row.texts, row.label if labelled else None)
        for row in file_rows(path, wanted, labelled)
    ]


def rows_from_texts(texts: Sequence[str], per_row: int | None) -> list[TextRow]:
    """Group the texts of the command line into rows of `per_row`; None: all form one row.

    Raises: HarnessError if the last row would be incomplete.
    """
    size = per_row or len(texts)
    if len(texts) % size:
        raise HarnessError(
            f'got {counted(len(texts), "text")}, expected pairs, such as "a text" "another": '
            "the task has two texts per example"
        )
    return [
        TextRow(start // size + 1, tuple(texts[start : start + size]))
        for start in range(0, len(texts), size)
    ]


def _from_line(line: str) -> list[str]:
    return [line]


def _from_tsv(line: str) -> list[str]:
    return line.split("\t")


def _from_json(line: str) -> list[str]:
    """Return the texts of one JSON value.

    Raises: ValueError if it holds no texts.
    """
    value = json.loads(line)
    if isinstance(value, dict):
        if KEYS[0] not in value:
            raise ValueError(f"the object has no {KEYS[0]!r}")
        value = [value[key] for key in KEYS if key in value]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"got {line[:40]!r}, expected a text, a list of texts, or an object with 'text' and"
            " optionally 'second'"
        )
    return texts
