"""Masking, and the head that tells what was masked."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from baselines.encoder import Embedding
from baselines.masked_lm import MaskedLmHead, Pieces, masked
from harness.backbones import Backbone, bert_shape
from harness.model import Batch

PIECES = Pieces(mask=4, special=(0, 1, 2, 3, 4), size=500)


def rows(lengths: list[int], width: int) -> Batch:
    """[CLS], words, [SEP], padding."""
    torch.manual_seed(1)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 500, mask.shape).masked_fill(~mask, 0)
    ids[:, 0] = 2
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = 3
    return Batch(ids, torch.zeros_like(ids), mask)


def test_a_share_of_each_rows_words_is_masked_and_nothing_else() -> None:
    """22 words: 3.3 -> 3; 42: 6.3 -> 6; 5 words: 0.75 -> 1; 1 word: 1; none: none."""
    batch = rows([24, 44, 7, 3, 2], 50)
    found = masked(batch, PIECES)
    assert found.places.sum(1).tolist() == [3, 6, 1, 1, 0]
    assert not (found.places & (~batch.mask | (batch.ids < 5))).any()
    assert torch.equal(found.batch.ids[~found.places], batch.ids[~found.places])
    assert torch.equal(found.targets, batch.ids[found.places])


def test_of_the_masked_words_8_of_10_become_mask_1_another_word_1_itself() -> None:
    batch = rows([200] * 500, 200)
    found = masked(batch, PIECES)
    new = found.batch.ids[found.places]
    total = len(new)
    assert total == 500 * 30
    assert (new == PIECES.mask).sum().item() / total == pytest.approx(0.8, abs=0.01)
    assert (new == found.targets).sum().item() / total == pytest.approx(0.1, abs=0.01)
    others = new[(new != PIECES.mask) & (new != found.targets)]
    assert others.min() >= 5
    assert len(others.unique()) > 400


def test_masks_follow_from_torchs_seed() -> None:
    batch = rows([24, 44], 50)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return masked(batch, PIECES).batch.ids

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("rank", [None, 3])
def test_the_decoder_is_the_embeddings_own_table(rank: int | None) -> None:
    """By hand: dense, GELU, norm, products with each word's embedding, bias."""
    shape = replace(bert_shape(1, 8, 2, 16, vocabulary=20), embedding_rank=rank)
    head, embedding = MaskedLmHead(shape), Embedding(shape)
    torch.nn.init.normal_(head.bias)
    hidden = torch.randn(5, 8)
    table = embedding.word.weight if embedding.projection is None else embedding.word.weight @ embedding.projection.weight.T
    x = hidden @ head.dense.weight.T + head.dense.bias
    x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + shape.layer_norm_eps).sqrt()
    torch.testing.assert_close(head(hidden, embedding), x @ table.T + head.bias, atol=1e-5, rtol=1e-4)
    names = {name for name, _ in head.named_parameters()}
    assert names == {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}


def test_the_pieces_of_a_vocabulary(micro: Backbone) -> None:
    found = Pieces.of(micro)
    names = [micro.tokenizer.id_to_token(id_) for id_ in found.special]
    assert names == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert micro.tokenizer.id_to_token(found.mask) == "[MASK]"
    assert found.size == micro.tokenizer.get_vocab_size()
