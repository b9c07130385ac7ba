"""Examples of one or two texts to predict, from a file or the command line."""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness.data.custom_files import column_names, file_rows, label_text
from harness.errors import HarnessError, counted
from harness.files.text import decode_lines, read_lines, same_text

KEYS = ("text", "second")
"""Keys of an example that is an object in JSON lines."""


STANDARD_INPUT = Path("-")

Read = tuple[Sequence[str], str | None]
"""Texts of a line, and its label if it has one."""


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

    .csv and .parquet, .tsv with a header, and objects in .jsonl: the task's text columns, and its
    label column if there is one. A task without column names has `text`, `second` and `label`.
    Other .tsv: one or two texts separated by a tab. Other lines of .jsonl: a text, a list of one or
    two, or an object with `text` and optionally `second`. Other suffixes and standard input: as
    .tsv, but if `per_row` is 1 a tab is part of the text. Empty lines are skipped.
    Raises: HarnessError with file and line if a row cannot be read.
    """
    suffix = path.suffix.lower()
    named = columns or Columns(KEYS[: per_row or 1], "label")
    if suffix in (".csv", ".parquet", ".tsv"):
        names = column_names(path)
        has_header = set(named.texts) <= set(names) and (columns is not None or len(names) > 1)
        if suffix != ".tsv" or has_header:
            return _from_columns(path, named, names)
    readers: dict[str, Callable[[str], Read]] = {
        ".tsv": _from_tsv,
        ".jsonl": partial(_from_json, columns=columns),
    }
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
                texts, label = read(line)
            except (ValueError, RecursionError) as error:
                raise HarnessError(f"{path} line {number}: {error}") from None
            if len(texts) not in (1, 2):
                raise HarnessError(
                    f"{path} line {number}: got {len(texts)} texts, expected one or two"
                )
            rows.append(TextRow(number, tuple(texts), label))
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return rows


def _from_columns(path: Path, columns: Columns, names: Sequence[str]) -> list[TextRow]:
    """Read the text columns, and the label column if it is one of the file's names."""
    label = columns.label if columns.label in names else None
    return [
        TextRow(row.line, row.texts, row.label or None)
        for row in file_rows(path, columns.texts, label, unlabelled=True)
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


def _from_line(line: str) -> Read:
    return [line], None


def _from_tsv(line: str) -> Read:
    return line.split("\t"), None


def _from_json(line: str, columns: Columns | None) -> Read:
    """Return the texts of one JSON value, and the label of an object.

    Raises: ValueError if it holds no texts.
    """
    value, label = json.loads(line), None
    if isinstance(value, dict):
        value = {same_text(key): item for key, item in value.items()}
        label = label_text(value.get(columns.label if columns else "label")) or None
        keys = columns.texts if columns and set(columns.texts) <= set(value) else KEYS
        if keys[0] not in value:
            raise ValueError(f"the object has no {keys[0]!r}")
        value = [value[key] for key in keys if key in value]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"got {line[:40]!r}, expected a text, a list of texts, or an object with 'text' and"
            " optionally 'second'"
        )
    return texts, label
