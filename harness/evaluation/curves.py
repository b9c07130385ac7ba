"""Trace + costs -> operating points, by arithmetic alone: no model, no torch, no data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.evaluation.metrics import scores
from harness.evaluation.policies import Policy, exit_scores
from harness.evaluation.trace import Trace, predictions
from harness.records import Costs

Array = NDArray[np.float64]

CURVE_POINTS = 50
"""Quantiles of the exit scores on `selection` that a curve is drawn through."""


@dataclass(frozen=True)
class Curve:
    """Operating points of one policy on one trace, one per threshold [k]."""

    thresholds: Array
    """[k] in the policy's unit."""
    scores: dict[str, Array]
    """Metric -> [k]."""
    macs: Array
    """[k] mean MACs per row at its real length, exits on the way included."""
    layers: Array
    """[k] mean layers run."""
    left: NDArray[np.int64]
    """[k, e] rows that left at each exit."""


def exit_macs(costs: Costs, trace: Trace) -> Array:
    """[e, n] MACs of each row if it leaves at each exit, at its real length, exits on the way included."""
    return np.stack(
        [costs.path(int(layer) - 1, trace.lengths) for layer in trace.exit_layers]
    ).astype(np.float64)


def thresholds_from(policy: Policy, selection: Trace, points: int = CURVE_POINTS) -> Array:
    """The policy's grid of thresholds for the scores that the selection rows reach."""
    _needs_exits(selection)
    return policy.grid(exit_scores(policy, selection.logits), points)


def leaving(policy: Policy, logits: NDArray[np.float32], thresholds: Array) -> NDArray[np.int64]:
    """[k, n] index of the exit at which each row leaves, for each threshold."""
    cuts = np.array([policy.score_threshold(float(threshold)) for threshold in thresholds])
    surest = np.maximum.accumulate(exit_scores(policy, logits), axis=0)
    return (surest[None] <= cuts[:, None, None]).sum(1)


def sweep(
    policy: Policy, trace: Trace, costs: Costs, metrics: tuple[str, ...], thresholds: Array
) -> Curve:
    """The curve of a policy: every threshold scored and charged on every row of the trace."""
    _needs_exits(trace)
    exits = leaving(policy, trace.logits, thresholds)
    rows = np.arange(len(trace.ids))
    answers = predictions(trace.logits)[exits, rows]
    return Curve(
        thresholds=thresholds,
        scores=scores(metrics, answers.astype(np.float64), trace.labels),
        macs=exit_macs(costs, trace)[exits, rows].mean(-1),
        layers=trace.exit_layers[exits].mean(-1),
        left=(exits[:, :, None] == np.arange(len(trace.exit_layers))).sum(1),
    )


def best_thresholds(
    policy: Policy,
    trace: Trace,
    prices: Array,
    metric: str,
    thresholds: Array,
    budgets: Sequence[float],
) -> list[float | None]:
    """For each budget the threshold with the best score among those whose mean price on `trace` stays within it, of equals the cheapest;
    None when no threshold does.

    `prices` [e, n]: what each row costs if it leaves at each exit. To be called with the calibration trace, so that dev only scores.
    """
    exits, rows = leaving(policy, trace.logits, thresholds), np.arange(len(trace.ids))
    paid = prices[exits, rows].mean(-1)
    reached = scores(
        (metric,), predictions(trace.logits)[exits, rows].astype(np.float64), trace.labels
    )[metric]
    order = np.lexsort((paid, -reached))
    affordable = [order[paid[order] <= budget] for budget in budgets]
    return [float(thresholds[places[0]]) if len(places) else None for places in affordable]


def _needs_exits(trace: Trace) -> None:
    if len(trace.exit_layers) < 2:
        raise HarnessError(
            "a policy needs a model with at least two exits; this one has a single exit"
        )
