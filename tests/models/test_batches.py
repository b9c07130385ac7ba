"""Batches of examples of similar length, and their padding."""

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.data.dataset import Tokens
from harness.models.batches import collate, shuffled_batches, sorted_batches

LENGTHS = np.random.default_rng(7).integers(1, 129, 1_003)


def _padding_share(batches: list[NDArray[np.int64]]) -> float:
    padded = sum(len(rows) * LENGTHS[rows].max() for rows in batches)
    return 1 - LENGTHS.sum() / padded


@pytest.mark.parametrize("batch_size", [1, 7, 16, 2_000])
def test_batches_hold_every_example_once(batch_size: int) -> None:
    """Every example is in exactly one batch, which has at most the batch size."""
    for batches in (
        sorted_batches(LENGTHS, batch_size),
        shuffled_batches(LENGTHS, batch_size, np.random.default_rng(1)),
    ):
        assert sorted(np.concatenate(batches).tolist()) == list(range(1_003))
        assert {len(rows) for rows in batches} <= {batch_size, 1_003 % batch_size or batch_size}
        assert len(batches) == -(-1_003 // batch_size)


def test_sorted_batches_are_shortest_first() -> None:
    """Sorted batches are shortest first and keep the order of equal lengths."""
    batches = sorted_batches(np.array([3, 1, 2, 1, 3]), 2)
    assert [rows.tolist() for rows in batches] == [[1, 3], [2, 0], [4]]


def test_random_batches_have_similar_lengths() -> None:
    """Random batches hold examples of similar length."""
    order = np.random.default_rng(1).permutation(1_003)
    unsorted = [order[start : start + 16] for start in range(0, 1_003, 16)]
    assert _padding_share(unsorted) > 0.4
    assert _padding_share(shuffled_batches(LENGTHS, 16, np.random.default_rng(1))) < 0.05


def test_random_batches_mix_length_order() -> None:
    """Random batches are not in the order of their lengths."""
    longest = [
        LENGTHS[rows].max() for rows in shuffled_batches(LENGTHS, 16, np.random.default_rng(1))
    ]
    rises = np.mean(np.diff(longest) > 0)
    assert 0.3 < rises < 0.7


def test_generator_fixes_random_batches() -> None:
    """The generator determines the random batches."""
    first, again, other = (
        shuffled_batches(LENGTHS, 16, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in again]
    assert [rows.tolist() for rows in first] != [rows.tolist() for rows in other]


def test_random_batches_regroup_examples() -> None:
    """Random batches group the examples differently each time."""
    lengths = np.full(64, 10)
    generator = np.random.default_rng(1)
    batch_mates = [
        {frozenset(rows.tolist()) for rows in shuffled_batches(lengths, 2, generator)}
        for _ in range(2)
    ]
    assert len(batch_mates[0] & batch_mates[1]) < 16


def test_collate_pads_and_masks() -> None:
    """Collation pads ids and types with zero and masks the padding."""
    rows = ([5, 6, 7], [8], [9, 4])
    types = ([0, 1, 1], [1], [0, 1])
    tokens = Tokens(
        tuple(np.array(row, np.int32) for row in rows),
        tuple(np.array(row, np.int32) for row in types),
        0,
    )
    batch = collate(tokens, np.array([2, 0]))
    assert batch.ids.tolist() == [[9, 4, 0], [5, 6, 7]]
    assert batch.types.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert collate(tokens, np.array([1, 2])).ids.shape == (2, 2)


def test_collate_keeps_zero_id_tokens() -> None:
    """Collation does not mask a real token whose id is zero."""
    row = np.array([3, 0, 0], np.int32)
    batch = collate(Tokens((row,), (np.zeros_like(row),), 0), np.array([0]))
    assert batch.mask.tolist() == [[True, True, True]]
