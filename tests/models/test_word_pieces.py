"""Word pieces: special tokens, maximum length and vocabulary file, compared with the library's
Python tokenizer."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.messages import assert_message
from support.synthetic import BERT_CONFIG, BERT_WORDS, pieces, write_bert

from harness.data import demo
from harness.data.dataset import Tokens
from harness.errors import HarnessError
from harness.models.backbones import BACKBONES, Backbone, find_backbone
from harness.models.tokenizers import FastTokenizer, read_tokenizer


@pytest.mark.parametrize("task", demo.LABELS)
def test_tiny_knows_every_demo_word(task: str) -> None:
    """The backbone tiny knows every word of every demo text."""
    tiny = replace(BACKBONES["tiny"])
    texts = [row.texts for split in demo.SPLIT_SIZES for row in demo.demo_rows(task, split)]
    tokens = tiny.encode(texts, 128)
    assert tokens.truncated == 0
    assert not any((row == tiny.tokenizer.vocabulary["[UNK]"]).any() for row in tokens.ids)
    words = [sum(len(text.split(" ")) for text in row) + len(row) + 1 for row in texts]
    assert tokens.lengths.tolist() == words


@pytest.fixture
def small(tmp_path: Path) -> Backbone:
    return find_backbone(str(write_bert(tmp_path / "small")))


def test_single_text_has_type_zero(small: Backbone) -> None:
    """A single text is enclosed by [CLS] and [SEP] and has token type 0."""
    tokens = small.encode([("The film was unaffable!",)], 16)
    expected = ["[CLS]", "the", "film", "was", "un", "##aff", "##able", "!", "[SEP]"]
    assert pieces(small, tokens.ids[0].tolist()) == expected
    assert tokens.types[0].tolist() == [0] * 9


def test_pair_has_two_types(small: Backbone) -> None:
    """A pair has two separators, and token type 1 from its second text on."""
    tokens = small.encode([("the film", "not good"), ("good", "the film was")], 16)
    expected = ["[CLS]", "the", "film", "[SEP]", "not", "good", "[SEP]"]
    assert pieces(small, tokens.ids[0].tolist()) == expected
    assert [row.tolist() for row in tokens.types] == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    assert tokens.lengths.tolist() == [7, 7]


def test_encoding_ignores_earlier_calls(small: Backbone) -> None:
    """Earlier calls affect neither padding nor truncation."""
    short, long = ("the",), ("the film was not good !",)
    assert small.encode([short, long], 16).lengths.tolist() == [3, 8]
    assert small.encode([long], 5).lengths.tolist() == [5]
    assert small.encode([long], 16).lengths.tolist() == [8]


def test_long_examples_are_truncated_and_counted(small: Backbone) -> None:
    """Examples above the maximum length are truncated and counted."""
    texts = [("the " * length,) for length in (1, 4, 5, 12)]
    tokens = small.encode(texts, 6)
    assert tokens.lengths.tolist() == [3, 6, 6, 6]
    assert tokens.truncated == 2
    assert all(pieces(small, row.tolist())[-1] == "[SEP]" for row in tokens.ids)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (9, 2, {(5, 2)}),
        (2, 9, {(2, 5)}),
        (9, 8, {(4, 3), (3, 4)}),
        (8, 9, {(4, 3), (3, 4)}),
        (3, 4, {(3, 4)}),
    ],
)
def test_longer_text_is_truncated_first(
    small: Backbone, first: int, second: int, kept: set[tuple[int, int]]
) -> None:
    """The longer text of a pair is truncated first.

    Seven pieces fit beside three special tokens; if both texts are truncated, either may get the
    odd piece."""
    tokens = small.encode([("the " * first, "film " * second)], 10)
    row = pieces(small, tokens.ids[0].tolist())
    assert (row.count("the"), row.count("film")) in kept
    assert row.count("[SEP]") == 2
    assert tokens.truncated == int(first + second > 7)


@pytest.mark.parametrize("length", [-1, 0, 3, 49, 512])
def test_length_outside_positions_is_refused(small: Backbone, length: int) -> None:
    """A maximum length outside the allowed range is an error that names the range."""
    with pytest.raises(HarnessError) as error:
        small.encode([("the",)], length)
    assert_message(error, f"--max-length {length}", "small", 4, 48)


def test_extreme_allowed_lengths_work(small: Backbone) -> None:
    """The shortest and the longest allowed lengths work."""
    for length in (4, 48):
        assert small.encode([("the " * 40, "film " * 40)], length).lengths.tolist() == [length]


def test_no_texts_give_no_tokens(small: Backbone) -> None:
    assert small.encode([], 16) == Tokens((), (), 0)


TEXTS = [
    "The film was unaffable!",
    "  don't   STOP\tnow\n",
    "Café, naïve façade — “quoted” … 3.14%",
    "the unaff unaffable unknownword \u4e2d\u6587 film",
    "a\u00adb\u200bc \ufffd \x00 \x07 \u2028 end",
    "(good)[not]{was}",
    "",
    "x" * 120,
]


@pytest.mark.parametrize("lowercase", [True, False])
def test_word_pieces_equal_python_tokenizer(tmp_path: Path, lowercase: bool) -> None:
    """The word pieces of a vocabulary are those of the library's Python tokenizer."""
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    vocabulary = [
        *BERT_WORDS,
        *"abcdefgnopstwx3,.%()[]{}—“”…",
        *("##x", "##n", "##t", "Café", "The", "STOP", "\u4e2d", "\u6587", "naive", "facade"),
    ]
    folder = write_bert(
        tmp_path / "library",
        BERT_CONFIG | {"vocab_size": len(vocabulary), "max_position_embeddings": 512},
        vocabulary,
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    library = BertTokenizerLegacy(str(folder / "vocab.txt"), do_lower_case=lowercase)
    encoded = find_backbone(str(folder)).encode([(text,) for text in TEXTS], 512)
    assert [row.tolist() for row in encoded.ids] == [library.encode(text) for text in TEXTS]
    pairs = [(first, second) for first in TEXTS for second in TEXTS[:3]]
    both = find_backbone(str(folder)).encode(pairs, 512)
    for row, types, (first, second) in zip(both.ids, both.types, pairs, strict=True):
        expected = library(first, second)
        assert row.tolist() == expected["input_ids"]
        assert types.tolist() == [0] * (len(library.tokenize(first)) + 2) + [1] * (
            len(library.tokenize(second)) + 1
        )


def test_unicode_separator_shifts_no_pieces(tmp_path: Path) -> None:
    """A line of the vocabulary with a Unicode line separator does not shift later pieces."""
    folder = write_bert(
        tmp_path / "odd",
        BERT_CONFIG | {"vocab_size": len(BERT_WORDS) + 3},
        [*BERT_WORDS, "a\u2028b", "c\x85d", "zebra"],
    )
    backbone = find_backbone(str(folder))
    assert backbone.encode([("zebra",)], 16).ids[0].tolist() == [2, len(BERT_WORDS) + 2, 3]


def test_tokenizer_file_is_preferred(tmp_path: Path) -> None:
    """A tokenizer file is preferred; its padding and truncation settings are ignored."""
    folder = write_bert(tmp_path / "with-file")
    found = read_tokenizer(folder, "bert")
    assert isinstance(found, FastTokenizer)
    tokenizer = found.tokenizer
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    tokens = find_backbone(str(folder)).encode([("the film was not good",), ("the",)], 16)
    assert 1 not in tokens.ids[0], "vocab.txt knows none of these words"
    assert tokens.lengths.tolist() == [7, 3]
    assert tokens.truncated == 0


def no_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"\n\n')


def no_special_pieces(folder: Path) -> None:
    (folder / "vocab.txt").write_text("the\nfilm\n")


def no_first_piece(folder: Path) -> None:
    words = ["extra" if word == "[CLS]" else word for word in BERT_WORDS]
    (folder / "vocab.txt").write_text("\n".join(words))


def vocabulary_in_latin_1(folder: Path) -> None:
    (folder / "vocab.txt").write_bytes("\n".join([*BERT_WORDS[:-1], "caf\u00e9"]).encode("latin-1"))


def more_pieces_than_rows_of_the_embedding(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join([*BERT_WORDS, "zebra"]))


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (no_vocabulary, ["tokenizer.json", "vocab.txt"]),
        (broken_tokenizer, ["tokenizer.json"]),
        (no_special_pieces, ["vocab.txt", "[UNK]"]),
        (no_first_piece, ["[CLS]", len(BERT_WORDS), len(BERT_WORDS)]),
        (vocabulary_in_latin_1, ["vocab.txt"]),
        (more_pieces_than_rows_of_the_embedding, ["zebra", len(BERT_WORDS), len(BERT_WORDS)]),
    ],
)
def test_unusable_vocabulary_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], names: list[object]
) -> None:
    """An unusable vocabulary is an error."""
    folder = write_bert(tmp_path / "local")
    damage(folder)
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder)).encode([("the zebra",)], 16)
    assert_message(error, *names)
