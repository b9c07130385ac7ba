"""Exit policies: an example's confidence at an exit, from the logits of the exits up to it.

The same code runs offline on a trace and live in `inference.predict_early`. An example takes the
first exit whose score exceeds the score threshold, or else the last exit. Each example is decided
independently of its batch; the authors' implementations decide for the whole batch.
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
    """An exit policy.

    Thresholds are in the policy's own unit; scores and score thresholds increase with confidence.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    name: ClassVar[str]
    unit: ClassVar[str]
    regression: ClassVar[bool]
    """True if the policy supports regression tasks (one output)."""

    def score(self, seen: Floats) -> Array:
        """Return the confidence [n] at the last exit seen, from the logits seen [e', n, c]."""
        ...

    def score_threshold(self, threshold: float) -> float:
        """Return the score that must be exceeded, for a threshold in the policy's unit.

        Raises: HarnessError if the threshold is outside the policy's range.
        """
        ...

    def grid(self, scores: Array, points: int) -> Array:
        """Return thresholds [k] for the exit scores on the selection split.

        They range from the earliest exits that the policy allows to no early exit at all.
        """
        ...


def _shifted(logits: Floats) -> tuple[Array, Array]:
    """Return the logits z [n, c] minus their maximum, and exp(z).

    This runs at every exit of a live model, and so avoids scipy, which takes 0.2 ms.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    return shifted, np.exp(shifted)


def _quantile_thresholds(scores: Array, points: int) -> Array:
    """Return distinct quantiles of the scores (equal steps would leave gaps).

    The largest is left out, and a value just below the smallest is put in front.
    """
    quantiles = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, points), method="lower"))
    return np.concatenate([[np.nextafter(quantiles[0], -np.inf)], quantiles[:-1]])


@dataclass(frozen=True)
class Entropy:
    """Exit when the softmax entropy is below the threshold (Xin et al., ACL 2020, section 3.2)."""

    name: ClassVar[str] = "entropy"
    unit: ClassVar[str] = "nats"
    regression: ClassVar[bool] = False

    def score(self, seen: Floats) -> Array:
        """Return the negative entropy, where H = log sum exp z - sum p z.

        This form is finite for saturated logits; -sum p log p is not.
        """
        logits, weights = _shifted(seen[-1])
        total = weights.sum(-1)
        return -np.maximum(np.log(total) - (weights * logits).sum(-1) / total, 0.0)

    def score_threshold(self, threshold: float) -> float:
        """Return the negative threshold in nats.

        At 0 no example exits early; above ln c all examples take the first exit.
        """
        if not 0 <= threshold < np.inf:
            raise HarnessError(
                f"entropy threshold {threshold} is out of range: give 0 or more nats (ln 2 = 0.693)"
            )
        return -threshold

    def grid(self, scores: Array, points: int) -> Array:
        """Return quantiles of the entropies seen, followed by 0."""
        return np.append(-_quantile_thresholds(scores, points), 0.0)


@dataclass(frozen=True)
class Confidence:
    """Exit when the largest softmax probability exceeds the threshold."""

    name: ClassVar[str] = "confidence"
    unit: ClassVar[str] = "probability"
    regression: ClassVar[bool] = False

    def score(self, seen: Floats) -> Array:
        """Return the largest softmax probability."""
        _, weights = _shifted(seen[-1])
        return 1.0 / weights.sum(-1)

    def score_threshold(self, threshold: float) -> float:
        """Return the threshold, a probability from 0 to 1."""
        if not 0 <= threshold <= 1:
            raise HarnessError(
                f"confidence threshold {threshold} is out of range: give a probability from 0 to 1"
            )
        return threshold

    def grid(self, scores: Array, points: int) -> Array:
        """Return quantiles of the probabilities seen, followed by 1."""
        return np.append(_quantile_thresholds(scores, points), 1.0)


@dataclass(frozen=True)
class Patience:
    """Exit after `threshold` consecutive agreements (Zhou et al., NeurIPS 2020, section 3.2).

    That takes threshold + 1 equal predictions in a row. Differs from the authors' code: patience 0,
    which means "run all layers" there, is refused.
    """

    name: ClassVar[str] = "patience"
    unit: ClassVar[str] = "agreements"
    regression: ClassVar[bool] = True
    tolerance: float = 0.1
    """Regression only: predictions that differ by less than this, in label units, agree."""

    def score(self, seen: Floats) -> Array:
        """Return the number of consecutive agreements up to the last exit seen."""
        change = np.abs(np.diff(predictions(seen), axis=0))
        agree = change < self.tolerance if seen.shape[-1] == 1 else change == 0
        return np.cumprod(agree[::-1], axis=0).sum(0).astype(np.float64)

    def score_threshold(self, threshold: float) -> float:
        """Return threshold - 1 for a threshold in agreements, an integer of 1 or more."""
        if not (threshold >= 1 and float(threshold).is_integer()):
            raise HarnessError(
                f"patience {threshold} is out of range: give a whole number of agreements from 1"
            )
        return threshold - 1

    def grid(self, scores: Array, points: int) -> Array:
        """Return 1, 2, ... agreements, up to one more than any example reached (no early exit)."""
        return np.arange(1.0, scores.max() + 2.0)


POLICIES: dict[str, type[Policy]] = {
    "entropy": Entropy,
    "confidence": Confidence,
    "patience": Patience,
}
"""Exit policies by name. A new policy is a class and a row here."""


def known_policies() -> tuple[str, ...]:
    """Return the names of all policies."""
    return tuple(POLICIES)


STORED_SETTINGS = ("tolerance",)
"""Settings of policies that methods, records, exported rules and timing jobs store.

