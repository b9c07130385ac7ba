"""Batches of examples of similar length, padded."""

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.dataset import Tokens
from harness.models.multi_exit import Batch

BUCKET_BATCHES = 50
"""Number of batches per bucket; shuffled examples are sorted by length within each bucket."""


def collate(tokens: Tokens, indices: NDArray[np.int64]) -> Batch:
    """Return the examples at these indices, padded to the longest of them."""
    lengths = [len(tokens.ids[index]) for index in indices]
    ids = np.zeros((len(indices), max(lengths)), dtype=np.int64)
    types = np.zeros_like(ids)
    for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
        ids[row, :length] = tokens.ids[index]
        types[row, :length] = tokens.types[index]
    mask = np.arange(ids.shape[1]) < np.array(lengths)[:, None]
    return Batch(torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(mask))


def sorted_batches(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Return the indices of all examples in batches, shortest first, for the least padding."""
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def shuffled_batches(
    lengths: NDArray[np.int64], batch_size: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return the indices of all examples in random batches of similar length.

    Examples are shuffled and sorted by length within buckets; then the batches are shuffled.
    """
    order = generator.permutation(len(lengths))
    size = batch_size * BUCKET_BATCHES
    buckets = [order[start : start + size] for start in range(0, len(order), size)]
    batches = []
    for bucket in buckets:
        ordered = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [
            ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)
        ]
    return [batches[index] for index in generator.permutation(len(batches))]
