"""MACs of each piece of a model by fvcore, as an exact polynomial in the sequence length.

A MAC is one multiply-add of a matrix product; FLOPs are twice as many. Element-wise work (normalisation, soft-max, activations,
sums) is not counted, as in the field's figures. fvcore alone is not exact: it counts fused attention as nothing and a layer norm as
5 an element, charges a shared module to its first owner, and drops exit heads that only steer control flow. So handles mend the
first two, every piece is counted on its own, and an operator that nobody accounts for is an error.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import prod

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from harness.models.multi_exit import Batch, LayerContext, MultiExitModel, State
from harness.records import Costs, Polynomial

LENGTHS = (8, 16, 32)
CHECK_LENGTH = 24

ELEMENTWISE = (
    "add", "sub", "rsub", "mul", "div", "softmax", "gelu", "relu", "tanh", "where", "embedding", "sum", "mean", "new_ones",
    "index_select", "masked_fill", "clamp", "clamp_min", "unflatten", "cat", "stack",
    "neg", "cos", "sin",
)  # fmt: skip
"""Operators without a matrix product, by their ATen names."""


def _attention_macs(inputs: list[torch.Value], outputs: list[torch.Value]) -> Counter[str]:
    """scaled_dot_product_attention: query [.., q, k] times key, then weights times value [.., s, v]."""
    query, key, value = (_sizes(item) for item in inputs[:3])
    return Counter(attention=prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def _sizes(value: torch.Value) -> list[int]:
    """The shape that a traced tensor had."""
    kind = value.type()
    assert isinstance(kind, torch.TensorType)
    return list(kind.sizes() or ())


def _nothing(inputs: list[object], outputs: list[object]) -> Counter[str]:
    return Counter()


def count_macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Matrix-product MACs of one call.

    Raises: RuntimeError naming an operator that is neither a matrix product nor known to be without one.
    """
    with _evaluating(module), torch.no_grad():
        counter = FlopCountAnalysis(module, inputs)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings(
            "none"
        )
        counter.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        counter.set_op_handle("aten::layer_norm", _nothing)
        for name in ELEMENTWISE:
            counter.set_op_handle(f"aten::{name}", _nothing)
        total, unknown = counter.total(), counter.unsupported_ops()
    if unknown:
        raise RuntimeError(
            f"operators without a rule for MACs: {dict(unknown)}; add them to flops.ELEMENTWISE or count them"
        )
    return int(total)


def piece_costs(model: MultiExitModel) -> Costs:
    """The MACs of the embedding, of each layer and of each exit, for one row."""
    shared: dict[int, Polynomial] = {}

    def layer_macs(layer: nn.Module) -> Polynomial:
        if id(layer) not in shared:
            shared[id(layer)] = _polynomial(_LayerCall(layer), model, "layer")
        return shared[id(layer)]

    exits = [model.exit_after(index) for index in range(len(model.layers))]
    classes = _classes(model)
    return Costs(
        embedding=_polynomial(model.embedding, model, "embedding"),
        layers=tuple(layer_macs(layer) for layer in model.layers),
        exits=tuple(
            None
            if piece is None
            else _polynomial(
                _ExitCall(
                    piece, min(model.lookback, index + 2), _answers_before(model, index), classes
                ),
                model,
                "exit",
            )
            for index, piece in enumerate(exits)
        ),
    )


class _LayerCall(nn.Module):
    """A layer as a function of plain tensors: fvcore hands on a named tuple as a plain one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        output: Tensor = self.layer(hidden, LayerContext(mask, positions))
        return output


class _ExitCall(nn.Module):
    """An exit as a function of plain tensors, which is what fvcore can trace."""

    def __init__(self, leave: nn.Module, hiddens: int, answers: int, classes: int) -> None:
        super().__init__()
        self.leave, self.hiddens, self.answers, self.classes = leave, hiddens, answers, classes

    def forward(self, mask: Tensor, positions: Tensor, *tensors: Tensor) -> Tensor:
        hiddens, answers = tensors[: self.hiddens], tensors[self.hiddens :]
        logits: Tensor = self.leave(State(hiddens, LayerContext(mask, positions), answers))
        return logits


def _classes(model: MultiExitModel) -> int:
    """The width of the model's answers, as they come out."""
    ids = torch.zeros(1, LENGTHS[0], dtype=torch.long, device=next(model.parameters()).device)
    with torch.no_grad(), _evaluating(model):
        return model(Batch(ids, ids, torch.ones_like(ids, dtype=torch.bool))).logits.shape[-1]


def _answers_before(model: MultiExitModel, layer: int) -> int:
    return sum(exit_layer <= layer for exit_layer in model.exit_layers)


def _polynomial(piece: nn.Module, model: MultiExitModel, kind: str) -> Polynomial:
    """The exact polynomial through three counts, checked on a fourth.

    Raises: RuntimeError when the counts do not lie on a quadratic with whole coefficients.
    """
    counts = {
        length: count_macs(piece, _inputs(piece, model, kind, length))
        for length in (*LENGTHS, CHECK_LENGTH)
    }
    (x0, x1, x2), (y0, y1, y2) = LENGTHS, (Fraction(counts[length]) for length in LENGTHS)
    slope, bend = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    c2 = (bend - slope) / (x2 - x0)
    c1 = slope - c2 * (x0 + x1)
    c0 = y0 - x0 * (c1 + x0 * c2)
    if any(coefficient.denominator != 1 for coefficient in (c0, c1, c2)):
        raise RuntimeError(
            f"MACs of the {kind} are no polynomial with whole coefficients: {counts}"
        )
    polynomial = Polynomial(int(c0), int(c1), int(c2))
    if polynomial.at(CHECK_LENGTH) != counts[CHECK_LENGTH]:
        raise RuntimeError(f"MACs of the {kind} are not quadratic in the length: {counts}")
    return polynomial


def _inputs(piece: nn.Module, model: MultiExitModel, kind: str, length: int) -> tuple[Tensor, ...]:
    """Arguments of one call of a piece for one row of so many tokens."""
    device = next(model.parameters()).device
    ids = torch.zeros(1, length, dtype=torch.long, device=device)
    if kind == "embedding":
        return ids, ids
    context = LayerContext.of(torch.ones(1, length, dtype=torch.bool, device=device))
    with torch.no_grad(), _evaluating(model.embedding):
        hidden = model.embedding(ids, ids)
    if not isinstance(piece, _ExitCall):
        return hidden, *context
    answer = torch.zeros(1, piece.classes, device=device)
    return *context, *[hidden] * piece.hiddens, *[answer] * piece.answers


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and a quiet fvcore for the time of a count."""
    modes, logger = (
        [(part, part.training) for part in module.modules()],
        logging.getLogger("fvcore"),
    )
    level = logger.level
    logger.setLevel(logging.ERROR)
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        logger.setLevel(level)
