"""Masking, and the masked-LM head."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.messages import assert_message
from support.synthetic import BERT_CONFIG, BERT_WORDS, pieces, write_bert
from support.trainings import make_model, make_run, make_schedule
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from baselines.distillation.masked_lm import (
    Masked,
    MaskedLm,
    Pieces,
    log_frequencies,
    mask_tokens,
    maskable,
    masked_accuracy,
    masked_logits,
)
from baselines.encoders.encoder import Embedding, EncoderModel, MaskedLmHead
from baselines.encoders.weights import load_model, save_model
from harness.data.corpus import Corpus
from harness.data.dataset import Split, TaskData, Tokens
from harness.errors import HarnessError
from harness.models.backbones import Backbone, find_backbone
from harness.models.batches import collate
from harness.models.multi_exit import Batch
from harness.models.shapes import bert_shape

PIECES = Pieces(mask=4, special=(0, 1, 2, 3, 4), size=500)


def rows(lengths: list[int], width: int) -> Batch:
    """A batch of [CLS], words, [SEP] and padding."""
    torch.manual_seed(1)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 500, mask.shape).masked_fill(~mask, 0)
    ids[:, 0] = 2
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = 3
    return Batch(ids, torch.zeros_like(ids), mask)


def test_share_of_words_is_masked() -> None:
    """A share of each example's words is masked, and nothing else.

    22 words: 3.3 -> 3; 42: 6.3 -> 6; 5: 0.75 -> 1; 1: 1; 0: 0."""
    batch = rows([24, 44, 7, 3, 2], 50)
    found = mask_tokens(batch, PIECES)
    assert found.positions.sum(1).tolist() == [3, 6, 1, 1, 0]
    assert not (found.positions & (~batch.mask | (batch.ids < 5))).any()
    assert torch.equal(found.batch.ids[~found.positions], batch.ids[~found.positions])
    assert torch.equal(found.targets, batch.ids[found.positions])


def test_masked_words_become_three_kinds() -> None:
    """80% of masked words become [MASK], 10% another word, 10% stay."""
    batch = rows([200] * 500, 200)
    found = mask_tokens(batch, PIECES)
    new = found.batch.ids[found.positions]
    total = len(new)
    assert total == 500 * 30
    assert (new == PIECES.mask).sum().item() / total == pytest.approx(0.8, abs=0.01)
    assert (new == found.targets).sum().item() / total == pytest.approx(0.1, abs=0.01)
    others = new[(new != PIECES.mask) & (new != found.targets)]
    assert others.min() >= 5
    assert len(others.unique()) > 400


def test_masks_follow_torch_seed() -> None:
    """Masks depend only on torch's seed."""
    batch = rows([24, 44], 50)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return mask_tokens(batch, PIECES).batch.ids

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("rank", [None, 3])
def test_decoder_is_embedding_table(rank: int | None) -> None:
    """The decoder is the embedding's own table.

    By hand: dense, GELU, norm, products with each word's embedding, bias."""
    shape = replace(bert_shape(1, 8, 2, 16, vocabulary=20), embedding_rank=rank)
    head, embedding = MaskedLmHead(shape), Embedding(shape)
    torch.nn.init.normal_(head.bias)
    hidden = torch.randn(5, 8)
    table = (
        embedding.word.weight
        if embedding.projection is None
        else embedding.word.weight @ embedding.projection.weight.T
    )
    x = hidden @ head.dense.weight.T + head.dense.bias
    x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    x = (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, unbiased=False, keepdim=True) + shape.layer_norm_eps
    ).sqrt()
    torch.testing.assert_close(
        head(hidden, embedding), x @ table.T + head.bias, atol=1e-5, rtol=1e-4
    )
    names = {name for name, _ in head.named_parameters()}
    assert names == {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}


def test_pieces_come_from_vocabulary(micro: Backbone) -> None:
    """Special pieces, [MASK] and the size are read from the vocabulary."""
    found = Pieces.of(micro)
    assert pieces(micro, found.special) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert pieces(micro, [found.mask]) == ["[MASK]"]
    assert found.size == len(micro.tokenizer.vocabulary)


@pytest.fixture(scope="module")
def sentences(micro: Backbone) -> TaskData:
    return Corpus(limit=400).data.encoded(micro.encode, 32)


def test_head_learns_on_frozen_encoder(
    micro: Backbone, sentences: TaskData, tmp_path: Path
) -> None:
    """A head learns on a frozen encoder."""
    torch.manual_seed(5)
    fit = MaskedLm("masked-lm-head", 0.0, make_schedule(epochs=6, learning_rate=3e-3)).fit(
        (), sentences, micro, make_run(tmp_path)
    )
    model, pieces = fit.model, Pieces.of(micro)
    assert isinstance(model, EncoderModel)
    torch.manual_seed(5)
    untouched = EncoderModel(model.config)
    for name, tensor in untouched.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]) == (
            not name.startswith("masked_lm.")
        ), name
    compute = make_run(tmp_path).compute
    before, after = (
        masked_accuracy(each, maskable(sentences.selection, pieces), pieces, compute)
        for each in (untouched, model)
    )
    assert after == max(fit.training.selection)
    assert after > before + 0.05


