"""Data augmentation: which words are replaced, by what, and the resulting examples."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.messages import assert_message
from support.synthetic import BERT_WORDS, make_stage, write_bert

from baselines.distillation import augmentation
from baselines.distillation.augmentation import (
    Augmentation,
    ReplaceableWord,
    alter_rows,
    augmented,
    embedding_vectors,
    file_vectors,
    find_candidates,
    nearest_words,
    predicted_words,
    replaceable_words,
    whole_words,
)
from baselines.distillation.masked_lm import MaskedLanguageModel, masked_lm
from baselines.encoders.encoder import Embedding, EncoderModel, ModelConfig
from baselines.encoders.weights import save_model
from harness.data.corpus import Corpus
from harness.data.dataset import Split, TaskData
from harness.data.word_vectors import read_vectors
from harness.errors import HarnessError
from harness.methods.registry import model_format
from harness.methods.stages import FitContext, FittedStage
from harness.models.backbones import Backbone, find_backbone
from harness.models.multi_exit import AllExits, Batch
from harness.store.stage_cache import Stored

SETTINGS = Augmentation(copies=5, replaced=0.4, candidates=3)


@pytest.fixture
def bert(tmp_path: Path) -> Backbone:
    """A backbone with six words of one piece; "unaffable" and "cafe" have several."""
    return find_backbone(str(write_bert(tmp_path / "bert")))


def split(*rows: tuple[str, ...]) -> Split:
    return Split(np.arange(len(rows)), rows, np.arange(len(rows), dtype=np.float64))


# --- which words


def test_content_words_may_be_replaced(bert: Backbone) -> None:
    """Words of only letters may be replaced, except stop words.

    "was", "not" and "the" are stop words, "!" is no word; "unaffable" has three pieces, "film" and
    "good" one. Pieces are counted from [CLS]."""
    found = replaceable_words("The film was not unaffable! Good film", bert)
    assert [(word.word, word.piece) for word in found] == [
        ("film", 2),
        ("unaffable", None),
        ("Good", 9),
        ("film", 10),
    ]
    assert found[1].text[found[1].start : found[1].end] == "unaffable"


SEEN = {"the", "film", "was", "not", "good", "cafe"}
"""Words that occur in sentences."""


def test_only_whole_pieces_are_inserted(bert: Backbone) -> None:
    """Only pieces that are whole words are inserted; "un" and "caf" only begin words."""
    found = whole_words(bert, SEEN)
    assert found.words == ("the", "film", "was", "not", "good")
    assert tuple(BERT_WORDS[id_] for id_ in found.ids) == found.words
    assert whole_words(bert, SEEN | {"un"}).words == ("the", "film", "un", "was", "not", "good")


# --- candidates


class Fixed(EncoderModel):
    """A model that ranks the pieces in the same order for every input: good, ##aff, film, ..."""

    ORDER = ("good", "##aff", "film", "!", "the", "un")

    def __init__(self, bert: Backbone) -> None:
        super().__init__(
            ModelConfig(bert.shape, "mean", 2, 1.0, (None, None, "plain"), masked_lm=True)
        )
        assert self.masked_lm is not None
        torch.nn.init.zeros_(self.embedding.get_parameter("word.weight"))
        for rank, piece in enumerate(self.ORDER):
            self.masked_lm.bias.data[BERT_WORDS.index(piece)] = 10.0 - rank


class Watched(Fixed):
    """The same model, which records its inputs."""

    def __init__(self, bert: Backbone) -> None:
        super().__init__(bert)
        self.inputs: list[list[int]] = []

    def forward(self, batch: Batch) -> AllExits:
        self.inputs += [row[mask].tolist() for row, mask in zip(batch.ids, batch.mask, strict=True)]
        return super().forward(batch)


def test_one_word_is_masked_at_once(bert: Backbone, context: FitContext) -> None:
    """Each input has one masked word, and the most probable whole words are returned."""
    model = Watched(bert)
    words = [
        word for word in replaceable_words("the film was good", bert) if word.piece is not None
    ]
    assert (
        predicted_words(words, model, bert, whole_words(bert, SEEN), 3, context)
        == [("good", "film", "the")] * 2
    )
    inputs = [[BERT_WORDS[id_] for id_ in row] for row in model.inputs]
    assert sorted(inputs) == [
        ["[CLS]", "the", "[MASK]", "was", "good", "[SEP]"],
        ["[CLS]", "the", "film", "was", "[MASK]", "[SEP]"],
    ]


