"""Rows with some of their words replaced."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
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
from harness.methods.stages import FittedStage, Work
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


def test_words_of_letters_that_are_no_stop_words_may_be_replaced(bert: Backbone) -> None:
    """ "was", "not" and "the" are stop words, "!" is no word; "unaffable" has three pieces, "film" and "good" one, counted from [CLS]."""
    found = places_in("The film was not unaffable! Good film", bert)
    assert [(place.word, place.piece) for place in found] == [("film", 2), ("unaffable", None), ("Good", 9), ("film", 10)]
    assert found[1].text[found[1].start : found[1].end] == "unaffable"


SEEN = {"the", "film", "was", "not", "good", "cafe"}
"""Words that sentences have."""


def test_only_words_that_are_pieces_by_themselves_are_put_in(bert: Backbone) -> None:
    """ "un" and "caf" begin words and are none."""
    found = whole_words(bert, SEEN)
    assert found.words == ("the", "film", "was", "not", "good")
    assert tuple(BERT_WORDS[id_] for id_ in found.ids) == found.words
    assert whole_words(bert, SEEN | {"un"}).words == ("the", "film", "un", "was", "not", "good")


# --- candidates


class Fixed(EncoderModel):
    """Whatever is asked, it finds the pieces probable in this order: good, ##aff, film, the, ..."""

    ORDER = ("good", "##aff", "film", "!", "the", "un")

    def __init__(self, bert: Backbone) -> None:
        super().__init__(ModelConfig(bert.shape, "mean", 2, 1.0, (None, None, "plain"), masked_lm=True))
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


def test_the_model_is_asked_about_one_masked_word_at_a_time_and_its_best_whole_words_are_taken(bert: Backbone, work: Work) -> None:
    model = Watched(bert)
    places = [place for place in places_in("the film was good", bert) if place.piece is not None]
    assert by_words(places, model, bert, whole_words(bert, SEEN), 3, work) == [("good", "film", "the")] * 2
    words = [[BERT_WORDS[id_] for id_ in row] for row in model.asked]
    assert sorted(words) == [["[CLS]", "the", "[MASK]", "was", "good", "[SEP]"], ["[CLS]", "the", "film", "was", "[MASK]", "[SEP]"]]


def test_neighbours_are_the_nearest_by_angle_without_the_word_itself(tmp_path: Path) -> None:
    """Angles from "cat" (1, 0): dog 45 degrees, fish 90, sky 180; length does not count."""
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 0\nsky -1 0\ndog 7 7\nfish 0 0.1\n", encoding="utf-8")
    found = neighbours({"cat", "unknown"}, vectors_of(read_vectors(path)), 2)
    assert found == {"cat": ("dog", "fish")}


def test_of_a_word_of_several_pieces_the_mean_of_the_backbones_own_embeddings_counts(bert: Backbone) -> None:
    """film = un + ##aff + ##able by hand, so "film" is nearest to "unaffable"."""
    embedding = Embedding(bert.shape)
    table = embedding.word.weight.data
    table[BERT_WORDS.index("film")] = sum(table[BERT_WORDS.index(piece)] for piece in ("un", "##aff", "##able"))
    vectors = own_vectors(embedding, bert, whole_words(bert, SEEN), {"unaffable"})
    assert neighbours({"unaffable"}, vectors, 1) == {"unaffable": ("film",)}


def test_a_words_own_pieces_are_not_put_in_its_place(bert: Backbone) -> None:
    """ "un" is the nearest, "film" the next."""
    embedding = Embedding(bert.shape)
    table = embedding.word.weight.data
    table.fill_(1e-3)
    for piece, direction in {"un": (1, 1), "##aff": (1, 0), "##able": (0, 1), "film": (1, 0.5), "good": (0, -1)}.items():
        table[BERT_WORDS.index(piece), :2] = torch.tensor(direction)
    vectors = own_vectors(embedding, bert, whole_words(bert, {"un", "film", "good"}), {"unaffable", "film"})
    assert neighbours({"unaffable", "film"}, vectors, 3) == {"unaffable": ("film", "good"), "film": ("un", "good")}


