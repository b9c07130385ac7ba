"""Two small demo tasks, generated in code, so that the benchmark runs without any download.

`demo-single` asks whether the verdict on a film, a book or the like is positive. `demo-pair` asks
whether a sentence about somebody's mood entails a second one, which reports a happy action. Both
are deterministic: every machine generates the same examples.

In an *easy* example the words alone decide, because all point one way. A *hard* example has one
good word, one bad word, a neutral word and two "not": one precedes the neutral word, the other the
good or the bad word. Each bag of words occurs with both labels::

    the film was good , not long and not bad      -> positive
    the film was not good , bad and not long      -> negative

A model has to bind each "not" to the word after it before it can weigh the evidence. An exit that
reads the first token needs two layers for that: in the first layer this token sees unbound words
and their positions. Positions alone do not reveal the label, because sentences begin with phrases
of different length and the neutral word has a "not" as well.
"""

from __future__ import annotations

import random
import string
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.data.sources import FixedSource, Labelled, RawSplit, Row

LABELS: dict[str, tuple[str, str]] = {
    "demo-single": ("negative", "positive"),
    "demo-pair": ("not_entailment", "entailment"),
}
"""Task name -> label names in index order."""

SPLIT_SIZES: dict[str, int] = {"train": 2800, "dev": 500}
"""Examples per split.

Multiples of ten balance the labels among the easy and among the hard examples.
"""

EASY_EVERY = 5
"""One example in this many is easy."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_DEV_SHARE = 6  # a text belongs to dev if its CRC-32 is divisible by this number, else to train

_NAMES = (
    "anna", "ben", "carla", "david", "emma", "frank", "grace", "henry",
    "ivy", "jack", "kate", "leo", "mary", "nick", "olga", "paul",
)  # fmt: skip
_WORKS = ("film", "book", "show", "play", "opera", "game", "song", "story")
_GOOD = ("good", "great")
_BAD = ("bad", "awful")
_NEUTRAL = ("long", "loud")
_LIKED = ("loved", "liked", "enjoyed")
_DISLIKED = ("hated", "disliked", "loathed")
_GLAD = ("happy", "glad")
_SAD = ("sad", "upset")
_DEEDS = ("smiled", "laughed", "danced", "sang")
_CALM = ("busy", "awake")
_TIMES = ("", "today", "again", "all day", "at home")
_OPENINGS = ("", "", "well", "so", "i think", "after all", "they say that")
_VERDICTS = ("it was {claims}", "the {work} was {claims}", "{name} found the {work} {claims}")
_OPINIONS = ("{name} {verb} the {word} {work}", "{name} and i {verb} the {work}")
_MOODS = ("{name} was {claims}", "{name} often felt {claims}", "my friend {name} seemed {claims}")
_GLUE = ("not", ",")


@dataclass(frozen=True)
class DemoRow:
    """One labelled example."""

    texts: tuple[str, ...]
    """One or two texts of lower-case words separated by single spaces."""
    label: str
    """One of `LABELS[task]`."""
    hard: bool
    """Whether the label depends on the order of the words."""


@dataclass(frozen=True)
class DemoSource(FixedSource):
    """Examples of a demo task, generated on each call."""

    task: str

    @property
    def texts(self) -> int:
        """Number of texts in a row, 1 or 2."""
        return len(_MAKERS[self.task](random.Random(0), True, False))

    def is_local(self) -> bool:
        """Return True: nothing is downloaded."""
        return True

    def read(self, task: Labelled) -> list[RawSplit]:
        """Generate train and dev."""
        return [
            RawSplit(
                split,
                [Row(row.texts, row.label, 0) for row in demo_rows(self.task, split)],
                task.values,
                "demo",
            )
            for split in SPLIT_SIZES
        ]


def _join(*parts: str) -> str:
    """Join the parts that are not empty with single spaces."""
    return " ".join(part for part in parts if part)


def _claims(
    rng: random.Random,
    right: Sequence[str],
    wrong: Sequence[str],
    neutral: Sequence[str],
    hard: bool,
) -> str:
    """Return claims that agree: two without negation or, if `hard`, one without and two negated."""
    if not hard:
        return " and ".join(rng.sample(right, 2))
    claims = [rng.choice(right), f"not {rng.choice(wrong)}", f"not {rng.choice(neutral)}"]
    rng.shuffle(claims)
    return f"{claims[0]} , {claims[1]} and {claims[2]}"


def _single(rng: random.Random, positive: bool, hard: bool) -> tuple[str, ...]:
    """Generate the text of an example of `demo-single`."""
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
        text = rng.choice(_VERDICTS).format(
            name=name, work=work, claims=_claims(rng, right, wrong, _NEUTRAL, hard)
        )
    return (_join(rng.choice(_OPENINGS), text),)


def _pair(rng: random.Random, entailed: bool, hard: bool) -> tuple[str, ...]:
    """Generate the two texts of an example of `demo-pair`."""
    right, wrong = (_GLAD, _SAD) if entailed else (_SAD, _GLAD)
    name = rng.choice(_NAMES)
    mood = rng.choice(_MOODS).format(name=name, claims=_claims(rng, right, wrong, _CALM, hard))
    mood = _join(rng.choice(_OPENINGS), mood)
    deed = _join(name, rng.choice(_DEEDS), rng.choice(_TIMES))
    return (mood, deed)


_MAKERS: dict[str, Callable[[random.Random, bool, bool], tuple[str, ...]]] = {
    "demo-single": _single,
    "demo-pair": _pair,
}


def _split_of(text: str) -> str:
    """Return the only split in which `text` may occur."""
    return "train" if zlib.crc32(text.encode("ascii")) % _DEV_SHARE else "dev"


def demo_rows(task: str, split: str) -> list[DemoRow]:
    """Generate the examples of a split, train or dev; they are the same on every call.

    No text occurs in both splits and no example occurs twice. Both labels are equally frequent
    among the easy and among the hard examples.
    Raises: ValueError if the task or the split is unknown.
    """
    if task not in LABELS:
        raise ValueError(f"unknown demo task {task!r}, expected one of {', '.join(LABELS)}")
    if split not in SPLIT_SIZES:
        raise ValueError(f"unknown split {split!r}, expected one of {', '.join(SPLIT_SIZES)}")
    rng = random.Random(f"harness.demo/{task}/{split}")
    seen: set[tuple[str, ...]] = set()
    rows: list[DemoRow] = []
    while len(rows) < SPLIT_SIZES[split]:
        hard, index = len(rows) // 2 % EASY_EVERY > 0, len(rows) % 2
        texts = _MAKERS[task](rng, bool(index), hard)
        if texts in seen or any(_split_of(text) != split for text in texts):
            continue
        seen.add(texts)
        rows.append(DemoRow(texts, LABELS[task][index], hard))
    rng.shuffle(rows)
    return rows


def demo_vocabulary() -> list[str]:
    """Return the word pieces of both tasks: special tokens, letters, and words.

    Letters and their continuations spell any other word.
    """
    lexicon = (
        _NAMES + _WORKS + _GOOD + _BAD + _NEUTRAL + _LIKED + _DISLIKED + _GLAD + _SAD + _CALM
        + _DEEDS + _TIMES + _OPENINGS + _OPINIONS + _MOODS + _VERDICTS + _GLUE
    )  # fmt: skip
    words = {word for phrase in lexicon for word in phrase.split() if not word.startswith("{")}
    letters = list(string.ascii_lowercase)
    pieces = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    return pieces + sorted(words.difference(pieces))
