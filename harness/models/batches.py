"""Rows of a split as padded batches of similar length."""

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.dataset import Tokens
from harness.models.multi_exit import Batch

BUCKET_BATCHES = 50
"""Batches in a bucket: shuffled rows are sorted by length within buckets of this many batches."""


def collate(tokens: Tokens, rows: NDArray[np.int64]) -> Batch:
    """The rows at these positions, padded to the longest of them."""
    lengths = [len(tokens.ids[row]) for row in rows]
    ids = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    types = np.zeros_like(ids)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        ids[place, :length] = tokens.ids[row]
        types[place, :length] = tokens.types[row]
    mask = np.arange(ids.shape[1]) < np.array(lengths)[:, None]
    return Batch(torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(mask))


def sorted_batches(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Positions of all rows, shortest first, in batches: the least padding."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def shuffled_batches(
    lengths: NDArray[np.int64], batch_size: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Positions of all rows in random batches of similar length: shuffled, sorted within buckets, batches shuffled."""
    order = generator.permutation(len(lengths))
    size = batch_size * BUCKET_BATCHES
    buckets = [order[start : start + size] for start in range(0, len(order), size)]
    batches = []
    for bucket in buckets:
        ordered = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [
            ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)
        ]
    return [batches[place] for place in generator.permutation(len(batches))]
