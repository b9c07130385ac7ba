"""First-order importance of each attention head and feed-forward neuron to the loss."""

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
    """Importance scores of the heads and neurons of every layer."""

    heads: tuple[Tensor, ...]
    """Scores [h] of each layer's heads."""
    neurons: tuple[Tensor, ...]
    """Scores [f] of each layer's neurons."""


def taylor_importance(
    model: EncoderModel,
    loss: Loss,
    rows: Split,
    batches: list[NDArray[np.int64]],
    compute: Compute,
    accumulation: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Importance:
    """Return the first-order importance of all heads and neurons, measured without dropout.

    The score of a weight is |w * sum over batches of |g|| (COST-EFF, section 3.3, and the authors'
    code). A unit's score is the sum over its weights in the parts that `EncoderLayer.prunable`
    marks as scored. To save memory, a batch's gradient is accumulated over `accumulation` forward
    passes. The model is left in evaluation mode, without gradients.
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
                examples = Examples.of(rows, index, compute.device)
                value = loss(model, examples) * (len(index) / len(batch))
            for gradient, part in zip(gradients, torch.autograd.grad(value, weights), strict=True):
                gradient.add_(part)
        for total, gradient in zip(sums, gradients, strict=True):
            total.add_(gradient.abs())
        advance()
    model.requires_grad_(True)
    pairs = zip(weights, sums, strict=True)
    scores = iter([(weight.detach() * total).abs().cpu() for weight, total in pairs])
    by_layer = [[_unit_scores(units, scores) for units in layer.prunable()] for layer in layers]
    heads, neurons = zip(*by_layer, strict=True)
    return Importance(heads, neurons)


def _scored_weights(layer: EncoderLayer) -> list[Tensor]:
    parts = [part for units in layer.prunable() for part in units.scored]
    return [layer.get_parameter(part.name) for part in parts]


def _unit_scores(units: Units, scores: Iterator[Tensor]) -> Tensor:
    """Return each unit's score [units]: the next weight scores, one tensor per part, summed."""
    sums = []
    for part in units.scored:
        score = next(scores)
        others = [axis for axis in range(score.dim()) if axis != part.axis]
        along = score.sum(others) if others else score  # [units * share]
        sums.append(along.view(units.number, units.share(part, score)).sum(-1))
    return sum(sums[1:], sums[0])
