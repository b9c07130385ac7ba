"""How much each attention head and each feed-forward neuron matters to the loss, to first order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.encoders.encoder import EncoderModel
from baselines.encoders.layer import EncoderLayer, Units
from baselines.training.loop import Examples, Loss
from harness.data.dataset import Split
from harness.methods.compute import Compute


@dataclass(frozen=True)
class Importance:
    """Scores of every layer's heads and neurons."""

    heads: tuple[Tensor, ...]
    """A layer's [h]."""
    neurons: tuple[Tensor, ...]
    """A layer's [f]."""


def taylor_importance(
    model: EncoderModel,
    loss: Loss,
    rows: Split,
    batches: list[NDArray[np.int64]],
    compute: Compute,
    accumulation: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Importance:
    """First-order importance |w sum over batches of |g||, drop-out off (COST-EFF, section 3.3; authors' code).

    A unit's score sums over its share of the weights that its layer names as scored
    (`EncoderLayer.prunable`). A batch's gradient is summed over `accumulation` forward passes, for
    a small memory. The model is left in evaluation mode, without gradients.
    """
    layers = [layer for layer in model.layers if isinstance(layer, EncoderLayer)]
    weights = [weight for layer in layers for weight in _scored_weights(layer)]
    model.to(compute.device).eval()
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    sums = [torch.zeros_like(weight) for weight in weights]
    for batch in batches:
        gradients = [torch.zeros_like(weight) for weight in weights]
        for index in np.array_split(batch, min(accumulation, len(batch))):
            with compute.autocast():
                value = loss(model, Examples.of(rows, index, compute.device)) * (
                    len(index) / len(batch)
                )
            for gradient, part in zip(gradients, torch.autograd.grad(value, weights), strict=True):
                gradient.add_(part)
        for total, gradient in zip(sums, gradients, strict=True):
            total.add_(gradient.abs())
        advance()
    model.requires_grad_(True)
    pairs = zip(weights, sums, strict=True)
    scores = iter([(weight.detach() * total).abs().cpu() for weight, total in pairs])
    found = [[_unit_scores(units, scores) for units in layer.prunable()] for layer in layers]
    heads, neurons = zip(*found, strict=True)
    return Importance(heads, neurons)


def _scored_weights(layer: EncoderLayer) -> list[Tensor]:
    parts = [part for units in layer.prunable() for part in units.scored]
    return [layer.get_parameter(part.name) for part in parts]


def _unit_scores(units: Units, scores: Iterator[Tensor]) -> Tensor:
    """Sum the next scores of weights, one tensor for each scored part, over each unit [units]."""
    sums = []
    for part in units.scored:
        score = next(scores)
        others = [axis for axis in range(score.dim()) if axis != part.axis]
        along = score.sum(others) if others else score  # [units * share]
        sums.append(along.view(units.number, units.share(part, score)).sum(-1))
    return sum(sums[1:], sums[0])
