"""TinyBERT's data augmentation: copies of training examples with some words replaced.

Source: Jiao et al., Findings of EMNLP 2020, section 3.2 and algorithm 1 of the appendix.
"""

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from tokenizers import models
from torch import Tensor
from torch.nn import functional

from baselines.distillation.masked_lm import Masked, MaskedLanguageModel, Pieces, masked_logits
from baselines.encoders.encoder import Embedding, EncoderModel
from harness.data.dataset import Split, TaskData, Tokens
from harness.data.word_vectors import WordVectors, read_vectors
from harness.errors import HarnessError
from harness.files.atomic import atomic_write, hold_lock
from harness.files.digests import digest, file_digest
from harness.methods.stages import FitContext
from harness.models.backbones import Backbone
from harness.models.batches import collate, sorted_batches
from harness.models.tokenizers import FastTokenizer

AUGMENTATION_REVISION = 2
"""Revision, raised whenever the same settings may give other examples."""

SEED = 1
"""Seed for drawing words, so that examples are the same for all seeds of a run."""

BATCH = 256
"""Number of masked sentences, or of words, processed at a time."""

FUNCTION_WORDS = """
a about above after again against all am an and any are as at be because been before being below
between both but by can could did do does doing don down during each few for from further had has
have having he her here hers herself him himself his how i if in into is it its itself just me more
most must my myself no nor not now of off on once only or other our ours ourselves out over own same
shall she should so some such than that the their theirs them themselves then there these they this
those through to too under until up very was we were what when where which while who whom why will
with would you your yours yourself yourselves s t d ll m re ve
"""
STOP_WORDS = frozenset(FUNCTION_WORDS.split())
"""Function words, which are never replaced."""


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation."""

    copies: int
    """Number of altered copies of each example; duplicates are dropped."""
    replaced: float
    """Probability that a word is replaced in a copy."""
    candidates: int
    """Number of candidate words for each replaced word."""


class ReplaceableWord(NamedTuple):
    """A word of a text that may be replaced: it has only letters and is not a stop word."""

    text: str
    start: int
    end: int
    """`text[start:end]` is the word."""
    piece: int | None
    """Index of its word piece in the encoded text, from 0; None if it has several pieces."""

    @property
    def word(self) -> str:
        """The word as written in the text."""
        return self.text[self.start : self.end]


Candidates = dict[ReplaceableWord, tuple[str, ...]]
"""Candidate words for each word that may be replaced."""


def augmented(
    data: TaskData,
    backbone: Backbone,
    settings: Augmentation,
    language_model: MaskedLanguageModel,
    context: FitContext,
) -> TaskData:
    """Return the task with altered copies of its training examples added.

    The copies are made once for all seeds and kept in the cache folder. A word of one piece is
    replaced by a masked-LM prediction. A word of several pieces, and every word if the masked-LM
    head is too inaccurate (`MaskedLanguageModel.is_accurate`), is replaced by one of the nearest
    words by word vectors: those of a file, or the backbone's input embeddings (the mean over
    pieces).
    Differs from the authors' code: both texts of a pair are altered in each copy; the masked text
    is encoded alone (theirs: before the unmasked one, which reveals the word); vocabulary pieces
    are candidates if they occur in the corpus as words (theirs: fragments too).
    """
    parts = [
        AUGMENTATION_REVISION,
        data.fingerprint,
        backbone.fingerprint,
        asdict(settings),
        language_model.stage.key,
        language_model.is_accurate,
    ]
    parts.append(file_digest(context.vectors) if context.vectors else None)
    key = digest([json.dumps(parts)])
    path = context.cache / "augmented" / f"{key}.json"
    fingerprint = f"{data.data_fingerprint} augmented {key}"
    if context.is_plan:
        return replace(
            data, train=_planned(data.train, path, settings), data_fingerprint=fingerprint
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = partial(
        context.compute.progress.info,
        f"{context.label}: waiting for another process to augment the training examples",
    )
    with hold_lock(FileLock(path.with_suffix(".lock")), waiting):
        if not path.is_file():
            candidates = find_candidates(data.train, backbone, settings, language_model, context)
            rows = alter_rows(data.train, candidates, settings)
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(rows), encoding="utf-8")
    rows = [
        (source, tuple(texts)) for source, texts in json.loads(path.read_text(encoding="utf-8"))
    ]
    texts = tuple(texts for _, texts in rows)
    labels = data.train.labels[[source for source, _ in rows]]
    train = Split(np.arange(len(rows)), texts, labels, backbone.encode(texts, data.max_length))
    return replace(data, train=train, data_fingerprint=fingerprint)


def _planned(train: Split, path: Path, settings: Augmentation) -> Split:
    """Return a split of as many rows as the augmented one, for a plan, which needs only these.

    Their number is an upper bound if the copies have not been made yet.
    """
    copies = len(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    count = (settings.copies + 1) * len(train) if copies is None else copies
    repeated = train.rows(np.arange(count) % len(train))
    return replace(repeated, ids=np.arange(count))


def word_piece_tokenizer(backbone: Backbone) -> FastTokenizer:
    """Return the backbone's tokenizer if augmentation can take whole words from its vocabulary.

    Raises: HarnessError for a vocabulary that marks where words begin, because there a piece
    without a mark is not a whole word.
    """
    tokenizer = backbone.tokenizer
    if not isinstance(tokenizer, FastTokenizer) or not isinstance(
        tokenizer.tokenizer.model, models.WordPiece
    ):
        raise HarnessError(
            f"backbone {backbone.name}: augmentation needs a WordPiece vocabulary such as BERT's; "
            "set tinybert.augmentation=0"
        )
    return tokenizer


def alter_rows(
    rows: Split, candidates: Candidates, settings: Augmentation
) -> list[tuple[int, tuple[str, ...]]]:
    """Return each example's index and texts, followed by those of its altered copies."""
    random = np.random.default_rng(SEED)
    words_of_text: dict[str, list[ReplaceableWord]] = {}
    for word in sorted(candidates, key=lambda word: word.start):
        words_of_text.setdefault(word.text, []).append(word)
    altered = []
    for index, texts in enumerate(rows.texts):
        copies = {texts: None}
        for _ in range(settings.copies):
            copy = tuple(
                _altered(words_of_text.get(text, []), candidates, text, settings.replaced, random)
                for text in texts
            )
            copies[copy] = None
        altered += [(index, copy) for copy in copies]
    return altered


