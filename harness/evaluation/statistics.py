"""Means over seeds, and bootstrap intervals over examples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.evaluation.metrics import METRICS, Array


@dataclass(frozen=True)
class Mean:
    """A figure over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation; None for one seed."""
    count: int


def mean(values: Iterable[float]) -> Mean:
    """Mean and sample standard deviation over seeds."""
    array = np.array(list(values), dtype=np.float64)
    return Mean(
        float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array)
    )


RESAMPLES = 2_000
"""Of a bootstrap."""


def bootstrap(
    metric: str, pairs: Sequence[tuple[Array, Array]], labels: Array, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % interval of new - old, averaged over the pairs (old [n], new [n]), over resamples of the rows, the same rows for all (Efron
    and Tibshirani, 1993, section 13.3)."""
    rows = np.random.default_rng(0).integers(len(labels), size=(resamples, len(labels)))
    formula, drawn = METRICS[metric], labels[rows]
    gains = sum(formula(new[rows], drawn) - formula(old[rows], drawn) for old, new in pairs) / len(
        pairs
    )
    low, high = np.quantile(gains, (0.025, 0.975))
    return float(low), float(high)
