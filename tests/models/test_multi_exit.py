"""Multi-exit models: states, exits and truncation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from harness.evaluation.trace import Floats
from harness.measure.inference import predict_early
from harness.models.backbones import Backbone
from harness.models.multi_exit import Batch, LayerContext, MultiExitModel, State


class TypesPlusIds(nn.Module):
    """[n, t] -> [n, t, 1]."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__()
        self.journal = journal
        self.word = nn.Embedding(7, 2)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        self.journal.append("embedding")
        return (ids + types).unsqueeze(-1).float()


class Multiply(nn.Module):
    def __init__(self, name: str, factor: float, journal: list[str]) -> None:
        super().__init__()
        self.name, self.journal = name, journal
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        self.journal.append(self.name)
        return hidden * self.factor


class SumTokens(nn.Module):
    """Sum over real tokens [n, 1]."""

    def __init__(self, name: str, journal: list[str]) -> None:
        super().__init__()
        self.name, self.journal = name, journal

    def forward(self, state: State) -> Tensor:
        self.journal.append(self.name)
        return (state.hiddens[-1] * state.mask.unsqueeze(-1)).sum(1)


class KeepState(nn.Module):
    """An exit that keeps its inputs and predicts 1 plus the sum of the earlier logits."""

    def __init__(self, lookback: int = 1) -> None:
        super().__init__()
        self.lookback = lookback
        self.seen: list[State] = []

    def forward(self, state: State) -> Tensor:
        self.seen.append(state)
        return sum(state.logits, torch.ones(len(state.mask), 1))


class SecondExampleExits:
    def score(self, seen: Floats) -> NDArray[np.float64]:
        return (np.arange(seen.shape[1]) == 1).astype(np.float64)


BATCH = Batch(
    ids=torch.tensor([[1, 2, 3], [4, 5, 0]]),
    types=torch.tensor([[0, 0, 1], [0, 1, 0]]),
    mask=torch.tensor([[True, True, True], [True, True, False]]),
)


def _layers(count: int, journal: list[str] | None = None) -> list[nn.Module]:
    return [
        Multiply(f"layer {index}", 10.0, [] if journal is None else journal)
        for index in range(count)
    ]


def _model(exits: Sequence[nn.Module | None], journal: list[str] | None = None) -> MultiExitModel:
    return MultiExitModel(
        TypesPlusIds([] if journal is None else journal), _layers(len(exits), journal), exits
    )


def _encoder(backbone: Backbone, exits: tuple[Head | None, ...]) -> EncoderModel:
    return EncoderModel(ModelConfig(backbone.shape, "mean", 3, 1.0, exits)).eval()


def _tokens(rows: int, length: int) -> Batch:
    ids = torch.arange(rows * length).view(rows, length) % 40
    mask = torch.arange(length) < torch.arange(2, rows + 2).clamp(max=length)[:, None]
    return Batch(ids, ids % 2, mask)


@pytest.mark.parametrize(("layers", "exits"), [(2, 1), (1, 2), (2, 0), (0, 0)])
def test_unequal_lists_are_refused(layers: int, exits: int) -> None:
    """Lists of unequal length and empty ones are refused with both numbers."""
    with pytest.raises(ValueError, match=rf"\b{layers}\b\D+\b{exits}\b"):
        MultiExitModel(TypesPlusIds([]), _layers(layers), [SumTokens("exit", [])] * exits)


def test_last_layer_needs_an_exit() -> None:
    """A model without an exit after the last layer is refused."""
    with pytest.raises(ValueError, match=r"\b2\b\D+\b2\b"):
        _model([SumTokens("exit", []), None])


def test_exits_run_after_their_layers() -> None:
    """A forward pass runs each exit right after its layer."""
    journal: list[str] = []
    exits = [SumTokens("exit 0", journal), None, SumTokens("exit 2", journal)]
    _model(exits, journal)(BATCH)
    assert journal == ["embedding", "layer 0", "exit 0", "layer 1", "layer 2", "exit 2"]


