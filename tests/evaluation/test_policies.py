"""Exit policies against closed forms, scipy and plain loops."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy
from support.messages import assert_message
from support.synthetic import random_trace

from harness.errors import HarnessError
from harness.evaluation.policies import (
    POLICIES,
    Confidence,
    Entropy,
    Patience,
    Policy,
    Rule,
    exit_scores,
    make_policy,
)

quick = settings(deadline=None, max_examples=60)

LOGITS = arrays(
    np.float32,
    st.tuples(st.just(1), st.integers(1, 5), st.integers(2, 4)),
    elements=st.floats(-60, 60, width=32),
)
"""[1, n, c] of ordinary logits."""


def stacked(values: list[list[list[float]]]) -> NDArray[np.float32]:
    """[e, n, c]."""
    return np.array(values, dtype=np.float32)


def agreements_in_a_row(predictions: list[float], tolerance: float | None) -> int:
    """Count the last predictions that agree with the one before (within the tolerance, if any)."""
    counter = 0
    for before, now in pairwise(predictions):
        agree = now == before if tolerance is None else abs(now - before) < tolerance
        counter = counter + 1 if agree else 0
    return counter


def first_exit_above_threshold(
    policy: Policy, logits: NDArray[np.float32], threshold: float
) -> list[int]:
    exits = []
    for row in range(logits.shape[1]):
        seen = [
            policy.score(logits[: index + 1, row : row + 1])[0] for index in range(len(logits) - 1)
        ]
        exits.append(
            next(
                (
                    index
                    for index, score in enumerate(seen)
                    if score > policy.score_threshold(threshold)
                ),
                len(logits) - 1,
            )
        )
    return exits


@quick
@given(LOGITS)
def test_entropy_equals_scipy(logits: NDArray[np.float32]) -> None:
    """Entropy equals scipy's."""
    expected = entropy(softmax(logits[-1].astype(np.float64), axis=-1), axis=-1)
    np.testing.assert_allclose(-Entropy().score(logits), expected, rtol=0, atol=1e-12)


@quick
@given(LOGITS)
def test_entropy_stays_within_its_bounds(logits: NDArray[np.float32]) -> None:
    """Entropy lies between 0 and the logarithm of the number of classes."""
    values = -Entropy().score(logits)
    assert (values >= 0).all()
    assert (values <= math.log(logits.shape[-1]) + 1e-12).all()


def test_equal_logits_are_least_confident() -> None:
    """Equal logits have the largest entropy and the lowest confidence."""
    logits = stacked([[[5.0] * 3, [-1e4] * 3]])
    np.testing.assert_allclose(Entropy().score(logits), [-math.log(3)] * 2, atol=1e-15)
    np.testing.assert_allclose(Confidence().score(logits), [1 / 3] * 2, atol=1e-15)


@pytest.mark.parametrize("top", [1e4, -1e4, 3e38])
def test_saturated_logits_score_and_exit(top: float) -> None:
    """Examples with saturated logits have finite scores and exit.

    -sum p log p is nan there, and nan < threshold is false, so they would never exit."""
    logits = stacked([[[top, -top], [-top, top], [top, 0.0]]])
    for policy, threshold in ((Entropy(), 1e-9), (Confidence(), 0.999_999)):
        scores = policy.score(logits)
        assert np.isfinite(scores).all()
        assert (scores > policy.score_threshold(threshold)).all()
    np.testing.assert_array_equal(Entropy().score(logits), 0.0)
    np.testing.assert_array_equal(Confidence().score(logits), 1.0)


def test_entropy_falls_far_into_saturation() -> None:
    """More confident logits have lower entropy, far into saturation.

    The logits of two classes differ by a gap; below 1e-15 subtracting large terms gives noise."""
    gaps = np.arange(1.0, 300.0)
    scores = Entropy().score(np.stack([gaps, np.zeros_like(gaps)], axis=-1)[None])
    assert (np.diff(scores) > 0).all()
    closed_form = [
        math.log1p(math.exp(-gap)) + gap * math.exp(-gap) / (1 + math.exp(-gap))
        for gap in gaps[:20]
    ]
    np.testing.assert_allclose(-scores[:20], closed_form, rtol=1e-6)


