"""MACs of each piece of a model, counted with fvcore, as an exact polynomial in sequence length.

A MAC is one multiply-add of a matrix product; FLOPs are twice as many. Element-wise operations
(normalisation, softmax, activations, sums) are not counted, as is usual in the literature. fvcore
alone is not exact: it counts fused attention as zero and a layer norm as 5 per element, charges a
shared module to its first owner, and omits exit heads that affect only control flow. Handles
for these operators therefore correct the first two errors, counting each piece separately avoids
the other two, and an operator without a rule is an error.
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
    "add", "sub", "rsub", "mul", "div", "softmax", "gelu", "relu", "tanh", "where", "embedding",
    "sum", "mean", "new_ones", "index_select", "masked_fill", "clamp", "clamp_min", "unflatten",
    "cat", "stack", "neg", "cos", "sin", "sigmoid", "silu", "ne", "cumsum",
)  # fmt: skip
"""Operators without a matrix product, by their ATen names."""


def _attention_macs(inputs: list[torch.Value], outputs: list[torch.Value]) -> Counter[str]:
    """Count query [.., q, k] times key, and attention weights times value [.., s, v]."""
    query, key, value = (_sizes(item) for item in inputs[:3])
    return Counter(attention=prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def _sizes(value: torch.Value) -> list[int]:
    """Return the shape of a traced tensor."""
    type_ = value.type()
    assert isinstance(type_, torch.TensorType)
    return list(type_.sizes() or ())


def _no_macs(inputs: list[object], outputs: list[object]) -> Counter[str]:
    return Counter()


def count_macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return the matrix-product MACs of one call.

    Raises: RuntimeError naming any operator that is neither a counted matrix product nor listed in
    `ELEMENTWISE`.
    """
    with _counting_mode(module), torch.no_grad():
        counter = FlopCountAnalysis(module, inputs)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings(
            "none"
        )
        counter.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        counter.set_op_handle("aten::layer_norm", _no_macs)
        for name in ELEMENTWISE:
            counter.set_op_handle(f"aten::{name}", _no_macs)
        total, unknown = counter.total(), counter.unsupported_ops()
    if unknown:
        raise RuntimeError(
            f"operators without a rule for MACs: {dict(unknown)}; "
            "add them to macs.ELEMENTWISE or count them"
        )
    return int(total)


def piece_costs(model: MultiExitModel) -> Costs:
    """Return the MACs of the embedding, each layer and each exit, for one example."""
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
                    piece, min(model.lookback, index + 2), _exits_before(model, index), classes
                ),
                model,
                "exit",
            )
            for index, piece in enumerate(exits)
        ),
    )


class _LayerCall(nn.Module):
    """A layer as a function of tensors, because fvcore turns a named tuple into a plain one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        output: Tensor = self.layer(hidden, LayerContext(mask, positions))
        return output


class _ExitCall(nn.Module):
    """An exit as a function of tensors, which fvcore can trace."""

    def __init__(self, leave: nn.Module, hiddens: int, earlier_exits: int, classes: int) -> None:
        super().__init__()
        self.leave, self.hiddens = leave, hiddens
        self.earlier_exits, self.classes = earlier_exits, classes

    def forward(self, mask: Tensor, positions: Tensor, *tensors: Tensor) -> Tensor:
        hiddens, earlier_logits = tensors[: self.hiddens], tensors[self.hiddens :]
        context = LayerContext(mask, positions)
        logits: Tensor = self.leave(State(hiddens, context, earlier_logits))
        return logits


def _classes(model: MultiExitModel) -> int:
    """Return the number of outputs, from a forward pass."""
    ids = torch.zeros(1, LENGTHS[0], dtype=torch.long, device=next(model.parameters()).device)
    with torch.no_grad(), _counting_mode(model):
        return model(Batch(ids, ids, torch.ones_like(ids, dtype=torch.bool))).logits.shape[-1]


def _exits_before(model: MultiExitModel, layer: int) -> int:
    return sum(exit_layer <= layer for exit_layer in model.exit_layers)


def _polynomial(piece: nn.Module, model: MultiExitModel, kind: str) -> Polynomial:
    """Return the quadratic through three counts, checked against a fourth.

    Raises: RuntimeError if the counts do not lie on a quadratic with integer coefficients.
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
            f"MACs of the {kind} are not a polynomial with integer coefficients: {counts}"
        )
    polynomial = Polynomial(int(c0), int(c1), int(c2))
    if polynomial.at(CHECK_LENGTH) != counts[CHECK_LENGTH]:
        raise RuntimeError(f"MACs of the {kind} are not quadratic in sequence length: {counts}")
    return polynomial


def _inputs(piece: nn.Module, model: MultiExitModel, kind: str, length: int) -> tuple[Tensor, ...]:
    """Return arguments for one call of a piece on one example of the given length."""
    device = next(model.parameters()).device
    ids = torch.zeros(1, length, dtype=torch.long, device=device)
    if kind == "embedding":
        return ids, ids
    context = LayerContext.of(torch.ones(1, length, dtype=torch.bool, device=device))
    with torch.no_grad(), _counting_mode(model.embedding):
        hidden = model.embedding(ids, ids)
    if not isinstance(piece, _ExitCall):
        return hidden, *context
    logits = torch.zeros(1, piece.classes, device=device)
    return *context, *[hidden] * piece.hiddens, *[logits] * piece.earlier_exits


@contextmanager
def _counting_mode(module: nn.Module) -> Iterator[None]:
    """Switch the module to evaluation mode and silence fvcore within the context."""
    modes = [(part, part.training) for part in module.modules()]
    logger = logging.getLogger("fvcore")
    level = logger.level
    logger.setLevel(logging.ERROR)
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        logger.setLevel(level)
