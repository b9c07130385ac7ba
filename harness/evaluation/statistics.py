"""Means over seeds, and bootstrap intervals over examples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.evaluation.metrics import METRICS, Array


@dataclass(frozen=True)
class Mean:
    """Mean of a figure over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation; None for one seed."""
    count: int


def mean(values: Iterable[float]) -> Mean:
    """Return the mean and the sample standard deviation over seeds."""
    array = np.array(list(values), dtype=np.float64)
    return Mean(
        float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None, len(array)
    )


RESAMPLES = 2_000
"""Default number of bootstrap resamples."""


def bootstrap(
    metric: str, pairs: Sequence[tuple[Array, Array]], labels: Array, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of new - old, averaged over pairs (old [n], new [n]).

    Each resample draws the same examples for all pairs (Efron and Tibshirani, 1993, section 13.3).
    """
    examples = np.random.default_rng(0).integers(len(labels), size=(resamples, len(labels)))
    formula, drawn = METRICS[metric], labels[examples]
    total = sum(formula(new[examples], drawn) - formula(old[examples], drawn) for old, new in pairs)
    gains = total / len(pairs)
    low, high = np.quantile(gains, (0.025, 0.975))
    return float(low), float(high)
