"""Factorise the word embedding as a low-rank table times a projection, by truncated SVD."""

from typing import NamedTuple

import torch
from torch import Tensor

from baselines.encoders.encoder import Embedding


class Factors(NamedTuple):
    """An embedding [V, d] as table @ projection^T."""

    table: Tensor
    """Table [V, r]."""
    projection: Tensor
    """Projection [d, r] with orthonormal columns."""


def factorised(embedding: Embedding, rank: int) -> Factors:
    """Return the best factors of this rank (Eckart and Young) of a full or factorised embedding.

    This is COST-EFF, section 3.3; the authors' code takes U S and V of a full decomposition. With
    the right singular vectors V of E, U S = E V, and V are the eigenvectors of the d x d matrix
    E^T E. So the result is exact and needs no V x V factor. The computation is in float64, so that
    small singular values survive the squaring.

    Raises: ValueError if the rank is below 1 or above the hidden size.
    """
    word = embedding.word.weight.detach().double()  # [V, r0] or [V, d]
    basis = (
        torch.eye(word.shape[1], dtype=word.dtype)
        if embedding.projection is None
        else embedding.projection.weight.detach().double()
    )
    if not 1 <= rank <= basis.shape[0]:
        raise ValueError(f"rank {rank}: expected 1 to {basis.shape[0]}")
    gram = basis @ (word.T @ word) @ basis.T  # [d, d], of the product word @ basis^T
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank]  # [d, r], largest first
    return Factors((word @ (basis.T @ vectors)).float(), vectors.float())
