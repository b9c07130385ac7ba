"""Tests of pruning: the pruned model is smaller and equals the masked model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from baselines.encoders.bert_layer import BertLayer
from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.encoders.weights import load_model, save_model
from costeff.importance import Importance
from costeff.prune import highest, pruned
from harness.measure.macs import piece_costs
from harness.models.multi_exit import Batch
from harness.models.shapes import EncoderShape, bert_shape

SHAPE = bert_shape(3, 16, 4, 10, vocabulary=50, positions=32)


def _model(shape: EncoderShape = SHAPE) -> EncoderModel:
    torch.manual_seed(1)
    model = EncoderModel(ModelConfig(shape, "mean", 2, 1.0, ("plain",) * shape.layers)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 50, (4, 9), generator=generator)
    mask = torch.arange(9) < torch.tensor([9, 4, 7, 1])[:, None]
    return Batch(ids * mask, torch.zeros_like(ids), mask)


def _scores(shape: EncoderShape = SHAPE, seed: int = 4) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    return Importance(
        tuple(torch.rand(count, generator=generator) for count in shape.heads),
        tuple(torch.rand(count, generator=generator) for count in shape.ffn),
    )


def _logits(model: EncoderModel) -> Tensor:
    with torch.no_grad():
        return model(_batch()).logits


def test_highest_scores_keep_their_order() -> None:
    """The units with the highest scores are kept in their original order."""
    assert highest(torch.tensor([0.1, 0.9, 0.5, 0.7]), 2).tolist() == [1, 3]
    assert highest(torch.tensor([0.1, 0.9, 0.5, 0.7]), 4).tolist() == [0, 1, 2, 3]
    assert highest(torch.tensor([1.0, 1.0, 1.0]), 2).tolist() == [0, 1]


@pytest.mark.parametrize("count", [0, 4])
def test_impossible_count_is_refused(count: int) -> None:
    """Keeping no unit, or more than exist, raises an error."""
    with pytest.raises(ValueError, match=rf"\b{count}\b.*\b3\b.*\b1\b.*\b3\b"):
        highest(torch.zeros(3), count)


def test_pruning_nothing_is_identity() -> None:
    """Pruning nothing leaves the logits unchanged."""
    model = _model()
    same = pruned(model, SHAPE, _scores())
    assert same is not model
    assert torch.equal(_logits(same), _logits(model))


def test_pruning_silent_units_changes_nothing() -> None:
    """Pruning zeroed heads and neurons leaves the logits unchanged.

    The head and the neuron whose output weights are 0 have the lowest scores and are pruned
    first."""
    model, scores = _model(), _scores()
    for layer, heads, neurons in zip(model.layers, scores.heads, scores.neurons, strict=True):
        assert isinstance(layer, BertLayer)
        head, neuron = 2, 7
        with torch.no_grad():
            layer.output.weight[:, head * 4 : head * 4 + 4] = 0
            layer.narrow.weight[:, neuron] = 0
        heads[head], neurons[neuron] = -1, -1
    small = pruned(model, replace(SHAPE, heads=(3,) * 3, ffn=(9,) * 3), scores)
    torch.testing.assert_close(_logits(small), _logits(model), atol=1e-5, rtol=0)
    assert small.parameter_count() < model.parameter_count()


def test_pruning_equals_masking() -> None:
    """Pruning units equals masking them.

    The reference does not copy weights: in the large model, the output columns of the pruned units
    are set to 0."""
    model, scores = _model(), _scores()
    shape = replace(SHAPE, heads=(2, 1, 3), ffn=(4, 10, 1))
    small = pruned(model, shape, scores)
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, BertLayer)
        pruned_heads = set(range(4)) - set(
            highest(scores.heads[index], shape.heads[index]).tolist()
        )
        pruned_neurons = set(range(10)) - set(
            highest(scores.neurons[index], shape.ffn[index]).tolist()
        )
        with torch.no_grad():
            for head in pruned_heads:
                layer.output.weight[:, head * 4 : head * 4 + 4] = 0
            layer.narrow.weight[:, list(pruned_neurons)] = 0
    torch.testing.assert_close(_logits(small), _logits(model), atol=1e-5, rtol=0)


def test_pruned_model_is_really_smaller(tmp_path: Path) -> None:
    """A pruned model has smaller tensors, fewer MACs and possibly layers of different widths."""
    shape = replace(SHAPE, heads=(2, 1, 3), ffn=(4, 9, 1), embedding_rank=5)
    small = pruned(_model(), shape, _scores())
    layers = [layer for layer in small.layers if isinstance(layer, BertLayer)]
    assert [layer.query.weight.shape for layer in layers] == [(8, 16), (4, 16), (12, 16)]
    assert [layer.output.weight.shape for layer in layers] == [(16, 8), (16, 4), (16, 12)]
    assert [layer.widen.weight.shape for layer in layers] == [(4, 16), (9, 16), (1, 16)]
    assert [layer.narrow.weight.shape for layer in layers] == [(16, 4), (16, 9), (16, 1)]
    assert small.embedding.word.weight.shape == (50, 5)
    assert isinstance(small.embedding.projection, nn.Linear)
    save_model(small, tmp_path)
    assert torch.equal(_logits(load_model(tmp_path)), _logits(small))
    costs = [layer.at(7) for layer in piece_costs(small).layers]
    assert costs == [
        7 * (4 * 16 * width + 2 * 7 * width + 2 * 16 * ffn)
        for width, ffn in ((8, 4), (4, 9), (12, 1))
    ]


def test_larger_shape_is_refused() -> None:
    """A shape with more heads than the model raises an error."""
    with pytest.raises(ValueError, match=r"\b5\b.*\b4\b.*\b1\b.*\b4\b"):
        pruned(_model(), replace(SHAPE, heads=(5, 4, 4)), _scores())
