"""GLUE's metrics on arrays of predictions [..., n] against labels [n].

One formula serves a run, a whole curve and a bootstrap. Each is equal to scikit-learn's or scipy's to 1e-12 (tests).
A constant prediction scores 0 where the formula is undefined, as scikit-learn does for Matthews' coefficient.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Metric = Callable[[Array, Array], Array]


def _ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, 0 where the denominator is 0."""
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), 0.0)


def accuracy(predictions: Array, labels: Array) -> Array:
    """Share of equal class indices: [..., n], [n] -> [...]."""
    return (predictions == labels).mean(-1)


def f1(predictions: Array, labels: Array) -> Array:
    """F1 of class 1: [..., n], [n] -> [...]."""
    both = ((predictions == 1) & (labels == 1)).sum(-1)
    return _ratio(2.0 * both, (predictions == 1).sum(-1) + (labels == 1).sum(-1) + 0.0)


def matthews(predictions: Array, labels: Array) -> Array:
    """Matthews' correlation of two classes 0 and 1, which is their Pearson correlation: [..., n], [n] -> [...]."""
    return pearson((predictions == 1) + 0.0, (labels == 1) + 0.0)


def pearson(predictions: Array, labels: Array) -> Array:
    """Pearson's correlation: [..., n], [n] -> [...]."""
    x = predictions.astype(np.float64) - predictions.mean(-1, keepdims=True, dtype=np.float64)
    y = labels.astype(np.float64) - labels.mean(-1, keepdims=True, dtype=np.float64)
    x_square, y_square = (x * x).sum(-1), (y * y).sum(-1)
    varies = np.ptp(predictions, -1) > 0
    return np.where(varies, _ratio((x * y).sum(-1), np.sqrt(x_square * y_square)), 0.0)


def spearman(predictions: Array, labels: Array) -> Array:
    """Spearman's correlation, ties at their average rank: [..., n], [n] -> [...]."""
    return pearson(ranks(predictions), ranks(labels))


def ranks(values: Array) -> Array:
    """Ranks from 1 along the last axis, ties at their average rank: [..., n] -> [..., n].

    They are scipy.stats.rankdata's to the bit; to import that takes longer than a report.
    """
    order = values.argsort(-1)
    ordered = np.take_along_axis(values, order, -1)
    new = np.ones(values.shape, dtype=np.bool_)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    starts = np.flatnonzero(new)
    counts = np.diff(starts, append=values.size)
    averages = starts % values.shape[-1] + (counts + 1) / 2
    found = np.empty(values.shape)
    np.put_along_axis(found, order, np.repeat(averages, counts).reshape(values.shape), -1)
    return found


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def scores(names: tuple[str, ...], predictions: Array, labels: Array) -> dict[str, Array]:
    """Metric name -> scores [...] of predictions [..., n] against labels [n]."""
    return {name: METRICS[name](predictions, labels) for name in names}
