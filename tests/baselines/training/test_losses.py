"""The losses of exits and of distillation, computed by hand or by torch."""

from math import log

import pytest
import torch

from baselines.training.losses import (
    attention_loss,
    cosine_loss,
    exit_losses,
    hidden_loss,
    soft_losses,
    weighted_sum,
)

QUARTER = [0.0, log(3.0)]
"""Logits of the probabilities 1/4 and 3/4."""


def test_exit_cross_entropy_by_hand() -> None:
    """The cross-entropy of each exit equals a computation by hand."""
    logits = torch.tensor([[QUARTER, QUARTER], [[0.0, 0.0], QUARTER]])
    losses = exit_losses(logits, torch.tensor([1.0, 0.0]), scale=1.0)
    expected = [(-log(3 / 4) + log(4)) / 2, (log(2) + log(4)) / 2]
    assert losses.tolist() == pytest.approx(expected, abs=1e-7)


def test_cross_entropy_ignores_constant_shift() -> None:
    """The cross-entropy of three classes does not change when a constant is added to the logits."""
    logits = torch.tensor([1.0, 2.0, 5.0]).log()
    labels = torch.tensor([2.0])
    for shift in (0.0, 30.0):
        losses = exit_losses((logits + shift).view(1, 1, 3), labels, scale=1.0)
        assert losses.tolist() == pytest.approx([log(8 / 5)], abs=1e-5)


def test_saturated_logits_give_finite_loss() -> None:
    losses = exit_losses(torch.tensor([[[1e4, -1e4]]]), torch.tensor([1.0]), scale=1.0)
    assert losses.tolist() == [2e4]


def test_regression_error_uses_scale_units() -> None:
    """The squared error of a regression is in units of the scale."""
    logits = torch.tensor([[[4.0], [1.0]], [[2.0], [5.0]]])
    losses = exit_losses(logits, torch.tensor([2.0, 1.5]), scale=5.0)
    assert losses.tolist() == pytest.approx([(0.4**2 + 0.1**2) / 2, 0.7**2 / 2], abs=1e-7)


def test_half_precision_is_compared_in_float32() -> None:
    """Half-precision logits are compared in float32."""
    logits = torch.tensor([[[4.0]], [[1.0]]], dtype=torch.bfloat16)
    losses = exit_losses(logits, torch.tensor([0.01]), scale=1.0)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx([3.99**2, 0.99**2], abs=1e-5)


def test_weighted_sum_of_losses() -> None:
    assert weighted_sum(torch.tensor([1.0, 10.0, 100.0]), (0.5, 0.25, 0.0)).item() == 3.0


def test_zero_weight_sends_no_gradient() -> None:
    """A weight of zero sends no gradient to its exit."""
    logits = torch.randn(2, 3, 2, requires_grad=True)
    weighted_sum(exit_losses(logits, torch.tensor([0.0, 1.0, 1.0]), 1.0), (1.0, 0.0)).backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().min() > 0
    assert logits.grad[1].abs().max() == 0


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0)])
def test_wrong_weight_count_is_refused(weights: tuple[float, ...]) -> None:
    """A wrong number of weights is refused."""
    with pytest.raises((RuntimeError, ValueError)):
        weighted_sum(torch.tensor([1.0, 2.0]), weights)


def test_soft_cross_entropy_by_hand() -> None:
    """The soft cross-entropy of each exit equals a computation by hand.

    For a teacher of 1/4, 3/4 and students of 1/2, 1/2 and 1/4, 3/4 it is log 2 and the teacher's
    entropy.
    """
    teacher = torch.tensor([QUARTER])
    losses = soft_losses(torch.tensor([[[0.0, 0.0]], [QUARTER]]), teacher, scale=1.0)
    assert losses.tolist() == pytest.approx([log(2), log(4) / 4 - 3 / 4 * log(3 / 4)], abs=1e-6)


def test_exits_learn_from_matching_exits() -> None:
    """Each exit learns from the same exit of a teacher with equally many."""
    teacher = torch.tensor([[QUARTER], [[0.0, 0.0]]])
    losses = soft_losses(torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]]]), teacher, scale=1.0)
    assert losses.tolist() == pytest.approx([log(2), log(2)], abs=1e-6)
    other = soft_losses(torch.tensor([[QUARTER], [QUARTER]]), teacher, scale=1.0)
    assert other[0] < other[1]