def test_forward_returns_logits_and_hiddens() -> None:
    """A forward pass returns the logits of all exits and all hidden states."""
    model = _model([SumTokens("exit", []), None, SumTokens("exit", [])])
    outputs = model(BATCH)
    sums = torch.tensor([1.0 + 2 + 4, 4 + 6])
    assert outputs.logits.shape == (2, 2, 1)
    assert torch.equal(outputs.logits[:, :, 0], torch.stack([10 * sums, 1000 * sums]))
    start = torch.tensor([[1.0, 2, 4], [4, 6, 0]]).unsqueeze(-1)
    assert len(outputs.hiddens) == 4
    assert all(
        torch.equal(hidden, start * 10**power) for power, hidden in enumerate(outputs.hiddens)
    )


def test_exit_layers_count_from_one() -> None:
    """`exit_layers` counts the layers run before each exit."""
    model = _model([None, KeepState(), None, KeepState()])
    assert model.exit_layers == [2, 4]
    assert model.exit_after(0) is None
    assert model.exit_after(1) is model.exits["1"]


def test_exit_sees_one_hidden_state() -> None:
    """An exit sees one hidden state unless it looks back."""
    exits = [KeepState(), KeepState()]
    _model(exits)(BATCH)
    assert [len(head.seen[0].hiddens) for head in exits] == [1, 1]


def test_lookback_shows_previous_hidden_states() -> None:
    """A lookback of two gives every exit its own and the previous hidden state."""
    exits = [KeepState(), KeepState(lookback=2), KeepState()]
    model = _model(exits)
    hiddens = model(BATCH).hiddens
    assert model.lookback == 2
    for index, head in enumerate(exits):
        (state,) = head.seen
        assert [hidden.data_ptr() for hidden in state.hiddens] == [
            hiddens[index].data_ptr(),
            hiddens[index + 1].data_ptr(),
        ]


def test_exit_reads_earlier_logits() -> None:
    """An exit reads the logits of all exits before it."""
    exits = [KeepState(), None, KeepState(), KeepState()]
    logits = _model(exits)(BATCH).logits
    assert [len(head.seen[0].logits) for head in exits if head is not None] == [0, 1, 2]
    assert logits[:, 0, 0].tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    "exits", [("dense", "dense", "dense"), ("shared", None, "shared"), ("plain", "dense", "plain")]
)
def test_truncated_model_equals_its_exit(micro: Backbone, exits: tuple[Head | None, ...]) -> None:
    """A truncated model predicts exactly as the full model's exit."""
    model, batch = _encoder(micro, exits), _tokens(4, 9)
    with torch.no_grad():
        full = model(batch).logits
        for index, layer in enumerate(model.exit_layers):
            short = model.truncated(layer)
            assert short.exit_layers == [layer]
            assert len(short.layers) == layer
            assert torch.equal(short(batch).logits, full[index : index + 1])


def test_truncated_model_keeps_lookback() -> None:
    """A truncated model with lookback gives its exit the same hidden states."""
    exit_head = KeepState(lookback=2)
    model = _model([None, exit_head, KeepState()])
    model(BATCH)
    model.truncated(2)(BATCH)
    full, short = exit_head.seen
    assert len(short.hiddens) == 2
    assert all(torch.equal(*pair) for pair in zip(full.hiddens, short.hiddens, strict=True))


def test_truncated_model_shares_parameters(micro: Backbone) -> None:
    """A truncated model shares its parameters with the full one."""
    model = _encoder(micro, ("dense", "dense", "dense"))
    full = {id(parameter) for parameter in model.parameters()}
    short = list(model.truncated(2).parameters())
    assert {id(parameter) for parameter in short} < full
    names = dict(model.named_parameters())
    assert {name for name, value in names.items() if id(value) not in {id(p) for p in short}} == {
        name for name in names if name.startswith(("layers.2.", "exits.0.", "exits.2."))
    }


@pytest.mark.parametrize("training", [True, False])
def test_truncated_model_keeps_mode(micro: Backbone, training: bool) -> None:
    """A truncated model keeps the training or evaluation mode."""
    short = _encoder(micro, ("dense", "dense", "dense")).train(training).truncated(1)
    assert {module.training for module in short.modules()} == {training}


def test_truncation_needs_an_exit(micro: Backbone) -> None:
    """Truncating at a layer without an exit is refused."""
    with pytest.raises(ValueError, match=r"\b2\b\D+\b2\b"):
        _encoder(micro, (None, None, "dense")).truncated(2)


