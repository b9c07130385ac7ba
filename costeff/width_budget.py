"""Widths under a budget: the share of everything that reaches a ratio, and units of all layers that compete for MACs."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch

from baselines.encoders.encoder import EncoderModel
from baselines.encoders.layer import EncoderLayer, Units
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


class Unit(NamedTuple):
    """One attention head, or one feed-forward neuron."""

    macs: int
    """MACs of one row of `LENGTH` tokens."""
    scored: int
    """Number of weights that score it."""


def one_of_each(shape: EncoderShape, model_class: type[EncoderModel]) -> tuple[Unit, Unit]:
    """A head and a neuron of an encoder of this shape, as its layer describes them.

    Both are the same at every width, so a layer of one head and one neuron is asked; it is built
    without memory.
    """
    with torch.device("meta"):
        layer = model_class.layer_class(replace(shape, heads=(1,), ffn=(1,)), 0)
    heads, neurons = (_unit(layer, units) for units in layer.prunable())
    return heads, neurons


def _unit(layer: EncoderLayer, units: Units) -> Unit:
    scored = sum(layer.get_parameter(part.name).numel() for part in units.scored)
    return Unit(units.macs.at(LENGTH), scored)


def layer_macs(shape: EncoderShape, model_class: type[EncoderModel] = EncoderModel) -> int:
    """MACs of all layers for one row of `LENGTH` tokens."""
    head, neuron = one_of_each(shape, model_class)
    return head.macs * sum(shape.heads) + neuron.macs * sum(shape.ffn)


def encoder_macs(shape: EncoderShape) -> int:
    """With the embedding's projection, where it has one; exits are not in it."""
    return (
        layer_macs(shape)
        + LENGTH * (shape.embedding_rank or shape.embedding_size or 0) * shape.hidden
    )


def compete(
    importance: Importance,
    shape: EncoderShape,
    budget: int,
    model_class: type[EncoderModel] = EncoderModel,
) -> EncoderShape:
    """The shape when heads and neurons of all layers compete: those whose scored weights matter
    most on average stay, as many as the budget (MACs of all layers at 128 tokens) holds; each layer
    keeps at least one of both. The mean is over the weights that score a unit, so that a head does
    not lose by those that are not scored.

    Not in the paper, where each layer keeps as many as every other.
    Raises: ValueError when the budget does not hold one head and one neuron of each layer.
    """
    head, neuron = one_of_each(shape, model_class)
    layers = len(importance.heads)
    left = budget - layers * (head.macs + neuron.macs)
    if left < 0:
        raise ValueError(
            f"a budget of {budget} MACs: wanted at least {budget - left}, one head and one neuron of each layer"
        )
    kept = ([1] * layers, [1] * layers)
    kinds = (importance.heads, head), (importance.neurons, neuron)
    rest = [
        (float(score) / unit.scored, kind, layer, unit.macs)
        for kind, (scores, unit) in enumerate(kinds)
        for layer, units in enumerate(scores)
        for score in torch.sort(units, descending=True).values[1:]
    ]
    for _, kind, layer, cost in sorted(rest, key=lambda unit: -unit[0]):
        if cost <= left:
            left -= cost
            kept[kind][layer] += 1
    return replace(shape, heads=tuple(kept[0]), ffn=tuple(kept[1]))
