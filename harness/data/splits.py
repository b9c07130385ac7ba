"""Hold out training rows: the choice depends only on the data, not on method or seed."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SELECTION_SHARE, SELECTION_ROWS = 0.05, (100, 1_000)
CALIBRATION_SHARE, CALIBRATION_ROWS = 0.10, (300, 2_000)
"""Share of the independent rows that is held out, and the fewest and most rows."""

SMALLEST_SIZE = 0.9
"""Share of its intended size that a part of a custom task must have."""
LARGER_SIZE = 1.1
"""Share of its intended size that is tried if whole groups of rows give too small a part."""
LARGEST_SHIFT = 0.05
"""Largest difference of a class's share between a part of a custom task and the rows."""

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
    parts = _hold_out(texts, strata, _sharing_a_text(texts))
    return Parts(*_positions(len(texts), parts))


class FairParts(NamedTuple):
    """Parts of a custom task's rows."""

    positions: list[Positions]
    """Positions of the remaining rows, and then of each part, in file order."""
    groups_divided: bool
    """Whether rows that share a text are in different parts."""


def hold_out_fairly(texts: Texts, strata: Positions) -> FairParts:
    """Hold out selection and calibration of a custom task; see `divide_fairly`.

    Raises: ValueError if there are too few rows.
    """
    least = (SELECTION_ROWS[0], CALIBRATION_ROWS[0])
    return divide_fairly(texts, strata, _held_out_sizes(len(texts)), least)


def divide_fairly(
    texts: Texts, strata: Positions, sizes: Sequence[int], least: Sequence[int]
) -> FairParts:
    """Choose disjoint parts of about these sizes, at least `least`, that represent `strata` [n].

    If possible, rows that share a text (other than an empty one, and whatever its spaces) stay
    together. Otherwise, for
    example if one text dominates, rows are chosen one by one. Parts represent the rows if they have
    nearly their size and every stratum, with a share that differs by at most `LARGEST_SHIFT` from
    that of all rows and of the remaining rows.
    """
    groups = _in_order(texts, strata, _sharing_a_text(_same_spaces(texts), link_empty=False))
    for choose, share in product((_take, _take_balanced), (1.0, LARGER_SIZE)):
        parts = _choose(choose, groups, strata, [round(share * size) for size in sizes])
        positions = _positions(len(texts), parts)
        if _represent(positions, strata, sizes, least):
            return FairParts(positions, groups_divided=False)
    rows = _in_order(texts, strata, [[row] for row in range(len(texts))])
    parts = _choose(_take_balanced, rows, strata, sizes)
    return FairParts(_positions(len(texts), parts), groups_divided=len(groups) < len(texts))


def largest_group(texts: Texts) -> tuple[int, str]:
    """Return the size of the largest group of rows that share a text, and its commonest text."""
    group = max(_sharing_a_text(_same_spaces(texts), link_empty=False), key=len)
    counts = Counter(text for row in group for text in texts[row] if text)
    return len(group), counts.most_common(1)[0][0] if counts else ""


def _choose(
    take: Callable[[list[list[int]], Positions, int], list[list[int]]],
    groups: list[list[int]],
    strata: Positions,
    sizes: Sequence[int],
) -> list[list[list[int]]]:
    """Return the groups of each part, which `take` chooses among those that are left."""
    parts = []
    for size in sizes:
        parts.append(take(groups, strata, size))
        chosen = {group[0] for group in parts[-1]}
        groups = [group for group in groups if group[0] not in chosen]
    return parts


def _positions(
    rows: int, parts: Sequence[list[list[int]]], dropped: Iterable[int] = ()
) -> list[Positions]:
    """Return the positions of the remaining rows and of each part, in file order."""
    held_out = [sorted(row for group in groups for row in group) for groups in parts]
    excluded = set(dropped).union(*held_out)
    remaining = [row for row in range(rows) if row not in excluded]
    return [np.array(part, dtype=np.int64) for part in (remaining, *held_out)]