def test_soft_regression_uses_scale_units() -> None:
    """Soft labels of a regression are compared in units of the scale."""
    losses = soft_losses(torch.tensor([[[4.0], [1.0]]]), torch.tensor([[2.0], [1.5]]), scale=5.0)
    assert losses.tolist() == pytest.approx([(0.4**2 + 0.1**2) / 2], abs=1e-7)


def test_teacher_gets_no_gradient() -> None:
    student, teacher = (
        torch.zeros(2, 3, 2, requires_grad=True),
        torch.randn(3, 2, requires_grad=True),
    )
    soft_losses(student, teacher, 1.0).sum().backward()
    hidden_loss(
        [torch.zeros(3, 4, 2, requires_grad=True)],
        [torch.randn(3, 4, 2, requires_grad=True)],
        torch.ones(3, 4, dtype=torch.bool),
    )
    assert student.grad is not None
    assert teacher.grad is None


def test_hidden_loss_by_hand() -> None:
    """The hidden loss ignores padding and gives examples equal weight.

    Example 1 has one real token with differences 1 and 3 (mean square 5), example 2 has two with
    2, 2 and 0, 0 (mean squares 4 and 0, average 2)."""
    student = torch.tensor([[[1.0, 3.0], [100.0, 100.0]], [[2.0, 2.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    one = hidden_loss([student], [torch.zeros_like(student)], mask)
    assert one.item() == pytest.approx((5 + 2) / 2)
    assert hidden_loss(
        [student, student], [torch.zeros_like(student), student], mask
    ).item() == pytest.approx((5 + 2) / 2)


def test_hidden_loss_needs_equal_states() -> None:
    """The hidden loss needs equally many states of student and teacher."""
    state = torch.zeros(1, 1, 2)
    with pytest.raises(ValueError, match="zip"):
        hidden_loss([state], [state, state], torch.ones(1, 1, dtype=torch.bool))


def test_attention_loss_by_hand() -> None:
    """The attention loss ignores padding and gives examples equal weight.

    Example 1 has one real token and two heads with differences 1 and 3 (mean square 5). In
    example 2 one head of two differs by 2 in one of 4 pairs (1/2)."""
    student = torch.zeros(2, 2, 2, 2)
    student[0, 0, 0, 0], student[0, 1, 0, 0] = 1.0, 3.0
    student[0, :, 1] = 50.0
    student[1, 1, 0, 1] = 2.0
    student[0, :, :, 1] = -torch.inf
    teacher = torch.zeros_like(student)
    teacher[0, :, :, 1] = -torch.inf
    student.requires_grad_(True)
    mask = torch.tensor([[True, False], [True, True]])
    loss = attention_loss([student], [teacher], mask)
    assert loss.item() == pytest.approx((5 + 0.5) / 2)
    loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad[0, :, 1] == 0).all()


def test_cosine_loss_by_hand() -> None:
    """The real tokens are parallel (loss 0), orthogonal (1) and opposite (2)."""
    student = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 3.0], [5.0, 5.0]]])
    teacher = torch.tensor([[[9.0, 0.0], [1.0, 0.0]], [[-1.0, -1.0], [7.0, 0.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    assert cosine_loss(student, teacher, mask).item() == pytest.approx(1.0)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_temperature_softens_and_rescales(temperature: float) -> None:
    """Soft losses at a temperature T are those of softened predictions times T^2.

    Logits 0 and T ln 3 give the teacher probabilities 1/4 and 3/4; the student has 3/4 and 1/4."""
    teacher = temperature * torch.tensor([[0.0, log(3)]])
    student = temperature * torch.tensor([[log(3), 0.0]])
    cross_entropy = -0.25 * log(0.75) - 0.75 * log(0.25)
    assert soft_losses(student[None], teacher[None], 1.0, temperature).tolist() == pytest.approx(
        [temperature**2 * cross_entropy]
    )
    student.requires_grad_(True)
    soft_losses(student[None], teacher[None], 1.0, temperature).sum().backward()
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx([temperature * 0.5, -temperature * 0.5])
