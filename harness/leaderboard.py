"""GLUE's leaderboard: its test rows, which have no labels, and the zip file that it takes."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError, IncompleteError, reason
from harness.hub import hub_unlabelled
from harness.lines import lines_of
from harness.tasks import TASKS, Task
from harness.whole import whole

HEADER = "index\tprediction"
INDEX_COLUMNS = ("index", "id")
"""What the test files call the number of a row (QQP's: id)."""


class Unlabelled(NamedTuple):
    """A test row."""

    number: int
    """What the file calls it, which the leaderboard wants back."""
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A file of the submission."""

    name: str
    """Without .tsv."""
    task: str
    """Whose model answers."""
    files: tuple[str, ...]
    """Places of the test rows in a data folder."""
    hub: tuple[str, str]
    """Configuration and split of the hub's copy."""
    rows: int
    """How many there are officially."""
    diagnostic: bool = False
    """Is left out where its file is not there."""


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
    Entry("AX", "mnli", ("diagnostic/diagnostic.tsv", "AX/AX.tsv", "AX/test.tsv"), ("ax", "test"), 1_104, diagnostic=True),
)


def unlabelled(entry: Entry, data_dir: Path | None) -> list[Unlabelled] | None:
    """The test rows, of the data folder or of the hub; None where a diagnostic file is not there.

    Raises: HarnessError when they are not to be had, or do not fit.
    """
    source = TASKS[entry.task].source
    assert source is not None
    if data_dir is not None:
        places = [data_dir / file for file in entry.files]
        there = [place for place in places if place.is_file()]
        if not there and entry.diagnostic:
            return None
        header = source.layout.header
        return read_unlabelled((there or places)[0], source.columns if header is None else header[:-1])
    try:
        rows = hub_unlabelled(entry.hub[0], source.columns, entry.hub[1])
    except HarnessError:
        if entry.diagnostic:
            return None
        raise
    return [Unlabelled(*row) for row in rows]


def read_unlabelled(path: Path, columns: Sequence[str]) -> list[Unlabelled]:
    """The rows of a test file, its columns found by the names in its first line; tab-separated, no quoting, a byte-order mark allowed.

    Raises: HarnessError with file, line and columns for what does not fit.
    """
    lines = lines_of(path, "; check --data-dir")
    names = lines[0].split("\t")
    numbers = [name for name in INDEX_COLUMNS if name in names]
    missing = [name for name in columns if name not in names]
    if missing or not numbers:
        wanted = ", ".join((INDEX_COLUMNS[0], *columns))
        raise HarnessError(f"{path} line 1: got columns {', '.join(names)[:200]}, wanted {wanted}")
    places = [names.index(name) for name in (numbers[0], *columns)]
    rows: list[Unlabelled] = []
    seen: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != len(names):
            raise HarnessError(f"{path} line {number}: got {len(cells)} columns, wanted {len(names)}")
        index, *texts = (cells[place] for place in places)
        if not (index.isascii() and index.isdecimal() and len(index) <= 9):
            raise HarnessError(f"{path} line {number}: {numbers[0]} {index[:40]!r}, wanted a number")
        first = seen.setdefault(int(index), number)
        if first != number:
            raise HarnessError(f"{path} line {number}: {numbers[0]} {index} stands in line {first} too")
        rows.append(Unlabelled(int(index), tuple(text.strip() for text in texts)))
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return rows


class Answered(NamedTuple):
    """A file of the submission, before it is written."""

    entry: Entry
    numbers: tuple[int, ...]
    """Of the rows."""
    words: tuple[str, ...]


def words_of(task: Task, logits: NDArray[np.float32]) -> tuple[str, ...]:
    """Answers [n, c] as the leaderboard wants them: what the files write for a label; a number from 0 to 5 with three decimals."""
    if task.regression:
        return tuple(f"{value:.3f}" for value in np.clip(logits[:, 0].astype(np.float64), 0.0, task.scale))
    return tuple(task.values[place] for place in logits.argmax(-1))


def write_zip(path: Path, files: Sequence[Answered]) -> None:
    """Write a submission, and read it back before it takes its place.

    Raises: IncompleteError when it cannot be written, or what was written is not what the leaderboard takes.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as beside:
            with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    lines = [HEADER, *(f"{index}\t{word}" for index, word in zip(file.numbers, file.words, strict=True))]
                    member = zipfile.ZipInfo(f"{file.entry.name}.tsv")  # with a fixed date: equal answers are an equal file
                    member.external_attr = 0o644 << 16
                    archive.writestr(member, "\n".join(lines) + "\n", zipfile.ZIP_DEFLATED)
            check_zip(beside, {file.entry.name: file.numbers for file in files})
    except OSError as error:
        raise IncompleteError(f"cannot write {path}: {reason(error)}; nothing was written") from None


def check_zip(path: Path, wanted: Mapping[str, Sequence[int]]) -> None:
    """Read a submission as the leaderboard does. `wanted`: the name of each of its files -> the numbers of its rows.

    Raises: IncompleteError naming the file and the line that does not fit.
    """
    by_name = {entry.name: entry for entry in ENTRIES}
    with zipfile.ZipFile(path) as archive:
        if sorted(archive.namelist()) != sorted(f"{name}.tsv" for name in wanted):
            raise IncompleteError(f"{path} holds {', '.join(archive.namelist())}, wanted {', '.join(wanted)}, each .tsv")
        for name, indices in wanted.items():
            header, *lines = archive.read(f"{name}.tsv").decode().removesuffix("\n").split("\n")
            if header != HEADER or len(lines) != len(indices):
                raise IncompleteError(f"{name}.tsv: header {header!r} and {len(lines)} rows, wanted {HEADER!r} and {len(indices)}")
            task = TASKS[by_name[name].task]
            for number, (line, index) in enumerate(zip(lines, indices, strict=True), start=2):
                said, _, word = line.partition("\t")
                if said != str(index) or not _allowed(task, word):
                    raise IncompleteError(f"{name}.tsv line {number}: {line!r}, wanted row {index} and {_wanted(task)}")


def _allowed(task: Task, word: str) -> bool:
    if not task.regression:
        return word in task.values
    whole, _, decimals = word.partition(".")
    return whole.isdecimal() and decimals.isdecimal() and 0 <= float(word) <= task.scale


def _wanted(task: Task) -> str:
    return " or ".join(task.values) or f"a number from 0 to {task.scale:g}"
