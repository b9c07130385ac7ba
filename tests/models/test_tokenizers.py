"""Byte-pair and unigram tokenizers, compared with the library's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.families import (
    ALBERT_PIECES,
    PIECES,
    texts,
    write_byte_pairs,
    write_family,
    write_unigrams,
)
from support.messages import assert_message
from support.synthetic import pieces
from transformers import PreTrainedTokenizerBase

from harness.errors import HarnessError
from harness.models.backbones import Backbone, find_backbone
from harness.models.checkpoint_files import WEIGHTS

TEXTS = [
    *list(texts())[:20],
    "  don't   STOP\tnow\n",
    "Café, naïve façade — “quoted” … 3.14%",
    "unknownword 中文 \U0001f600 film",
    "a\u00adb\u200bc � \x07 \u2028 end",
    "``both'' quotes",
    "",
    "x" * 30,
]
PAIRS = [(first, second) for first in TEXTS for second in TEXTS[:3]]
LENGTH = 200
WRITERS: dict[str, Callable[[Path], PreTrainedTokenizerBase]] = {
    "roberta": write_byte_pairs,
    "albert": write_unigrams,
}


def write_model(folder: Path, family: str) -> tuple[Backbone, PreTrainedTokenizerBase]:
    """Write a model with enough positions; return it and the library's tokenizer."""
    write_family(folder, family)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"max_position_embeddings": LENGTH + 2})
    )
    return find_backbone(str(folder)), WRITERS[family](folder)


@pytest.mark.parametrize("family", WRITERS)
def test_ids_and_types_equal_library(tmp_path: Path, family: str) -> None:
    """Ids equal the library's, which gives these families no token types."""
    backbone, library = write_model(tmp_path / "model", family)
    single = backbone.encode([(text,) for text in TEXTS], LENGTH)
    assert [row.tolist() for row in single.ids] == [library(text)["input_ids"] for text in TEXTS]
    both = backbone.encode(PAIRS, LENGTH)
    assert both.truncated == single.truncated == 0
    for row, types, (first, second) in zip(both.ids, both.types, PAIRS, strict=True):
        assert row.tolist() == library([first], [second])["input_ids"][0]
        assert not types.any()
    assert backbone.tokenizer.vocabulary == library.get_vocab()


def test_roberta_pair_has_four_special_tokens(tmp_path: Path) -> None:
    """RoBERTa's pair has four special tokens and one token type."""
    backbone, _ = write_model(tmp_path / "model", "roberta")
    row = backbone.encode([("the film", "she smiled")], LENGTH)
    special = [piece for piece in pieces(backbone, row.ids[0].tolist()) if piece in PIECES]
    assert special == ["<s>", "</s>", "</s>", "</s>"]
    assert not row.types[0].any()
    assert backbone.encode([("the film " * 90, "she smiled")], 20).lengths.tolist() == [20]


def test_albert_pair_has_no_types(tmp_path: Path) -> None:
    """ALBERT's pair has three special tokens and, in the library since version 5, no types."""
    backbone, _ = write_model(tmp_path / "model", "albert")
    row = backbone.encode([("the film", "she smiled")], LENGTH)
    names = pieces(backbone, row.ids[0].tolist())
    assert [name for name in names if name in ALBERT_PIECES] == ["[CLS]", "[SEP]", "[SEP]"]
    assert not row.types[0].any()


def test_tokenizer_file_equals_merges(tmp_path: Path) -> None:
    """RoBERTa's tokenizer file gives the same ids as its vocabulary and merges."""
    backbone, library = write_model(tmp_path / "model", "roberta")
    other = write_family(tmp_path / "other", "roberta")
    for name in ("vocab.json", "merges.txt"):
        (other / name).unlink()
    library.backend_tokenizer.save(str(other / "tokenizer.json"))
    short = [(text,) for text in TEXTS]
    one, two = (found.encode(short, 40).ids for found in (backbone, find_backbone(str(other))))
    assert [row.tolist() for row in one] == [row.tolist() for row in two]


def test_prefix_space_follows_its_setting(tmp_path: Path) -> None:
    """A space is put before the first word if the tokenizer's settings say so."""
    folder = write_family(tmp_path / "model", "roberta")
    default = find_backbone(str(folder)).encode([("film",), (" film",)], 40).ids
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": True}))
    spaced = find_backbone(str(folder)).encode([("film",)], 40).ids
    assert spaced[0].tolist() == default[1].tolist() != default[0].tolist()


def no_vocabulary(folder: Path) -> None:
    (folder / "merges.txt").unlink()


def broken_vocabulary(folder: Path) -> None:
    (folder / "vocab.json").write_text("{")


def broken_merges(folder: Path) -> None:
    (folder / "merges.txt").write_text("#version: 0.2\none two three\n")


def merges_of_another_vocabulary(folder: Path) -> None:
    (folder / "merges.txt").write_text("#version: 0.2\nzq qz\n")


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (no_vocabulary, "merges.txt"),
        (broken_vocabulary, "vocab.json"),
        (broken_merges, "merges.txt"),
        (merges_of_another_vocabulary, "merges.txt"),
    ],
)
def test_unusable_byte_pairs_are_named(
    tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    """Unusable byte pairs are a one-line error."""
    folder = write_family(tmp_path / "model", "roberta")
    damage(folder)
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder)).encode([("film",)], 16)
    assert_message(error, name)


def test_too_many_token_types_are_refused(tmp_path: Path) -> None:
    """A token type without a row in the embedding is a one-line error."""
    folder = write_family(tmp_path / "model", "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": 1}))
    assert (folder / WEIGHTS).is_file()
    backbone = find_backbone(str(folder))
    assert backbone.encode([("the film",)], 16).lengths.tolist() == [4]
    with pytest.raises(HarnessError) as error:
        backbone.encode([("the film", "she sang")], 16)
    assert_message(error, "model", 1)