A new one is a name here and a field of the same name in `PolicySettings`, `Rule`, `Method`,
`RunRecord` and `LatencyJob`, filled wherever one of these is built.
"""


class PolicySettings(Protocol):
    """A method, a record, an exported rule or a timing job: it names a policy and its settings."""

    @property
    def policy(self) -> str | None:
        """Name of the policy; None for a model with one exit."""
        ...

    @property
    def tolerance(self) -> float:
        """Setting of `Patience`."""
        ...


def make_policy(settings: PolicySettings, classes: int | None, name: str | None = None) -> Policy:
    """Build the exit policy called `name`, by default the one that `settings` names.

    The fields in `STORED_SETTINGS` take their values from `settings`. Other fields of a policy keep
    their defaults, because records do not store them. `classes` is the number of outputs of the
    task: 1 for regression, None if the caller has already checked that the policy supports it.
    Raises: HarnessError if the name is unknown, or the policy does not support regression.
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
            if field.name in STORED_SETTINGS
        }
    )
    if classes == 1 and not policy.regression:
        raise HarnessError(
            f"policy {name} needs class probabilities, but the task is a regression: use patience"
        )
    return policy


def exit_scores(policy: Policy, logits: Floats) -> Array:
    """Return the scores [e - 1, n] at every exit but the last, from the logits [e, n, c]."""
    return np.stack([policy.score(logits[: seen + 1]) for seen in range(len(logits) - 1)])


@dataclass(frozen=True)
class Rule:
    """Exit rule of a model: a policy with its threshold."""

    policy: str | None = None
    """None if all examples take the last exit and no other exit runs."""
    threshold: float | None = None
    """Threshold in the policy's unit."""
    tolerance: Annotated[float, Gt(0)] = 0.1
    """Setting of patience on a regression task, in label units."""

    def policy_and_score_threshold(self, classes: int) -> tuple[Policy, float]:
        """Return the policy and the score threshold.

        Raises: HarnessError if the policy is unknown or does not support the task, or if the
        threshold is missing or out of range.
        """
        if self.policy is None:
            return Entropy(), math.inf  # never used: only the last exit runs
        if self.threshold is None:
            raise HarnessError(f"policy {self.policy} has no threshold: give a number")
        policy = make_policy(self, classes)
        return policy, policy.score_threshold(self.threshold)
