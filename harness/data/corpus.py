"""Sentences to pre-train on: a user's files, or the training parts of the tasks at hand."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from harness.data import demo
from harness.data.dataset import Encode, Split, TaskData
from harness.data.glue_hub import is_cached
from harness.data.loading import load_data
from harness.data.splits import whole_sentences
from harness.data.tasks import Task, find_task, task_groups
from harness.errors import HarnessError
from harness.files.digests import digest
from harness.files.text import lines_of

CORPUS = Task("corpus", ("text",), ("text",), ("accuracy",), None, about="sentences without labels")

HELD_OUT_SHARE, HELD_OUT_ROWS = 0.05, (20, 2_000)
"""Part of the sentences that pre-training is judged by, and the fewest and most."""

SHORTEST_ROW = 8
"""Tokens that the shortest rows have room for; room is drawn from there to the maximum length, its logarithm uniformly."""

PACKING_SEED = 1

PACKING_REVISION = 1
"""Raised when the same sentences may give other rows."""


@dataclass(frozen=True)
class Corpus:
    """Where sentences come from; they are read when somebody asks for them."""

    files: tuple[Path, ...] = ()
    """One sentence a line."""
    data_dir: Path | None = None
    """Without files: GLUE's folder; None: what the hub's cache holds of GLUE."""
    tasks: tuple[str, ...] = tuple(demo.LABELS)
    """Without files: the training parts of those of these tasks whose files are there give their texts, but for those that also stand in
    a part that is held out, of whatever task."""
    limit: int | None = None
    """A quick look at so many sentences (or the fewest that there must be)."""

    @cached_property
    def data(self) -> TaskData:
        """Distinct sentences in an order of their own (not the files'), without labels: `train`, and `selection` to judge by.

        Held out are whole sentences, that occur inside no other; what occurs inside them leaves training.
        Raises: HarnessError for a file that cannot be read, or too few sentences.
        """
        sentences = dict.fromkeys(
            _lines(self.files) if self.files else _training_texts(self.data_dir, self.tasks)
        )
        order = sorted(sentences, key=lambda text: digest([text]))
        if self.limit is not None:
            order = order[: max(self.limit, 2 * HELD_OUT_ROWS[0])]
        wanted = min(max(round(HELD_OUT_SHARE * len(order)), HELD_OUT_ROWS[0]), HELD_OUT_ROWS[1])
        whole = whole_sentences(order)
        held = [text for text in order if text in whole][:wanted]
        gone = set(held).union(*(whole[text] for text in held))
        train = [text for text in order if text not in gone]
        if len(held) < wanted or len(train) < wanted:
            least = 2 * HELD_OUT_ROWS[0]
            of = f" ({', '.join(map(str, self.files))})" if self.files else ""
            raise HarnessError(
                f"the corpus{of} has {len(order)} distinct sentences, {len(whole)} of them whole: wanted {least} or more"
            )
        trained, judged = ([(text,) for text in part] for part in (train, held))
        return TaskData(
            CORPUS,
            _split(trained),
            _split(judged),
            _split([]),
            _split([]),
            digest(order),
            str(wanted),
        )

    @cached_property
    def words(self) -> frozenset[str]:
        """What stands between spaces in its training sentences and is of letters alone, in small letters."""
        return frozenset(
            word
            for (text,) in self.data.train.texts
            for word in text.lower().split()
            if re.fullmatch("[a-z]+", word)
        )

    def encoded(self, encode: Encode, max_length: int) -> TaskData:
        """Rows of one sentence or of several, with their tokens: of several calls in a row with the same words made once.

        So that a student meets what its tasks have: single texts and pairs, of all lengths up to `max_length`. Sentences that share a row
        are strangers to one another; a row of several is a pair as often as not, cut between any two.
        """
        return _encoded(self, encode, max_length)


@lru_cache(maxsize=1)
def _encoded(corpus: Corpus, encode: Encode, max_length: int) -> TaskData:
    data = corpus.data
    train, held = (packed(part, encode, max_length) for part in (data.train, data.selection))
    made = f"{data.data_fingerprint} packed {PACKING_REVISION}"
    return replace(data, train=train, selection=held, data_fingerprint=made).encoded(
        encode, max_length
    )


def packed(sentences: Split, encode: Encode, max_length: int) -> Split:
    """The sentences, each once and in their order, in rows of one text or two."""
    random = np.random.default_rng(PACKING_SEED)
    texts = [text for (text,) in sentences.texts]
    lengths = encode(
        sentences.texts, max_length
    ).lengths  # each with special tokens, which a row has once: no row of several is too long
    rows: list[tuple[str, ...]] = []
    place = 0
    while place < len(texts):
        room = np.exp(random.uniform(np.log(min(SHORTEST_ROW, max_length)), np.log(max_length)))
        count = max(
            int(
                np.searchsorted(np.cumsum(lengths[place : place + max_length]), room, side="right")
            ),
            1,
        )
        row = texts[place : place + count]
        cut = int(random.integers(1, count)) if count > 1 and random.random() < 1 / 2 else count
        rows.append(tuple(" ".join(part) for part in (row[:cut], row[cut:]) if part))
        place += count
    return _split(rows)


def corpus_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks that a grid of these tasks takes its corpus from: their groups' members."""
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
            lines = lines_of(path)
        except HarnessError as error:
            raise HarnessError(f"--corpus: {error}") from None
        yield from (line.strip() for line in lines if line.strip())


def _training_texts(data_dir: Path | None, names: Sequence[str]) -> list[str]:
    def has_files(task: Task) -> bool:
        if task.source is None:
            return True
        if data_dir is None:
            return is_cached(task.name, task.source.hub_splits)
        return (data_dir / task.source.layout.folder / "train.tsv").is_file()

    try:
        found = [load_data(task, data_dir) for task in map(find_task, names) if has_files(task)]
    except HarnessError as error:
        raise HarnessError(
            f"the corpus is made of all tasks in the data folder: {error}; or give --corpus FILE"
        ) from None
    parts = [part for data in found for name, part in data.splits().items() if name != "train"]
    held = {_letters(text) for part in parts for texts in part.texts for text in texts}
    return [
        text
        for data in found
        for texts in data.train.texts
        for text in texts
        if _letters(text) not in held
    ]


def _letters(text: str) -> str:
    """What is left when spelling and spaces do not count: STS-B has sentences of MRPC in another hand."""
    return re.sub(r"[\W_]+", "", text.lower())
