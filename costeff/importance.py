"""How much each attention head and each feed-forward neuron matters to the loss, to first order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.encoders.encoder import EncoderModel, Layer
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

    A head's score sums over the columns of the attention's output projection that read it, a neuron's over its row of the widening and
    its column of the narrowing matrix. A batch's gradient is summed over `accumulation` forward passes, for a small memory. The model is
    left in evaluation mode, without gradients.
    """
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    weights = [weight for layer in layers for weight in (layer.output.weight, layer.widen.weight, layer.narrow.weight)]
    model.to(compute.device).eval()
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    sums = [torch.zeros_like(weight) for weight in weights]
    for batch in batches:
        gradients = [torch.zeros_like(weight) for weight in weights]
        for index in np.array_split(batch, min(accumulation, len(batch))):
            with compute.autocast():
                value = loss(model, Examples.of(rows, index, compute.device)) * (len(index) / len(batch))
            for gradient, part in zip(gradients, torch.autograd.grad(value, weights), strict=True):
                gradient.add_(part)
        for total, gradient in zip(sums, gradients, strict=True):
            total.add_(gradient.abs())
        advance()
    model.requires_grad_(True)
    scores = [(weight.detach() * total).abs().cpu() for weight, total in zip(weights, sums, strict=True)]
    outputs, wide, narrow = scores[0::3], scores[1::3], scores[2::3]
    heads = tuple(output.sum(0).view(layer.heads, layer.head_size).sum(-1) for layer, output in zip(layers, outputs, strict=True))
    return Importance(heads, tuple(one.sum(1) + other.sum(0) for one, other in zip(wide, narrow, strict=True)))
