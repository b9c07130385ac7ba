"""MACs and parameters of the pieces of a model."""

import logging
import re
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from harness.cli.output import flops_table
from harness.evaluation.policies import Entropy, exit_scores
from harness.measure.inference import predict_early
from harness.measure.macs import count_macs, piece_costs
from harness.models.backbones import Pooling
from harness.models.multi_exit import Batch, LayerContext, MultiExitModel, State
from harness.models.shapes import EncoderShape, bert_shape
from harness.records import Costs, Polynomial

META = torch.device("meta")
TINY = bert_shape(3, 24, 3, 40, vocabulary=50, positions=512)
"""A small shape whose widths all differ."""


def _attention_flops(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: object, **__: object
) -> int:
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
"""Fused attention on a CPU, which torch's counter does not know."""


def _model(
    shape: EncoderShape,
    exits: tuple[Head | None, ...],
    pooling: Pooling = "cls",
    device: torch.device | None = None,
) -> EncoderModel:
    with torch.device(device or "cpu"):
        return EncoderModel(ModelConfig(shape, pooling, 2, 1.0, exits)).eval()


def _last(shape: EncoderShape, head: Head = "dense") -> tuple[Head | None, ...]:
    return (None,) * (shape.layers - 1) + (head,)


def _live_flops(
    model: MultiExitModel, batch: Batch, score_threshold: float
) -> tuple[int, list[int]]:
    """Return the FLOPs of early exit by torch's counter, and the exit of each example."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        early = predict_early(model, batch, Entropy(), score_threshold)
    return counter.get_total_flops(), early.exits.tolist()


def _forward_flops(model: MultiExitModel, length: int) -> int:
    ids = torch.zeros(1, length, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        model(Batch(ids, ids, torch.ones(1, length, dtype=torch.bool)))
    return counter.get_total_flops()


def test_bert_base_costs_published_macs() -> None:
    """BERT-base with pooler and a two-class head has the published MACs at 128 tokens."""
    shape = bert_shape(12, 768, 12, 3072)
    model = _model(shape, _last(shape), device=META)
    costs = piece_costs(model)
    assert costs.static(11, 128) == 11_174_217_216
    assert {layer.at(128) for layer in costs.layers} == {931_135_488}
    assert costs.exits[-1] == Polynomial(768 * 768 + 2 * 768, 0, 0)
    assert costs.embedding == Polynomial(0, 0, 0)
    assert model.parameter_count() == 109_482_240 + 2 * 768 + 2


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "ffn", "millions", "gigamacs"),
    [
        (6, 768, 12, 3072, 66.96, 5.587),
        (4, 312, 12, 1200, 14.35, 0.624),
        (2, 128, 2, 512, 4.39, 0.059),
        (4, 256, 4, 1024, 11.17, 0.436),
        (4, 512, 8, 2048, 28.76, 1.678),
        (8, 512, 8, 2048, 41.37, 3.356),
    ],
    ids=["6/768", "TinyBERT4", "BERT-tiny", "BERT-mini", "BERT-small", "BERT-medium"],
)
def test_published_sizes_match_closed_forms(
    layers: int, hidden: int, heads: int, ffn: int, millions: float, gigamacs: float
) -> None:
    """Published sizes and closed forms agree at 128 tokens."""
    shape = bert_shape(layers, hidden, heads, ffn)
    model = _model(shape, _last(shape), device=META)
    one_layer_many_times = MultiExitModel(
        model.embedding,
        [model.layers[0]] * layers,
        [None] * (layers - 1) + [model.exits[str(layers - 1)]],
    )
    macs = piece_costs(one_layer_many_times).static(layers - 1, 128)
    assert (
        macs
        == layers * (4 * 128 * hidden**2 + 2 * 128**2 * hidden + 2 * 128 * hidden * ffn)
        + hidden**2
        + 2 * hidden
    )
    assert macs / 1e9 == pytest.approx(gigamacs, abs=6e-4)
    assert model.parameter_count() / 1e6 == pytest.approx(millions, abs=6e-3)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(
    "shape",
    [TINY, replace(TINY, heads=(1, 3, 2), ffn=(7, 40, 1), embedding_rank=5)],
    ids=["plain", "compressed"],
)
def test_polynomials_equal_torch_count(shape: EncoderShape, pooling: Pooling) -> None:
    """The polynomials equal torch's count at other lengths."""
    model = _model(shape, ("dense", None, "plain"), pooling)
    costs = piece_costs(model)
    first = costs.exits[0]
    assert first is not None
    for length in (1, 7, 128, 512):
        assert 2 * costs.path(2, length) == _forward_flops(model, length)
        assert 2 * costs.static(2, length) == _forward_flops(model.truncated(3), length)
        assert costs.path(2, length) - costs.static(2, length) == first.at(length)


