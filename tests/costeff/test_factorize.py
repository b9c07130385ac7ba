"""Tests of the factorised embedding, the best approximation of its rank."""

from dataclasses import replace

import pytest
import torch

from baselines.encoders.encoder import Embedding
from costeff.factorize import factorised
from harness.models.shapes import bert_shape


def _embedding(rank: int | None = None) -> Embedding:
    torch.manual_seed(3)
    embedding = Embedding(replace(bert_shape(1, 12, 2, 8, vocabulary=40), embedding_rank=rank))
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.normal_()
    return embedding


@pytest.mark.parametrize("rank", [1, 5, 11])
def test_error_is_spectrum_tail(rank: int) -> None:
    """The squared error equals the sum of the squared singular values left out.

    Eckart and Young: no approximation of this rank has a smaller Frobenius error."""
    embedding = _embedding()
    table, projection = factorised(embedding, rank)
    assert (table.shape, projection.shape) == ((40, rank), (12, rank))
    word = embedding.word.weight.detach()
    error = (word - table @ projection.T).square().sum().item()
    tail = torch.linalg.svdvals(word.double())[rank:].square().sum().item()
    assert error == pytest.approx(tail, rel=1e-5)


def test_full_rank_restores_embedding() -> None:
    """Factors of full rank reproduce the embedding."""
    embedding = _embedding()
    table, projection = factorised(embedding, 12)
    torch.testing.assert_close(
        table @ projection.T, embedding.word.weight.detach(), atol=1e-5, rtol=0
    )


def test_projection_columns_are_orthonormal() -> None:
    """The columns of the projection are orthonormal."""
    projection = factorised(_embedding(), 5).projection
    torch.testing.assert_close(projection.T @ projection, torch.eye(5), atol=1e-5, rtol=0)


def test_refactorising_approximates_product() -> None:
    """Factorising a factorised embedding approximates the product of its factors."""
    embedding = _embedding(rank=8)
    assert embedding.projection is not None
    product = embedding.word.weight.detach() @ embedding.projection.weight.detach().T
    table, projection = factorised(embedding, 3)
    tail = torch.linalg.svdvals(product.double())[3:].square().sum().item()
    assert (product - table @ projection.T).square().sum().item() == pytest.approx(tail, rel=1e-5)


@pytest.mark.parametrize("rank", [0, 13])
def test_impossible_rank_is_refused(rank: int) -> None:
    """An impossible rank raises an error that names the rank and the allowed range."""
    with pytest.raises(ValueError, match=rf"\b{rank}\b.*\b1\b.*\b12\b"):
        factorised(_embedding(), rank)
