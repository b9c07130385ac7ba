"""TinyBERT's data augmentation (Jiao et al., Findings of EMNLP 2020, section 3.2, algorithm 1 of the appendix): some words replaced."""

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from tokenizers import models
from torch import Tensor
from torch.nn import functional

from baselines.distillation.masked_lm import Masked, Pieces, Words, told
from baselines.encoders.encoder import Embedding, EncoderModel
from harness.data.dataset import Split, TaskData, Tokens
from harness.data.word_vectors import WordVectors, read_vectors
from harness.errors import HarnessError
from harness.files.atomic import whole
from harness.files.digests import digest, file_digest
from harness.files.locks import held
from harness.methods.stages import FitContext
from harness.models.backbones import Backbone
from harness.models.batches import collate, sorted_batches

AUGMENTATION_REVISION = 2
"""Raised when the same settings may give other rows."""

SEED = 1
"""Of the words that are drawn: rows are the same for all seeds of a run."""

BATCH = 256
"""Masked sentences that are asked at a time."""


FUNCTION_WORDS = """
a about above after again against all am an and any are as at be because been before being below between both but by can could did do does
doing don down during each few for from further had has have having he her here hers herself him himself his how i if in into is it its
itself just me more most must my myself no nor not now of off on once only or other our ours ourselves out over own same shall she should so
some such than that the their theirs them themselves then there these they this those through to too under until up very was we were what
when where which while who whom why will with would you your yours yourself yourselves s t d ll m re ve
"""
STOP_WORDS = frozenset(FUNCTION_WORDS.split())
"""Words that hold a sentence together; they are not replaced."""


@dataclass(frozen=True)
class Augmentation:
    """How rows are altered."""

    copies: int
    """Altered copies of each row; those that come out equal are one."""
    replaced: float
    """Probability that a word is replaced in a copy."""
    candidates: int
    """Words that may stand in a word's place."""


class Place(NamedTuple):
    """A word of a text that may be replaced: letters alone, and no stop word."""

    text: str
    start: int
    end: int
    """Characters of the text."""
    piece: int | None
    """Where its only word piece stands among the text's, from 0; None for a word of several pieces."""

    @property
    def word(self) -> str:
        """The word itself."""
        return self.text[self.start : self.end]


Choices = dict[Place, tuple[str, ...]]
"""What may stand in the place of a word."""


def augmented(
    data: TaskData, backbone: Backbone, how: Augmentation, words: Words, context: FitContext
) -> TaskData:
    """The task with its training rows and their altered copies; made once for all seeds and kept in the cache folder.

    A word of one piece is replaced by what the backbone with its masked-LM head puts in its place; a word of several, and every word where
    that head knows too few (`Words.teach`), by its neighbours among word vectors: of a file, or the backbone's own input embeddings (of
    several pieces the mean). Differs from the authors' code: both texts of a pair are altered in each copy; the masked text stands alone
    (theirs: in front of the whole one, which gives the word away); pieces of the vocabulary are candidates when they stand in the corpus as
    words (theirs: fragments too).
    """
    parts = [
        AUGMENTATION_REVISION,
        data.fingerprint,
        backbone.fingerprint,
        asdict(how),
        words.stage.key,
        words.teach,
    ]
    parts.append(file_digest(context.vectors) if context.vectors else None)
    key = digest([json.dumps(parts)])
    path = context.cache / "augmented" / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = partial(
        context.compute.progress.info,
        f"{context.label}: another process is altering the rows; waiting",
    )
    with held(FileLock(path.with_suffix(".lock")), waiting):
        if not path.is_file():
            rows = alter(data.train, choices(data.train, backbone, how, words, context), how)
            with whole(path) as beside:
                beside.write_text(json.dumps(rows), encoding="utf-8")
    rows = [
        (source, tuple(texts)) for source, texts in json.loads(path.read_text(encoding="utf-8"))
    ]
    texts = tuple(texts for _, texts in rows)
    labels = data.train.labels[[source for source, _ in rows]]
    train = Split(np.arange(len(rows)), texts, labels, backbone.encode(texts, data.max_length))
    return replace(data, train=train, data_fingerprint=f"{data.data_fingerprint} augmented {key}")


