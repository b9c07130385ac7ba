"""Two small demo tasks, generated in code, so that the benchmark runs without any download.

`demo-single` asks whether the verdict on a film, a book, ... is positive. `demo-pair` asks whether a sentence about somebody's mood entails
the second one, which reports a glad deed. Both are deterministic: the same rows come out on every machine.

Two rows in five are *easy*: the words alone decide, all of them point one way. The other three are *hard*: they hold one good word, one bad
word and negations, and only the order of the words decides; each bag of words occurs with both labels::

    the film was good and not bad                -> positive
    the film was not good and bad                -> negative
    the film was never not good and not bad      -> positive
    the film was never not bad and not good      -> negative

A model has to bind each negation to what it stands before, and in the double ones to another negation, before it can sum the evidence
up. Openings of different length keep the place of a word from giving it away. For an exit that looks at the first token that takes two
layers or more: in the first one that token sees unbound words only.
"""

from __future__ import annotations

import random
import string
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LABELS: dict[str, tuple[str, str]] = {
    "demo-single": ("negative", "positive"),
    "demo-pair": ("not_entailment", "entailment"),
}
"""Task name -> label names in index order."""

SPLIT_SIZES: dict[str, int] = {"train": 3600, "dev": 500}
"""Rows per split; multiples of ten keep both labels balanced in the easy and in the hard part."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_DEV_SHARE = 6  # a text belongs to dev when its CRC-32 is divisible by this number, else to train

_NAMES = (
    "anna", "ben", "carla", "david", "emma", "frank", "grace", "henry",
    "ivy", "jack", "kate", "leo", "mary", "nick", "olga", "paul",
)  # fmt: skip
_WORKS = ("film", "book", "show", "play", "opera", "game", "song", "story")
_GOOD = ("good", "great", "lovely")
_BAD = ("bad", "awful", "boring")
_LIKED = ("loved", "liked", "enjoyed")
_DISLIKED = ("hated", "disliked", "loathed")
_GLAD = ("happy", "glad", "cheerful")
_SAD = ("sad", "upset", "gloomy")
_DEEDS = ("smiled", "laughed", "danced", "sang")
_TAILS = ("", "today", "again", "all day", "at home")
_OPENINGS = (
    "", "", "well", "so", "i think", "after all", "they say that", "in the end",
    "as you may know", "to be quite honest", "as far as i know",
)  # fmt: skip
_VERDICTS = (
    "it was {first} and {second}",
    "the {work} was {first} and {second}",
    "the new {work} was {first} and {second}",
    "the {work} seemed to be {first} and {second}",
)
_OPINIONS = ("{name} {verb} the {word} {work}", "{name} and i {verb} the {work}")
_MOODS = (
    "{name} was {first} and {second}",
    "{name} felt {first} and {second}",
    "our friend {name} was {first} and {second}",
    "{name} seemed to be {first} and {second}",
)
_NEGATIONS = ("not", "never")


@dataclass(frozen=True)
class DemoRow:
    """One labelled example."""

    texts: tuple[str, ...]
    """One or two texts, lower case words separated by single spaces."""
    label: str
    """Label name, one of `LABELS[task]`."""
    hard: bool
    """True: the order of the words decides; False: the words alone do."""


def _join(*parts: str) -> str:
    """Join the parts that are not empty with single spaces."""
    return " ".join(part for part in parts if part)


def _claims(rng: random.Random, right: Sequence[str], wrong: Sequence[str], doubled: float | None) -> tuple[str, str]:
    """Two claims that say the same. `doubled` None: both plainly; else one by negation, and with this probability the other by two."""
    if doubled is None:
        return rng.choice(right), rng.choice(right)
    plain, negated = rng.choice(right), f"not {rng.choice(wrong)}"
    if rng.random() < doubled:
        plain = f"never not {plain}"
    return (plain, negated) if rng.random() < 0.5 else (negated, plain)


def _single(rng: random.Random, positive: bool, hard: bool) -> tuple[str, ...]:
    """One text of `demo-single`."""
    right, wrong = (_GOOD, _BAD) if positive else (_BAD, _GOOD)
    name, work = rng.choice(_NAMES), rng.choice(_WORKS)
    if not hard and rng.random() < 0.3:
        text = rng.choice(_OPINIONS).format(
            name=name,
            work=work,
            verb=rng.choice(_LIKED if positive else _DISLIKED),
            word=rng.choice(right),
        )
    else:
        first, second = _claims(rng, right, wrong, 0.5 if hard else None)
        text = rng.choice(_VERDICTS).format(work=work, first=first, second=second)
    return (_join(rng.choice(_OPENINGS), text),)


def _pair(rng: random.Random, entailed: bool, hard: bool) -> tuple[str, ...]:
    """The two texts of one row of `demo-pair`."""
    right, wrong = (_GLAD, _SAD) if entailed else (_SAD, _GLAD)
    name = rng.choice(_NAMES)
    first, second = _claims(rng, right, wrong, 0.2 if hard else None)
    mood = rng.choice(_MOODS).format(name=name, first=first, second=second)
    mood = _join(rng.choice(_OPENINGS), mood)
    deed = _join(name, rng.choice(_DEEDS), rng.choice(("", "today", "again", "all day", "at home")))
    return (mood, deed)


_MAKERS: dict[str, Callable[[random.Random, bool, bool], tuple[str, ...]]] = {
    "demo-single": _single,
    "demo-pair": _pair,
}


def _split_of(text: str) -> str:
    """The only split in which `text` may occur."""
    return "train" if zlib.crc32(text.encode("ascii")) % _DEV_SHARE else "dev"


def demo_rows(task: str, split: str) -> list[DemoRow]:
    """Generate the rows of one split, the same on every call.

    No text of one split occurs in the other one, no row occurs twice, and both labels are equally
    frequent among the easy and among the hard rows.

    Raises:
        ValueError: if `task` or `split` is unknown.
    """
    if task not in LABELS:
        raise ValueError(f"unknown demo task {task!r}, expected one of {', '.join(LABELS)}")
    if split not in SPLIT_SIZES:
        raise ValueError(f"unknown split {split!r}, expected one of {', '.join(SPLIT_SIZES)}")
    rng = random.Random(f"harness.demo/{task}/{split}")
    seen: set[tuple[str, ...]] = set()
    rows: list[DemoRow] = []
    while len(rows) < SPLIT_SIZES[split]:
        hard, index = len(rows) // 2 % 5 < 3, len(rows) % 2
        texts = _MAKERS[task](rng, bool(index), hard)
        if texts in seen or any(_split_of(text) != split for text in texts):
            continue
        seen.add(texts)
        rows.append(DemoRow(texts, LABELS[task][index], hard))
    rng.shuffle(rows)
    return rows


def demo_vocabulary() -> list[str]:
    """WordPiece vocabulary of both tasks: special tokens, letters, then the words, sorted.

    Every word of every demo text is one piece; the single letters and their continuations let a
    WordPiece tokenizer spell any other lower case word.
    """
    lexicon = (
        _NAMES + _WORKS + _GOOD + _BAD + _LIKED + _DISLIKED + _GLAD + _SAD + _DEEDS
        + _TAILS + _OPENINGS + _OPINIONS + _MOODS + _VERDICTS + _NEGATIONS
    )  # fmt: skip
    words = {word for phrase in lexicon for word in phrase.split() if not word.startswith("{")}
    letters = list(string.ascii_lowercase)
    pieces = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    return pieces + sorted(words.difference(pieces))
