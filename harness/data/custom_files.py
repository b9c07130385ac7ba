"""The rows of a user's own task: TSV, CSV, JSON lines or Parquet."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.data.sources import CustomFiles, Row
from harness.errors import HarnessError, first_line, reason, unknown

FORMATS = (".tsv", ".csv", ".jsonl", ".parquet")
"""A file's ending says how it is read: tabs without quoting, commas with quoting (both with a line of names), an object a line, Parquet."""

Cells = tuple[int, Sequence[object]]
"""A line's number, and its texts and label."""


def file_rows(path: Path, own: CustomFiles) -> list[Row]:
    """The rows of a file, labels as it writes them.

    Raises: HarnessError with file, line and column for whatever does not fit.
    """
    wanted = (*own.texts, own.label)
    readers = {".tsv": _separated, ".csv": _separated, ".jsonl": _json_lines, ".parquet": _parquet}
    try:
        rows = [
            _row(path, line, cells, wanted) for line, cells in readers[path.suffix](path, wanted)
        ]
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path} is not UTF-8 text: {error}") from None
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return rows


def _row(path: Path, line: int, cells: Sequence[object], names: Sequence[str]) -> Row:
    """Raises: HarnessError for a text that is none, or a missing label."""
    *texts, label = cells
    for name, text in zip(names, texts, strict=False):
        if not isinstance(text, str):
            raise HarnessError(
                f"{path} line {line}: column {name!r} holds {_said(text)}, wanted a text"
            )
    if not isinstance(label, str | int | float):
        raise HarnessError(
            f"{path} line {line}: column {names[-1]!r} holds {_said(label)}, wanted a label"
        )
    for name, text in zip(names, cells, strict=True):
        if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise HarnessError(
                f"{path} line {line}: column {name!r} holds {text[:40]!r}, half of a character: wanted Unicode text"
            )
    return Row(
        tuple(str(text).strip() for text in texts),
        label.strip() if isinstance(label, str) else json.dumps(label),
        line,
    )


def _said(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _places(path: Path, names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the wanted columns are.

    Raises: HarnessError for one that is missing or there twice.
    """
    for name in wanted:
        if name not in names:
            raise HarnessError(f"{path}: {unknown('column', name, names)}")
        if list(names).count(name) > 1:
            raise HarnessError(
                f"{path}: column {name!r} is there {list(names).count(name)} times, wanted once"
            )
    return [list(names).index(name) for name in wanted]


def _separated(path: Path, wanted: Sequence[str]) -> Iterator[Cells]:
    tabs = path.suffix == ".tsv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = (
            csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if tabs
            else csv.reader(file, strict=True)
        )
        try:
            names = next(reader, [])
            places = _places(path, names, wanted)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise HarnessError(
                        f"{path} line {reader.line_num}: got {len(cells)} columns, wanted {len(names)}"
                    )
                yield reader.line_num, [cells[place] for place in places]
        except csv.Error as error:
            raise HarnessError(f"{path} line {reader.line_num}: {error}") from None


def _json_lines(path: Path, wanted: Sequence[str]) -> Iterator[Cells]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise HarnessError(f"{path} line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise HarnessError(f"{path} line {number}: got {_said(row)}, wanted an object")
            for name in wanted:
                if name not in row:
                    raise HarnessError(f"{path} line {number}: {unknown('column', name, row)}")
            yield number, [row[name] for name in wanted]


def _parquet(path: Path, wanted: Sequence[str]) -> Iterator[Cells]:
    from pyarrow import (
        ArrowException,
        parquet,
    )  # 0.2 s to import, for those alone who have such files

    try:
        with path.open("rb") as file:
            names = parquet.read_schema(file).names
        _places(path, names, wanted)
        table = parquet.read_table(path, columns=list(wanted), partitioning=None)
        columns = [table.column(name).to_pylist() for name in wanted]
    except ArrowException as error:
        raise HarnessError(f"{path} cannot be read as Parquet: {first_line(error)}") from None
    yield from enumerate(zip(*columns, strict=True), start=1)