def check_vocabulary(backbone: Backbone) -> None:
    """Raises: HarnessError for a vocabulary that marks where words begin: a piece without a mark is no word there."""
    if not isinstance(backbone.tokenizer.model, models.WordPiece):
        raise HarnessError(
            f"backbone {backbone.name}: augmentation takes whole words from a vocabulary of word pieces (BERT's), this is another; "
            "tinybert goes without by augmentation=0"
        )


def alter(rows: Split, choices: Choices, how: Augmentation) -> list[tuple[int, tuple[str, ...]]]:
    """Each row, by its position, followed by its altered copies."""
    random = np.random.default_rng(SEED)
    places: dict[str, list[Place]] = {}
    for place in sorted(choices, key=lambda place: place.start):
        places.setdefault(place.text, []).append(place)
    found = []
    for number, texts in enumerate(rows.texts):
        copies = {texts: None}
        for _ in range(how.copies):
            copies[
                tuple(
                    _altered(places.get(text, []), choices, text, how.replaced, random)
                    for text in texts
                )
            ] = None
        found += [(number, copy) for copy in copies]
    return found


def _altered(
    places: list[Place], choices: Choices, text: str, share: float, random: np.random.Generator
) -> str:
    """The text with some of its places, given first to last, filled anew."""
    for place in reversed(places):  # so that those before it stay where they are
        if choices[place] and random.random() < share:
            word = choices[place][random.integers(len(choices[place]))]
            text = (
                text[: place.start]
                + (word.title() if place.word.istitle() else word)
                + text[place.end :]
            )
    return text


def choices(
    rows: Split, backbone: Backbone, how: Augmentation, words: Words, context: FitContext
) -> Choices:
    """The candidates for every word that may be replaced.

    Raises: HarnessError for a file of vectors that knows none of them.
    """
    texts = list(dict.fromkeys(text for row in rows.texts for text in row))
    places = [place for text in texts for place in places_in(text, backbone)]
    model = words.stage.model
    assert isinstance(model, EncoderModel)
    assert isinstance(model.embedding, Embedding)
    masked = [place for place in places if place.piece is not None] if words.teach else []
    usable = whole_words(backbone, context.corpus.words)
    found = dict(
        zip(masked, by_words(masked, model, backbone, usable, how.candidates, context), strict=True)
    )
    rest = [place for place in places if place not in found]
    if context.vectors is not None:
        known = vectors_of(read_vectors(context.vectors))
    else:
        known = own_vectors(model.embedding, backbone, usable, {place.word for place in rest})
    near = neighbours({place.word.lower() for place in rest}, known, how.candidates)
    if context.vectors is not None and rest and not any(near.values()):
        raise HarnessError(
            f"--glove {context.vectors}: not one of the task's words has a vector there (such as {rest[0].word.lower()!r}): "
            "wanted vectors of its language, or tinybert's augmentation=0"
        )
    return found | {place: near.get(place.word.lower(), ()) for place in rest}


def places_in(text: str, backbone: Backbone) -> list[Place]:
    """The words of a text that may be replaced, first to last."""
    encoding = backbone.tokenizer.encode(text)
    spans: dict[int, list[int]] = {}
    for piece, word in enumerate(encoding.word_ids):
        if word is not None:
            spans.setdefault(word, []).append(piece)
    found = []
    for pieces in spans.values():
        start, end = encoding.offsets[pieces[0]][0], encoding.offsets[pieces[-1]][1]
        letters = text[start:end].lower()
        if re.fullmatch("[a-z]+", letters) and letters not in STOP_WORDS:
            single = len(pieces) == 1 and pieces[0] < backbone.shape.positions - 1
            found.append(Place(text, start, end, pieces[0] if single else None))
    return found


