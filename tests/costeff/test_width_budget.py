"""Tests of widths under a budget of parameters or MACs."""

from dataclasses import replace

import pytest
import torch

from baselines.encoders.encoder import EncoderModel, ModelConfig
from costeff.importance import Importance
from costeff.width_budget import (
    SHARE_STEP,
    allocate_globally,
    encoder_macs,
    largest_share,
    layer_macs,
)
from harness.measure.macs import piece_costs
from harness.models.shapes import EncoderShape, bert_shape

SHAPE = bert_shape(3, 16, 4, 10, vocabulary=50, positions=32)


@pytest.mark.parametrize(
    "shape",
    [SHAPE, replace(SHAPE, heads=(2, 1, 3), ffn=(4, 9, 1), embedding_rank=5)],
    ids=["full", "slender"],
)
def test_encoder_macs_equal_fvcore(shape: EncoderShape) -> None:
    """The MACs of the encoder equal fvcore's count."""
    costs = piece_costs(EncoderModel(ModelConfig(shape, "mean", 2, 1.0, (None, None, "plain"))))
    assert layer_macs(shape) == sum(layer.at(128) for layer in costs.layers)
    assert encoder_macs(shape) == layer_macs(shape) + costs.embedding.at(128)


@pytest.mark.parametrize("limit", [1.0, 0.5, 0.1234, SHARE_STEP])
def test_largest_fitting_share_is_found(limit: float) -> None:
    """The largest share that fits is found."""
    share = largest_share(lambda share: share <= limit)
    assert share is not None
    assert share <= limit < share + SHARE_STEP


def test_no_share_may_fit() -> None:
    assert largest_share(lambda share: False) is None


def _scores(value: float = 0.1) -> Importance:
    return Importance(
        tuple(torch.full((4,), value) for _ in range(3)),
        tuple(torch.full((10,), value) for _ in range(3)),
    )


def test_important_units_stay_anywhere() -> None:
    """Important units are kept in whichever layer they are.

    Only the heads of layer 2 are important: it keeps all of them, and every other layer keeps one
    head and one neuron."""
    scores = _scores(0.0)
    scores.heads[1].fill_(5.0)
    least = replace(SHAPE, heads=(1, 4, 1), ffn=(1, 1, 1))
    assert allocate_globally(scores, SHAPE, layer_macs(least)) == least


def test_units_compete_by_mean_score() -> None:
    """Units compete by the mean score of their scored weights.

    A head of this shape has 4 * 16 scored weights, a neuron 2 * 16, so a neuron with half the
    score is worth as much. A head costs 4 * (4 * 16 + 2 * 128) = 1,280 MACs a token, a neuron 32.
    """
    budget = layer_macs(replace(SHAPE, heads=(1, 1, 1), ffn=(1, 1, 1))) + 1_280 * 128
    for score, kept in ((0.51, (1, 1, 1)), (0.49, (1, 1, 2))):
        scores = Importance(
            tuple(torch.tensor([2.0, 0.5, 0.5, 0.5]) for _ in range(3)),
            tuple(torch.full((10,), score) for _ in range(3)),
        )
        scores.heads[2][1] = 1.0
        assert allocate_globally(scores, SHAPE, budget).heads == kept


def test_unaffordable_unit_leaves_room() -> None:
    """A unit that does not fit leaves the budget to cheaper ones.

    The budget allows 39 more neurons, of which only 27 exist, but no more head."""
    scores = _scores(0.1)
    scores.heads[0].fill_(50.0)
    least = layer_macs(replace(SHAPE, heads=(1, 1, 1), ffn=(1, 1, 1)))
    assert allocate_globally(scores, SHAPE, least + 39 * 32 * 128) == replace(
        SHAPE, heads=(1, 1, 1)
    )


@pytest.mark.parametrize("seed", range(5))
def test_budget_is_nearly_used_up(seed: int) -> None:
    """The widths stay within the budget and use nearly all of it."""
    generator = torch.Generator().manual_seed(seed)
    scores = Importance(
        tuple(torch.rand(4, generator=generator) for _ in range(3)),
        tuple(torch.rand(10, generator=generator) for _ in range(3)),
    )
    budget = layer_macs(SHAPE) // 2
    found = allocate_globally(scores, SHAPE, budget)
    assert min(found.heads + found.ffn) >= 1
    assert all(heads <= 4 and ffn <= 10 for heads, ffn in zip(found.heads, found.ffn, strict=True))
    assert (
        budget - layer_macs(replace(SHAPE, heads=(1, 0, 0), ffn=(0, 0, 0)))
        < layer_macs(found)
        <= budget
    )


def test_too_small_budget_is_refused() -> None:
    """A budget too small for one head and one neuron per layer raises an error."""
    least = layer_macs(replace(SHAPE, heads=(1, 1, 1), ffn=(1, 1, 1)))
    with pytest.raises(ValueError, match=rf"\b10\b.*\b{least}\b"):
        allocate_globally(_scores(), SHAPE, 10)