def test_words_with_spaces_and_those_that_are_no_words_are_read_and_not_put_in(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 0\n. . 1 0.1\n3 1 0.2\ndog 1 0.3\n", encoding="utf-8")
    assert read_vectors(path).words == ("cat", ". .", "3", "dog")
    assert neighbours({"cat"}, vectors_of(read_vectors(path)), 3) == {"cat": ("dog",)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no lines"),
        ("cat 1 0\ndog 1\n", "line 2: wanted a word and 2 finite numbers, got 'dog 1'"),
        ("cat\n", "line 1: wanted a word and finite numbers, got 'cat'"),
        ("cat one two\n", "line 1"),
        ("cat 1 0\ndog 1 nan\n", "line 2"),
    ],
)
def test_malformed_vectors_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "v.txt").write_text(content, encoding="utf-8")
    with pytest.raises(HarnessError, match=rf"--glove.*v\.txt.*{said}"):
        read_vectors(tmp_path / "v.txt")


# --- rows


def test_copies_of_a_fixed_sentence_have_words_of_its_candidates_in_their_places() -> None:
    text = "A good Film"
    choices = {Place(text, 2, 6, 2): ("bad", "fine"), Place(text, 7, 11, 3): ("movie",)}
    rows = alter(split((text,)), choices, replace(HOW, copies=200))
    allowed = {f"A {one} {other}" for one in ("good", "bad", "fine") for other in ("Film", "Movie")}
    assert rows[0] == (0, (text,))
    assert {copy[0] for _, copy in rows} == allowed
    assert len(rows) == len(allowed)
    assert alter(split((text,)), choices, replace(HOW, copies=200)) == rows


def test_a_share_of_the_words_is_replaced() -> None:
    """1,000 words at probability 0.4: 400 are expected, the deviation is 15.5."""
    texts = tuple(f"word{'x' * (number % 7)} {number}" for number in range(1000))
    choices = {Place(text, 0, text.index(" "), 1): ("new",) for text in texts}
    rows = alter(split(*((text,) for text in texts)), choices, Augmentation(1, 0.4, 1))
    assert sum("new" in texts[0] for _, texts in rows) == pytest.approx(400, abs=60)


def test_both_texts_of_a_pair_are_altered_and_rows_know_where_they_come_from() -> None:
    choices = {Place("one", 0, 3, 1): ("won",), Place("two", 0, 3, 1): ("too",)}
    rows = alter(split(("plain", "plain"), ("one", "two")), choices, replace(HOW, copies=100))
    assert rows[0] == (0, ("plain", "plain"))
    assert {copy for source, copy in rows if source == 1} == {("one", "two"), ("won", "two"), ("one", "too"), ("won", "too")}
    assert len(rows) == 5


# --- the task


@pytest.fixture
def words(work: Work, micro: Backbone) -> Words:
    return masked_lm(micro, 32, replace(work, corpus=Corpus(limit=40)))