def test_masked_lm_head_is_saved(micro: Backbone, tmp_path: Path) -> None:
    """A model with a masked-LM head is saved and loaded with it."""
    model = EncoderModel(replace(make_model(micro).config, masked_lm=True)).eval()
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    given = mask_tokens(
        rows([9, 4], 9)._replace(ids=rows([9, 4], 9).ids % 100), Pieces(4, (0, 1, 2, 3, 4), 100)
    )
    with torch.no_grad():
        assert torch.equal(
            masked_logits(model, model(given.batch).hiddens[-1], given),
            masked_logits(again, again(given.batch).hiddens[-1], given),
        )


def test_checkpoint_head_equals_library(tmp_path: Path) -> None:
    """A checkpoint's head predicts as the library's does, and nothing is trained."""
    library = BertForMaskedLM(BertConfig(**{**BERT_CONFIG, "vocab_size": len(BERT_WORDS)})).eval()
    folder = write_bert(tmp_path / "bert")
    library.save_pretrained(folder, safe_serialization=True)
    backbone = find_backbone(str(folder))
    data = Corpus(limit=60).data.encoded(backbone.encode, 16)
    (tmp_path / "scratch").mkdir()
    fit = MaskedLm("masked-lm-head", 0.0, make_schedule()).fit(
        (), data, backbone, make_run(tmp_path / "scratch")
    )
    assert fit.training.steps == 0
    batch = collate(data.train.tokens, np.arange(5))
    everywhere = Masked(batch, batch.mask, batch.ids[batch.mask])
    model = fit.model
    assert isinstance(model, EncoderModel)
    with torch.no_grad():
        wanted = library(
            input_ids=batch.ids, token_type_ids=batch.types, attention_mask=batch.mask.long()
        ).logits
        torch.testing.assert_close(
            masked_logits(model, model(everywhere.batch).hiddens[-1], everywhere),
            wanted[batch.mask],
            atol=1e-5,
            rtol=1e-4,
        )


def test_poor_checkpoint_head_is_trained(tmp_path: Path) -> None:
    """A checkpoint's head that is too inaccurate is replaced by a trained one.

    TinyBERT's published models contain a head that was never trained."""
    library = BertForMaskedLM(BertConfig(**{**BERT_CONFIG, "vocab_size": len(BERT_WORDS)})).eval()
    folder = write_bert(tmp_path / "bert")
    library.save_pretrained(folder, safe_serialization=True)
    backbone = find_backbone(str(folder))
    data = Corpus(limit=200).data.encoded(backbone.encode, 16)
    fit = MaskedLm("masked-lm-head", 1.0, make_schedule()).fit(
        (), data, backbone, make_run(tmp_path / "scratch")
    )
    assert fit.training.steps > 0
    assert isinstance(fit.model, EncoderModel)
    assert fit.model.masked_lm is not None
    assert not torch.equal(
        fit.model.masked_lm.dense.weight, library.cls.predictions.transform.dense.weight
    )
    assert torch.equal(
        fit.model.embedding.get_parameter("word.weight"),
        library.bert.embeddings.word_embeddings.weight,
    )


def test_head_starts_at_word_frequencies(micro: Backbone) -> None:
    """A head starts from word frequencies.

    Pieces 3 and 5 occur twice and once: of 3 + 6 counts they have 3 and 2, the other four 1 each.
    """
    rows = Split(
        np.arange(2),
        (("a",), ("b",)),
        np.zeros(2),
        Tokens((np.array([3, 5]), np.array([3])), (), 0),
    )
    assert log_frequencies(rows, 6).exp().tolist() == pytest.approx(
        [1 / 9, 1 / 9, 1 / 9, 3 / 9, 1 / 9, 2 / 9]
    )


def test_short_sentences_are_not_masked() -> None:
    """Sentences of fewer than four known words are not masked.

    The examples have four words, three, four of which one is unknown, and five."""
    texts = [
        [2, 10, 11, 12, 13, 3],
        [2, 10, 11, 12, 3],
        [2, 10, 1, 12, 13, 3],
        [2, 10, 11, 12, 13, 14, 3],
    ]
    rows = Split(
        np.arange(4),
        (("a",),) * 4,
        np.zeros(4),
        Tokens(tuple(map(np.array, texts)), tuple(map(np.zeros_like, texts)), 0),
    )
    assert maskable(rows, PIECES).ids.tolist() == [0, 3]
    with pytest.raises(HarnessError) as caught:
        maskable(rows.rows(np.array([1, 2])), PIECES)
    assert_message(caught, 4)
