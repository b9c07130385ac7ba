"""Losses of exits, and of a student against its teacher."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def exit_losses(logits: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Return the loss of each exit [e] from its logits [e, n, c] and the labels [n].

    Labels are class indices, or values in label units. The loss is the cross-entropy, or for a
    regression (c = 1) the mean squared error of predictions and labels, both divided by `scale` so
    that they lie in [0, 1].
    """
    logits = logits.float()
    if logits.shape[-1] == 1:
        return ((logits[..., 0] - labels) / scale).square().mean(-1)
    exits, examples = logits.shape[:2]
    losses = functional.cross_entropy(
        logits.flatten(0, 1), labels.long().repeat(exits), reduction="none"
    )
    return losses.view(exits, examples).mean(-1)


def weighted_sum(losses: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the sum of losses [e] times weights [e]."""
    return torch.dot(losses, torch.tensor(weights, dtype=losses.dtype, device=losses.device))


def soft_losses(logits: Tensor, targets: Tensor, scale: float, temperature: float = 1.0) -> Tensor:
    """Return the distillation loss of each exit [e] from its logits [e, n, c] and a teacher's.

    The teacher's logits [e, n, c] or [n, c] get no gradient. The loss is the soft-label
    cross-entropy: minus the sum over classes of softmax(target) log softmax(logit) (Hinton et al.,
    2015; COST-EFF, section 3.2). Both logits are divided by the temperature T and the loss is
    multiplied by T^2, which preserves the magnitude of its gradient. It equals the KL divergence of
    DistilBERT's code up to a constant. For a regression (c = 1) it is the mean squared error of
    both, divided by `scale` as in `exit_losses`.
    """
    logits, targets = logits.float(), targets.detach().float()
    if logits.shape[-1] == 1:
        return ((logits - targets)[..., 0] / scale).square().mean(-1)
    logits, targets = logits / temperature, targets / temperature
    return -(temperature**2) * (targets.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean(-1)


def hidden_loss(hiddens: Sequence[Tensor], targets: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the squared error between hidden states [n, t, d] of a student and a teacher.

    It is averaged over hidden dimensions and the real tokens (mask [n, t]) of an example, then over
    examples, and summed over the compared states. COST-EFF compares the outputs of the embedding
    and of every layer. Both models have the same width; the teacher gets no gradient.
    """
    weights = mask / mask.sum(-1, keepdim=True)  # [n, t], each example sums to 1
    parts = [
        ((student.float() - teacher.detach().float()).square().mean(-1) * weights).sum(-1).mean()
        for student, teacher in zip(hiddens, targets, strict=True)
    ]
    return torch.stack(parts).sum()


def attention_loss(scores: Sequence[Tensor], targets: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the squared error between attention scores of a student and a teacher.

    The scores [n, h, t, t] are those before the softmax, of models with equally many heads
    (TinyBERT, section 3.1, equation 7). The error is averaged over heads and the pairs of
    real tokens (mask [n, t]) of an example, then over examples, and summed over the compared
    layers. This differs from the authors' code, whose mean counts padded pairs as 0. The teacher
    gets no gradient.
    """
    pairs = (mask[:, :, None] & mask[:, None, :]).unsqueeze(1)  # [n, 1, t, t]
    weights = pairs / pairs.sum((2, 3), keepdim=True)  # each example sums to 1
    parts = [
        ((student.float() - teacher.detach().float()).masked_fill(~pairs, 0.0).square() * weights)
        .sum((2, 3))
        .mean()
        for student, teacher in zip(scores, targets, strict=True)
    ]
    return torch.stack(parts).sum()


def cosine_loss(hidden: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - cosine similarity of hidden states [n, t, d] of a student and a teacher.

    It is averaged over the real tokens (mask [n, t]) of all examples (DistilBERT, section 2). The
    teacher gets no gradient.
    """
    student, teacher = hidden[mask].float(), target.detach()[mask].float()
    return 1 - functional.cosine_similarity(student, teacher, dim=-1).mean()