def test_the_tasks_rows_and_their_copies_are_made_once_and_kept(
    work: Work, few_rows: TaskData, micro: Backbone, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = augmented(few_rows, micro, HOW, words, work)
    assert 2 * len(few_rows.train) < len(data.train) <= 6 * len(few_rows.train)
    assert set(few_rows.train.texts) < set(data.train.texts)
    assert len(set(data.train.ids)) == len(data.train) == len(data.train.labels)
    assert [row.tolist() for row in data.train.tokens.ids] == [row.tolist() for row in micro.encode(data.train.texts, 32).ids]
    assert all(data.splits()[name] == few_rows.splits()[name] for name in ("selection", "calibration", "dev"))
    assert data.fingerprint != few_rows.fingerprint
    monkeypatch.setattr(augmentation, "choices", lambda *_: pytest.fail("made again"))
    again = augmented(few_rows, micro, HOW, words, work)
    assert again.train.texts == data.train.texts
    assert again.fingerprint == data.fingerprint
    assert [path.suffix for path in sorted((work.cache / "augmented").iterdir())] == [".json", ".lock"]


def test_copies_keep_their_rows_label(work: Work, few_rows: TaskData, micro: Backbone, words: Words) -> None:
    data = augmented(few_rows, micro, HOW, words, work)
    (path,) = (work.cache / "augmented").glob("*.json")
    sources = [source for source, _ in json.loads(path.read_text())]
    assert data.train.labels.tolist() == few_rows.train.labels[sources].tolist()
    assert sorted(set(sources)) == list(range(len(few_rows.train)))


@pytest.mark.parametrize("change", [{"copies": 4}, {"replaced": 0.5}, {"candidates": 2}])
def test_other_settings_make_other_rows(work: Work, few_rows: TaskData, micro: Backbone, words: Words, change: dict[str, float]) -> None:
    one, other = (augmented(few_rows, micro, how, words, work) for how in (HOW, replace(HOW, **change)))
    assert one.train.texts != other.train.texts
    assert one.fingerprint != other.fingerprint


def test_a_file_of_vectors_takes_the_place_of_the_backbones_own(
    work: Work, few_rows: TaskData, micro: Backbone, words: Words, tmp_path: Path
) -> None:
    """The teacher of words knows too few here, so that every word is replaced by neighbours."""
    assert not words.teach
    seen = sorted({place.word.lower() for row in few_rows.train.texts for text in row for place in places_in(text, micro)})
    path = tmp_path / "vectors.txt"
    path.write_text(f"zebra 1 0\n{seen[0]} 1 0.1\n", encoding="utf-8")
    one = augmented(few_rows, micro, HOW, words, work)
    other = augmented(few_rows, micro, HOW, words, replace(work, vectors=path))
    assert not any("zebra" in text for row in one.train.texts for text in row)
    assert any("zebra" in text for row in other.train.texts for text in row)


def test_vectors_of_another_language_are_refused(work: Work, few_rows: TaskData, micro: Backbone, words: Words, tmp_path: Path) -> None:
    """Without a copy that differs the rows would be those of augmentation=0, unmarked."""
    path = tmp_path / "vectors.txt"
    path.write_text("zebra 1 0\nquagga 1 0.1\n", encoding="utf-8")
    with pytest.raises(HarnessError, match=r"--glove .*vectors\.txt: not one of the task's words has a vector there"):
        augmented(few_rows, micro, HOW, words, replace(work, vectors=path))


def test_where_the_model_knows_words_it_is_asked_and_a_masked_text_takes_what_it_says(work: Work, bert: Backbone) -> None:
    """The whole way: "film" is one piece and gets the model's words, "unaffable" several and gets its neighbour."""
    model = Fixed(bert)
    table = model.embedding.get_parameter("word.weight").data
    table[:, :3] = -1e-3
    for piece, direction in {"un": (1, 0, 0), "##aff": (0, 1, 0), "##able": (0, 0, 1), "the": (1, 1, 1), "film": (1, 1, 0)}.items():
        table[BERT_WORDS.index(piece), :3] = 1e-3 * torch.tensor(direction)
    folder = work.cache / "words" / "model"
    folder.mkdir(parents=True)
    save_model(model, folder)
    words = Words(FittedStage(folder.parent, True, (), Stored(make_stage("masked-lm").report, None), model_format()), accuracy=0.9)
    rows = split(("the film was unaffable",))
    found = choices(rows, bert, Augmentation(1, 1.0, 2), words, work)
    assert {place.word: candidates for place, candidates in found.items()} == {"film": ("good", "film"), "unaffable": ("the", "film")}
    texts = {texts[0] for _, texts in alter(rows, found, Augmentation(60, 1.0, 2))}
    assert texts == {"the film was unaffable", *(f"the {one} was {other}" for one in ("good", "film") for other in ("the", "film"))}


def test_a_vocabulary_with_capitals_gives_the_same_vectors_in_any_order(bert: Backbone) -> None:
    embedding = Embedding(bert.shape)
    usable = whole_words(bert, SEEN)
    one, other = (own_vectors(embedding, bert, usable, wanted) for wanted in ({"Film", "film", "good"}, {"good", "film", "Film"}))
    assert one.own.keys() == other.own.keys() == {"film", "good"}
    assert all(torch.equal(one.own[word], other.own[word]) for word in one.own)
