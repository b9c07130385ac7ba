"""Sentences for pre-training: a user's files, or the training parts of the available tasks."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from harness.data import demo
from harness.data.dataset import Encode, Split, TaskData
from harness.data.loading import load_data
from harness.data.sources import Unavailable
from harness.data.splits import complete_sentences
from harness.data.tasks import Task, find_task, task_groups
from harness.errors import HarnessError
from harness.files.digests import digest
from harness.files.text import read_lines

CORPUS = Task(
    "corpus",
    ("text",),
    ("text",),
    ("accuracy",),
    Unavailable(texts=1),
    about="sentences without labels",
)

HELD_OUT_SHARE, HELD_OUT_ROWS = 0.05, (20, 2_000)
"""Share of the sentences held out to evaluate pre-training, and the fewest and most sentences."""

SHORTEST_ROW = 8
"""Fewest tokens of a packed row.

The length of a row is drawn log-uniformly from here to the maximum length.
"""

PACKING_SEED = 1

PACKING_REVISION = 1
"""Raised if the same sentences may be packed into other rows."""


@dataclass(frozen=True)
class Corpus:
    """Source of sentences, which are read on first use."""

    files: tuple[Path, ...] = ()
    """Text files with one sentence per line."""
    data_dir: Path | None = None
    """Used without files: GLUE's folder, or None for the tasks in the hub's cache."""
    tasks: tuple[str, ...] = tuple(demo.LABELS)
    """Used without files: the corpus is the training texts of those of these tasks that are local.

    Texts that also occur in a held-out part of any of the tasks are left out.
    """
    limit: int | None = None
    """Number of sentences of a quick run, raised to the fewest allowed; None: all."""

    @cached_property
    def data(self) -> TaskData:
        """Distinct sentences without labels, in an order that does not depend on the files' order.

        `train` is for training and `selection` for evaluation. Only complete sentences, which are
        not part of another, are held out; the phrases inside them are removed from training.
        Raises: HarnessError if a file cannot be read, or there are too few sentences.
        """
        sentences = dict.fromkeys(
            _lines(self.files) if self.files else _training_texts(self.data_dir, self.tasks)
        )
        order = sorted(sentences, key=lambda text: digest([text]))
        if self.limit is not None:
            order = order[: max(self.limit, 2 * HELD_OUT_ROWS[0])]
        size = min(max(round(HELD_OUT_SHARE * len(order)), HELD_OUT_ROWS[0]), HELD_OUT_ROWS[1])
        complete = complete_sentences(order)
        held_out = [text for text in order if text in complete][:size]
        excluded = set(held_out).union(*(complete[text] for text in held_out))
        train = [text for text in order if text not in excluded]
        if len(held_out) < size or len(train) < size:
            least = 2 * HELD_OUT_ROWS[0]
            names = f" ({', '.join(map(str, self.files))})" if self.files else ""
            raise HarnessError(
                f"the corpus{names} has {len(order)} distinct sentences, {len(complete)} of them "
                f"not part of another: expected {least} or more"
            )
        training, evaluation = ([(text,) for text in part] for part in (train, held_out))
        return TaskData(
            CORPUS,
            _split(training),
            _split(evaluation),
            _split([]),
            _split([]),
            digest(order),
            str(size),
        )

    @cached_property
    def words(self) -> frozenset[str]:
        """Lower-case words of the training sentences that consist only of letters."""
        return frozenset(
            word
            for (text,) in self.data.train.texts
            for word in text.lower().split()
            if re.fullmatch("[a-z]+", word)
        )

    def encoded(self, encode: Encode, max_length: int) -> TaskData:
        """Return packed rows with their tokens; the last result is cached.

        A student thereby sees the kinds of input of its tasks: single texts and pairs of all
        lengths up to `max_length`. The sentences of a row are unrelated. Half of the rows with
        several sentences are pairs, divided between any two of them.
        """
        return _encoded(self, encode, max_length)


@lru_cache(maxsize=1)
def _encoded(corpus: Corpus, encode: Encode, max_length: int) -> TaskData:
    data = corpus.data
    train, held_out = (packed(part, encode, max_length) for part in (data.train, data.selection))
    fingerprint = f"{data.data_fingerprint} packed {PACKING_REVISION}"
    rows = replace(data, train=train, selection=held_out, data_fingerprint=fingerprint)
    return rows.encoded(encode, max_length)


def packed(sentences: Split, encode: Encode, max_length: int) -> Split:
    """Pack sentences, each once and in order, into rows of one or two texts."""
    random = np.random.default_rng(PACKING_SEED)
    texts = [text for (text,) in sentences.texts]
    # Each length includes special tokens, which a row has once, so no packed row is too long.
    lengths = encode(sentences.texts, max_length).lengths
    rows: list[tuple[str, ...]] = []
    start = 0
    while start < len(texts):
        room = np.exp(random.uniform(np.log(min(SHORTEST_ROW, max_length)), np.log(max_length)))
        ends = np.cumsum(lengths[start : start + max_length])
        count = max(int(np.searchsorted(ends, room, side="right")), 1)
        row = texts[start : start + count]
        middle = int(random.integers(1, count)) if count > 1 and random.random() < 1 / 2 else count
        rows.append(tuple(" ".join(part) for part in (row[:middle], row[middle:]) if part))
        start += count
    return _split(rows)


def corpus_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks whose texts are the corpus of a grid: all members of the grid's groups."""
    return tuple(
        dict.fromkeys(
            member
            for members in task_groups().values()
            if set(tasks) & set(members)
            for member in members
        )
    )


def _split(rows: Sequence[tuple[str, ...]]) -> Split:
    return Split(np.arange(len(rows)), tuple(rows), np.zeros(len(rows)))


def _lines(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        try:
            lines = read_lines(path)
        except HarnessError as error:
            raise HarnessError(f"--corpus: {error}") from None
        yield from (line.strip() for line in lines if line.strip())


def _training_texts(data_dir: Path | None, names: Sequence[str]) -> list[str]:
    tasks = [find_task(name) for name in names]
    try:
        found = [load_data(task, data_dir) for task in tasks if task.source.at(data_dir).is_local()]
    except HarnessError as error:
        raise HarnessError(
            f"the corpus comes from all tasks in the data folder: {error}; or give --corpus FILE"
        ) from None
    parts = [part for data in found for name, part in data.splits().items() if name != "train"]
    held_out = {_letters(text) for part in parts for texts in part.texts for text in texts}
    return [
        text
        for data in found
        for texts in data.train.texts
        for text in texts
        if _letters(text) not in held_out
    ]


def _letters(text: str) -> str:
    """Return the letters and digits of a text: STS-B repeats MRPC with other punctuation."""
    return re.sub(r"[\W_]+", "", text.lower())
