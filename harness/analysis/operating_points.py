"""Operating points: the scores and costs of a policy at one threshold, or of the last exit."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data.custom_tasks import task_of
from harness.errors import HarnessError
from harness.evaluation.curves import (
    best_thresholds,
    exit_indices,
    exit_macs,
    sweep,
    thresholds_from,
)
from harness.evaluation.metrics import scores
from harness.evaluation.policies import Policy, Rule, make_policy
from harness.evaluation.trace import Trace
from harness.records import RunRecord
from harness.store.results import ResultsStore

DEFAULT_BUDGET_SHARE = 0.5
"""Default budget for choosing a threshold, as a share of the full model's MACs."""


def exit_rule(
    store: ResultsStore,
    record: RunRecord,
    policy: str | None,
    threshold: float | None,
    share: float | None,
) -> Rule:
    """Return the exit rule for a run.

    Without `policy`, it is the method's policy. Without `threshold`, it is the threshold with the
    best score on calibration among those whose mean MACs there stay within `share` of the full
    model's MACs.

    Raises: HarnessError for a policy, threshold or share of a model with a single exit, for both a
    threshold and a share, or for a share that is too small.
    """
    if threshold is not None and share is not None:
        raise HarnessError(
            f"--threshold {threshold:g} and --budget-share {share:g}: give only one of them"
        )
    if record.policy is None:
        if policy is not None or threshold is not None or share is not None:
            raise HarnessError(
                f"run {record.short_id} ({record.spec.method}) has a single exit: "
                "give no --policy, --threshold or --budget-share"
            )
        return Rule(tolerance=record.tolerance)
    name = policy or record.policy
    task = task_of(record)
    exit_policy = make_policy(record, task.classes, policy)
    if threshold is None:
        budget = f"{DEFAULT_BUDGET_SHARE if share is None else share:g} x the full model's MACs"
        found = chosen_thresholds(
            store,
            record,
            exit_policy,
            record,
            {budget: DEFAULT_BUDGET_SHARE if share is None else share},
        )
        if budget not in found:
            raise HarnessError(
                f"run {record.short_id}: no threshold of {exit_policy.name} keeps the mean MACs on "
                f"calibration within {budget}: give --budget-share "
                f"{smallest_share(store, record, exit_policy):.3f} or more, or --threshold"
            )
        threshold = found[budget]
    exit_policy.score_threshold(threshold)
    return Rule(name, threshold, record.tolerance)


BUDGETS = {"1": 1.0, "3/4": 0.75, "1/2": 0.5, "3/8": 0.375, "1/4": 0.25, "1/8": 0.125}
"""Budgets at which curves are reported: largest mean MACs on calibration, as a share of the
reference's MACs on the same examples. If the reference has no run, the share is of the method's own
last exit."""

REPORTED_BUDGETS = ("3/4", "1/2", "1/4")
"""Budgets that have rows in the main table."""


def policy_of(record: RunRecord) -> Policy:
    """Return the exit policy of a dynamic method's run."""
    task = task_of(record)
    return make_policy(record, task.classes)


@dataclass(frozen=True)
class OperatingPoint:
    """A policy at one threshold, on the examples of a trace."""

    threshold: float
    exits: NDArray[np.int64]
    """[n] index of the exit that each example takes."""
    predictions: NDArray[np.float64]
    """[n] predicted class index, or value of a regression, at that exit."""
    scores: dict[str, float]
    """Metric of the task -> score."""
    macs: float
    """Mean MACs per example at its real length, including the exits passed on the way."""
    layers: float
    """Mean number of layers per example."""
    counts: tuple[int, ...]
    """Number of examples that take each exit."""

    def cost(self, example_costs: NDArray[np.float64]) -> float:
        """Return the mean cost per example; `example_costs` [e, n] holds the cost of each example
        if it takes each exit."""
        return float(example_costs[self.exits, np.arange(len(self.exits))].mean())


def evaluate(record: RunRecord, trace: Trace, policy: Policy, threshold: float) -> OperatingPoint:
    """Apply the policy to each example of a trace, score the predictions and count the MACs.

    Raises: HarnessError for a threshold outside the policy's range.
    """
    exits = exit_indices(policy, trace.logits, np.array([threshold]))[0]
    predictions = trace.predictions()[exits, np.arange(len(exits))].astype(np.float64)
    return OperatingPoint(
        threshold=threshold,
        exits=exits,
        predictions=predictions,
        scores={
            name: float(score)
            for name, score in scores(task_of(record).metrics, predictions, trace.labels).items()
        },
        macs=float(exit_macs(record.costs, trace)[exits, np.arange(len(exits))].mean()),
        layers=float(trace.exit_layers[exits].mean()),
        counts=tuple(np.bincount(exits, minlength=len(trace.exit_layers)).tolist()),
    )


def chosen_thresholds(
    store: ResultsStore,
    record: RunRecord,
    policy: Policy,
    full: RunRecord,
    shares: Mapping[str, float],
) -> dict[str, float]:
    """Return budget -> threshold with the best score on calibration among those whose mean MACs
    there stay within that share of the full model's. Budgets that no threshold meets are left
    out."""
    calibration, thresholds, full_macs = _on_calibration(store, record, policy, full)
    budgets = [share * full_macs for share in shares.values()]
    metric, example_costs = task_of(record).metrics[0], exit_macs(record.costs, calibration)
    found = zip(
        shares,
        best_thresholds(policy, calibration, example_costs, metric, thresholds, budgets),
        strict=True,
    )
    return {name: threshold for name, threshold in found if threshold is not None}


def smallest_share(store: ResultsStore, record: RunRecord, policy: Policy) -> float:
    """Return the smallest share of the full model's MACs that any threshold reaches on calibration,
    rounded up to three decimals."""
    calibration, thresholds, full_macs = _on_calibration(store, record, policy, record)
    reached = sweep(
        policy, calibration, record.costs, (task_of(record).metrics[0],), thresholds
    ).macs.min()
    return float(np.ceil(1000 * reached / full_macs) / 1000)


def _on_calibration(
    store: ResultsStore, record: RunRecord, policy: Policy, full: RunRecord
) -> tuple[Trace, NDArray[np.float64], float]:
    """Return the calibration trace, the threshold grid found on selection, and the full model's
    mean MACs on the calibration examples."""
    calibration = store.trace(record, "calibration")
    full_macs = float(full.costs.static(len(full.costs.layers) - 1, calibration.lengths).mean())
    return calibration, thresholds_from(policy, store.trace(record, "selection")), full_macs
