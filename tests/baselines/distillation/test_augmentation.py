"""Rows with some of their words replaced."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.messages import assert_says
from support.synthetic import BERT_WORDS, make_stage, write_bert

from baselines.distillation import augmentation
from baselines.distillation.augmentation import (
    Augmentation,
    Place,
    alter,
    augmented,
    by_words,
    choices,
    neighbours,
    own_vectors,
    places_in,
    vectors_of,
    whole_words,
)
from baselines.distillation.masked_lm import Words, masked_lm
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

HOW = Augmentation(copies=5, replaced=0.4, candidates=3)


@pytest.fixture
def bert(tmp_path: Path) -> Backbone:
    """Its vocabulary has six words of one piece, "unaffable" and "cafe" have several."""
    return find_backbone(str(write_bert(tmp_path / "bert")))


def split(*rows: tuple[str, ...]) -> Split:
    return Split(np.arange(len(rows)), rows, np.arange(len(rows), dtype=np.float64))


# --- which words


def test_content_words_may_be_replaced(bert: Backbone) -> None:
    """Words of letters that are no stop words may be replaced.

    "was", "not" and "the" are stop words, "!" is no word; "unaffable" has three pieces, "film" and
    "good" one, counted from [CLS]."""
    found = places_in("The film was not unaffable! Good film", bert)
    assert [(place.word, place.piece) for place in found] == [
        ("film", 2),
        ("unaffable", None),
        ("Good", 9),
        ("film", 10),
    ]
    assert found[1].text[found[1].start : found[1].end] == "unaffable"


SEEN = {"the", "film", "was", "not", "good", "cafe"}
"""Words that sentences have."""


def test_only_whole_pieces_are_inserted(bert: Backbone) -> None:
    """Only words that are pieces by themselves are put in.

    "un" and "caf" begin words and are none."""
    found = whole_words(bert, SEEN)
    assert found.words == ("the", "film", "was", "not", "good")
    assert tuple(BERT_WORDS[id_] for id_ in found.ids) == found.words
    assert whole_words(bert, SEEN | {"un"}).words == ("the", "film", "un", "was", "not", "good")


# --- candidates


class Fixed(EncoderModel):
    """Whatever is asked, it finds the pieces probable in this order: good, ##aff, film, the, ..."""

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
    """Notes what it is asked."""

    def __init__(self, bert: Backbone) -> None:
        super().__init__(bert)
        self.asked: list[list[int]] = []

    def forward(self, batch: Batch) -> AllExits:
        self.asked += [row[mask].tolist() for row, mask in zip(batch.ids, batch.mask, strict=True)]
        return super().forward(batch)


def test_one_word_is_masked_at_once(bert: Backbone, context: FitContext) -> None:
    """The model is asked about one masked word at a time, and its best whole words are taken."""
    model = Watched(bert)
    places = [place for place in places_in("the film was good", bert) if place.piece is not None]
    assert (
        by_words(places, model, bert, whole_words(bert, SEEN), 3, context)
        == [("good", "film", "the")] * 2
    )
    words = [[BERT_WORDS[id_] for id_ in row] for row in model.asked]
    assert sorted(words) == [
        ["[CLS]", "the", "[MASK]", "was", "good", "[SEP]"],
        ["[CLS]", "the", "film", "was", "[MASK]", "[SEP]"],
    ]


def test_neighbours_are_nearest_by_angle(tmp_path: Path) -> None:
    """Neighbours are the nearest by angle, without the word itself.

    Angles from "cat" (1, 0): dog 45 degrees, fish 90, sky 180; length does not count."""
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 0\nsky -1 0\ndog 7 7\nfish 0 0.1\n", encoding="utf-8")
    found = neighbours({"cat", "unknown"}, vectors_of(read_vectors(path)), 2)
    assert found == {"cat": ("dog", "fish")}


