"""Losses of exits."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def exit_losses(logits: Tensor, labels: Tensor, scale: float) -> Tensor:
    """The loss of each exit [e]: logits [e, n, c] against labels [n] (class index, or the value in label units).

    Cross-entropy; for a regression (c = 1) the mean squared error of answers and labels divided by `scale`, so that both lie in [0, 1].
    """
    logits = logits.float()
    if logits.shape[-1] == 1:
        return ((logits[..., 0] - labels) / scale).square().mean(-1)
    exits, rows = logits.shape[:2]
    each = functional.cross_entropy(logits.flatten(0, 1), labels.long().repeat(exits), reduction="none")
    return each.view(exits, rows).mean(-1)


def weighted(losses: Tensor, weights: Sequence[float]) -> Tensor:
    """Sum of losses [e] times weights [e]."""
    return torch.dot(losses, torch.tensor(weights, dtype=losses.dtype, device=losses.device))
