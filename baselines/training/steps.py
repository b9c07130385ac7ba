"""Training for a bounded number of steps, whatever the size of the training split."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from baselines.training.recipe import Schedule
from harness.data.dataset import Split

PARTS = 10
"""Largest number of epochs of a bounded training; after each it is scored and its state saved."""

SEED = 1
"""Seed of the order of rows, the same for all learning rates and seeds for a fair comparison."""


class BoundedTraining(NamedTuple):
    """Rows and schedule of a training with a bounded number of steps."""

    parts: tuple[Split, ...]
    """The rows of each epoch."""
    rows: Split
    """All rows that are used, each once."""
    schedule: Schedule


def limit_steps(rows: Split, schedule: Schedule, steps: int | None) -> BoundedTraining:
    """Return the rows and the schedule of a training of exactly this many optimiser steps.

    The rows are used in one random permutation after another, in up to `PARTS` equal epochs.
    Without `steps`, every epoch of the schedule uses all rows.
    """
    if steps is None:
        return BoundedTraining((rows,) * schedule.epochs, rows, schedule)
    taken = steps * schedule.batch_size
    random = np.random.default_rng([SEED, len(rows)])
    passes = math.ceil(taken / len(rows))
    order = np.concatenate([random.permutation(len(rows)) for _ in range(passes)])[:taken]
    count = max(part for part in range(1, PARTS + 1) if steps % part == 0)
    parts = tuple(rows.rows(part) for part in np.split(order, count))
    return BoundedTraining(parts, rows.rows(np.unique(order)), replace(schedule, epochs=count))
