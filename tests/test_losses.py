from math import log

import pytest
import torch

from baselines.losses import exit_losses, weighted

QUARTER = [0.0, log(3.0)]
"""Logits of the probabilities 1/4 and 3/4."""


def test_cross_entropy_of_each_exit_by_hand() -> None:
    logits = torch.tensor([[QUARTER, QUARTER], [[0.0, 0.0], QUARTER]])
    losses = exit_losses(logits, torch.tensor([1.0, 0.0]), scale=1.0)
    expected = [(-log(3 / 4) + log(4)) / 2, (log(2) + log(4)) / 2]
    assert losses.tolist() == pytest.approx(expected, abs=1e-7)


def test_cross_entropy_of_three_classes_does_not_depend_on_a_constant_in_the_logits() -> None:
    logits = torch.tensor([1.0, 2.0, 5.0]).log()
    labels = torch.tensor([2.0])
    for shift in (0.0, 30.0):
        losses = exit_losses((logits + shift).view(1, 1, 3), labels, scale=1.0)
        assert losses.tolist() == pytest.approx([log(8 / 5)], abs=1e-5)


def test_saturated_logits_give_a_finite_loss() -> None:
    losses = exit_losses(torch.tensor([[[1e4, -1e4]]]), torch.tensor([1.0]), scale=1.0)
    assert losses.tolist() == [2e4]


def test_squared_error_of_a_regression_is_in_units_of_the_scale() -> None:
    logits = torch.tensor([[[4.0], [1.0]], [[2.0], [5.0]]])
    losses = exit_losses(logits, torch.tensor([2.0, 1.5]), scale=5.0)
    assert losses.tolist() == pytest.approx([(0.4**2 + 0.1**2) / 2, 0.7**2 / 2], abs=1e-7)


def test_half_precision_logits_are_compared_in_float32() -> None:
    logits = torch.tensor([[[4.0]], [[1.0]]], dtype=torch.bfloat16)
    losses = exit_losses(logits, torch.tensor([0.01]), scale=1.0)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx([3.99**2, 0.99**2], abs=1e-5)


def test_weighted_sum_of_losses() -> None:
    assert weighted(torch.tensor([1.0, 10.0, 100.0]), (0.5, 0.25, 0.0)).item() == 3.0


def test_a_weight_of_zero_sends_no_gradient_to_its_exit() -> None:
    logits = torch.randn(2, 3, 2, requires_grad=True)
    weighted(exit_losses(logits, torch.tensor([0.0, 1.0, 1.0]), 1.0), (1.0, 0.0)).backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().min() > 0
    assert logits.grad[1].abs().max() == 0


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0)])
def test_a_wrong_number_of_weights_is_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        weighted(torch.tensor([1.0, 2.0]), weights)
