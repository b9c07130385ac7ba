"""Widths under a budget: the largest share that fits, and an allocation across all layers."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch

from baselines.encoders.encoder import build_layer
from baselines.encoders.layer import EncoderLayer, Units
from costeff.importance import Importance
from harness.models.shapes import EncoderShape

LENGTH = 128
"""Number of tokens at which MACs are compared, the usual length in the literature."""
SHARE_STEP = 2.0**-12
"""Resolution of the search for a share."""


def largest_share(fits: Callable[[float], bool]) -> float | None:
    """Return the largest share in (0, 1] that fits, to 1/4096, or None if even the smallest fails.

    `fits` must be monotonic: if a share fits, so does every smaller one.
    """
    if not fits(SHARE_STEP):
        return None
    low, high = 1, round(1 / SHARE_STEP) + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * SHARE_STEP) else (low, middle)
    return low * SHARE_STEP


class UnitCost(NamedTuple):
    """Cost of one attention head or feed-forward neuron."""

    macs: int
    """MACs for one example of `LENGTH` tokens."""
    scored: int
    """Number of weights from which its importance is computed."""


def unit_costs(shape: EncoderShape) -> tuple[UnitCost, UnitCost]:
    """Return the costs of a head and of a neuron in an encoder of this shape.

    They do not depend on the widths, so they come from a layer of one head and one neuron, which
    is built without allocating memory.
    """
    with torch.device("meta"):
        layer = build_layer(replace(shape, heads=(1,), ffn=(1,)), 0)
    head, neuron = (_unit_cost(layer, units) for units in layer.prunable())
    return head, neuron


def _unit_cost(layer: EncoderLayer, units: Units) -> UnitCost:
    scored = sum(layer.get_parameter(part.name).numel() for part in units.scored)
    return UnitCost(units.macs.at(LENGTH), scored)


def layer_macs(shape: EncoderShape) -> int:
    """Return the MACs of all layers for one example of `LENGTH` tokens."""
    head, neuron = unit_costs(shape)
    return head.macs * sum(shape.heads) + neuron.macs * sum(shape.ffn)


def encoder_macs(shape: EncoderShape) -> int:
    """Return the MACs of all layers and any embedding projection, without exits."""
    projected = shape.embedding_rank or shape.embedding_size or 0
    return layer_macs(shape) + LENGTH * projected * shape.hidden


def allocate_globally(
    importance: Importance,
    shape: EncoderShape,
    budget: int,
) -> EncoderShape:
    """Return the shape in which the heads and neurons of all layers compete for the same MACs.

    The units with the highest mean score are kept while the budget (MACs of all layers at 128
    tokens) allows; each layer keeps at least one head and one neuron. The mean is over a unit's
    scored weights, so the unscored weights of a head do not count against it.

    This differs from the paper, where all layers keep the same number of units.
    Raises: ValueError if the budget is too small for one head and one neuron per layer.
    """
    head, neuron = unit_costs(shape)
    layers = len(importance.heads)
    remaining = budget - layers * (head.macs + neuron.macs)
    if remaining < 0:
        raise ValueError(
            f"a budget of {budget} MACs is too small: one head and one neuron per layer need "
            f"{budget - remaining}"
        )
    kept = ([1] * layers, [1] * layers)
    kinds = (importance.heads, head), (importance.neurons, neuron)
    candidates = [
        (float(score) / cost.scored, kind, layer, cost.macs)
        for kind, (by_layer, cost) in enumerate(kinds)
        for layer, scores in enumerate(by_layer)
        for score in torch.sort(scores, descending=True).values[1:]
    ]
    for _, kind, layer, macs in sorted(candidates, key=lambda candidate: -candidate[0]):
        if macs <= remaining:
            remaining -= macs
            kept[kind][layer] += 1
    return replace(shape, heads=tuple(kept[0]), ffn=tuple(kept[1]))
