"""Training for a bounded number of steps, however many rows there are."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from baselines.training.recipe import Schedule
from harness.data.dataset import Split

PARTS = 10
"""At most so many times is a bounded training scored, and its state kept."""

SEED = 1
"""Of the rows that are drawn: the same for every learning rate and seed, so that these are compared on equal rows."""


class Bounded(NamedTuple):
    """What such a training learns from."""

    parts: tuple[Split, ...]
    """The rows of each epoch."""
    rows: Split
    """All of them, each once."""
    schedule: Schedule


def bounded(rows: Split, schedule: Schedule, steps: int | None) -> Bounded:
    """Exactly so many optimiser steps through the rows in one random order after another, in up to `PARTS` equal epochs; None: the
    schedule's own epochs of all rows."""
    if steps is None:
        return Bounded((rows,) * schedule.epochs, rows, schedule)
    taken = steps * schedule.batch_size
    random = np.random.default_rng([SEED, len(rows)])
    order = np.concatenate([random.permutation(len(rows)) for _ in range(-(-taken // len(rows)))])[
        :taken
    ]
    count = max(part for part in range(1, PARTS + 1) if steps % part == 0)
    parts = tuple(rows.rows(part) for part in np.split(order, count))
    return Bounded(parts, rows.rows(np.unique(order)), replace(schedule, epochs=count))