@quick
@given(LOGITS)
def test_confidence_is_largest_probability(logits: NDArray[np.float32]) -> None:
    """Confidence is the largest probability."""
    expected = softmax(logits[-1].astype(np.float64), axis=-1).max(-1)
    scores = Confidence().score(logits)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)
    assert (scores <= 1).all()


def test_last_exit_alone_decides() -> None:
    """Entropy and confidence depend only on the last exit seen."""
    logits = random_trace(1, (1, 2, 3)).logits
    for policy in (Entropy(), Confidence()):
        np.testing.assert_array_equal(policy.score(logits), policy.score(logits[-1:]))


@pytest.mark.parametrize("classes", [2, 3])
def test_patience_counts_agreements_in_row(classes: int) -> None:
    """Patience counts consecutive agreements."""
    logits = random_trace(2, tuple(range(1, 9)), rows=100, classes=classes).logits
    predictions = logits.argmax(-1)
    for seen in range(1, 9):
        expected = [
            agreements_in_a_row(predictions[:seen, row].tolist(), None) for row in range(100)
        ]
        assert Patience().score(logits[:seen]).tolist() == expected


@pytest.mark.parametrize("tolerance", [0.0625, 0.25, 1.0])
def test_patience_regression_uses_tolerance(tolerance: float) -> None:
    """Patience on a regression counts predictions within the tolerance.

    Values and tolerances are binary fractions, so that some differences equal the tolerance
    exactly; these are not agreements."""
    logits = random_trace(3, tuple(range(1, 9)), rows=100, classes=1).logits
    for seen in range(1, 9):
        expected = [
            agreements_in_a_row(logits[:seen, row, 0].tolist(), tolerance) for row in range(100)
        ]
        assert Patience(tolerance).score(logits[:seen]).tolist() == expected


def test_slow_drift_agrees_step_wise() -> None:
    """A slow drift on a regression agrees at every step.

    PABEE compares each prediction with the previous one, not with the first."""
    assert Patience(0.5).score(stacked([[[0.0]], [[0.25]], [[0.5]], [[0.75]]])).tolist() == [3]


@pytest.mark.parametrize("patience", [1, 2, 3, 4])
def test_patience_p_needs_p_plus_one(patience: int) -> None:
    """Patience p needs p + 1 equal predictions in a row."""
    predictions = np.random.default_rng(4).integers(0, 2, (6, 200))
    logits = np.stack([1.0 - predictions, 1.0 * predictions], axis=-1).astype(np.float32)
    exits = first_exit_above_threshold(Patience(), logits, patience)
    for row, exit_ in zip(predictions.T.tolist(), exits, strict=True):
        runs = [
            index
            for index in range(patience, 5)
            if len(set(row[index - patience : index + 1])) == 1
        ]
        assert exit_ == min(runs, default=5)


def test_first_exit_agrees_with_nothing() -> None:
    """At the first exit no example has any agreement."""
    assert Patience().score(random_trace(5, (1,)).logits).tolist() == [0.0] * 40


