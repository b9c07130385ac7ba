"""The word embedding as a table of small rank times a projection: truncated singular value decomposition."""

from typing import NamedTuple

import torch
from torch import Tensor

from baselines.encoders.encoder import Embedding


class Factors(NamedTuple):
    """An embedding [V, d] as table @ projection^T."""

    table: Tensor
    """[V, r]"""
    projection: Tensor
    """[d, r], orthonormal columns."""


def factorised(embedding: Embedding, rank: int) -> Factors:
    """The best factors of that rank (Eckart and Young) of the embedding as it is now, itself factorised or not.

    COST-EFF, section 3.3, in the authors' code U S and V of a full decomposition. With the right singular vectors V of E, U S = E V, and V
    are the eigenvectors of the d x d matrix E^T E: exact, and no V x V factor is ever made. In float64, so that small singular values
    survive the squaring.

    Raises: ValueError for a rank below 1 or above the hidden size.
    """
    word = embedding.word.weight.detach().double()  # [V, r0] or [V, d]
    base = (
        torch.eye(word.shape[1], dtype=word.dtype)
        if embedding.projection is None
        else embedding.projection.weight.detach().double()
    )
    if not 1 <= rank <= base.shape[0]:
        raise ValueError(f"rank {rank}: wanted 1 to {base.shape[0]}")
    gram = base @ (word.T @ word) @ base.T  # [d, d], of the product word @ base^T
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank]  # [d, r], largest first
    return Factors((word @ (base.T @ vectors)).float(), vectors.float())
