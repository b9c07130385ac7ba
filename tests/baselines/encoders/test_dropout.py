"""Dropout drops its share, independently and reproducibly."""

import math

import pytest
import torch
from torch import Tensor

from baselines.encoders.bert_layer import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_zeroes_its_share(probability: float) -> None:
    """Dropout zeroes the given share of elements and scales up the rest."""
    torch.manual_seed(0)
    x = torch.linspace(1, 2, 1_000_003)
    y = Dropout(probability)(x)
    zero = y == 0
    assert zero.float().mean().item() == pytest.approx(
        probability, abs=5 * math.sqrt(probability * (1 - probability) / 1e6)
    )
    torch.testing.assert_close(y[~zero], x[~zero] / (1 - probability))


def test_dropout_of_neighbours_is_independent() -> None:
    torch.manual_seed(0)
    zero = (Dropout(0.5)(torch.ones(400_000)) == 0).float()
    for distance in (1, 2, 3, 4):
        both = (zero[:-distance] * zero[distance:]).mean().item()
        assert both == pytest.approx(0.25, abs=0.005)


def test_dropout_follows_torch_seed() -> None:
    """Dropout is seeded by torch and differs from call to call."""
    dropout, x = Dropout(0.5), torch.ones(7, 9)

    def drawn(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return [dropout(x), dropout(x)]

    first, second = drawn(1)
    again = drawn(1)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, drawn(2)[0])


def test_dropout_blocks_dropped_gradients() -> None:
    """Dropout sends no gradient through what it dropped."""
    torch.manual_seed(0)
    x = torch.ones(4, 5, 6, requires_grad=True)
    y = Dropout(0.5)(x.transpose(0, 2))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad.transpose(0, 2), y.detach())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_dropout_keeps_shape_and_precision(kind: torch.dtype) -> None:
    x = torch.ones(3, 5, dtype=kind)
    y = Dropout(0.1)(x)
    assert y.shape == x.shape
    assert y.dtype == kind


def test_inactive_dropout_is_identity() -> None:
    """Dropout is the identity in evaluation and with probability 0."""
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