def test_neighbours_are_nearest_by_angle(tmp_path: Path) -> None:
    """The nearest words have the smallest angles; the word itself is excluded.

    Angles from "cat" (1, 0): dog 45 degrees, fish 90, sky 180; length does not count."""
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 0\nsky -1 0\ndog 7 7\nfish 0 0.1\n", encoding="utf-8")
    found = nearest_words({"cat", "unknown"}, file_vectors(read_vectors(path)), 2)
    assert found == {"cat": ("dog", "fish")}


def test_split_word_uses_mean_embedding(bert: Backbone) -> None:
    """A word of several pieces has the mean of their embeddings.

    Here film = un + ##aff + ##able, so "film" is nearest to "unaffable"."""
    embedding = Embedding(bert.shape)
    table = embedding.word.weight.data
    table[BERT_WORDS.index("film")] = sum(
        table[BERT_WORDS.index(piece)] for piece in ("un", "##aff", "##able")
    )
    vectors = embedding_vectors(embedding, bert, whole_words(bert, SEEN), {"unaffable"})
    assert nearest_words({"unaffable"}, vectors, 1) == {"unaffable": ("film",)}


def test_own_pieces_never_replace_word(bert: Backbone) -> None:
    """A word's own pieces do not replace it: "un" is nearest, then "film"."""
    embedding = Embedding(bert.shape)
    table = embedding.word.weight.data
    table.fill_(1e-3)
    for piece, direction in {
        "un": (1, 1),
        "##aff": (1, 0),
        "##able": (0, 1),
        "film": (1, 0.5),
        "good": (0, -1),
    }.items():
        table[BERT_WORDS.index(piece), :2] = torch.tensor(direction)
    vectors = embedding_vectors(
        embedding, bert, whole_words(bert, {"un", "film", "good"}), {"unaffable", "film"}
    )
    assert nearest_words({"unaffable", "film"}, vectors, 3) == {
        "unaffable": ("film", "good"),
        "film": ("un", "good"),
    }


def test_non_words_are_read_only(tmp_path: Path) -> None:
    """Entries with spaces or without letters are read but not inserted."""
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 0\n. . 1 0.1\n3 1 0.2\ndog 1 0.3\n", encoding="utf-8")
    assert read_vectors(path).words == ("cat", ". .", "3", "dog")
    assert nearest_words({"cat"}, file_vectors(read_vectors(path)), 3) == {"cat": ("dog",)}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("", []),
        ("cat 1 0\ndog 1\n", [2, 2, "dog 1"]),
        ("cat\n", [1, "cat"]),
        ("cat one two\n", [1, "cat one two"]),
        ("cat 1 0\ndog 1 nan\n", [2, 2, "dog 1 nan"]),
    ],
)
def test_malformed_vectors_are_refused(tmp_path: Path, content: str, names: list[object]) -> None:
    """Malformed vectors are refused with the line number, the expected count and the line."""
    (tmp_path / "v.txt").write_text(content, encoding="utf-8")
    with pytest.raises(HarnessError) as caught:
        read_vectors(tmp_path / "v.txt")
    assert_message(caught, "--glove", tmp_path / "v.txt", *names)


# --- rows


def test_copies_replace_words_by_candidates() -> None:
    """Copies of a fixed sentence have words replaced by their candidates."""
    text = "A good Film"
    candidates = {
        ReplaceableWord(text, 2, 6, 2): ("bad", "fine"),
        ReplaceableWord(text, 7, 11, 3): ("movie",),
    }
    rows = alter_rows(split((text,)), candidates, replace(SETTINGS, copies=200))
    allowed = {f"A {one} {other}" for one in ("good", "bad", "fine") for other in ("Film", "Movie")}
    assert rows[0] == (0, (text,))
    assert {copy[0] for _, copy in rows} == allowed
    assert len(rows) == len(allowed)
    assert alter_rows(split((text,)), candidates, replace(SETTINGS, copies=200)) == rows


