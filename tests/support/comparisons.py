"""Helpers that find a row of a comparison and check means over seeds."""

import pytest

from harness.analysis.comparison import Comparison, Row
from harness.evaluation.statistics import Mean


def row_of(comparison: Comparison, method: str, point: str) -> Row:
    (row,) = [row for row in comparison.rows if (row.method, str(row.point)) == (method, point)]
    return row


def assert_mean(got: Mean | None, *values: float) -> None:
    """Compare with the textbook formulas on the values of the seeds."""
    assert got is not None
    average = sum(values) / len(values)
    assert (got.mean, got.count) == (pytest.approx(average, rel=1e-9), len(values))
    if len(values) == 1:
        assert got.deviation is None
    else:
        deviation = (sum((value - average) ** 2 for value in values) / (len(values) - 1)) ** 0.5
        assert got.deviation == pytest.approx(deviation, abs=1e-9)
