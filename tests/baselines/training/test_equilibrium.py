"""Gradient equilibrium: each layer receives the mean of the gradients from above it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.training.equilibrium import gradient_equilibrium
from harness.data.dataset import TaskData
from harness.models.backbones import Backbone
from harness.models.batches import collate
from harness.models.multi_exit import Batch, LayerContext, MultiExitModel, State


class Doubling(nn.Module):
    """A layer whose gradient is known: hidden times 2 plus a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        return 2 * hidden + self.shift


def _chain(layers: int) -> MultiExitModel:
    class First(nn.Module):
        def forward(self, ids: Tensor, types: Tensor) -> Tensor:
            return ids.float()[..., None]

    class Total(nn.Module):
        def forward(self, state: State) -> Tensor:
            return state.hiddens[-1].sum((1, 2))[:, None]

    return MultiExitModel(
        First(), [Doubling() for _ in range(layers)], [Total() for _ in range(layers)]
    )


def test_equilibrium_averages_exits_above() -> None:
    """Gradient equilibrium is the mean over the exits above, in closed form.

    The gradient of exit j with respect to the shift of layer i is 2^(j-i) per token; the layer
    receives the mean over j >= i, not the sum. A loss of weight 10 on every layer's hidden state
    is averaged along with the exits."""
    model, layers, tokens = _chain(4), 4, 3
    batch = Batch(
        torch.ones(1, tokens, dtype=torch.long),
        torch.zeros(1, tokens, dtype=torch.long),
        torch.ones(1, tokens, dtype=torch.bool),
    )
    with gradient_equilibrium(model):
        output = model(batch)
        (output.logits.sum() + 10 * torch.stack(output.hiddens[1:]).sum()).backward()
    for index, layer in enumerate(model.layers):
        above = [11 * tokens * 2 ** (other - index) for other in range(index, layers)]
        assert layer.shift.grad.item() == pytest.approx(sum(above) / len(above))


def test_hooks_are_removed_after_equilibrium() -> None:
    """After the context a layer receives the sum again, as the hooks are removed."""
    model = _chain(3)
    batch = Batch(
        torch.ones(1, 1, dtype=torch.long),
        torch.zeros(1, 1, dtype=torch.long),
        torch.ones(1, 1, dtype=torch.bool),
    )
    with gradient_equilibrium(model):
        pass
    model(batch).logits.sum().backward()
    assert [layer.shift.grad.item() for layer in model.layers] == [7.0, 3.0, 1.0]


def test_equilibrium_keeps_forward_pass(micro: Backbone, few_rows: TaskData) -> None:
    """The forward pass under equilibrium is bit-identical."""
    model = EncoderModel(
        ModelConfig(replace(micro.shape, dropout=0.0), "mean", 2, 1.0, ("plain",) * 3)
    ).train()
    batch = collate(few_rows.train.tokens, np.arange(8))
    unscaled = model(batch)
    with gradient_equilibrium(model):
        scaled = model(batch)
    assert torch.equal(unscaled.logits, scaled.logits)
    assert all(
        torch.equal(one, other) for one, other in zip(unscaled.hiddens, scaled.hiddens, strict=True)
    )


def test_repeated_layers_refuse_equilibrium() -> None:
    """A model with repeated layers is refused."""
    model = _chain(1)
    repeated = MultiExitModel(model.embedding, [model.layers[0]] * 2, [None, model.exit_after(0)])
    with pytest.raises(ValueError, match="equilibrium"), gradient_equilibrium(repeated):
        pass
