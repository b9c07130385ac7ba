"""Tests that a new model family needs only one layer class.

Its layer has rotary attention, a relative bias and parameters with other names than BERT's.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.fixed import fixed_data
from support.messages import assert_message
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from baselines.encoders.bert_layer import BertLayer
from baselines.encoders.encoder import LAYERS, EncoderModel, ModelConfig
from baselines.encoders.layer import EncoderLayer, Part, Prunable, Units
from baselines.encoders.weights import check_model, load_model, save_model
from baselines.tinybert import IntermediateLosses, ProjectedStudent, intermediate_loss
from baselines.training.loop import Examples
from baselines.training.losses import exit_losses
from costeff.importance import Importance, taylor_importance
from costeff.prune import highest, pruned
from costeff.width_budget import allocate_globally, layer_macs
from harness.errors import ExitCode, IncompleteError
from harness.evaluation.trace import Floats
from harness.measure.inference import predict_early
from harness.measure.macs import piece_costs
from harness.methods.compute import Compute
from harness.models.multi_exit import Batch, LayerContext, MultiExitModel
from harness.models.shapes import EncoderShape, bert_shape
from harness.records import Polynomial

CPU = Compute(torch.device("cpu"), "float32", threads=1)
SHAPE = replace(bert_shape(3, 16, 4, 10, vocabulary=50, positions=32), layer="rotary")
REACH = 3


class RotaryLayer(EncoderLayer):
    """Layer with rotary attention (Su et al., 2021), a bias for near tokens and a gated
    feed-forward block."""

    def __init__(self, shape: EncoderShape, index: int) -> None:
        super().__init__(shape, index)
        self.count, self.size = shape.heads[index], shape.head_size
        width = self.count * self.size
        self.asks, self.offers, self.carries = (nn.Linear(shape.hidden, width) for _ in range(3))
        self.near = nn.Parameter(torch.zeros(self.count, 2 * REACH + 1))
        self.merges = nn.Linear(width, shape.hidden)
        self.up, self.gate = (nn.Linear(shape.hidden, shape.ffn[index]) for _ in range(2))
        self.down = nn.Linear(shape.ffn[index], shape.hidden)
        self.first, self.second = nn.LayerNorm(shape.hidden), nn.LayerNorm(shape.hidden)
        self.register_buffer("speeds", 10.0 ** -torch.arange(self.size // 2))

    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        weights = self.attention_scores(hidden, context).softmax(-1)
        mixed = weights @ self._heads(self.carries(hidden))  # [n, h, t, s]
        hidden = self.first(hidden + self.merges(mixed.transpose(1, 2).flatten(2)))
        wide = functional.gelu(self.gate(hidden)) * self.up(hidden)
        return self.second(hidden + self.down(wide))

    def attention_scores(self, hidden: Tensor, context: LayerContext) -> Tensor:
        angles = context.positions[:, None, :, None] * self.speeds  # [1 or n, 1, t, s / 2]
        asks = rotate(self._heads(self.asks(hidden)), angles)
        offers = rotate(self._heads(self.offers(hidden)), angles)
        gaps = context.positions[:, None, :] - context.positions[:, :, None]  # [1 or n, t, t]
        bias = self.near[:, gaps.clamp(-REACH, REACH) + REACH].transpose(0, 1)
        scores = asks @ offers.transpose(-1, -2) / self.size**0.5 + bias
        return scores.masked_fill(~context.mask[:, None, None, :], -torch.inf)

    def prunable(self) -> Prunable:
        hidden = self.first.normalized_shape[0]
        rows = [f"{name}.{kind}" for name in ("asks", "offers", "carries") for kind in BOTH]
        heads = (*[Part(name, 0) for name in (*rows, "near")], Part("merges.weight", 1, True))
        wide = [Part(f"{name}.weight", 0, True) for name in ("up", "gate")]
        wide += [Part(f"{name}.bias", 0) for name in ("up", "gate")]
        neurons = (*wide, Part("down.weight", 1, True))
        return Prunable(
            Units(self.count, heads, Polynomial(0, 4 * hidden * self.size, 2 * self.size)),
            Units(self.up.out_features, neurons, Polynomial(0, 3 * hidden, 0)),
        )

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.count, self.size)).transpose(1, 2)


@pytest.fixture(autouse=True)
def rotary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "rotary", RotaryLayer)


BOTH = ("weight", "bias")


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate each pair (x_i, x_(i + s/2)) by its angle."""
    one, other = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((one * cos - other * sin, other * cos + one * sin), -1)


