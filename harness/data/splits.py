"""Hold out training rows: the choice depends only on the data, not on method or seed."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SELECTION_SHARE, SELECTION_ROWS = 0.05, (100, 1_000)
CALIBRATION_SHARE, CALIBRATION_ROWS = 0.10, (300, 2_000)
"""Share of the independent rows that is held out, and the fewest and most rows."""

FIRST_WORDS = 3
"""Number of first words by which texts that may be part of another text are looked up.

Few texts share them, so the search time is proportional to the length of a text.
"""

Positions = NDArray[np.int64]
Texts = Sequence[tuple[str, ...]]
"""One or two texts per row."""


class Parts(NamedTuple):
    """Positions of the rows of each part, in file order."""

    train: Positions
    selection: Positions
    calibration: Positions


def hold_out_groups(texts: Texts, strata: Positions) -> Parts:
    """Hold out whole groups of rows that share a text, and keep the proportions of `strata` [n].

    Raises: ValueError if there are too few rows.
    """
    selection, calibration = _hold_out(texts, strata, _sharing_a_text(texts))
    return _parts(len(texts), selection, calibration, dropped=set())


def part_off(texts: Texts, strata: Positions, share: float) -> tuple[Positions, Positions]:
    """Return the positions of the remaining rows and of about this share, in file order.

    Groups of rows that share a text stay together, and `strata` [n] are kept in proportion.
    """
    groups = _in_order(texts, strata, _sharing_a_text(texts))
    taken = sorted(
        row for group in _take(groups, strata, round(share * len(texts))) for row in group
    )
    others = sorted(set(range(len(texts))).difference(taken))
    return np.array(others, dtype=np.int64), np.array(taken, dtype=np.int64)


def largest_group(texts: Texts) -> int:
    """Return the size of the largest group of rows that share a text."""
    return max(map(len, _sharing_a_text(texts)))


def _sharing_a_text(texts: Texts) -> list[list[int]]:
    """Return the groups of rows that share a text, directly or through other rows."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for row in texts:
        for other in row[1:]:
            parent[root(other)] = root(row[0])
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(texts):
        groups[root(row[0])].append(number)
    return list(groups.values())


def hold_out_sentences(texts: Texts, strata: Positions) -> Parts:
    """Hold out complete sentences, for SST-2, whose train file has every phrase of each sentence.

    A complete sentence is a text that is not part of another. Every row that is part of a held-out
    sentence is removed from training.
    Raises: ValueError if there are too few rows.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for number, (text,) in enumerate(texts):
        rows_of[text].append(number)
    complete = complete_sentences(rows_of)
    groups = [[min(rows_of[text], key=lambda row: int(strata[row]))] for text in complete]
    selection, calibration = _hold_out(texts, strata, groups)
    held_out = [texts[group[0]][0] for group in selection + calibration]
    dropped = {
        row for text in held_out for part in {text, *complete[text]} for row in rows_of[part]
    }
    return _parts(len(texts), selection, calibration, dropped)


def complete_sentences(texts: Iterable[str]) -> dict[str, set[str]]:
    """Return the texts that are not part of another, each with the texts that are part of it."""
    distinct = set(texts)
    starting: dict[str, list[str]] = defaultdict(list)
    for text in distinct:
        starting[" ".join(text.split(" ")[:FIRST_WORDS])].append(text)
    inside: set[str] = set()
    complete: dict[str, set[str]] = {}
    for text in sorted(distinct, key=lambda text: (-text.count(" "), text)):
        if text not in inside:
            complete[text] = _contained(text, starting)
            inside |= complete[text]
    return complete


def draw(texts: Texts, strata: Positions, rows: int) -> Positions:
    """Draw `rows` rows in proportion to the strata; return their positions in file order."""
    ordered = sorted(range(len(texts)), key=lambda row: (_order(texts[row]), int(strata[row]), row))
    shares = [[row for row in ordered if strata[row] == stratum] for stratum in np.unique(strata)]
    counts = _apportion([len(share) for share in shares], rows)
    chosen = [row for share, count in zip(shares, counts, strict=True) for row in share[:count]]
    return np.array(sorted(chosen), dtype=np.int64)


def _contained(text: str, starting: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the other texts that occur inside a text as consecutive words of it.

    `starting` maps first words to the texts that begin with them.
    """
    words = text.split(" ")
    found: set[str] = set()
    for start in range(len(words)):
        left = len(words) - start
        for size in range(1, min(FIRST_WORDS, left) + 1):
            for other in starting.get(" ".join(words[start : start + size]), ()):
                count = other.count(" ") + 1
                if (
                    count < len(words)
                    and count <= left
                    and other not in found
                    and " ".join(words[start : start + count]) == other
                ):
                    found.add(other)
    return found


