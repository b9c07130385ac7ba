"""Operating points of exit policies, computed from a trace and the MACs of the model's pieces.

Neither the model nor the data is needed.
"""

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
"""Default number of quantiles of the exit scores on `selection` used as thresholds of a curve."""


@dataclass(frozen=True)
class Curve:
    """Operating points of one policy on one trace: one for each of k thresholds."""

    thresholds: Array
    """[k], in the policy's unit."""
    scores: dict[str, Array]
    """Metric -> scores [k]."""
    macs: Array
    """[k] mean MACs per example at its real length, including earlier exits."""
    layers: Array
    """[k] mean number of layers run."""
    left: NDArray[np.int64]
    """[k, e] number of examples that took each exit."""


def exit_macs(costs: Costs, trace: Trace) -> Array:
    """Return the MACs [e, n] that each example costs if it takes a given exit.

    They are counted at the example's real length and include earlier exits.
    """
    return np.stack(
        [costs.path(int(layer) - 1, trace.lengths) for layer in trace.exit_layers]
    ).astype(np.float64)


def thresholds_from(policy: Policy, selection: Trace, points: int = CURVE_POINTS) -> Array:
    """Return the policy's grid of thresholds [k] for the exit scores on the selection split."""
    _check_exit_count(selection)
    return policy.grid(exit_scores(policy, selection.logits), points)


def exit_indices(
    policy: Policy, logits: NDArray[np.float32], thresholds: Array
) -> NDArray[np.int64]:
    """Return the index [k, n] of the exit that each example takes, for each threshold."""
    score_thresholds = np.array([policy.score_threshold(float(value)) for value in thresholds])
    highest = np.maximum.accumulate(exit_scores(policy, logits), axis=0)
    return (highest[None] <= score_thresholds[:, None, None]).sum(1)


def sweep(
    policy: Policy, trace: Trace, costs: Costs, metrics: tuple[str, ...], thresholds: Array
) -> Curve:
    """Return the curve of a policy: scores and MACs over the whole trace for every threshold."""
    _check_exit_count(trace)
    exits = exit_indices(policy, trace.logits, thresholds)
    examples = np.arange(len(trace.ids))
    predicted = predictions(trace.logits)[exits, examples]
    return Curve(
        thresholds=thresholds,
        scores=scores(metrics, predicted.astype(np.float64), trace.labels),
        macs=exit_macs(costs, trace)[exits, examples].mean(-1),
        layers=trace.exit_layers[exits].mean(-1),
        left=(exits[:, :, None] == np.arange(len(trace.exit_layers))).sum(1),
    )


def best_thresholds(
    policy: Policy,
    trace: Trace,
    example_costs: Array,
    metric: str,
    thresholds: Array,
    budgets: Sequence[float],
) -> list[float | None]:
    """Return for each budget the threshold with the best score whose mean cost is within it.

    Among thresholds with equal scores, the cheapest is chosen; None means that no threshold is
    within the budget. `example_costs` [e, n] holds the cost of each example if it takes a given
    exit. The trace should be that of the calibration split, because dev is used only for scoring.
    """
    exits, examples = exit_indices(policy, trace.logits, thresholds), np.arange(len(trace.ids))
    mean_costs = example_costs[exits, examples].mean(-1)
    reached = scores(
        (metric,), predictions(trace.logits)[exits, examples].astype(np.float64), trace.labels
    )[metric]
    order = np.lexsort((mean_costs, -reached))
    affordable = [order[mean_costs[order] <= budget] for budget in budgets]
    return [float(thresholds[indices[0]]) if len(indices) else None for indices in affordable]


def _check_exit_count(trace: Trace) -> None:
    if len(trace.exit_layers) < 2:
        raise HarnessError(
            "this model has a single exit; an exit policy needs a model with at least two"
        )
