"""Widths under a budget: the share of everything that reaches a ratio, and units of all layers that compete for MACs."""

from collections.abc import Callable
from dataclasses import replace

import torch

from costeff.importance import Importance
from harness.models.shapes import EncoderShape

LENGTH = 128
"""Tokens at which MACs are compared: the length at which the field quotes them."""
FINENESS = 2.0**-12
"""Shares are found to this."""


def largest_share(fits: Callable[[float], bool]) -> float | None:
    """The largest share in (0, 1], to 1/4096, that fits, where every smaller share fits too; None when the smallest does not."""
    if not fits(FINENESS):
        return None
    low, high = 1, round(1 / FINENESS) + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * FINENESS) else (low, middle)
    return low * FINENESS


def unit_macs(shape: EncoderShape) -> tuple[int, int]:
    """MACs of one row of `LENGTH` tokens that one attention head and one feed-forward neuron cost.

    A head: its part of query, key, value and output projection, and both products of the attention. A neuron: a row and a column.
    """
    head = LENGTH * shape.head_size * (4 * shape.hidden + 2 * LENGTH)
    return head, LENGTH * 2 * shape.hidden


def layer_macs(shape: EncoderShape) -> int:
    """MACs of all layers for one row of `LENGTH` tokens."""
    head, neuron = unit_macs(shape)
    return head * sum(shape.heads) + neuron * sum(shape.ffn)


def encoder_macs(shape: EncoderShape) -> int:
    """With the embedding's projection, where it has one; exits are not in it."""
    return layer_macs(shape) + LENGTH * (shape.embedding_rank or shape.embedding_size or 0) * shape.hidden


def compete(importance: Importance, shape: EncoderShape, budget: int) -> EncoderShape:
    """The shape when heads and neurons of all layers compete: those whose scored weights matter most on average stay, as many as the budget
    (MACs of all layers at 128 tokens) holds; each layer keeps at least one of both. Scored are a head's rows of the output projection and
    a neuron's of both matrices: a score for each of these weights, so that a head does not lose by those that are not scored.

    Not in the paper, where each layer keeps as many as every other.
    Raises: ValueError when the budget does not hold one head and one neuron of each layer.
    """
    head, neuron = unit_macs(shape)
    layers = len(importance.heads)
    left = budget - layers * (head + neuron)
    if left < 0:
        raise ValueError(f"a budget of {budget} MACs: wanted at least {budget - left}, one head and one neuron of each layer")
    kept = ([1] * layers, [1] * layers)
    scored = shape.head_size * shape.hidden, 2 * shape.hidden
    rest = [
        (float(score) / scored[kind], kind, layer, cost)
        for kind, (scores, cost) in enumerate(((importance.heads, head), (importance.neurons, neuron)))
        for layer, units in enumerate(scores)
        for score in torch.sort(units, descending=True).values[1:]
    ]
    for _, kind, layer, cost in sorted(rest, key=lambda unit: -unit[0]):
        if cost <= left:
            left -= cost
            kept[kind][layer] += 1
    return replace(shape, heads=tuple(kept[0]), ffn=tuple(kept[1]))