def test_split_word_uses_mean_embedding(bert: Backbone) -> None:
    """Of a word of several pieces the mean of the backbone's own embeddings counts.

    film = un + ##aff + ##able by hand, so "film" is nearest to "unaffable"."""
    embedding = Embedding(bert.shape)
    table = embedding.word.weight.data
    table[BERT_WORDS.index("film")] = sum(
        table[BERT_WORDS.index(piece)] for piece in ("un", "##aff", "##able")
    )
    vectors = own_vectors(embedding, bert, whole_words(bert, SEEN), {"unaffable"})
    assert neighbours({"unaffable"}, vectors, 1) == {"unaffable": ("film",)}


def test_own_pieces_never_replace_word(bert: Backbone) -> None:
    """A word's own pieces are not put in its place. "un" is the nearest, "film" the next."""
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
    vectors = own_vectors(
        embedding, bert, whole_words(bert, {"un", "film", "good"}), {"unaffable", "film"}
    )
    assert neighbours({"unaffable", "film"}, vectors, 3) == {
        "unaffable": ("film", "good"),
        "film": ("un", "good"),
    }


def test_non_words_are_read_only(tmp_path: Path) -> None:
    """Words with spaces, and those that are no words, are read and not put in."""
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 0\n. . 1 0.1\n3 1 0.2\ndog 1 0.3\n", encoding="utf-8")
    assert read_vectors(path).words == ("cat", ". .", "3", "dog")
    assert neighbours({"cat"}, vectors_of(read_vectors(path)), 3) == {"cat": ("dog",)}


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
    """Malformed vectors are refused with the line, how many numbers it should have, and what it
    is."""
    (tmp_path / "v.txt").write_text(content, encoding="utf-8")
    with pytest.raises(HarnessError) as caught:
        read_vectors(tmp_path / "v.txt")
    assert_says(caught, "--glove", tmp_path / "v.txt", *names)


# --- rows


def test_copies_replace_words_by_candidates() -> None:
    """Copies of a fixed sentence have words of its candidates in their places."""
    text = "A good Film"
    choices = {Place(text, 2, 6, 2): ("bad", "fine"), Place(text, 7, 11, 3): ("movie",)}
    rows = alter(split((text,)), choices, replace(HOW, copies=200))
    allowed = {f"A {one} {other}" for one in ("good", "bad", "fine") for other in ("Film", "Movie")}
    assert rows[0] == (0, (text,))
    assert {copy[0] for _, copy in rows} == allowed
    assert len(rows) == len(allowed)
    assert alter(split((text,)), choices, replace(HOW, copies=200)) == rows


def test_given_share_of_words_changes() -> None:
    """A share of the words is replaced.

    1,000 words at probability 0.4: 400 are expected, the deviation is 15.5."""
    texts = tuple(f"word{'x' * (number % 7)} {number}" for number in range(1000))
    choices = {Place(text, 0, text.index(" "), 1): ("new",) for text in texts}
    rows = alter(split(*((text,) for text in texts)), choices, Augmentation(1, 0.4, 1))
    assert sum("new" in texts[0] for _, texts in rows) == pytest.approx(400, abs=60)


def test_pairs_change_and_keep_sources() -> None:
    """Both texts of a pair are altered, and rows know where they come from."""
    choices = {Place("one", 0, 3, 1): ("won",), Place("two", 0, 3, 1): ("too",)}
    rows = alter(split(("plain", "plain"), ("one", "two")), choices, replace(HOW, copies=100))
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
def words(context: FitContext, micro: Backbone) -> Words:
    return masked_lm(micro, 32, replace(context, corpus=Corpus(limit=40)))