def _altered(
    words: list[ReplaceableWord],
    candidates: Candidates,
    text: str,
    probability: float,
    random: np.random.Generator,
) -> str:
    """Replace some of a text's words, which are given first to last."""
    for word in reversed(words):  # so that the offsets of earlier words stay valid
        if candidates[word] and random.random() < probability:
            new = candidates[word][random.integers(len(candidates[word]))]
            new = new.title() if word.word.istitle() else new
            text = text[: word.start] + new + text[word.end :]
    return text


def find_candidates(
    rows: Split,
    backbone: Backbone,
    settings: Augmentation,
    language_model: MaskedLanguageModel,
    context: FitContext,
) -> Candidates:
    """Find the candidates for every word that may be replaced.

    Raises: HarnessError if a file of vectors has none of these words.
    """
    texts = list(dict.fromkeys(text for row in rows.texts for text in row))
    words = [word for text in texts for word in replaceable_words(text, backbone)]
    model = language_model.stage.model
    assert isinstance(model, EncoderModel)
    assert isinstance(model.embedding, Embedding)
    one_piece = [word for word in words if word.piece is not None]
    predictable = one_piece if language_model.is_accurate else []
    usable = whole_words(backbone, context.corpus.words)
    predicted = predicted_words(predictable, model, backbone, usable, settings.candidates, context)
    found = dict(zip(predictable, predicted, strict=True))
    rest = [word for word in words if word not in found]
    if context.vectors is not None:
        vectors = file_vectors(read_vectors(context.vectors))
    else:
        vectors = embedding_vectors(model.embedding, backbone, usable, {word.word for word in rest})
    nearest = nearest_words({word.word.lower() for word in rest}, vectors, settings.candidates)
    if context.vectors is not None and rest and not any(nearest.values()):
        raise HarnessError(
            f"--glove {context.vectors}: the file has none of the task's words "
            f"(such as {rest[0].word.lower()!r}); "
            "give vectors of the task's language or set tinybert.augmentation=0"
        )
    return found | {word: nearest.get(word.word.lower(), ()) for word in rest}


def replaceable_words(text: str, backbone: Backbone) -> list[ReplaceableWord]:
    """Return the words of a text that may be replaced, first to last."""
    tokenizer, positions = word_piece_tokenizer(backbone), backbone.shape.positions
    encoding = tokenizer.tokenizer.encode(text)
    # Truncated at the left, a long text has its pieces at other places.
    last = positions - 1 if tokenizer.truncation_side == "right" else 0
    kept = len(encoding.ids) if len(encoding.ids) <= positions else last
    pieces_of_word: dict[int, list[int]] = {}
    for piece, word in enumerate(encoding.word_ids):
        if word is not None:
            pieces_of_word.setdefault(word, []).append(piece)
    found = []
    for pieces in pieces_of_word.values():
        start, end = encoding.offsets[pieces[0]][0], encoding.offsets[pieces[-1]][1]
        letters = text[start:end].lower()
        if re.fullmatch("[a-z]+", letters) and letters not in STOP_WORDS:
            single = len(pieces) == 1 and pieces[0] < kept
            found.append(ReplaceableWord(text, start, end, pieces[0] if single else None))
    return found


