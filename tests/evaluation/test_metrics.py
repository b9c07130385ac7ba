"""GLUE's metrics against scikit-learn and scipy."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from harness.evaluation.metrics import (
    METRICS,
    accuracy,
    f1,
    matthews,
    pearson,
    ranks,
    scores,
    spearman,
)
from harness.evaluation.statistics import bootstrap

Array = NDArray[np.float64]

CLASSIFICATION: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": lambda predictions, labels: accuracy_score(labels, predictions),
    "f1": lambda predictions, labels: f1_score(labels, predictions, zero_division=0.0),
    "matthews": lambda predictions, labels: matthews_corrcoef(labels, predictions),
    "macro_f1": lambda predictions, labels: f1_score(
        labels, predictions, average="macro", zero_division=0.0
    ),
}
"""Metric -> scikit-learn's value."""

CORRELATION: dict[str, Callable[[Array, Array], float]] = {
    "pearson": lambda predictions, labels: float(pearsonr(predictions, labels).statistic),
    "spearman": lambda predictions, labels: float(spearmanr(predictions, labels).statistic),
}
"""Metric -> scipy's value."""


def expect(
    name: str, predictions: Array, labels: Array, oracle: Callable[[Array, Array], float]
) -> None:
    with warnings.catch_warnings():
        # For one class or constant input the libraries warn and still return a value.
        warnings.simplefilter("ignore")
        expected = oracle(predictions, labels)
    got = METRICS[name](predictions, labels)
    np.testing.assert_allclose(
        got, np.nan_to_num(expected), rtol=0, atol=1e-12, err_msg=f"{name} {predictions} {labels}"
    )


def test_every_metric_has_independent_oracle() -> None:
    """Every metric has an oracle that is independent of it."""
    assert set(METRICS) == set(CLASSIFICATION) | set(CORRELATION)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classification_scores_equal_scikit_learn(name: str) -> None:
    """Classification scores equal scikit-learn's, also for constant labels and predictions."""
    random = np.random.default_rng(0)
    constant = 0
    for _ in range(60):
        rows = random.integers(1, 30)
        shares = random.choice([0.0, 0.1, 0.5, 0.9, 1.0], size=2)
        predictions, labels = ((random.random(rows) < share).astype(np.float64) for share in shares)
        constant += np.ptp(predictions) == 0 or np.ptp(labels) == 0
        expect(name, predictions, labels, CLASSIFICATION[name])
    assert 10 < constant < 55


@pytest.mark.parametrize("name", ["accuracy", "matthews", "macro_f1"])
def test_many_class_scores_equal_scikit_learn(name: str) -> None:
    """Scores of several classes equal scikit-learn's, also where a class is absent."""
    random = np.random.default_rng(1)
    for _ in range(100):
        classes, rows = random.integers(3, 7), random.integers(1, 40)
        labels = random.integers(0, classes, rows).astype(np.float64)
        right = random.random(rows) < random.random()
        predictions = np.where(right, labels, random.integers(0, classes, rows))
        expect(name, predictions, labels, CLASSIFICATION[name])


@pytest.mark.parametrize("name", CORRELATION)
def test_correlations_equal_scipy(name: str) -> None:
    """Correlations of distinct values equal scipy's."""
    random = np.random.default_rng(2)
    for _ in range(60):
        rows = random.integers(2, 60)
        labels = random.random(rows) * 5
        predictions = (
            random.choice([-1, 0, 0.5, 1]) * labels
            + random.normal(size=rows) * random.choice([1e-3, 1.0, 100.0])
            + 2.5
        )
        expect(name, predictions, labels, CORRELATION[name])


@pytest.mark.parametrize("name", CORRELATION)
def test_correlations_with_ties_equal_scipy(name: str) -> None:
    """Correlations with ties equal scipy's: STS-B's labels are multiples of 1/5."""
    random = np.random.default_rng(3)
    for _ in range(60):
        rows = random.integers(2, 60)
        labels = random.integers(0, 26, rows) / 5
        predictions = np.round(labels + random.normal(size=rows), 1)
        if np.ptp(labels) and np.ptp(predictions):
            expect(name, predictions, labels, CORRELATION[name])


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 10**6),
)
def test_ranks_are_scipys_to_the_bit(
    curves: int, points: int, rows: int, distinct: int, seed: int
) -> None:
    for shape in ((rows,), (points, rows), (curves, points, rows)):
        values = np.random.default_rng(seed).integers(0, distinct, shape) / 7 - 1.0
        assert np.array_equal(ranks(values), rankdata(values, axis=-1))
        assert np.array_equal(
            ranks(values.astype(np.float32)), rankdata(values.astype(np.float32), axis=-1)
        )