def test_repeated_layers_count_once() -> None:
    """The parameters of a repeated layer and of a repeated exit count once."""
    layer, exit_head = nn.Linear(3, 3), nn.Linear(3, 2)
    model = MultiExitModel(nn.Embedding(5, 3), [layer] * 4, [exit_head, None, exit_head, exit_head])
    assert model.parameter_count() == 5 * 3 + (9 + 3) + (6 + 2)


def test_shared_pooler_counts_once(micro: Backbone) -> None:
    """A pooler that all exits share counts once."""
    counts = {
        head: _encoder(micro, (head, head, head)).parameter_count()
        for head in ("plain", "shared", "dense")
    }
    pooler = micro.shape.hidden**2 + micro.shape.hidden
    assert counts["shared"] - counts["plain"] == pooler
    assert counts["dense"] - counts["plain"] == 3 * pooler


def test_state_rows_keep_given_order() -> None:
    """`State.rows` selects the same examples, in the given order, in all tensors."""
    old, new = torch.arange(24.0).view(4, 3, 2), torch.arange(24.0, 48.0).view(4, 3, 2)
    mask = torch.arange(3) < torch.tensor([1, 2, 3, 3])[:, None]
    logits = torch.arange(4.0).view(4, 1), torch.arange(8.0).view(4, 2)
    state = State((old, new), LayerContext.of(mask), logits)
    kept = state.rows(torch.tensor([3, 1]))
    assert torch.equal(kept.hiddens[0], torch.stack([old[3], old[1]]))
    assert torch.equal(kept.hiddens[1], torch.stack([new[3], new[1]]))
    assert kept.mask.tolist() == [[True, True, True], [True, True, False]]
    assert [logits.tolist() for logits in kept.logits] == [[[3.0], [1.0]], [[6.0, 7.0], [2.0, 3.0]]]


def test_context_counts_positions_from_zero() -> None:
    context = LayerContext.of(BATCH.mask)
    assert context.mask is BATCH.mask
    assert context.positions.dtype == torch.long
    assert context.positions.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("single", [True, False], ids=["single", "shared"])
def test_context_rows_keep_mask_and_positions(single: bool) -> None:
    """Shared positions are kept as they are; positions of single examples are selected."""
    mask = torch.arange(3) < torch.tensor([1, 2, 3, 3])[:, None]
    context = LayerContext(mask, torch.arange(12).view(4, 3) if single else torch.arange(3)[None])
    kept = State((torch.zeros(4, 3, 2),), context).rows(torch.tensor([3, 1])).context
    assert kept.mask.tolist() == [[True, True, True], [True, True, False]]
    assert kept.positions.tolist() == ([[9, 10, 11], [3, 4, 5]] if single else [[0, 1, 2]])


def test_layers_get_remaining_context() -> None:
    """With and without early exit, layers receive the context of the remaining examples."""
    contexts: list[LayerContext] = []
    model = _model([KeepState(), KeepState()])
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, inputs: contexts.append(inputs[1]))
    model(BATCH)
    predict_early(model, BATCH, SecondExampleExits(), 0.5)
    masks = [context.mask.tolist() for context in contexts]
    assert masks == [*[BATCH.mask.tolist()] * 3, [[True, True, True]]]
    assert [context.positions.tolist() for context in contexts] == [[[0, 1, 2]]] * 4


def test_state_keeps_lookback_hiddens_only() -> None:
    """A state keeps only as many hidden states as the lookback."""
    tensors = [torch.full((1, 1, 1), float(value)) for value in range(4)]
    state = State((tensors[0],), LayerContext.of(torch.ones(1, 1, dtype=torch.bool)))
    for tensor in tensors[1:]:
        state = state.after(tensor, lookback=3)
    assert [hidden.item() for hidden in state.hiddens] == [1.0, 2.0, 3.0]


def test_batch_moves_all_tensors() -> None:
    """A batch moves all its tensors."""
    assert {tensor.device.type for tensor in BATCH.to(torch.device("meta"))} == {"meta"}


def test_dropout_acts_in_training_only(micro: Backbone) -> None:
    """Dropout of a model in training changes its logits, and evaluation is repeatable."""
    shape = replace(micro.shape, dropout=0.5)
    model = EncoderModel(ModelConfig(shape, "mean", 2, 1.0, ("dense",) * 3))
    batch = _tokens(2, 5)
    assert not torch.equal(model.train()(batch).logits, model(batch).logits)
    assert torch.equal(model.eval()(batch).logits, model(batch).logits)
