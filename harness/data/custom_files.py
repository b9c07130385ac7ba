"""Files of a custom task: TSV, CSV, JSON lines or Parquet."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from harness.data.sources import CustomSource, Labelled, RawSplit, Row
from harness.errors import HarnessError, first_line, reason, similar_names
from harness.files.text import same_text

if TYPE_CHECKING:
    from _csv import Reader

FORMATS = (".tsv", ".csv", ".jsonl", ".parquet")
"""File endings, which determine the format.

TSV has tabs without quoting, CSV has commas with quoting, and both begin with a line of names. JSON
lines have one object per line.
"""

MAX_FIELD = 2**31 - 1
"""Largest number of characters of a field; the csv library's default is 131,072."""

Cells = tuple[int, Sequence[object]]
"""A line number, and the texts and the label of that line."""


@dataclass(frozen=True)
class CustomFiles(CustomSource):
    """Files of a custom task."""

    train: Path
    dev: Path | None

    def is_local(self) -> bool:
        """Return True: they are the user's files."""
        return True

    def read(self, task: Labelled) -> list[RawSplit]:
        """Read train, and dev if it has a file.

        Raises: HarnessError naming the file, line and column of an invalid value.
        """
        paths = {"train": self.train} | ({} if self.dev is None else {"dev": self.dev})
        return [
            RawSplit(
                split,
                file_rows(path, self.columns, self.label),
                task.values,
                str(path),
                dev_share=self.dev_share,
            )
            for split, path in paths.items()
        ]


def file_rows(
    path: Path, texts: Sequence[str], label: str | None, unlabelled: bool = False
) -> list[Row]:
    """Read the text columns and the label column of a file.

    Without a label column, or with `unlabelled`, a label may be missing, and is then empty.

    Raises: HarnessError naming the file, line and column of an invalid value.
    """
    readers = {".tsv": _separated, ".csv": _separated, ".jsonl": _json_lines, ".parquet": _parquet}
    columns = texts if label is None else (*texts, label)
    with _reading(path):
        rows = [
            checked_row(
                str(path),
                line,
                cells if label else (*cells, None),
                columns,
                unlabelled or not label,
            )
            for line, cells in readers[path.suffix.lower()](path, columns)
        ]
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return rows


def column_names(path: Path) -> list[str]:
    """Return the names in the header or schema of a .tsv, .csv or .parquet file.

    Raises: HarnessError if the file cannot be read.
    """
    suffix = path.suffix.lower()
    with _reading(path):
        if suffix == ".parquet":
            return list(map(same_text, _parquet_names(path)))
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(map(same_text, next(_csv_reader(file, suffix), [])))


def label_text(label: object) -> str:
    """Return a label as a file may hold it, as text; empty if there is none."""
    if label is None:
        return ""
    if isinstance(label, str | Decimal):
        return str(label).strip()
    return json.dumps(label)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into a HarnessError."""
    try:
        yield
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path} is not UTF-8 text: {error}") from None
    except csv.Error as error:
        raise HarnessError(f"{path} line 1: {error}") from None


def checked_row(
    origin: str,
    line: int,
    cells: Sequence[object],
    columns: Sequence[str],
    unlabelled: bool = False,
) -> Row:
    """Return a row whose last cell is its label.

    Raises: HarnessError if a text is not a string, or a label that is needed is missing.
    """
    *texts, label = cells
    for name, text in zip(columns, texts, strict=False):
        if not isinstance(text, str):
            raise HarnessError(
                f"{origin} line {line}: column {name!r} holds {_shown(text)}, expected a text"
            )
    if not (unlabelled and label is None) and not isinstance(label, str | int | float | Decimal):
        raise HarnessError(
            f"{origin} line {line}: column {columns[-1]!r} holds {_shown(label)}, expected a label"
        )
    for name, text in zip(columns, cells, strict=False):
        if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise HarnessError(
                f"{origin} line {line}: column {name!r} holds {text[:40]!r}, which has half of a "
                "surrogate pair: expected Unicode text"
            )
    return Row(
        tuple(map(str, texts)),
        label_text(label),
        line,
    )


def _shown(value: object) -> str:
    """Return the type and the beginning of a value, for messages."""
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def positions_of(where: str, names: Sequence[str], requested: Sequence[str]) -> list[int]:
    """Return the positions of the requested columns, whose names may be surrounded by spaces.

    Raises: HarnessError if one is missing or occurs twice.
    """
    plain = [same_text(name) for name in names]
    positions = []
    for name in map(same_text, requested):
        if name not in plain:
            hint = "".join(f": did you mean {one}?" for one in similar_names(name, plain)[:1])
            raise HarnessError(
                f"{where} has no column {name!r}{hint or ';'} it has {', '.join(plain) or 'none'}"
            )
        if plain.count(name) > 1:
            raise HarnessError(
                f"{where}: column {name!r} occurs {plain.count(name)} times, expected once"
            )
        positions.append(plain.index(name))
    return positions


def _csv_reader(file: TextIO, suffix: str) -> "Reader":
    csv.field_size_limit(MAX_FIELD)
    if suffix == ".tsv":
        return csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(file, strict=True)


def _separated(path: Path, requested: Sequence[str]) -> Iterator[Cells]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = _csv_reader(file, path.suffix.lower())
        try:
            names = next(reader, [])
            positions = positions_of(str(path), names, requested)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise HarnessError(
                        f"{path} line {reader.line_num}: got {len(cells)} columns, "
                        f"expected {len(names)}"
                    )
                yield reader.line_num, [cells[position] for position in positions]
        except csv.Error as error:
            raise HarnessError(f"{path} line {reader.line_num}: {error}") from None


def _json_lines(path: Path, requested: Sequence[str]) -> Iterator[Cells]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise HarnessError(f"{path} line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise HarnessError(f"{path} line {number}: got {_shown(row)}, expected an object")
            if not all(name in row for name in requested):
                names = list(row)
                positions = positions_of(f"{path} line {number}", names, requested)
                row = dict(zip(requested, (row[names[i]] for i in positions), strict=True))
            yield number, [row[name] for name in requested]


def _parquet_names(path: Path) -> list[str]:
    from pyarrow import ArrowException, parquet

    try:
        with path.open("rb") as file:
            return list(parquet.read_schema(file).names)
    except ArrowException as error:
        raise HarnessError(f"{path} cannot be read as Parquet: {first_line(error)}") from None


def _parquet(path: Path, requested: Sequence[str]) -> Iterator[Cells]:
    from pyarrow import ArrowException, parquet  # takes 0.2 s

    names = _parquet_names(path)
    wanted = [names[position] for position in positions_of(str(path), names, requested)]
    try:
        with path.open("rb") as file:
            rows = (
                cells
                for batch in parquet.ParquetFile(file).iter_batches(columns=wanted)
                for cells in zip(*(batch.column(name).to_pylist() for name in wanted), strict=True)
            )
            yield from enumerate(rows, start=1)
    except ArrowException as error:
        raise HarnessError(f"{path} cannot be read as Parquet: {first_line(error)}") from None
