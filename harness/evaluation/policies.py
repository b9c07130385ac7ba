"""Exit policies: how sure an example is at an exit, from the logits of the exits it has seen.

The same lines run offline on a trace and live in `inference.predict_early`. An example leaves at the first exit whose score
exceeds the cut, else at the last exit; each example decides for itself, whatever its batch (the authors' codes decide for the
whole batch).
"""

import math
from dataclasses import Field, dataclass, fields
from typing import Annotated, ClassVar, Protocol

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from harness.errors import HarnessError, unknown
from harness.evaluation.trace import Floats, predictions

Array = NDArray[np.float64]


class Policy(Protocol):
    """A rule for leaving. Thresholds are in the policy's own unit; cuts and scores grow with sureness."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    name: ClassVar[str]
    unit: ClassVar[str]
    regression: ClassVar[bool]
    """Whether the policy can serve a task with one output."""

    def score(self, seen: Floats) -> Array:
        """Sureness [n] at the last of the exits seen [e', n, c]."""
        ...

    def score_threshold(self, threshold: float) -> float:
        """The bound that a score must exceed, for a threshold in the policy's unit.

        Raises: HarnessError for a threshold outside the policy's range.
        """
        ...

    def grid(self, scores: Array, points: int) -> Array:
        """Thresholds [k], from leaving as early as the policy can to never leaving early, for scores seen on selection."""
        ...


def _shifted(logits: Floats) -> tuple[Array, Array]:
    """Logits z [n, c] less their maximum, and exp(z). Plain numpy: this runs at every exit of a live model (scipy's takes 0.2 ms)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    return shifted, np.exp(shifted)


def _quantile_cuts(scores: Array, points: int) -> Array:
    """Distinct quantiles of the scores but the largest (equal steps leave holes), with one just below them all in front."""
    quantiles = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, points), method="lower"))
    return np.concatenate([[np.nextafter(quantiles[0], -np.inf)], quantiles[:-1]])


@dataclass(frozen=True)
class Entropy:
    """Leave when the entropy of the softmax is below the threshold (Xin et al., ACL 2020, section 3.2)."""

    name: ClassVar[str] = "entropy"
    unit: ClassVar[str] = "nats"
    regression: ClassVar[bool] = False

    def score(self, seen: Floats) -> Array:
        """Minus the entropy: H = log sum exp z - sum p z, finite for saturated logits (-sum p log p is not)."""
        logits, weights = _shifted(seen[-1])
        total = weights.sum(-1)
        return -np.maximum(np.log(total) - (weights * logits).sum(-1) / total, 0.0)

    def score_threshold(self, threshold: float) -> float:
        """Minus the entropy in nats; from 0 (nobody leaves early) upwards (above ln c everybody does)."""
        if not 0 <= threshold < np.inf:
            raise HarnessError(
                f"entropy threshold {threshold} is not in range: 0 or more nats (ln 2 = 0.693)"
            )
        return -threshold

    def grid(self, scores: Array, points: int) -> Array:
        """Entropies at quantiles of those seen, then 0."""
        return np.append(-_quantile_cuts(scores, points), 0.0)


@dataclass(frozen=True)
class Confidence:
    """Leave when the largest probability exceeds the threshold."""

    name: ClassVar[str] = "confidence"
    unit: ClassVar[str] = "probability"
    regression: ClassVar[bool] = False

    def score(self, seen: Floats) -> Array:
        """The largest softmax probability."""
        _, weights = _shifted(seen[-1])
        return 1.0 / weights.sum(-1)

    def score_threshold(self, threshold: float) -> float:
        """The probability itself, 0 to 1."""
        if not 0 <= threshold <= 1:
            raise HarnessError(
                f"confidence threshold {threshold} is not in range: a probability, 0 to 1"
            )
        return threshold

    def grid(self, scores: Array, points: int) -> Array:
        """Probabilities at quantiles of those seen, then 1."""
        return np.append(_quantile_cuts(scores, points), 1.0)


@dataclass(frozen=True)
class Patience:
    """Leave after `threshold` agreements in a row, so threshold + 1 equal answers (Zhou et al., NeurIPS 2020, section 3.2).

    Differs from the authors' code: patience 0 is refused (theirs means "run all layers").
    """

    name: ClassVar[str] = "patience"
    unit: ClassVar[str] = "agreements"
    regression: ClassVar[bool] = True
    tolerance: float = 0.1
    """Regression only: answers agree when they differ by less than this, in label units."""

    def score(self, seen: Floats) -> Array:
        """Agreements in a row up to the last exit seen."""
        answers = predictions(seen)
        change = np.abs(np.diff(answers, axis=0))
        agree = change < self.tolerance if seen.shape[-1] == 1 else change == 0
        return np.cumprod(agree[::-1], axis=0).sum(0).astype(np.float64)

    def score_threshold(self, threshold: float) -> float:
        """A whole number of agreements, 1 or more: the counter must exceed threshold - 1."""
        if not (threshold >= 1 and float(threshold).is_integer()):
            raise HarnessError(
                f"patience {threshold} is not in range: a whole number of agreements, 1 or more"
            )
        return threshold - 1

    def grid(self, scores: Array, points: int) -> Array:
        """1 agreement, 2, ... up to one more than any row reached: nobody leaves early."""
        return np.arange(1.0, scores.max() + 2.0)


POLICIES: dict[str, type[Policy]] = {
    "entropy": Entropy,
    "confidence": Confidence,
    "patience": Patience,
}


class PolicySettings(Protocol):
    """A method, a record, an exported rule or a timing job: each names a policy and holds the values of its settings."""

    @property
    def policy(self) -> str | None:
        """The name of the policy; None for a model with one exit."""
        ...

    @property
    def tolerance(self) -> float:
        """The setting of `Patience`."""
        ...


def make_policy(settings: PolicySettings, classes: int | None, name: str | None = None) -> Policy:
    """Build the exit policy that `settings` names, or the one called `name`, for a task with so many outputs (1 is a regression;
    None where the caller has checked it).

    A field of the policy takes the value of the field of that name in `settings`, and keeps its default where there is none.
    Raises: HarnessError for an unknown name, or for a policy that cannot serve a regression task.
    """
    name = settings.policy if name is None else name
    assert name is not None, "a model with one exit has no policy"
    if name not in POLICIES:
        raise unknown("policy", name, POLICIES)
    kind = POLICIES[name]
    policy = kind(
        **{
            field.name: getattr(settings, field.name)
            for field in fields(kind)
            if hasattr(settings, field.name)
        }
    )
    if classes == 1 and not policy.regression:
        raise HarnessError(
            f"policy {name} needs class probabilities and the task is a regression: use patience"
        )
    return policy


def exit_scores(policy: Policy, logits: Floats) -> Array:
    """Scores [e - 1, n] at every exit but the last, from the logits [e, n, c] of all."""
    return np.stack([policy.score(logits[: seen + 1]) for seen in range(len(logits) - 1)])


@dataclass(frozen=True)
class Rule:
    """When rows leave."""

    policy: str | None = None
    """None: at the last exit, and the others do not run."""
    threshold: float | None = None
    """In the policy's unit."""
    tolerance: Annotated[float, Gt(0)] = 0.1
    """Of patience on a regression, in label units."""

    def ready(self, classes: int) -> tuple[Policy, float]:
        """The policy, and the cut that its score must exceed.

        Raises: HarnessError for a policy that there is not or that cannot serve the task, or a threshold out of its range.
        """
        if self.policy is None:
            return Entropy(), math.inf  # is never asked: the model has its last exit alone
        if self.threshold is None:
            raise HarnessError(f"policy {self.policy} has no threshold: wanted a number")
        policy = make_policy(self, classes)
        return policy, policy.score_threshold(self.threshold)