@torch.inference_mode()
def by_words(
    places: Sequence[Place],
    model: EncoderModel,
    backbone: Backbone,
    usable: "WholeWords",
    count: int,
    context: FitContext,
) -> list[tuple[str, ...]]:
    """For each place the whole words that the model finds most probable there, most probable first."""
    if not places:
        return []
    compute, pieces = context.compute, Pieces.of(backbone)
    model.to(compute.device).eval()
    texts = list(dict.fromkeys(place.text for place in places))
    number = {text: row for row, text in enumerate(texts)}
    encoded = backbone.encode([(text,) for text in texts], backbone.shape.positions)
    ids = []
    for place in places:
        row = encoded.ids[number[place.text]].copy()
        row[place.piece] = pieces.mask
        ids.append(row)
    tokens = Tokens(tuple(ids), tuple(np.zeros_like(row) for row in ids), 0)
    names, columns = usable.words, usable.ids.to(compute.device)
    found: list[tuple[str, ...]] = [()] * len(places)
    batches = sorted_batches(tokens.lengths, BATCH)
    with (
        compute.progress.track(f"{context.label}: words for augmentation", len(batches)) as advance,
        compute.autocast(),
    ):
        for index in batches:
            batch = collate(tokens, index).to(compute.device)
            where = torch.zeros_like(batch.mask)
            where[
                torch.arange(len(index)), torch.tensor([places[place].piece for place in index])
            ] = True
            logits = told(model, model(batch).hiddens[-1], Masked(batch, where, batch.ids[where]))[
                :, columns
            ]
            best = logits.topk(min(count, len(names)), -1).indices.cpu()
            for place, row in zip(index, best, strict=True):
                found[place] = tuple(names[int(word)] for word in row)
            advance()
    model.to("cpu")
    return found


class WholeWords(NamedTuple):
    """Pieces of a vocabulary that are words by themselves."""

    words: tuple[str, ...]
    ids: Tensor
    """[w]"""


def whole_words(backbone: Backbone, seen: Set[str]) -> WholeWords:
    """Those of letters that are among the words `seen` (in small letters): other pieces of letters begin longer words."""
    vocabulary = sorted(backbone.tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [(piece, id_) for piece, id_ in vocabulary if piece.lower() in seen]
    return WholeWords(
        tuple(piece for piece, _ in words),
        torch.tensor([id_ for _, id_ in words], dtype=torch.long),
    )


class Vectors(NamedTuple):
    """Word vectors."""

    words: tuple[str, ...]
    """Those that may be put in."""
    table: Tensor
    """[w, v] of each of them."""
    own: dict[str, Tensor]
    """[v] of words that are to be replaced, in small letters."""
    pieces: Mapping[str, Set[str]]
    """Of such a word what its vector is the mean of, which is not put in its place: it says less than the word."""


def own_vectors(
    embedding: Embedding, backbone: Backbone, usable: WholeWords, wanted: Set[str]
) -> Vectors:
    """Of the backbone's input embeddings; of a word of several pieces their mean."""
    table = embedding.word.weight.detach().float().cpu()
    found = {
        word.lower(): backbone.tokenizer.encode(word, add_special_tokens=False)
        for word in sorted(wanted)
    }
    own = {word: table[encoding.ids].mean(0) for word, encoding in found.items() if encoding.ids}
    return Vectors(
        usable.words,
        table[usable.ids],
        own,
        {word: set(encoding.tokens) for word, encoding in found.items()},
    )


def vectors_of(file: WordVectors) -> Vectors:
    """Of a file: its words of letters may be put in."""
    table = torch.from_numpy(file.table)
    usable = [place for place, word in enumerate(file.words) if re.fullmatch("[A-Za-z]+", word)]
    return Vectors(
        tuple(file.words[place] for place in usable),
        table[usable],
        dict(zip(file.words, table, strict=True)),
        {},
    )


def neighbours(wanted: Set[str], vectors: Vectors, count: int) -> dict[str, tuple[str, ...]]:
    """For each word that has a vector the words nearest to it by the angle, itself and its pieces left out, nearest first."""
    known = sorted(word for word in wanted if word in vectors.own)
    out = {word: {word, *vectors.pieces.get(word, ())} for word in known}
    table = functional.normalize(vectors.table, dim=-1)
    found = {}
    for first in range(0, len(known), BATCH):
        part = known[first : first + BATCH]
        near = (
            functional.normalize(torch.stack([vectors.own[word] for word in part]), dim=-1)
            @ table.T
        )
        most = count + max(len(out[word]) for word in part)
        best = near.topk(min(most, len(vectors.words)), -1).indices
        for word, row in zip(part, best, strict=True):
            names = (vectors.words[int(place)] for place in row)
            found[word] = tuple(name for name in names if name.lower() not in out[word])[:count]
    return found
