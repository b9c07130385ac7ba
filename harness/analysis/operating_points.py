"""When rows leave a model that is used, not measured: a policy and its threshold, or the last exit alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data.custom_tasks import task_of
from harness.errors import HarnessError
from harness.evaluation.curves import best_thresholds, exit_macs, leaving, sweep, thresholds_from
from harness.evaluation.metrics import scores
from harness.evaluation.policies import Policy, Rule, make_policy
from harness.evaluation.trace import Trace
from harness.records import RunRecord
from harness.store.results import ResultsStore

BUDGET_SHARE = 0.5
"""Of the run's own full MACs: the budget for which a threshold is chosen where nothing is said."""


def exit_rule(
    store: ResultsStore,
    record: RunRecord,
    policy: str | None,
    threshold: float | None,
    share: float | None,
) -> Rule:
    """The rule for a run. None: the method's own policy; the threshold with the best score on calibration whose mean MACs there stay within
    a share of the run's own full model's.

    Raises: HarnessError for a policy or threshold of a model with one exit, both a threshold and a share, or a share that is too small.
    """
    if threshold is not None and share is not None:
        raise HarnessError(
            f"--threshold {threshold:g} and --budget-share {share:g}: wanted one of them"
        )
    if record.policy is None:
        if policy is not None or threshold is not None or share is not None:
            raise HarnessError(
                f"run {record.run_id} ({record.spec.method}) has a single exit: wanted no --policy, --threshold, --budget-share"
            )
        return Rule(tolerance=record.tolerance)
    name = policy or record.policy
    task = task_of(record)
    chosen = make_policy(record, task.classes, policy)
    if threshold is None:
        budget = f"{BUDGET_SHARE if share is None else share:g} of the full model's MACs"
        found = chosen_thresholds(
            store, record, chosen, record, {budget: BUDGET_SHARE if share is None else share}
        )
        if budget not in found:
            raise HarnessError(
                f"run {record.run_id}: no threshold of {chosen.name} keeps the mean MACs on calibration within {budget}: "
                f"give --budget-share {smallest_share(store, record, chosen):.3f} or more, or --threshold"
            )
        threshold = found[budget]
    chosen.score_threshold(threshold)
    return Rule(name, threshold, record.tolerance)


BUDGETS = {"1": 1.0, "3/4": 0.75, "1/2": 0.5, "3/8": 0.375, "1/4": 0.25, "1/8": 0.125}
"""Named points of a curve: largest mean MACs on calibration, as a share of the reference's on the same rows (of the method's own last
exit where the reference has no run)."""

POINTS = ("3/4", "1/2", "1/4")
"""The budgets that get a row of their own in the main table."""


def policy_of(record: RunRecord) -> Policy:
    """The exit policy of a dynamic run's method."""
    task = task_of(record)
    return make_policy(record, task.classes)


@dataclass(frozen=True)
class OperatingPoint:
    """A policy at one threshold, on the rows of a trace."""

    threshold: float
    exits: NDArray[np.int64]
    """[n] index of the exit at which each row leaves."""
    predictions: NDArray[np.float64]
    """[n] class index, or value of a regression, at that exit."""
    scores: dict[str, float]
    """Metric of the task -> score."""
    macs: float
    """Mean MACs per row at its real length, exits on the way included."""
    layers: float
    """Mean layers per row."""
    counts: tuple[int, ...]
    """Rows that leave at each exit."""

    def cost(self, prices: NDArray[np.float64]) -> float:
        """The mean price per row, where prices [e, n] says what each row costs if it leaves at each exit."""
        return float(prices[self.exits, np.arange(len(self.exits))].mean())


def evaluate(record: RunRecord, trace: Trace, policy: Policy, threshold: float) -> OperatingPoint:
    """Let each row of a trace leave by the policy, score its predictions there and charge its MACs.

    Raises: HarnessError for a threshold outside of the policy's range.
    """
    exits = leaving(policy, trace.logits, np.array([threshold]))[0]
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
    """Budget -> the threshold with the best score on calibration whose mean MACs there stay within that share of the full model's; budgets
    that no threshold fits are left out."""
    calibration, thresholds, full_macs = _on_calibration(store, record, policy, full)
    budgets = [share * full_macs for share in shares.values()]
    metric, prices = task_of(record).metrics[0], exit_macs(record.costs, calibration)
    found = zip(
        shares,
        best_thresholds(policy, calibration, prices, metric, thresholds, budgets),
        strict=True,
    )
    return {name: threshold for name, threshold in found if threshold is not None}


def smallest_share(store: ResultsStore, record: RunRecord, policy: Policy) -> float:
    """The least share of its own full model's MACs that any threshold comes to on calibration, rounded up to three decimals."""
    calibration, thresholds, full_macs = _on_calibration(store, record, policy, record)
    reached = sweep(
        policy, calibration, record.costs, (task_of(record).metrics[0],), thresholds
    ).macs.min()
    return float(np.ceil(1000 * reached / full_macs) / 1000)


def _on_calibration(
    store: ResultsStore, record: RunRecord, policy: Policy, full: RunRecord
) -> tuple[Trace, NDArray[np.float64], float]:
    """The calibration trace, the thresholds of selection's grid, and the full model's mean MACs on these rows."""
    calibration = store.trace(record, "calibration")
    full_macs = float(full.costs.static(len(full.costs.layers) - 1, calibration.lengths).mean())
    return calibration, thresholds_from(policy, store.trace(record, "selection")), full_macs
