"""The factorised embedding is the best of its rank."""

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
def test_error_is_the_tail_of_the_spectrum(rank: int) -> None:
    """Eckart and Young: the squared Frobenius error of the best approximation is the sum of the squared singular values left out."""
    embedding = _embedding()
    table, projection = factorised(embedding, rank)
    assert (table.shape, projection.shape) == ((40, rank), (12, rank))
    word = embedding.word.weight.detach()
    error = (word - table @ projection.T).square().sum().item()
    tail = torch.linalg.svdvals(word.double())[rank:].square().sum().item()
    assert error == pytest.approx(tail, rel=1e-5)


def test_full_rank_gives_the_embedding_back() -> None:
    embedding = _embedding()
    table, projection = factorised(embedding, 12)
    torch.testing.assert_close(table @ projection.T, embedding.word.weight.detach(), atol=1e-5, rtol=0)


def test_columns_of_the_projection_are_orthonormal() -> None:
    projection = factorised(_embedding(), 5).projection
    torch.testing.assert_close(projection.T @ projection, torch.eye(5), atol=1e-5, rtol=0)


def test_an_embedding_that_is_factorised_already_is_cut_as_its_product_is() -> None:
    embedding = _embedding(rank=8)
    assert embedding.projection is not None
    product = embedding.word.weight.detach() @ embedding.projection.weight.detach().T
    table, projection = factorised(embedding, 3)
    tail = torch.linalg.svdvals(product.double())[3:].square().sum().item()
    assert (product - table @ projection.T).square().sum().item() == pytest.approx(tail, rel=1e-5)


@pytest.mark.parametrize("rank", [0, 13])
def test_a_rank_that_cannot_be_is_refused_with_both_numbers(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank}: wanted 1 to 12"):
        factorised(_embedding(), rank)