@pytest.mark.parametrize("name", CORRELATION)
@pytest.mark.parametrize("value", [0.0, 2.5, 0.1, -1e6, 1 / 3])
def test_constant_prediction_correlates_zero(name: str, value: float) -> None:
    """A constant prediction has correlation 0.

    scipy returns nan there; 0 is scikit-learn's choice for the Matthews correlation."""
    labels = np.random.default_rng(4).random(37)
    assert METRICS[name](np.full(37, value), labels) == 0
    assert abs(METRICS[name](labels, np.full(37, value))) < 1e-12


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 12), st.integers(0, 10**6))
def test_batched_predictions_score_as_single(
    curves: int, points: int, rows: int, seed: int
) -> None:
    """Predictions scored in a batch have the same scores as one by one."""
    random = np.random.default_rng(seed)
    classes = 2 + seed % 2
    predictions = random.integers(0, classes, (curves, points, rows)).astype(np.float64)
    labels = random.integers(0, classes, rows).astype(np.float64)
    for name, metric in METRICS.items():
        batched = metric(predictions, labels)
        assert batched.shape == (curves, points), name
        single = [[float(metric(row, labels)) for row in block] for block in predictions]
        np.testing.assert_allclose(batched, single, rtol=0, atol=1e-15, err_msg=name)
        np.testing.assert_array_equal(metric(predictions[0], labels), batched[0])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_two_class_scores_follow_counts(rows: list[tuple[int, int]]) -> None:
    """Scores of two classes follow from the confusion matrix."""
    predictions, labels = np.array(rows, dtype=np.float64).T
    hits, alarms = rows.count((1, 1)), rows.count((1, 0))
    misses, rejections = rows.count((0, 1)), rows.count((0, 0))
    assert accuracy(predictions, labels) == pytest.approx(
        (hits + rejections) / len(rows), abs=1e-12
    )
    assert f1(predictions, labels) == pytest.approx(
        2 * hits / max(2 * hits + alarms + misses, 1), abs=1e-12
    )
    margins = (hits + alarms) * (hits + misses) * (rejections + alarms) * (rejections + misses)
    expected = (hits * rejections - alarms * misses) / margins**0.5 if margins else 0.0
    assert matthews(predictions, labels) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(8)), st.floats(0.1, 10), st.floats(-10, 10))
def test_correlations_ignore_shift_and_scale(order: list[int], scale: float, shift: float) -> None:
    """Correlations ignore shift and scale, and change sign with the predictions."""
    labels, predictions = np.arange(8.0), np.array(order, dtype=np.float64)
    for correlation in (pearson, spearman):
        expected = float(correlation(predictions, labels))
        assert correlation(scale * predictions + shift, labels) == pytest.approx(
            expected, abs=1e-12
        )
        assert correlation(-predictions, labels) == pytest.approx(-expected, abs=1e-12)
    assert spearman(np.exp(predictions), labels) == pytest.approx(
        float(spearman(predictions, labels)), abs=1e-12
    )


def test_scores_keep_requested_order() -> None:
    """Scores are named and come in the order requested."""
    predictions, labels = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([1.0, 1.0])
    got = scores(("f1", "accuracy"), predictions, labels)
    assert list(got) == ["f1", "accuracy"]
    np.testing.assert_allclose(got["f1"], [2 / 3, 1.0])
    np.testing.assert_allclose(got["accuracy"], [0.5, 1.0])


# --- the interval of a difference


def test_paired_interval_matches_its_mean() -> None:
    """The interval of a paired difference is that of its mean.

    Of 400 examples 40 become wrong and 10 become right: the mean is -0.075, and its standard error
    follows from the values -1, 0 and 1."""
    labels = np.ones(400)
    old, new = np.r_[np.ones(390), np.zeros(10)], np.r_[np.zeros(40), np.ones(360)]
    change = new - old
    error = change.std() / 20
    low, high = bootstrap("accuracy", [(old, new)], labels, 4000)
    assert low == pytest.approx(change.mean() - 1.96 * error, abs=0.004)
    assert high == pytest.approx(change.mean() + 1.96 * error, abs=0.004)


def test_equal_predictions_have_empty_interval() -> None:
    """The interval of equal predictions is empty."""
    values = np.linspace(0, 5, 50)
    assert bootstrap("pearson", [(values, values)], values[::-1].copy(), 100) == (0, 0)
