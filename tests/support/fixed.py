"""One small fixed run, for pinned figures that must not change."""

import numpy as np

from harness.data.dataset import Split, TaskData, Tokens
from harness.data.tasks import Task
from harness.models.backbones import Backbone
from harness.models.shapes import bert_shape

FIXED = Backbone(
    "fixed",
    bert_shape(3, 32, 4, 64, vocabulary=30, positions=16),
    "mean",
    "random",
    "none",
    (1e-3,),
)


def fixed_data() -> TaskData:
    """Return examples labelled by the parity of their length, made by arithmetic alone."""
    task = Task("fixed", ("even", "odd"), ("0", "1"), ("accuracy",), None)
    parts = [_fixed_rows(count, first) for count, first in ((40, 0), (16, 1), (4, 2), (4, 3))]
    return TaskData(task, *parts, "fixed", "fixed", max_length=16)


def _fixed_rows(count: int, first: int) -> Split:
    lengths = [4 + (7 * row + first) % 9 for row in range(count)]
    ids = tuple(
        ((np.arange(length) * (row + 3) + first) % 30).astype(np.int32)
        for row, length in enumerate(lengths)
    )
    labels = np.array([length % 2 for length in lengths], dtype=np.float64)
    return Split(
        np.arange(count),
        (("a text",),) * count,
        labels,
        Tokens(ids, tuple(np.zeros_like(row) for row in ids), 0),
    )