def make_model(seed: int = 1, shape: EncoderShape = SHAPE) -> EncoderModel:
    torch.manual_seed(seed)
    model = EncoderModel(ModelConfig(shape, "mean", 2, 1.0, ("plain",) * shape.layers)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


def make_batch(rows: int = 12, length: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 50, (rows, length), generator=generator)
    mask = torch.arange(length) < torch.randint(2, length + 1, (rows, 1), generator=generator)
    return Batch(ids * mask, ids % 2, mask)


def layer_input() -> tuple[RotaryLayer, Tensor]:
    layer = make_model().layers[0]
    assert isinstance(layer, RotaryLayer)
    return layer, torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_saved_model_keeps_layer_class(tmp_path: Path) -> None:
    model, batch = make_model(), make_batch()
    save_model(model, tmp_path)
    check_model(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded.layers[0], RotaryLayer)
    torch.testing.assert_close(loaded(batch).logits, model(batch).logits)


def test_unknown_layer_class_is_refused(tmp_path: Path) -> None:
    save_model(make_model(), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("rotary", "spinning"))
    for read in (check_model, load_model):
        with pytest.raises(IncompleteError) as caught:
            read(tmp_path)
        assert_message(caught, tmp_path, "spinning", "bert", code=ExitCode.INCOMPLETE)


def test_layer_uses_positions_not_indices() -> None:
    """Permuted tokens that keep their positions have the same outputs, permuted."""
    layer, hidden = layer_input()
    context = LayerContext.of(make_batch(3).mask)
    permutation = torch.tensor([3, 0, 7, 1, 8, 2, 6, 5, 4])
    shuffled = LayerContext(context.mask[:, permutation], context.positions[:, permutation])
    expected = layer(hidden, context)[:, permutation]
    torch.testing.assert_close(layer(hidden[:, permutation], shuffled), expected)
    unpermuted = shuffled._replace(positions=context.positions)
    assert (layer(hidden[:, permutation], unpermuted) - expected).abs().max() > 0.1


@torch.no_grad()
def test_examples_may_have_own_positions() -> None:
    layer, hidden = layer_input()
    shared = LayerContext.of(make_batch(3).mask)
    shifts = torch.tensor([0, 4, 11])[:, None]
    own = shared._replace(positions=shared.positions + shifts)
    torch.testing.assert_close(layer(hidden, own), layer(hidden, shared), atol=1e-5, rtol=0)
    kept = own.rows(torch.tensor([1, 2]))
    torch.testing.assert_close(layer(hidden[1:], kept), layer(hidden, own)[1:])


class Margin:
    def score(self, seen: Floats) -> NDArray[np.float64]:
        return np.abs(seen[-1, :, 0] - seen[-1, :, 1]).astype(np.float64)


@torch.no_grad()
def test_early_predictions_equal_the_trace() -> None:
    model, batch = make_model(), make_batch(24)
    logits = model(batch).logits  # [e, n, 2]
    margins = (logits[1, :, 0] - logits[1, :, 1]).abs()
    threshold = margins.quantile(0.5).item()  # between two examples
    for size in (24, 5, 1):
        parts = [Batch(*(tensor[at : at + size] for tensor in batch)) for at in range(0, 24, size)]
        found = [predict_early(model, part, Margin(), threshold) for part in parts]
        exits = torch.cat([part.exits for part in found])
        assert set(exits.tolist()) == {0, 1, 2}
        expected = logits[exits, torch.arange(24)]
        got = torch.cat([part.logits for part in found])
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_macs_equal_torch_count() -> None:
    model = make_model(shape=replace(SHAPE, heads=(4, 1, 3), ffn=(10, 7, 2)))
    costs = piece_costs(model)
    for layer, cost in zip(model.layers, costs.layers, strict=True):
        assert isinstance(layer, RotaryLayer)
        heads, neurons = layer.count, layer.up.out_features
        assert cost == Polynomial(0, 4 * 16 * 4 * heads + 3 * 16 * neurons, 2 * 4 * heads)
        assert cost.at(9) == sum(units.number * units.macs.at(9) for units in layer.prunable())
    ids = torch.zeros(1, 9, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(Batch(ids, ids, torch.ones(1, 9, dtype=torch.bool)))
    assert counter.get_total_flops() == 2 * costs.path(2, 9)


def exits_loss(model: MultiExitModel, examples: Examples) -> Tensor:
    return exit_losses(model(examples.batch).logits, examples.labels, 1.0).sum()


def test_importance_sums_over_scored_weights() -> None:
    """The reference uses plain backward passes and loops over heads and neurons."""
    model, rows = make_model(), fixed_data().train
    batches = [np.arange(0, 16), np.arange(16, 40)]
    got = taylor_importance(model, exits_loss, rows, batches, CPU)
    layer = model.layers[1]
    assert isinstance(layer, RotaryLayer)
    names = ("merges", "up", "gate", "down")
    weights = {name: layer.get_parameter(f"{name}.weight") for name in names}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in batches:
        model.zero_grad()
        exits_loss(model, Examples.of(rows, batch, CPU.device)).backward()
        for name, weight in weights.items():
            assert weight.grad is not None
            sums[name] += weight.grad.abs()
    scores = {name: (weight.detach() * sums[name]).abs() for name, weight in weights.items()}
    heads = [scores["merges"][:, 4 * head : 4 * head + 4].sum().item() for head in range(4)]
    neurons = (scores["up"] + scores["gate"] + scores["down"].T).sum(1).tolist()
    assert got.heads[1].tolist() == pytest.approx(heads, rel=1e-4)
    assert got.neurons[1].tolist() == pytest.approx(neurons, rel=1e-4)


def make_scores(shape: EncoderShape = SHAPE) -> Importance:
    generator = torch.Generator().manual_seed(4)
    return Importance(
        tuple(torch.rand(number, generator=generator) for number in shape.heads),
        tuple(torch.rand(number, generator=generator) for number in shape.ffn),
    )


@torch.no_grad()
def test_pruning_nothing_changes_no_prediction() -> None:
    model, batch = make_model(), make_batch()
    same = pruned(model, SHAPE, make_scores())
    assert isinstance(same, EncoderModel)
    assert torch.equal(same(batch).logits, model(batch).logits)


@torch.no_grad()
def test_pruned_model_equals_masked_model() -> None:
    """In the reference, the output weights of the pruned units are set to 0."""
    model, batch, scores = make_model(), make_batch(), make_scores()
    shape = replace(SHAPE, heads=(2, 1, 3), ffn=(4, 10, 1))
    small = pruned(model, shape, scores)
    assert small.parameter_count() < model.parameter_count()
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, RotaryLayer)
        for head in set(range(4)) - set(highest(scores.heads[index], shape.heads[index]).tolist()):
            layer.merges.weight[:, head * 4 : head * 4 + 4] = 0
        pruned_neurons = set(range(10)) - set(
            highest(scores.neurons[index], shape.ffn[index]).tolist()
        )
        layer.down.weight[:, list(pruned_neurons)] = 0
    torch.testing.assert_close(small(batch).logits, model(batch).logits, atol=1e-5, rtol=0)


def test_units_compete_by_layer_costs() -> None:
    """A neuron of three matrices costs 1.5 times as much as one of two."""
    costs = piece_costs(make_model())
    assert layer_macs(SHAPE) == sum(layer.at(128) for layer in costs.layers)
    assert layer_macs(SHAPE) - layer_macs(replace(SHAPE, layer="bert")) == 128 * 16 * 30
    scores = Importance((torch.zeros(4),) * 3, (torch.ones(10),) * 3)
    least = layer_macs(replace(SHAPE, heads=(1,) * 3, ffn=(1,) * 3))
    found = allocate_globally(scores, SHAPE, least + 6 * 128 * 48)
    assert (found.heads, sum(found.ffn)) == ((1, 1, 1), 9)


def test_attention_scores_can_be_distilled() -> None:
    teacher, copy, other = make_model(), make_model(), make_model(seed=6)
    losses = IntermediateLosses(attention=True, hidden=False, embedding=False)
    examples = Examples.of(fixed_data().train, np.arange(8), CPU.device)
    assert intermediate_loss(ProjectedStudent(copy, 16), teacher, losses, examples).item() == 0
    loss = intermediate_loss(ProjectedStudent(other, 16), teacher, losses, examples)
    loss.backward()
    near = other.get_parameter("layers.0.near").grad
    assert loss.item() > 0
    assert near is not None
    assert near.abs().max() > 0


@pytest.mark.parametrize("layer_class", [BertLayer, RotaryLayer])
@pytest.mark.parametrize("kind", ["heads", "ffn"])
def test_units_cover_every_narrowed_parameter(layer_class: type[EncoderLayer], kind: str) -> None:
    wide = layer_class(SHAPE, 0)
    shape = replace(SHAPE, heads=(3, 4, 4)) if kind == "heads" else replace(SHAPE, ffn=(9, 10, 10))
    narrow = layer_class(shape, 0).state_dict()
    units = wide.prunable().heads if kind == "heads" else wide.prunable().neurons
    tensors = wide.state_dict().items()
    changed = {name for name, tensor in tensors if tensor.shape != narrow[name].shape}
    assert changed == {part.name for part in units.parts}
    for part in units.parts:
        tensor = wide.get_parameter(part.name)
        lost = tensor.shape[part.axis] - narrow[part.name].shape[part.axis]
        assert lost == units.share(part, tensor)


def test_indivisible_axis_is_refused() -> None:
    units = Units(3, (part := Part("weight", 0, scored=True),), Polynomial(0, 0, 0))
    with pytest.raises(ValueError, match=r"axis 0 of weight .* 8.* 3"):
        units.share(part, torch.zeros(8, 2))