def test_given_share_of_words_changes() -> None:
    """A share of the words is replaced.

    1,000 words at probability 0.4: 400 are expected, the deviation is 15.5."""
    texts = tuple(f"word{'x' * (number % 7)} {number}" for number in range(1000))
    candidates = {ReplaceableWord(text, 0, text.index(" "), 1): ("new",) for text in texts}
    rows = alter_rows(split(*((text,) for text in texts)), candidates, Augmentation(1, 0.4, 1))
    assert sum("new" in texts[0] for _, texts in rows) == pytest.approx(400, abs=60)


def test_pairs_change_and_keep_sources() -> None:
    """Both texts of a pair are altered, and copies keep the index of their source."""
    candidates = {
        ReplaceableWord("one", 0, 3, 1): ("won",),
        ReplaceableWord("two", 0, 3, 1): ("too",),
    }
    rows = alter_rows(
        split(("plain", "plain"), ("one", "two")), candidates, replace(SETTINGS, copies=100)
    )
    assert rows[0] == (0, ("plain", "plain"))
    assert {copy for source, copy in rows if source == 1} == {
        ("one", "two"),
        ("won", "two"),
        ("one", "too"),
        ("won", "too"),
    }
    assert len(rows) == 5


# --- the task


@pytest.fixture
def language_model(context: FitContext, micro: Backbone) -> MaskedLanguageModel:
    return masked_lm(micro, 32, replace(context, corpus=Corpus(limit=40)))