def test_polynomials_equal_closed_form() -> None:
    """The polynomials equal the closed form of each piece."""
    shape = replace(TINY, heads=(1, 3, 2), ffn=(7, 40, 1))
    costs = piece_costs(_model(shape, ("dense", "shared", "plain")))
    for layer, heads, ffn in zip(costs.layers, shape.heads, shape.ffn, strict=True):
        assert layer == Polynomial(0, 4 * 24 * 8 * heads + 2 * 24 * ffn, 2 * 8 * heads)
    assert costs.exits == (
        Polynomial(24 * 24 + 48, 0, 0),
        Polynomial(24 * 24 + 48, 0, 0),
        Polynomial(48, 0, 0),
    )


def test_shared_pooler_costs_every_exit() -> None:
    """A shared pooler is charged at every exit."""
    costs = piece_costs(_model(TINY, ("shared", "shared", "shared")))
    assert costs.exits == (Polynomial(24 * 24 + 48, 0, 0),) * 3
    assert costs.path(2, 9) - costs.static(2, 9) == 2 * (24 * 24 + 48)


def test_repeated_layer_costs_each_run() -> None:
    """A repeated layer is charged each time it runs."""
    model = _model(TINY, ("plain",) * 3)
    repeated = MultiExitModel(
        model.embedding, [model.layers[0]] * 3, [None, None, model.exits["2"]]
    )
    costs = piece_costs(repeated)
    assert costs.layers == (piece_costs(model).layers[0],) * 3
    assert 2 * costs.static(2, 31) == _forward_flops(repeated, 31)


@pytest.mark.parametrize("rank", [1, 8])
def test_factorised_embedding_costs_its_projection(rank: int) -> None:
    """A factorised embedding is charged its projection, and a plain one nothing."""
    shape = bert_shape(1, 24, 3, 40, vocabulary=50)
    factorised, plain = (
        piece_costs(_model(replace(shape, embedding_rank=r), ("plain",))) for r in (rank, None)
    )
    assert factorised.embedding == Polynomial(0, rank * 24, 0)
    assert plain.embedding == Polynomial(0, 0, 0)


