"""Curves compared with a slow simulation, example by example and exit by exit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.messages import assert_message
from support.simulation import simulate
from support.synthetic import flat_costs, gap_trace, random_trace, uneven_costs

from harness.errors import HarnessError
from harness.evaluation.curves import (
    best_thresholds,
    exit_indices,
    exit_macs,
    sweep,
    thresholds_from,
)
from harness.evaluation.policies import Entropy, Patience, Rule, make_policy
from harness.evaluation.trace import Trace
from harness.records import Costs, Polynomial

TOLERANCE = 0.25

THRESHOLDS = {
    "entropy": [0.0, 0.05, 0.2, 0.4, 0.6, 2.0],
    "confidence": [0.0, 0.55, 0.7, 0.9, 1.0],
    "patience": [1.0, 2.0, 3.0, 7.0],
}


def overconfident_trace(exits: int = 12, rows: int = 500) -> Trace:
    """Return a trace whose two logits differ by about e^1 to e^4.

    Most entropies are far below 1 % of ln 2 already at the first exit."""
    random = np.random.default_rng(0)
    gaps = np.exp(random.normal(2.2, 0.6, (exits, rows)) + 0.02 * np.arange(exits)[:, None])
    logits = np.stack([gaps, np.zeros_like(gaps)], axis=-1).astype(np.float32)
    return Trace(
        np.arange(rows), logits, np.zeros(rows), np.full(rows, 20), np.arange(1, exits + 1)
    )


@pytest.mark.parametrize("exit_layers", [(1, 2, 3, 4), (2, 5), (1, 4, 6)])
@pytest.mark.parametrize("name", ["entropy", "confidence", "patience"])
def test_curve_equals_example_simulation(name: str, exit_layers: tuple[int, ...]) -> None:
    """A curve equals an example-by-example simulation."""
    trace = random_trace(1, exit_layers, rows=60, classes=3)
    costs = uneven_costs(exit_layers, exit_layers[-1])
    thresholds = THRESHOLDS[name]
    curve = sweep(make_policy(Rule(name), 3), trace, costs, ("accuracy",), np.array(thresholds))
    for index, threshold in enumerate(thresholds):
        rows = simulate(name, trace, costs, threshold)
        right = [
            row.prediction == label for row, label in zip(rows, trace.labels.tolist(), strict=True)
        ]
        assert curve.scores["accuracy"][index] == pytest.approx(sum(right) / 60, abs=1e-12)
        assert curve.macs[index] == pytest.approx(sum(row.macs for row in rows) / 60, rel=1e-12)
        assert curve.layers[index] == pytest.approx(sum(row.layers for row in rows) / 60, rel=1e-12)
        assert curve.left[index].tolist() == [
            sum(row.exit == exit_ for row in rows) for exit_ in range(len(exit_layers))
        ]
    assert len(np.unique(curve.layers)) >= min(len(exit_layers) - 1, 2), (
        "the thresholds have different effects"
    )


def test_regression_curve_equals_simulation() -> None:
    """A regression curve with patience equals an example-by-example simulation."""
    exit_layers = (1, 2, 3, 4, 6)
    trace = random_trace(2, exit_layers, rows=60, classes=1)
    costs = uneven_costs(exit_layers, 6)
    curve = sweep(
        Patience(TOLERANCE), trace, costs, ("pearson", "spearman"), np.array([1.0, 2.0, 3.0, 4.0])
    )
    for index, threshold in enumerate(curve.thresholds):
        rows = simulate("patience", trace, costs, threshold, TOLERANCE)
        predicted = [row.prediction for row in rows]
        assert curve.scores["pearson"][index] == pytest.approx(
            np.corrcoef(predicted, trace.labels)[0, 1], abs=1e-12
        )
        assert curve.macs[index] == pytest.approx(sum(row.macs for row in rows) / 60, rel=1e-12)
        assert curve.left[index].tolist() == [
            sum(row.exit == exit_ for row in rows) for exit_ in range(5)
        ]
    assert len(np.unique(curve.layers)) > 2


def test_examples_cost_own_length_and_exits() -> None:
    """Each example costs the MACs of its own length and of the exits that it passes.

    The two examples have 1 and 10 tokens, a layer costs 1 MAC per squared token, an exit 1000; the
    short one takes the first exit."""
    piece, exit_piece = Polynomial(0, 0, 1), Polynomial(1000, 0, 0)
    costs = Costs(Polynomial(0, 0, 0), (piece, piece), (exit_piece, exit_piece))
    trace = gap_trace((1, 2), [[0, 0], [0, 0]], [10, 1], [0, 0], length=1)
    trace = Trace(trace.ids, trace.logits, trace.labels, np.array([1, 10]), trace.exit_layers)
    assert exit_macs(costs, trace).tolist() == [[1001, 1100], [2002, 2200]]
    curve = sweep(Entropy(), trace, costs, ("accuracy",), np.array([0.1]))
    assert curve.left.tolist() == [[1, 1]]
    assert curve.macs.tolist() == [(1001 + 2200) / 2]
    assert curve.layers.tolist() == [1.5]


@pytest.mark.parametrize("name", ["entropy", "confidence", "patience"])
def test_looser_threshold_never_exits_later(name: str) -> None:
    """A looser threshold never makes an example exit later."""
    trace = random_trace(3, (1, 2, 3, 4, 5), rows=80)
    policy = make_policy(Rule(name), 2)
    thresholds = thresholds_from(policy, trace)
    exits = exit_indices(policy, trace.logits, thresholds)
    assert (np.diff(exits, axis=0) >= 0).all()


@pytest.mark.parametrize("name", ["entropy", "confidence"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
def test_grid_spans_all_early_to_none(name: str, scale: float) -> None:
    """The grid runs from all examples at the first exit to no early exit."""
    trace = random_trace(4, (1, 2, 3))
    trace = Trace(
        trace.ids, trace.logits * np.float32(scale), trace.labels, trace.lengths, trace.exit_layers
    )
    policy = make_policy(Rule(name), 2)
    thresholds = thresholds_from(policy, trace)
    curve = sweep(policy, trace, flat_costs((1, 2, 3), 3), ("accuracy",), thresholds)
    assert curve.left[0].tolist() == [40, 0, 0]
    assert curve.left[-1].tolist() == [0, 0, 40]
    others = np.abs(trace.logits) * [-100, 100]
    other = Trace(
        trace.ids, others.astype(np.float32), trace.labels, trace.lengths, trace.exit_layers
    )
    assert (exit_indices(policy, other.logits, thresholds[-1:]) == 2).all(), (
        "not even more confident examples exit early"
    )


def test_patience_grid_starts_at_one_agreement() -> None:
    """The grid of patience runs from one agreement to no early exit."""
    trace = random_trace(5, (1, 2, 3, 4))
    thresholds = thresholds_from(Patience(), trace)
    curve = sweep(Patience(), trace, flat_costs((1, 2, 3, 4)), ("accuracy",), thresholds)
    predicted = trace.logits.argmax(-1)
    assert thresholds.tolist() == list(range(1, len(thresholds) + 1))
    assert curve.left[0, 0] == 0
    assert curve.left[0, 1] == (predicted[0] == predicted[1]).sum()
    assert curve.left[-1].tolist() == [0, 0, 0, 40]


def test_quantile_grid_leaves_no_gap() -> None:
    """Quantiles leave no gap on an overconfident trace, where equal steps do.

    With 12 exits and 50 thresholds, one equal step of entropy skips most layers, but no step of
    quantiles skips much more than one."""
    trace, costs = overconfident_trace(), flat_costs(range(1, 13), 12)
    quantiles = sweep(Entropy(), trace, costs, ("accuracy",), thresholds_from(Entropy(), trace, 50))
    equal = sweep(Entropy(), trace, costs, ("accuracy",), np.linspace(0, math.log(2), 50))
    assert np.abs(np.diff(equal.layers)).max() > 8
    assert np.abs(np.diff(quantiles.layers)).max() < 1.5


def test_thresholds_are_reached_entropies() -> None:
    """The thresholds are the entropies of the examples.

    For 2 exits and 3 examples they are one above the largest entropy, all entropies but the
    smallest, and 0."""
    gaps = np.array([0.5, 1.0, 4.0])
    trace = gap_trace((1, 2), [[0, 0, 0], [0, 0, 0]], gaps.tolist(), [0, 0, 0], 10)
    entropies = np.log1p(np.exp(-gaps)) + gaps * np.exp(-gaps) / (1 + np.exp(-gaps))
    thresholds = thresholds_from(Entropy(), trace)
    np.testing.assert_allclose(
        thresholds, [entropies[0], entropies[0], entropies[1], 0.0], rtol=1e-12
    )
    assert thresholds[0] > thresholds[1]


def best_within(
    trace: Trace, costs: Costs, thresholds: NDArray[np.float64], budget: float
) -> float | None:
    """Return the entropy threshold with the best accuracy within one budget of MACs."""
    return best_thresholds(
        Entropy(), trace, exit_macs(costs, trace), "accuracy", thresholds, [budget]
    )[0]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.2, 1.2))
def test_budget_threshold_is_best_affordable(seed: int, share: float) -> None:
    """The threshold for a budget is the best one within it."""
    exit_layers, thresholds = (1, 2, 4), np.linspace(0.0013, 0.69, 8)
    trace, costs = random_trace(seed, exit_layers, rows=12), uneven_costs(exit_layers, 4)
    budget = share * float(costs.static(3, trace.lengths).mean())
    affordable = {}
    for threshold in thresholds.tolist():
        rows = simulate("entropy", trace, costs, threshold)
        errors = sum(
            row.prediction != label for row, label in zip(rows, trace.labels.tolist(), strict=True)
        )
        macs = sum(row.macs for row in rows) / 12
        if macs <= budget:
            affordable[threshold] = (errors, macs)
    found = best_within(trace, costs, thresholds, budget)
    assert (None if found is None else affordable[found]) == min(affordable.values(), default=None)


def test_no_threshold_fits_tiny_budget() -> None:
    """No threshold fits a budget below the first exit."""
    trace, costs = random_trace(6, (2, 4)), flat_costs((2, 4))
    thresholds = thresholds_from(Entropy(), trace)
    first_exit = float(costs.static(1, trace.lengths).mean())
    assert best_within(trace, costs, thresholds, first_exit - 1) is None
    assert best_within(trace, costs, thresholds, first_exit) == thresholds[0]


def test_cheaper_of_equal_thresholds_wins() -> None:
    """The cheaper of two thresholds with the best score is chosen.

    All predictions are correct at every exit, so the best threshold saves the most."""
    trace = gap_trace((1, 4), [[0, 1, 1]] * 2, [1, 2, 3], [0, 1, 1], 10)
    thresholds = np.array([0.0, 0.1, 0.5, 1.0])
    assert best_within(trace, flat_costs((1, 4)), thresholds, 1e9) == 1.0
    assert best_within(trace, flat_costs((1, 4)), thresholds[::-1], 1e9) == 1.0


def test_single_exit_has_no_curve() -> None:
    """A model with a single exit has no curve."""
    trace, costs = random_trace(7, (4,)), flat_costs((4,))
    with pytest.raises(HarnessError) as caught:
        thresholds_from(Entropy(), trace)
    assert_message(caught)
    with pytest.raises(HarnessError) as caught:
        sweep(Entropy(), trace, costs, ("accuracy",), np.array([0.5]))
    assert_message(caught)


def test_out_of_range_threshold_is_refused() -> None:
    """A threshold out of range is refused."""
    with pytest.raises(HarnessError) as caught:
        sweep(
            Entropy(),
            random_trace(8, (1, 4)),
            flat_costs((1, 4)),
            ("accuracy",),
            np.array([0.1, -0.5]),
        )
    assert_message(caught, "entropy", -0.5, 0)
