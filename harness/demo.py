"""Two small demo tasks, generated in code, so that the benchmark runs without any download.

`demo-single` asks whether the verdict on a film, a book, ... is positive. `demo-pair` asks whether a sentence about somebody's mood entails
the second one, which reports a glad deed. Both are deterministic: the same rows come out on every machine.

One row in five is *easy*: the words alone decide, all of them point one way. The others are *hard*: they hold two good words, two bad
ones and two "not", and only which words the "not" stand before decides; each bag of words occurs with both labels::

    the film was good , not bad , lovely and not dull      -> positive
    the film was not good , bad , dull and not lovely      -> negative

A model has to bind each "not" to the word after it before it can sum the evidence up, and openings of different length keep the place of a
word from giving it away. For an exit that looks at the first token that takes two layers: in the first one that token sees unbound words.
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
_TIMES = ("", "today", "again", "all day", "at home")
_OPENINGS = (
    "", "", "well", "so", "i think", "after all", "they say that", "in the end",
    "as you may know", "to be quite honest", "as far as i know",
)  # fmt: skip
_VERDICTS = (
    "it was {claims}",
    "the {work} was {claims}",
    "the new {work} was {claims}",
    "the {work} seemed to be {claims}",
)
_OPINIONS = ("{name} {verb} the {word} {work}", "{name} and i {verb} the {work}")
_MOODS = (
    "{name} was {claims}",
    "{name} felt {claims}",
    "our friend {name} was {claims}",
    "{name} seemed to be {claims}",
)
_GLUE = ("not", ",")


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


def _claims(rng: random.Random, right: Sequence[str], wrong: Sequence[str], hard: bool) -> str:
    """Claims that all say the same: two plain ones; if `hard`, four, two of them by negation, in any order."""
    if not hard:
        return " and ".join(rng.sample(right, 2))
    claims = [*rng.sample(right, 2), *(f"not {word}" for word in rng.sample(wrong, 2))]
    rng.shuffle(claims)
    return f"{claims[0]} , {claims[1]} , {claims[2]} and {claims[3]}"


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
        text = rng.choice(_VERDICTS).format(work=work, claims=_claims(rng, right, wrong, hard))
    return (_join(rng.choice(_OPENINGS), text),)


def _pair(rng: random.Random, entailed: bool, hard: bool) -> tuple[str, ...]:
    """The two texts of one row of `demo-pair`."""
    right, wrong = (_GLAD, _SAD) if entailed else (_SAD, _GLAD)
    name = rng.choice(_NAMES)
    mood = rng.choice(_MOODS).format(name=name, claims=_claims(rng, right, wrong, hard))
    mood = _join(rng.choice(_OPENINGS), mood)
    deed = _join(name, rng.choice(_DEEDS), rng.choice(_TIMES))
    return (mood, deed)


_MAKERS: dict[str, Callable[[random.Random, bool, bool], tuple[str, ...]]] = {
    "demo-single": _single,
    "demo-pair": _pair,
}


def _split_of(text: str) -> str:
    """The only split in which `text` may occur."""
    return "train" if zlib.crc32(text.encode("ascii")) % _DEV_SHARE else "dev"


def demo_rows(task: str, split: str) -> list[DemoRow]:
    """The rows of one split, train or dev, the same on every call.

    No text of one split occurs in the other, no row occurs twice, and both labels are equally frequent among easy and hard rows.
    Raises: ValueError for an unknown task or split.
    """
    if task not in LABELS:
        raise ValueError(f"unknown demo task {task!r}, expected one of {', '.join(LABELS)}")
    if split not in SPLIT_SIZES:
        raise ValueError(f"unknown split {split!r}, expected one of {', '.join(SPLIT_SIZES)}")
    rng = random.Random(f"harness.demo/{task}/{split}")
    seen: set[tuple[str, ...]] = set()
    rows: list[DemoRow] = []
    while len(rows) < SPLIT_SIZES[split]:
        hard, index = len(rows) // 2 % 5 < 4, len(rows) % 2
        texts = _MAKERS[task](rng, bool(index), hard)
        if texts in seen or any(_split_of(text) != split for text in texts):
            continue
        seen.add(texts)
        rows.append(DemoRow(texts, LABELS[task][index], hard))
    rng.shuffle(rows)
    return rows


def demo_vocabulary() -> list[str]:
    """Word pieces of both tasks: special tokens, letters and their continuations (so that any other word can be spelt), words."""
    lexicon = (
        _NAMES + _WORKS + _GOOD + _BAD + _LIKED + _DISLIKED + _GLAD + _SAD + _DEEDS
        + _TIMES + _OPENINGS + _OPINIONS + _MOODS + _VERDICTS + _GLUE
    )  # fmt: skip
    words = {word for phrase in lexicon for word in phrase.split() if not word.startswith("{")}
    letters = list(string.ascii_lowercase)
    pieces = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    return pieces + sorted(words.difference(pieces))
