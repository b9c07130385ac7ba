"""GLUE's test rows, which have no labels and are scored by the leaderboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.data.glue import GLUE
from harness.data.glue_hub import hub_unlabelled
from harness.errors import HarnessError
from harness.files.text import read_lines

INDEX_COLUMNS = ("index", "id")
"""Names of the index column in test files; QQP calls it id."""


class Unlabelled(NamedTuple):
    """A test row."""

    number: int
    """Index in the file, which the leaderboard expects with the prediction."""
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A file of a submission."""

    name: str
    """File name without .tsv."""
    task: str
    """Task whose model predicts the rows."""
    files: tuple[str, ...]
    """Possible paths of the test rows in a data folder."""
    hub: tuple[str, str]
    """Configuration and split in the hub's copy."""
    rows: int
    """Official row count."""
    diagnostic: bool = False
    """Whether a submission may lack the file."""


ENTRIES = (
    Entry("CoLA", "cola", ("CoLA/test.tsv",), ("cola", "test"), 1_063),
    Entry("SST-2", "sst2", ("SST-2/test.tsv",), ("sst2", "test"), 1_821),
    Entry("MRPC", "mrpc", ("MRPC/test.tsv",), ("mrpc", "test"), 1_725),
    Entry("STS-B", "stsb", ("STS-B/test.tsv",), ("stsb", "test"), 1_379),
    Entry("QQP", "qqp", ("QQP/test.tsv",), ("qqp", "test"), 390_965),
    Entry("MNLI-m", "mnli", ("MNLI/test_matched.tsv",), ("mnli", "test_matched"), 9_796),
    Entry("MNLI-mm", "mnli", ("MNLI/test_mismatched.tsv",), ("mnli", "test_mismatched"), 9_847),
    Entry("QNLI", "qnli", ("QNLI/test.tsv",), ("qnli", "test"), 5_463),
    Entry("RTE", "rte", ("RTE/test.tsv",), ("rte", "test"), 3_000),
    Entry("WNLI", "wnli", ("WNLI/test.tsv",), ("wnli", "test"), 146),
    Entry(
        "AX",
        "mnli",
        ("diagnostic/diagnostic.tsv", "AX/AX.tsv", "AX/test.tsv"),
        ("ax", "test"),
        1_104,
        diagnostic=True,
    ),
)


def unlabelled(entry: Entry, data_dir: Path | None) -> list[Unlabelled] | None:
    """Read the test rows from the data folder or the hub; None if a diagnostic file is missing.

    Raises: HarnessError if other rows are missing, or if rows are malformed.
    """
    source = GLUE[entry.task]
    if data_dir is not None:
        paths = [data_dir / file for file in entry.files]
        existing = [path for path in paths if path.is_file()]
        if not existing and entry.diagnostic:
            return None
        header = source.layout.header
        return read_unlabelled(
            (existing or paths)[0], source.columns if header is None else header[:-1]
        )
    try:
        rows = hub_unlabelled(entry.hub[0], source.columns, entry.hub[1])
    except HarnessError:
        if entry.diagnostic:
            return None
        raise
    return [Unlabelled(*row) for row in rows]


def read_unlabelled(path: Path, columns: Sequence[str]) -> list[Unlabelled]:
    """Read a test file, whose first line names the columns.

    It is tab-separated without quoting and may begin with a byte-order mark.
    Raises: HarnessError naming the file, line and columns of a malformed row.
    """
    lines = read_lines(path, "; check --data-dir")
    names = lines[0].split("\t")
    numbers = [name for name in INDEX_COLUMNS if name in names]
    missing = [name for name in columns if name not in names]
    if missing or not numbers:
        expected = ", ".join((INDEX_COLUMNS[0], *columns))
        raise HarnessError(
            f"{path} line 1: got columns {', '.join(names)[:200]}, expected {expected}"
        )
    positions = [names.index(name) for name in (numbers[0], *columns)]
    rows: list[Unlabelled] = []
    seen: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != len(names):
            raise HarnessError(
                f"{path} line {number}: got {len(cells)} columns, expected {len(names)}"
            )
        index, *texts = (cells[position] for position in positions)
        if not (index.isascii() and index.isdecimal() and len(index) <= 9):
            raise HarnessError(
                f"{path} line {number}: {numbers[0]} {index[:40]!r}, expected a number"
            )
        first = seen.setdefault(int(index), number)
        if first != number:
            raise HarnessError(
                f"{path} line {number}: {numbers[0]} {index} already occurs in line {first}"
            )
        rows.append(Unlabelled(int(index), tuple(text.strip() for text in texts)))
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return rows