@pytest.mark.parametrize(
    ("name", "threshold"), [("entropy", 0.35), ("confidence", 0.8), ("patience", 2)]
)
def test_exits_do_not_depend_on_batch(name: str, threshold: float) -> None:
    """An example's exit does not depend on its batch.

    The authors' implementations decide for the whole batch: `max` entropy, `all` patience."""
    logits = random_trace(6, (1, 2, 3, 4, 5), rows=60, classes=3).logits
    policy = make_policy(Rule(name), 3)
    batched = exit_scores(policy, logits)
    single = np.concatenate(
        [exit_scores(policy, logits[:, row : row + 1]) for row in range(60)], axis=1
    )
    reversed_ = exit_scores(policy, logits[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(batched, single, rtol=0, atol=1e-14)
    np.testing.assert_allclose(batched, reversed_, rtol=0, atol=1e-14)
    left = (batched > policy.score_threshold(threshold)).any(0)
    assert 0 < left.sum() < 60
    np.testing.assert_array_equal(left, (single > policy.score_threshold(threshold)).any(0))


def test_exit_scores_skip_last_exit() -> None:
    """Exit scores are those of every exit but the last."""
    logits = random_trace(7, (2, 4, 6)).logits
    for policy in (Entropy(), Confidence(), Patience()):
        scores = exit_scores(policy, logits)
        assert scores.shape == (2, 40)
        np.testing.assert_array_equal(scores[0], policy.score(logits[:1]))
        np.testing.assert_array_equal(scores[1], policy.score(logits[:2]))


@pytest.mark.parametrize("name", ["entropy", "confidence"])
def test_probability_policies_refuse_regression(name: str) -> None:
    """Policies that need probabilities refuse regression tasks."""
    with pytest.raises(HarnessError) as caught:
        make_policy(Rule(name), 1)
    assert_message(caught, name, "patience")


def test_patience_takes_given_tolerance() -> None:
    """Patience serves a regression with the tolerance that was given."""
    assert make_policy(Rule("patience", None, 0.25), 1) == Patience(0.25)


def test_unstored_policy_settings_keep_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of a policy is not filled from a record's field of the same name."""

    @dataclass(frozen=True)
    class Slow(Entropy):
        seconds: float = 0.5
        tolerance: float = 1.0

    @dataclass(frozen=True)
    class Settings:
        policy: str = "slow"
        tolerance: float = 0.25
        seconds: float = 97.6

    monkeypatch.setitem(POLICIES, "slow", Slow)
    assert make_policy(Settings(), 2) == Slow(seconds=0.5, tolerance=0.25)


def test_unknown_policy_lists_known_ones() -> None:
    """An unknown policy is named together with the known ones."""
    with pytest.raises(HarnessError) as caught:
        make_policy(Rule("patients"), 2)
    assert_message(caught, "patients", "patience", "confidence", "entropy", "patience")
    assert set(POLICIES) == {"entropy", "confidence", "patience"}


@pytest.mark.parametrize(
    ("policy", "threshold"),
    [
        (Entropy(), -0.001),
        (Confidence(), -0.1),
        (Confidence(), 1.001),
        (Confidence(), math.inf),
        (Patience(), 0),
        (Patience(), -1),
        (Patience(), 1.5),
        (Patience(), math.inf),
        *((policy, math.nan) for policy in (Entropy(), Confidence(), Patience())),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_out_of_range_threshold_is_refused(policy: Policy, threshold: float) -> None:
    """A threshold out of range is refused."""
    with pytest.raises(HarnessError) as caught:
        policy.score_threshold(threshold)
    assert_message(
        caught,
        policy.name,
        threshold,
        *{"entropy": (0,), "confidence": (0, 1), "patience": (1,)}[policy.name],
    )


def test_range_ends_are_allowed_thresholds() -> None:
    """Thresholds at the ends of the range are allowed."""
    logits = random_trace(8, (1,)).logits
    assert not (Entropy().score(logits) > Entropy().score_threshold(0.0)).any()
    assert (Entropy().score(logits) > Entropy().score_threshold(0.7)).all(), "ln 2 = 0.693"
    assert (Confidence().score(logits) > Confidence().score_threshold(0.0)).all()
    assert not (Confidence().score(logits) > Confidence().score_threshold(1.0)).any()
    assert Patience().score_threshold(1) == 0


@pytest.mark.parametrize("name", ["entropy", "confidence", "patience"])
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e4])
def test_grid_spans_early_to_never(name: str, scale: float) -> None:
    """A grid holds valid thresholds, from the earliest exits to no early exit."""
    policy = make_policy(Rule(name), 2)
    scores = exit_scores(policy, random_trace(9, (1, 2, 3, 4)).logits * np.float32(scale))
    score_thresholds = [
        policy.score_threshold(float(threshold)) for threshold in policy.grid(scores, 10)
    ]
    assert score_thresholds == sorted(set(score_thresholds))
    assert len(score_thresholds) <= 12
    assert not (scores > score_thresholds[-1]).any()
    if name == "patience":
        np.testing.assert_array_equal((scores > score_thresholds[0]).any(0), (scores >= 1).any(0))
    else:
        assert (scores > score_thresholds[0]).all()