def test_augmented_rows_are_made_once(
    context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    language_model: MaskedLanguageModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The altered copies are made once and kept."""
    data = augmented(few_rows, micro, SETTINGS, language_model, context)
    assert 2 * len(few_rows.train) < len(data.train) <= 6 * len(few_rows.train)
    assert set(few_rows.train.texts) < set(data.train.texts)
    assert len(set(data.train.ids)) == len(data.train) == len(data.train.labels)
    assert [row.tolist() for row in data.train.tokens.ids] == [
        row.tolist() for row in micro.encode(data.train.texts, 32).ids
    ]
    assert all(
        data.splits()[name] == few_rows.splits()[name]
        for name in ("selection", "calibration", "dev")
    )
    assert data.fingerprint != few_rows.fingerprint
    monkeypatch.setattr(augmentation, "find_candidates", lambda *_: pytest.fail("made again"))
    again = augmented(few_rows, micro, SETTINGS, language_model, context)
    assert again.train.texts == data.train.texts
    assert again.fingerprint == data.fingerprint
    assert [path.suffix for path in sorted((context.cache / "augmented").iterdir())] == [
        ".json",
        ".lock",
    ]


def test_copies_keep_their_label(
    context: FitContext, few_rows: TaskData, micro: Backbone, language_model: MaskedLanguageModel
) -> None:
    """Copies keep the label of their source."""
    data = augmented(few_rows, micro, SETTINGS, language_model, context)
    (path,) = (context.cache / "augmented").glob("*.json")
    sources = [source for source, _ in json.loads(path.read_text())]
    assert data.train.labels.tolist() == few_rows.train.labels[sources].tolist()
    assert sorted(set(sources)) == list(range(len(few_rows.train)))


@pytest.mark.parametrize("change", [{"copies": 4}, {"replaced": 0.5}, {"candidates": 2}])
def test_other_settings_make_other_rows(
    context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    language_model: MaskedLanguageModel,
    change: dict[str, float],
) -> None:
    one, other = (
        augmented(few_rows, micro, settings, language_model, context)
        for settings in (SETTINGS, replace(SETTINGS, **change))
    )
    assert one.train.texts != other.train.texts
    assert one.fingerprint != other.fingerprint


def test_vectors_file_replaces_embeddings(
    context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    language_model: MaskedLanguageModel,
    tmp_path: Path,
) -> None:
    """A file of vectors replaces the backbone's embeddings.

    The masked-LM head is too inaccurate here, so every word is replaced by a nearest word."""
    assert not language_model.is_accurate
    seen = sorted(
        {
            word.word.lower()
            for row in few_rows.train.texts
            for text in row
            for word in replaceable_words(text, micro)
        }
    )
    path = tmp_path / "vectors.txt"
    path.write_text(f"zebra 1 0\n{seen[0]} 1 0.1\n", encoding="utf-8")
    one = augmented(few_rows, micro, SETTINGS, language_model, context)
    other = augmented(few_rows, micro, SETTINGS, language_model, replace(context, vectors=path))
    assert not any("zebra" in text for row in one.train.texts for text in row)
    assert any("zebra" in text for row in other.train.texts for text in row)


def test_vectors_of_other_language_are_refused(
    context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    language_model: MaskedLanguageModel,
    tmp_path: Path,
) -> None:
    """Vectors of another language are refused.

    No copy would differ, so the examples would silently be those of augmentation=0."""
    path = tmp_path / "vectors.txt"
    path.write_text("zebra 1 0\nquagga 1 0.1\n", encoding="utf-8")
    with pytest.raises(HarnessError) as caught:
        augmented(few_rows, micro, SETTINGS, language_model, replace(context, vectors=path))
    assert_message(caught, "--glove", path, "augmentation=0")


def test_accurate_head_predicts_replacements(context: FitContext, bert: Backbone) -> None:
    """An accurate masked-LM head predicts replacements for words of one piece.

    "film" is one piece and gets predicted words, "unaffable" has several and gets the nearest
    word."""
    model = Fixed(bert)
    table = model.embedding.get_parameter("word.weight").data
    table[:, :3] = -1e-3
    for piece, direction in {
        "un": (1, 0, 0),
        "##aff": (0, 1, 0),
        "##able": (0, 0, 1),
        "the": (1, 1, 1),
        "film": (1, 1, 0),
    }.items():
        table[BERT_WORDS.index(piece), :3] = 1e-3 * torch.tensor(direction)
    folder = context.cache / "words" / "model"
    folder.mkdir(parents=True)
    save_model(model, folder)
    language_model = MaskedLanguageModel(
        FittedStage(
            folder.parent, True, (), Stored(make_stage("masked-lm").report, None), model_format()
        ),
        accuracy=0.9,
    )
    rows = split(("the film was unaffable",))
    found = find_candidates(rows, bert, Augmentation(1, 1.0, 2), language_model, context)
    assert {word.word: words for word, words in found.items()} == {
        "film": ("good", "film"),
        "unaffable": ("the", "film"),
    }
    texts = {texts[0] for _, texts in alter_rows(rows, found, Augmentation(60, 1.0, 2))}
    assert texts == {
        "the film was unaffable",
        *(f"the {one} was {other}" for one in ("good", "film") for other in ("the", "film")),
    }


def test_capital_vocabulary_order_is_irrelevant(bert: Backbone) -> None:
    """A vocabulary with capitals gives the same vectors in any order."""
    embedding = Embedding(bert.shape)
    usable = whole_words(bert, SEEN)
    one, other = (
        embedding_vectors(embedding, bert, usable, wanted)
        for wanted in ({"Film", "film", "good"}, {"good", "film", "Film"})
    )
    assert one.replaced.keys() == other.replaced.keys() == {"film", "good"}
    assert all(torch.equal(one.replaced[word], other.replaced[word]) for word in one.replaced)


@pytest.mark.parametrize(
    ("content", "words", "size"),
    [
        ("2 3\ncat 1 0 1\ndog 0 1 0\n", ("cat", "dog"), 3),
        ("2 3\ncat 1 0 1 \ndog 0 1 0 \n", ("cat", "dog"), 3),  # as fastText writes lines
        ("2 1\n3 1\n", ("2", "3"), 1),  # vectors of one number, whose words are numbers
        ("2 3\n", ("2",), 1),
    ],
)
def test_header_of_word2vec_is_skipped(
    tmp_path: Path, content: str, words: tuple[str, ...], size: int
) -> None:
    (tmp_path / "v.txt").write_text(content, encoding="utf-8")
    found = read_vectors(tmp_path / "v.txt")
    assert (found.words, found.table.shape[1]) == (words, size)


def test_lines_are_counted_with_the_header(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("2 3\ncat 1 0 1\ndog 0 1\n", encoding="utf-8")
    with pytest.raises(HarnessError) as caught:
        read_vectors(tmp_path / "v.txt")
    assert_message(caught, "--glove", 3, 3, "dog 0 1")
