"""Held-out parts of custom tasks represent the rows, whatever texts the rows share."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.splits import (
    CALIBRATION_ROWS,
    LARGEST_SHIFT,
    SELECTION_ROWS,
    FairParts,
    Positions,
    divide_fairly,
    hold_out_fairly,
    hold_out_groups,
    largest_group,
)

Rows = tuple[list[tuple[str, ...]], Positions]


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Rows with random sizes, classes, and groups that share a text or have an empty one."""
    count = draw(st.integers(420, 1_500))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    shares = np.array(draw(st.lists(st.integers(1, 20), min_size=2, max_size=6)), dtype=float)
    labels = random.choice(len(shares), size=count, p=shares / shares.sum())
    kind = draw(st.sampled_from(["single", "pair", "dominant", "empty", "targets", "by class"]))
    number = draw(st.integers(1, count))  # of different shared texts
    shared = [f"shared {random.integers(number)}" for _ in range(count)]
    own = [f"text {row}" for row in range(count)]
    dominant = random.random(count) < draw(st.floats(0, 1))
    texts: list[tuple[str, ...]] = {
        "single": [(text,) for text in shared],
        "pair": list(zip(own, shared, strict=True)),
        "dominant": [
            ("ok",) if often else (text,) for text, often in zip(own, dominant, strict=True)
        ],
        "empty": [
            (text, "") if often else (text, other)
            for text, other, often in zip(own, shared, dominant, strict=True)
        ],
        "targets": [(text, f"target {row % 5}") for row, text in enumerate(own)],
        "by class": [(text, f"class {label}") for text, label in zip(own, labels, strict=True)],
    }[kind]
    return texts, labels.astype(np.int64)


def shares(labels: Positions, classes: int) -> np.ndarray:
    return np.bincount(labels, minlength=classes) / len(labels)


def assert_fair(found: FairParts, labels: Positions, sizes: tuple[int, ...]) -> None:
    """Assert the promises: disjoint parts, sizes, classes and their shares."""
    rows = np.concatenate(found.positions)
    assert sorted(rows.tolist()) == list(range(len(labels)))
    counts, classes = Counter(labels.tolist()), int(labels.max()) + 1
    for part, size in zip(found.positions[1:], sizes, strict=True):
        assert 0.9 * size <= len(part) <= 1.21 * size + classes
        present = set(labels[part].tolist())
        assert {label for label, count in counts.items() if count > len(sizes)} <= present
        assert np.abs(shares(labels[part], classes) - shares(labels, classes)).max() <= (
            LARGEST_SHIFT + classes / size
        )


@settings(max_examples=60, deadline=None)
@given(tables())
def test_held_out_parts_keep_their_promises(rows: Rows) -> None:
    texts, labels = rows
    found = hold_out_fairly(texts, labels)
    sizes = (max(round(0.05 * len(texts)), 100), max(round(0.1 * len(texts)), 300))
    assert_fair(found, labels, sizes)
    assert len(found.positions[1]) >= SELECTION_ROWS[0]
    assert len(found.positions[2]) >= CALIBRATION_ROWS[0]
    part_of = {int(row): part for part, rows in enumerate(found.positions) for row in rows}
    parts_of: dict[str, set[int]] = {}
    for row, both in enumerate(texts):
        for text in both:
            parts_of.setdefault(text, set()).add(part_of[row])
    divided = {text for text, parts in parts_of.items() if text and len(parts) > 1}
    assert found.groups_divided or not divided


@settings(max_examples=30, deadline=None)
@given(tables(), st.floats(0.05, 0.5))
def test_dev_part_keeps_its_promises(rows: Rows, share: float) -> None:
    texts, labels = rows
    size = round(share * len(texts))
    assert_fair(divide_fairly(texts, labels, [size], [1]), labels, (size,))


@settings(max_examples=20, deadline=None)
@given(tables(), st.randoms())
def test_fair_parts_ignore_the_row_order(rows: Rows, random: object) -> None:
    """Rows with distinct texts are in the same part in any order of the file."""
    texts, labels = rows
    order = np.random.default_rng(0).permutation(len(texts))
    first = hold_out_fairly(texts, labels)
    second = hold_out_fairly([texts[row] for row in order], labels[order])
    for part, other in zip(first.positions, second.positions, strict=True):
        kept = Counter((texts[row], int(labels[row])) for row in part)
        assert kept == Counter((texts[order[row]], int(labels[order[row]])) for row in other)


def test_distinct_texts_are_held_out_as_before() -> None:
    """Without shared texts the parts are those of GLUE's rule."""
    texts = [(f"text {row}",) for row in range(900)]
    labels = np.arange(900) % 3
    found = hold_out_fairly(texts, labels)
    assert not found.groups_divided
    for part, other in zip(found.positions, hold_out_groups(texts, labels), strict=True):
        assert part.tolist() == other.tolist()


def test_rare_class_is_in_every_part() -> None:
    texts = [(f"text {row}",) for row in range(2_000)]
    labels = np.array([1] * 3 + [0] * 1_997)
    assert [int(labels[part].sum()) for part in hold_out_fairly(texts, labels).positions] == [
        1,
        1,
        1,
    ]


def test_texts_with_other_spaces_stay_together() -> None:
    """Most tokenizers see no difference between texts that differ in their spaces."""
    spellings = ("a text {}", " a text {} ", "a  text\t{}")
    texts = [(spellings[row % 3].format(row // 3),) for row in range(1_800)]
    found = hold_out_fairly(texts, np.arange(1_800) // 3 % 2)
    assert not found.groups_divided
    parts = [{row // 3 for row in part.tolist()} for part in found.positions]
    assert sum(map(len, parts)) == 600
    assert largest_group(texts)[0] == 3


def test_groups_give_a_hundred_rows_to_select() -> None:
    """Groups of three rows do not add up to 100, and so 102 rows are held out."""
    texts = [(f"text {row // 3}",) for row in range(1_200)]
    found = hold_out_fairly(texts, np.arange(1_200) % 3)
    assert not found.groups_divided
    assert [len(part) >= size for part, size in zip(found.positions[1:], (100, 300), strict=True)]
    assert len(found.positions[1]) % 3 == 0


def test_empty_texts_link_no_rows() -> None:
    texts = [(f"title {row}", "") for row in range(900)]
    found = hold_out_fairly(texts, np.arange(900) % 2)
    assert not found.groups_divided
    assert largest_group(texts) == (1, "title 0")


@pytest.mark.parametrize("count", [100, 400])
def test_too_few_rows_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=str(count)):
        hold_out_fairly([(f"text {row}",) for row in range(count)], np.arange(count) % 2)