def _order(texts: tuple[str, ...]) -> str:
    """Return a sort key for a pseudo-random order that depends only on the texts.

    It depends neither on the order of the file nor on a library's random generator.
    """
    return hashlib.sha256("\t".join(texts).encode()).hexdigest()


def _size(share: float, bounds: tuple[int, int], rows: int) -> int:
    return min(max(round(share * rows), bounds[0]), bounds[1])


def _apportion(sizes: Sequence[int], number: int) -> list[int]:
    """Apportion `number` rows to strata of these sizes by the method of largest remainders."""
    exact = np.array(sizes) * min(number / sum(sizes), 1.0)
    counts = np.floor(exact).astype(int)
    for stratum in np.argsort(counts - exact, kind="stable")[
        : min(number, sum(sizes)) - counts.sum()
    ]:
        counts[stratum] += 1
    return [int(count) for count in counts]


def _hold_out(
    texts: Texts, strata: Positions, groups: list[list[int]]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the groups of selection and of calibration.

    A group counts for the stratum of its first row in `_order`.
    """
    rows, least = sum(len(group) for group in groups), SELECTION_ROWS[0] + CALIBRATION_ROWS[0]
    if rows <= least:
        raise ValueError(
            f"train has {rows} independent rows, expected more than {least}: at least "
            f"{SELECTION_ROWS[0]} are held out for selection, {CALIBRATION_ROWS[0]} for calibration"
        )
    ordered = _in_order(texts, strata, groups)
    selection = _take(ordered, strata, _size(SELECTION_SHARE, SELECTION_ROWS, rows))
    chosen = {group[0] for group in selection}
    rest = [group for group in ordered if group[0] not in chosen]
    return selection, _take(rest, strata, _size(CALIBRATION_SHARE, CALIBRATION_ROWS, rows))


def _in_order(texts: Texts, strata: Positions, groups: Iterable[list[int]]) -> list[list[int]]:
    """Sort the groups, and the rows within each, by `_order`."""

    def key(row: int) -> tuple[str, int]:
        return _order(texts[row]), int(strata[row])

    return sorted((sorted(group, key=key) for group in groups), key=lambda group: key(group[0]))


def _take(groups: list[list[int]], strata: Positions, number: int) -> list[list[int]]:
    """Take groups from the front until each stratum has its share of `number` rows.

    A group larger than a tenth of `number` stays in train, so that no cluster dominates a part.
    """
    shares = [
        [group for group in groups if strata[group[0]] == stratum] for stratum in np.unique(strata)
    ]
    quotas = _apportion([sum(map(len, share)) for share in shares], number)
    taken = []
    for share, quota in zip(shares, quotas, strict=True):
        left = quota
        for group in share:
            if len(group) <= min(left, max(number // 10, 1)):
                taken.append(group)
                left -= len(group)
    return taken


def _parts(
    rows: int, selection: list[list[int]], calibration: list[list[int]], dropped: set[int]
) -> Parts:
    held_out = [
        sorted(row for group in groups for row in group) for groups in (selection, calibration)
    ]
    excluded = dropped.union(*held_out)
    train = [row for row in range(rows) if row not in excluded]
    return Parts(*(np.array(part, dtype=np.int64) for part in (train, *held_out)))
