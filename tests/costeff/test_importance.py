"""Tests of the first-order importance."""

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.encoders.bert_layer import BertLayer
from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.training.loop import Examples
from baselines.training.losses import exit_losses
from costeff.importance import taylor_importance
from harness.data.dataset import TaskData
from harness.methods.compute import Compute
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel

CPU = Compute(torch.device("cpu"), "float32", threads=1)
BATCHES = [np.arange(0, 16), np.arange(16, 40)]


@pytest.fixture
def model(micro: Backbone) -> EncoderModel:
    torch.manual_seed(8)
    return EncoderModel(ModelConfig(micro.shape, "mean", 2, 1.0, ("plain",) * 3)).train()


def loss(model: MultiExitModel, examples: Examples) -> Tensor:
    return exit_losses(model(examples.batch).logits, examples.labels, 1.0).sum()


def test_scores_multiply_weights_and_gradients(model: EncoderModel, few_rows: TaskData) -> None:
    """A score is the weight times the sum of absolute gradients.

    The reference uses plain backward passes and loops over heads and neurons."""
    got = taylor_importance(model, loss, few_rows.train, BATCHES, CPU)
    layer = model.layers[1]
    assert isinstance(layer, BertLayer)
    sums = dict.fromkeys(("output", "widen", "narrow"), torch.zeros(()))
    model.eval()
    for batch in BATCHES:
        model.zero_grad()
        loss(model, Examples.of(few_rows.train, batch, CPU.device)).backward()
        for name, total in sums.items():
            gradient = getattr(layer, name).weight.grad
            sums[name] = total + gradient.abs()
    scores = {
        name: (getattr(layer, name).weight.detach() * total).abs() for name, total in sums.items()
    }
    heads = [scores["output"][:, 8 * head : 8 * head + 8].sum().item() for head in range(4)]
    neurons = [
        (scores["widen"][index].sum() + scores["narrow"][:, index].sum()).item()
        for index in range(64)
    ]
    assert got.heads[1].tolist() == pytest.approx(heads, rel=1e-4)
    assert got.neurons[1].tolist() == pytest.approx(neurons, rel=1e-4)
    assert [len(scores) for scores in got.heads] == [4] * 3
    assert [len(scores) for scores in got.neurons] == [64] * 3


def test_accumulation_keeps_the_scores(model: EncoderModel, few_rows: TaskData) -> None:
    """Accumulating a batch in several passes gives the same scores.

    Absolute values are taken of the gradient of a complete batch."""
    single_pass, accumulated = (
        taylor_importance(model, loss, few_rows.train, BATCHES, CPU, accumulation=count)
        for count in (1, 5)
    )
    for one, other in zip(
        (*single_pass.heads, *single_pass.neurons),
        (*accumulated.heads, *accumulated.neurons),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_silent_units_score_nothing(model: EncoderModel, few_rows: TaskData) -> None:
    """A head and a neuron that contribute nothing have a score of 0."""
    layer = model.layers[0]
    assert isinstance(layer, BertLayer)
    with torch.no_grad():
        layer.output.weight[:, 8:16] = 0
        layer.widen.weight[5] = 0
        layer.narrow.weight[:, 5] = 0
    got = taylor_importance(model, loss, few_rows.train, BATCHES, CPU)
    assert got.heads[0][1] == 0
    assert got.neurons[0][5] == 0
    assert got.heads[0][[0, 2, 3]].min() > 0


def test_scoring_leaves_model_trainable(model: EncoderModel, few_rows: TaskData) -> None:
    """The model keeps its weights, and all of them can still be trained."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    taylor_importance(model, loss, few_rows.train, BATCHES, CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in model.parameters()
    )
