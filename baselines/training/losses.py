"""Losses of exits, and of a student against its teacher (soft labels, hidden states, attention, masked words)."""

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
    each = functional.cross_entropy(
        logits.flatten(0, 1), labels.long().repeat(exits), reduction="none"
    )
    return each.view(exits, rows).mean(-1)


def weighted(losses: Tensor, weights: Sequence[float]) -> Tensor:
    """Sum of losses [e] times weights [e]."""
    return torch.dot(losses, torch.tensor(weights, dtype=losses.dtype, device=losses.device))


def soft_losses(logits: Tensor, targets: Tensor, scale: float, temperature: float = 1.0) -> Tensor:
    """The distillation loss of each exit [e]: logits [e, n, c] against a teacher's logits [e, n, c] or [n, c], which get no gradient.

    Soft-label cross-entropy -sum over classes of softmax(target) log softmax(logit) (Hinton et al., 2015; COST-EFF, section 3.2), both at
    a temperature T and the loss times T^2, so that its gradient stays as large; up to a constant the divergence that DistilBERT's code
    has. For a regression (c = 1) the mean squared error of both divided by `scale`, as in `exit_losses`.
    """
    logits, targets = logits.float(), targets.detach().float()
    if logits.shape[-1] == 1:
        return ((logits - targets)[..., 0] / scale).square().mean(-1)
    logits, targets = logits / temperature, targets / temperature
    return -(temperature**2) * (targets.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean(-1)


def hidden_loss(hiddens: Sequence[Tensor], targets: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Squared difference of hidden states [n, t, d] of a student and a teacher, summed over the states that are compared.

    Mean over hidden dimensions and over the real tokens (mask [n, t]) of a row, then over rows: COST-EFF compares the embedding's output
    and every layer's. Only where both have the same width; the teacher gets no gradient.
    """
    weights = mask / mask.sum(-1, keepdim=True)  # [n, t], a row sums to 1
    parts = [
        ((one.float() - other.detach().float()).square().mean(-1) * weights).sum(-1).mean()
        for one, other in zip(hiddens, targets, strict=True)
    ]
    return torch.stack(parts).sum()


def attention_loss(scores: Sequence[Tensor], targets: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Squared difference of attention scores before the soft-max [n, h, t, t] of a student and a teacher with as many heads, summed over
    the layers that are compared (TinyBERT, section 3.1, equation 7).

    Mean over heads and over the pairs of real tokens (mask [n, t]) of a row, then over rows. Differs from the authors' code, whose mean
    counts padded pairs as 0. The teacher gets no gradient.
    """
    pairs = (mask[:, :, None] & mask[:, None, :]).unsqueeze(1)  # [n, 1, t, t]
    weights = pairs / pairs.sum((2, 3), keepdim=True)  # a row sums to 1
    parts = [
        ((one.float() - other.detach().float()).masked_fill(~pairs, 0.0).square() * weights)
        .sum((2, 3))
        .mean()
        for one, other in zip(scores, targets, strict=True)
    ]
    return torch.stack(parts).sum()


def cosine_loss(hidden: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - cosine of hidden states [n, t, d] of a student and a teacher, mean over the real tokens (mask [n, t]) of all rows (DistilBERT,
    section 2). The teacher gets no gradient."""
    return (
        1
        - functional.cosine_similarity(
            hidden[mask].float(), target.detach()[mask].float(), dim=-1
        ).mean()
    )