def test_augmented_rows_are_made_once(
    context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    words: Words,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task's rows and their copies are made once and kept."""
    data = augmented(few_rows, micro, HOW, words, context)
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
    monkeypatch.setattr(augmentation, "choices", lambda *_: pytest.fail("made again"))
    again = augmented(few_rows, micro, HOW, words, context)
    assert again.train.texts == data.train.texts
    assert again.fingerprint == data.fingerprint
    assert [path.suffix for path in sorted((context.cache / "augmented").iterdir())] == [
        ".json",
        ".lock",
    ]


def test_copies_keep_their_label(
    context: FitContext, few_rows: TaskData, micro: Backbone, words: Words
) -> None:
    """Copies keep the label of their row."""
    data = augmented(few_rows, micro, HOW, words, context)
    (path,) = (context.cache / "augmented").glob("*.json")
    sources = [source for source, _ in json.loads(path.read_text())]
    assert data.train.labels.tolist() == few_rows.train.labels[sources].tolist()
    assert sorted(set(sources)) == list(range(len(few_rows.train)))


@pytest.mark.parametrize("change", [{"copies": 4}, {"replaced": 0.5}, {"candidates": 2}])
def test_other_settings_make_other_rows(
    context: FitContext, few_rows: TaskData, micro: Backbone, words: Words, change: dict[str, float]
) -> None:
    one, other = (
        augmented(few_rows, micro, how, words, context) for how in (HOW, replace(HOW, **change))
    )
    assert one.train.texts != other.train.texts
    assert one.fingerprint != other.fingerprint


def test_vectors_file_replaces_own_embeddings(
    context: FitContext, few_rows: TaskData, micro: Backbone, words: Words, tmp_path: Path
) -> None:
    """A file of vectors takes the place of the backbone's own.

    The teacher of words knows too few here, so that every word is replaced by neighbours."""
    assert not words.teach
    seen = sorted(
        {
            place.word.lower()
            for row in few_rows.train.texts
            for text in row
            for place in places_in(text, micro)
        }
    )
    path = tmp_path / "vectors.txt"
    path.write_text(f"zebra 1 0\n{seen[0]} 1 0.1\n", encoding="utf-8")
    one = augmented(few_rows, micro, HOW, words, context)
    other = augmented(few_rows, micro, HOW, words, replace(context, vectors=path))
    assert not any("zebra" in text for row in one.train.texts for text in row)
    assert any("zebra" in text for row in other.train.texts for text in row)


def test_vectors_of_other_language_are_refused(
    context: FitContext, few_rows: TaskData, micro: Backbone, words: Words, tmp_path: Path
) -> None:
    """Vectors of another language are refused.

    Without a copy that differs the rows would be those of augmentation=0, unmarked."""
    path = tmp_path / "vectors.txt"
    path.write_text("zebra 1 0\nquagga 1 0.1\n", encoding="utf-8")
    with pytest.raises(HarnessError) as caught:
        augmented(few_rows, micro, HOW, words, replace(context, vectors=path))
    assert_says(caught, "--glove", path, "augmentation=0")


def test_model_choices_fill_masked_text(context: FitContext, bert: Backbone) -> None:
    """Where the model knows words it is asked, and a masked text takes what it predicts.

    The whole way: "film" is one piece and gets the model's words, "unaffable" several and gets its
    neighbour."""
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
    words = Words(
        FittedStage(
            folder.parent, True, (), Stored(make_stage("masked-lm").report, None), model_format()
        ),
        accuracy=0.9,
    )
    rows = split(("the film was unaffable",))
    found = choices(rows, bert, Augmentation(1, 1.0, 2), words, context)
    assert {place.word: candidates for place, candidates in found.items()} == {
        "film": ("good", "film"),
        "unaffable": ("the", "film"),
    }
    texts = {texts[0] for _, texts in alter(rows, found, Augmentation(60, 1.0, 2))}
    assert texts == {
        "the film was unaffable",
        *(f"the {one} was {other}" for one in ("good", "film") for other in ("the", "film")),
    }


def test_capital_vocabulary_order_is_irrelevant(bert: Backbone) -> None:
    """A vocabulary with capitals gives the same vectors in any order."""
    embedding = Embedding(bert.shape)
    usable = whole_words(bert, SEEN)
    one, other = (
        own_vectors(embedding, bert, usable, wanted)
        for wanted in ({"Film", "film", "good"}, {"good", "film", "Film"})
    )
    assert one.own.keys() == other.own.keys() == {"film", "good"}
    assert all(torch.equal(one.own[word], other.own[word]) for word in one.own)