@torch.inference_mode()
def predicted_words(
    words: Sequence[ReplaceableWord],
    model: EncoderModel,
    backbone: Backbone,
    usable: "WholeWords",
    count: int,
    context: FitContext,
) -> list[tuple[str, ...]]:
    """Return the whole words most probable at each word's position, most probable first."""
    if not words:
        return []
    compute, pieces = context.compute, Pieces.of(backbone)
    model.to(compute.device).eval()
    texts = list(dict.fromkeys(word.text for word in words))
    index_of = {text: index for index, text in enumerate(texts)}
    encoded = backbone.encode([(text,) for text in texts], backbone.shape.positions)
    ids = []
    for word in words:
        masked_text = encoded.ids[index_of[word.text]].copy()
        masked_text[word.piece] = pieces.mask
        ids.append(masked_text)
    tokens = Tokens(tuple(ids), tuple(np.zeros_like(text) for text in ids), 0)
    names, columns = usable.words, usable.ids.to(compute.device)
    found: list[tuple[str, ...]] = [()] * len(words)
    batches = sorted_batches(tokens.lengths, BATCH)
    with (
        compute.progress.track(f"{context.label}: words for augmentation", len(batches)) as advance,
        compute.autocast(),
    ):
        for index in batches:
            batch = collate(tokens, index).to(compute.device)
            positions = torch.zeros_like(batch.mask)
            masked_pieces = torch.tensor([words[i].piece for i in index])
            positions[torch.arange(len(index)), masked_pieces] = True
            masked = Masked(batch, positions, batch.ids[positions])
            logits = masked_logits(model, model(batch).hiddens[-1], masked)[:, columns]
            best = logits.topk(min(count, len(names)), -1).indices.cpu()
            for i, columns_of_best in zip(index, best, strict=True):
                found[i] = tuple(names[int(column)] for column in columns_of_best)
            advance()
    model.to("cpu")
    return found


class WholeWords(NamedTuple):
    """Vocabulary pieces that are whole words."""

    words: tuple[str, ...]
    ids: Tensor
    """[w] ids of the words."""


def whole_words(backbone: Backbone, seen: Set[str]) -> WholeWords:
    """Return the vocabulary pieces that are among the words `seen`, which are in lower case.

    Other pieces of letters are the beginnings of longer words.
    """
    vocabulary = sorted(backbone.tokenizer.vocabulary.items(), key=lambda item: item[1])
    rows = backbone.shape.vocabulary
    words = [(piece, id_) for piece, id_ in vocabulary if piece.lower() in seen and id_ < rows]
    return WholeWords(
        tuple(piece for piece, _ in words),
        torch.tensor([id_ for _, id_ in words], dtype=torch.long),
    )


class Vectors(NamedTuple):
    """Word vectors of candidates and of the words to replace."""

    candidates: tuple[str, ...]
    """Words that may be inserted."""
    table: Tensor
    """[w, v] vectors of the candidates."""
    replaced: dict[str, Tensor]
    """Word to replace, in lower case -> its vector [v]."""
    pieces: Mapping[str, Set[str]]
    """Word to replace -> the pieces whose mean is its vector.

    They are not candidates for the word, because they mean less than it does.
    """


def embedding_vectors(
    embedding: Embedding, backbone: Backbone, usable: WholeWords, words: Set[str]
) -> Vectors:
    """Return the backbone's input embeddings; a word of several pieces has their mean."""
    tokenizer = word_piece_tokenizer(backbone).tokenizer
    table = embedding.word.weight.detach().float().cpu()
    encodings = {
        word.lower(): tokenizer.encode(word, add_special_tokens=False) for word in sorted(words)
    }
    return Vectors(
        usable.words,
        table[usable.ids],
        {word: table[encoding.ids].mean(0) for word, encoding in encodings.items() if encoding.ids},
        {word: set(encoding.tokens) for word, encoding in encodings.items()},
    )


def file_vectors(file: WordVectors) -> Vectors:
    """Return the vectors of a file; its words of only letters may be inserted."""
    table = torch.from_numpy(file.table)
    usable = [index for index, word in enumerate(file.words) if re.fullmatch("[A-Za-z]+", word)]
    return Vectors(
        tuple(file.words[index] for index in usable),
        table[usable],
        dict(zip(file.words, table, strict=True)),
        {},
    )


def nearest_words(words: Set[str], vectors: Vectors, count: int) -> dict[str, tuple[str, ...]]:
    """Return the words of highest cosine similarity to each word that has a vector, nearest first.

    The word itself and its pieces are excluded.
    """
    known = sorted(word for word in words if word in vectors.replaced)
    excluded = {word: {word, *vectors.pieces.get(word, ())} for word in known}
    table = functional.normalize(vectors.table, dim=-1)
    found = {}
    for first in range(0, len(known), BATCH):
        batch = known[first : first + BATCH]
        queries = functional.normalize(
            torch.stack([vectors.replaced[word] for word in batch]), dim=-1
        )
        most = count + max(len(excluded[word]) for word in batch)
        best = (queries @ table.T).topk(min(most, len(vectors.candidates)), -1).indices
        for word, indices in zip(batch, best, strict=True):
            near = (vectors.candidates[int(index)] for index in indices)
            found[word] = tuple(name for name in near if name.lower() not in excluded[word])[:count]
    return found