def _same_spaces(texts: Texts) -> Texts:
    """Return the texts with single spaces between words, as most tokenizers see them."""
    return [tuple(" ".join(text.split()) for text in row) for row in texts]


def _represent(
    positions: Sequence[Positions],
    strata: Positions,
    sizes: Sequence[int],
    least: Sequence[int],
) -> bool:
    """Return whether the parts after the first have their sizes and represent all strata."""
    remaining, *parts = positions
    _, codes, counts = np.unique(strata, return_inverse=True, return_counts=True)
    common = counts > len(parts)  # enough rows for one in each part
    shares = [
        np.bincount(codes[part], minlength=codes.max() + 1) / max(len(part), 1)
        for part in (np.arange(len(strata)), remaining, *parts)
    ]
    return (
        all(
            len(part) >= max(SMALLEST_SIZE * size, fewest)
            for part, size, fewest in zip(parts, sizes, least, strict=True)
        )
        and all(share[common].all() for share in shares)
        and all(
            np.abs(share - whole).max() <= LARGEST_SHIFT
            for share in shares[2:]
            for whole in shares[:2]
        )
    )


def _take_balanced(groups: list[list[int]], strata: Positions, number: int) -> list[list[int]]:
    """Take each group from the front that brings the rows of all strata closer to their shares.

    A stratum with more than one row gets at least one. A group larger than a tenth of `number` is
    left.
    """
    strata_of = strata.tolist()
    counts = Counter(strata_of[row] for group in groups for row in group)
    names = sorted(counts)
    quotas = _apportion([counts[name] for name in names], number)
    missing = {
        name: max(quota, 1 if counts[name] > 1 else 0)
        for name, quota in zip(names, quotas, strict=True)
    }
    taken = []
    for group in groups:
        if len(group) <= max(number // 10, 1):
            own = Counter(strata_of[row] for row in group)
            if sum(abs(missing[name] - own[name]) - abs(missing[name]) for name in own) < 0:
                taken.append(group)
                for name in own:
                    missing[name] -= own[name]
    return taken


def _sharing_a_text(texts: Texts, link_empty: bool = True) -> list[list[int]]:
    """Return the groups of rows that share a text, directly or through other rows.

    Without `link_empty`, rows that share only the empty text are not linked.
    """
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    linking = [
        row if link_empty else tuple(text for text in row if text) or (f"\n{number}",)
        for number, row in enumerate(texts)
    ]
    for row in linking:
        for other in row[1:]:
            parent[root(other)] = root(row[0])
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(linking):
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
    parts = _hold_out(texts, strata, groups)
    held_out = [texts[group[0]][0] for part in parts for group in part]
    dropped = {
        row for text in held_out for part in {text, *complete[text]} for row in rows_of[part]
    }
    return Parts(*_positions(len(texts), parts, dropped))


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


def _hold_out(texts: Texts, strata: Positions, groups: list[list[int]]) -> list[list[list[int]]]:
    """Return the groups of selection and of calibration.

    A group counts for the stratum of its first row in `_order`.
    """
    sizes = _held_out_sizes(sum(map(len, groups)))
    return _choose(_take, _in_order(texts, strata, groups), strata, sizes)


def _held_out_sizes(rows: int) -> list[int]:
    """Return the numbers of rows of selection and calibration.

    Raises: ValueError if there are too few independent rows.
    """
    least = SELECTION_ROWS[0] + CALIBRATION_ROWS[0]
    if rows <= least:
        raise ValueError(
            f"train has {rows} independent rows, expected more than {least}: at least "
            f"{SELECTION_ROWS[0]} are held out for selection, {CALIBRATION_ROWS[0]} for calibration"
        )
    return [
        _size(SELECTION_SHARE, SELECTION_ROWS, rows),
        _size(CALIBRATION_SHARE, CALIBRATION_ROWS, rows),
    ]


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
