"""GLUE's metrics on arrays of predictions [..., n] against labels [n].

The same functions score one run, a whole curve or a bootstrap. They agree with scikit-learn and
scipy to 1e-12 (see the tests). Where a formula is undefined for constant predictions the score is
0, as in scikit-learn's Matthews correlation.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Metric = Callable[[Array, Array], Array]


def scores_text(scores: Mapping[str, float]) -> str:
    """Return metrics and their scores as text: `f1 0.812, accuracy 0.731`."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Return numerator / denominator, or 0 where the denominator is 0."""
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), 0.0)


def accuracy(predictions: Array, labels: Array) -> Array:
    """Return the share of correct class indices: [..., n], [n] -> [...]."""
    return (predictions == labels).mean(-1)


def f1(predictions: Array, labels: Array) -> Array:
    """Return the F1 score of class 1: [..., n], [n] -> [...]."""
    both = ((predictions == 1) & (labels == 1)).sum(-1)
    return _ratio(2.0 * both, (predictions == 1).sum(-1) + (labels == 1).sum(-1) + 0.0)


def matthews(predictions: Array, labels: Array) -> Array:
    """Return the Matthews correlation of class indices: [..., n], [n] -> [...].

    For two classes it equals the Pearson correlation of the indices; for more it is the R_K
    statistic (Gorodkin, 2004), as in scikit-learn.
    """
    if max(predictions.max(initial=0), labels.max(initial=0)) <= 1:
        return pearson((predictions == 1) + 0.0, (labels == 1) + 0.0)
    rows = float(predictions.shape[-1])
    both, predicted, true = _class_counts(predictions, labels)
    covariance = rows * both.sum(0) - (predicted * true).sum(0)
    variances = (rows**2 - (predicted**2).sum(0)) * (rows**2 - (true**2).sum(0))
    return np.where(variances > 0, _ratio(np.abs(covariance), np.sqrt(variances)), 0.0) * np.sign(
        covariance
    )


def macro_f1(predictions: Array, labels: Array) -> Array:
    """Return the mean F1 score of the classes that occur: [..., n], [n] -> [...]."""
    both, predicted, true = _class_counts(predictions, labels)
    f1_scores = _ratio(2.0 * both, predicted + true)
    return f1_scores.sum(0) / (predicted + true > 0).sum(0)


def _class_counts(predictions: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Return for each class [k, ...] the examples predicted correctly, predicted, and labelled."""
    classes = range(int(max(predictions.max(initial=0), labels.max(initial=0))) + 1)
    shape = predictions.shape[:-1]
    both = [((predictions == k) & (labels == k)).sum(-1) for k in classes]
    predicted = [(predictions == k).sum(-1) for k in classes]
    true = [np.broadcast_to((labels == k).sum(-1), shape) for k in classes]
    counts = tuple(np.array(count, dtype=np.float64) for count in (both, predicted, true))
    return counts[0], counts[1], counts[2]


def pearson(predictions: Array, labels: Array) -> Array:
    """Return the Pearson correlation: [..., n], [n] -> [...]."""
    x = predictions.astype(np.float64) - predictions.mean(-1, keepdims=True, dtype=np.float64)
    y = labels.astype(np.float64) - labels.mean(-1, keepdims=True, dtype=np.float64)
    x_square, y_square = (x * x).sum(-1), (y * y).sum(-1)
    varies = np.ptp(predictions, -1) > 0
    return np.where(varies, _ratio((x * y).sum(-1), np.sqrt(x_square * y_square)), 0.0)


def spearman(predictions: Array, labels: Array) -> Array:
    """Return the Spearman correlation, ties having their average rank: [..., n], [n] -> [...]."""
    return pearson(ranks(predictions), ranks(labels))


def ranks(values: Array) -> Array:
    """Return ranks from 1 along the last axis: [..., n] -> [..., n].

    Ties have their average rank. The ranks equal those of scipy.stats.rankdata exactly, but
    importing scipy takes longer than a report.
    """
    order = values.argsort(-1)
    ordered = np.take_along_axis(values, order, -1)
    starts_group = np.ones(values.shape, dtype=np.bool_)
    starts_group[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    starts = np.flatnonzero(starts_group)
    counts = np.diff(starts, append=values.size)
    averages = starts % values.shape[-1] + (counts + 1) / 2
    result = np.empty(values.shape)
    np.put_along_axis(result, order, np.repeat(averages, counts).reshape(values.shape), -1)
    return result


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "macro_f1": macro_f1,
}


def scores(names: tuple[str, ...], predictions: Array, labels: Array) -> dict[str, Array]:
    """Return metric name -> scores [...] of predictions [..., n] against labels [n]."""
    return {name: METRICS[name](predictions, labels) for name in names}