def test_counting_leaves_model_unchanged() -> None:
    """Counting leaves the model and the logger as they were."""
    model = _model(TINY, ("shared",) * 3).train()
    model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    level = logging.getLogger("fvcore").level
    piece_costs(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert logging.getLogger("fvcore").level == level


class RunningProduct(nn.Module):
    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        return hidden.cumprod(1)


class AllTriples(nn.Module):
    """A product whose MACs grow with the cube of the length."""

    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        square = hidden @ hidden.transpose(1, 2)
        return (square @ square) @ hidden


class FirstTenTokens(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        return hidden + self.linear(hidden[:, :10]).sum(1, keepdim=True)


def _with_layer(layer: nn.Module) -> MultiExitModel:
    model = _model(TINY, ("plain",) * 3)
    return MultiExitModel(model.embedding, [layer], [model.exits["2"]])


def test_unknown_operator_is_named() -> None:
    """An operator without a rule is an error that names it."""
    with pytest.raises(RuntimeError, match=r"aten::cumprod"):
        piece_costs(_with_layer(RunningProduct()))


@pytest.mark.parametrize("layer", [AllTriples(), FirstTenTokens(24)], ids=["cubic", "piecewise"])
def test_non_quadratic_cost_is_refused(layer: nn.Module) -> None:
    """A piece whose count is not quadratic is an error."""
    with pytest.raises(RuntimeError, match=r"\blayer\b.*\d"):
        piece_costs(_with_layer(layer))


def test_linear_layer_count_is_exact() -> None:
    """The count of a single linear layer is exact."""
    assert count_macs(nn.Linear(5, 7), (torch.zeros(3, 11, 5),)) == 3 * 11 * 5 * 7


def _mixed_run(model: MultiExitModel, rows: int, length: int) -> tuple[int, int, list[int]]:
    """Return the FLOPs counted live, twice the MACs charged, and the exit of each example.

    All examples have one length, and the threshold lies in the middle of the scores.
    """
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.4, generator=generator)
    ids = torch.randint(50, (rows, length), generator=generator)
    batch = Batch(ids, ids % 2, torch.ones(rows, length, dtype=torch.bool))
    with torch.no_grad():
        scores = np.sort(exit_scores(Entropy(), model(batch).logits.numpy()), axis=None)
    flops, exits = _live_flops(model, batch, float(scores[int(len(scores) * 0.6)]))
    costs: Costs = piece_costs(model)
    charged = sum(costs.path(model.exit_layers[index] - 1, length) for index in exits)
    return flops, 2 * charged, exits


@pytest.mark.parametrize("head", ["dense", "shared", "plain"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_live_run_costs_charged_macs(head: Head, pooling: Pooling) -> None:
    """Early exit costs exactly the MACs that are charged."""
    shape = bert_shape(5, 24, 3, 40, vocabulary=50, positions=64)
    flops, charged, exits = _mixed_run(_model(shape, (head,) * 5, pooling), rows=24, length=13)
    assert len(set(exits)) >= 3
    assert flops == charged


def test_compressed_live_run_costs_charged_macs() -> None:
    """Early exit of a compressed model with exits at some layers costs the MACs charged."""
    shape = replace(
        bert_shape(5, 24, 3, 40, vocabulary=50, positions=64),
        heads=(3, 1, 2, 3, 1),
        ffn=(40, 9, 17, 1, 30),
        embedding_rank=6,
    )
    flops, charged, exits = _mixed_run(
        _model(shape, (None, "shared", "dense", None, "shared"), "mean"), rows=24, length=17
    )
    assert set(exits) == {0, 1, 2}
    assert flops == charged


class LooksBack(nn.Module):
    """An exit with a linear function of each hidden state it reads."""

    lookback = 3

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, 2)

    def forward(self, state: State) -> Tensor:
        return torch.stack([self.linear(hidden[:, 0]) for hidden in state.hiddens]).sum(0)


class ReadsEarlierLogits(nn.Module):
    """An exit with a linear function of its hidden state and of all earlier logits."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear, self.mix = nn.Linear(hidden, 2), nn.Linear(2, 2)

    def forward(self, state: State) -> Tensor:
        return self.linear(state.hiddens[-1][:, 0]) + sum(
            self.mix(logits) for logits in state.logits
        )


@pytest.mark.parametrize("kind", [LooksBack, ReadsEarlierLogits])
def test_exit_pays_states_and_logits(kind: type[LooksBack] | type[ReadsEarlierLogits]) -> None:
    """An exit is charged for the hidden states and logits it reads."""
    encoder = _model(bert_shape(5, 24, 3, 40, vocabulary=50, positions=64), ("plain",) * 5)
    model = MultiExitModel(
        encoder.embedding, list(encoder.layers), [kind(24) for _ in range(5)]
    ).eval()
    flops, charged, exits = _mixed_run(model, rows=24, length=13)
    assert len(set(exits)) >= 3
    assert flops == charged


def test_table_lists_exits_with_flops() -> None:
    """The table has a row for each exit, with FLOPs twice the MACs."""
    model = _model(TINY, ("shared", None, "shared"))
    rows = flops_table(model, 10, "csv").splitlines()
    numbers = [[int(number) for number in re.findall(r"\d+", row)] for row in rows[1:]]
    layer, exit_ = 10 * (4 * 24 * 24 + 2 * 24 * 40) + 100 * 48, 24 * 24 + 48
    total, first = model.parameter_count(), model.truncated(1).parameter_count()
    assert numbers == [
        [1, first, first, layer + exit_, 2 * (layer + exit_), layer + exit_, 2 * (layer + exit_)],
        [
            3,
            total - 50,
            total,
            3 * layer + exit_,
            2 * (3 * layer + exit_),
            3 * layer + 2 * exit_,
            2 * (3 * layer + 2 * exit_),
        ],
    ]
