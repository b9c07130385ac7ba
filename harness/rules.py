"""When rows leave a model that is used, not measured: a policy and its threshold, or the last exit alone."""

import math
from dataclasses import dataclass

from harness.compare import chosen_thresholds, smallest_share
from harness.errors import HarnessError
from harness.own_tasks import task_of
from harness.policies import Entropy, Policy, make_policy
from harness.records import RunRecord
from harness.store import ResultsStore

BUDGET_SHARE = 0.5
"""Of the run's own full MACs: the budget for which a threshold is chosen where nothing is said."""


@dataclass(frozen=True)
class Rule:
    """When rows leave."""

    policy: str | None = None
    """None: at the last exit, and the others do not run."""
    threshold: float | None = None
    """In the policy's unit."""
    tolerance: float = 0.1
    """Of patience on a regression, in label units."""

    def ready(self, classes: int) -> tuple[Policy, float]:
        """The policy, and the cut that its score must exceed.

        Raises: HarnessError for a policy that there is not or that cannot serve the task, or a threshold out of its range.
        """
        if self.policy is None:
            return Entropy(), math.inf  # is never asked: the model has its last exit alone
        if self.threshold is None or not 0 < self.tolerance < math.inf:
            raise HarnessError(f"policy {self.policy} with threshold {self.threshold} and tolerance {self.tolerance}: wanted numbers")
        policy = make_policy(self.policy, classes, self.tolerance)
        return policy, policy.cut(self.threshold)


def run_rule(store: ResultsStore, record: RunRecord, policy: str | None, threshold: float | None, share: float | None) -> Rule:
    """The rule for a run. None: the method's own policy; the threshold with the best score on calibration whose mean MACs there stay within
    a share of the run's own full model's.

    Raises: HarnessError for a policy or threshold of a model with one exit, both a threshold and a share, or a share that is too small.
    """
    if threshold is not None and share is not None:
        raise HarnessError(f"--threshold {threshold:g} and --budget-share {share:g}: wanted one of them")
    if record.policy is None:
        if policy is not None or threshold is not None or share is not None:
            raise HarnessError(
                f"run {record.run_id} ({record.spec.method}) has a single exit: wanted no --policy, --threshold, --budget-share"
            )
        return Rule(tolerance=record.tolerance)
    name = policy or record.policy
    task = task_of(record)
    chosen = make_policy(name, task.classes, record.tolerance)
    if threshold is None:
        budget = f"{BUDGET_SHARE if share is None else share:g} of the full model's MACs"
        found = chosen_thresholds(store, record, chosen, record, {budget: BUDGET_SHARE if share is None else share})
        if budget not in found:
            raise HarnessError(
                f"run {record.run_id}: no threshold of {chosen.name} keeps the mean MACs on calibration within {budget}: "
                f"give --budget-share {smallest_share(store, record, chosen):.3f} or more, or --threshold"
            )
        threshold = found[budget]
    chosen.cut(threshold)
    return Rule(name, threshold, record.tolerance)
