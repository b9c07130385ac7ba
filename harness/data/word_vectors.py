"""Word vectors from a text file in the format of GloVe and word2vec."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError, reason

VECTORS_READ = 100_000
"""Number of lines read from a file of word vectors, as in TinyBERT's code."""


_HEADER = re.compile(r"\d+ (\d+)")


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors."""

    words: tuple[str, ...]
    table: NDArray[np.float32]
    """Vectors [w, v], in the order of the words."""


@lru_cache(maxsize=1)
def read_vectors(path: Path) -> WordVectors:
    """Read the first `VECTORS_READ` lines: a word and its numbers, separated by spaces.

    A word may contain spaces itself. A first line with the number of words and of dimensions, as
    word2vec and fastText write it, is skipped.
    Raises: HarnessError with file and line if a line is malformed.
    """
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in islice(_without_header(file), VECTORS_READ):
                word, *numbers = (
                    line.rstrip().rsplit(" ", len(rows[0])) if rows else line.rstrip().split(" ")
                )
                row = _numbers(numbers)
                if row is None or (rows and len(row) != len(rows[0])):
                    expected = f"{len(rows[0])} finite numbers" if rows else "finite numbers"
                    raise HarnessError(
                        f"--glove: {path} line {number}: expected a word and {expected}, "
                        f"got {line[:40].rstrip()!r}"
                    )
                words.append(word)
                rows.append(row)
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"--glove: cannot read {path}: {reason(error)}") from None
    if not rows:
        raise HarnessError(f"--glove: {path} has no lines")
    return WordVectors(tuple(words), np.stack(rows))


def _without_header(file: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines except a first one that gives the length of the second."""
    lines = enumerate(file, start=1)
    first = list(islice(lines, 2))
    header = _HEADER.fullmatch(first[0][1].strip()) if len(first) > 1 else None
    if header is not None and len(first[1][1].split()) > int(header[1]) > 1:
        first = first[1:]
    yield from first
    yield from lines


def _numbers(parts: Sequence[str]) -> NDArray[np.float32] | None:
    try:
        row = np.array(parts, dtype=np.float32)
    except ValueError:
        return None
    return row if len(row) and np.isfinite(row).all() else None
