"""Sentences to pre-train on: a user's files, or the training parts of the tasks at hand."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError, reason
from harness.hub import is_cached
from harness.lines import lines_of
from harness.splits import whole_sentences
from harness.tasks import GROUPS, TASKS, Encode, Split, Task, TaskData, digest, load_data

CORPUS = Task("corpus", ("text",), ("text",), ("accuracy",), None, about="sentences without labels")

HELD_OUT_SHARE, HELD_OUT_ROWS = 0.05, (20, 2_000)
"""Part of the sentences that pre-training is judged by, and the fewest and most."""

VECTORS_READ = 100_000
"""Lines of a file of word vectors that count, from its beginning (TinyBERT's authors' number)."""


@dataclass(frozen=True)
class Corpus:
    """Where sentences come from; they are read when somebody asks for them."""

    files: tuple[Path, ...] = ()
    """One sentence a line."""
    data_dir: Path | None = None
    """Without files: GLUE's folder; None: what the hub's cache holds of GLUE."""
    tasks: tuple[str, ...] = GROUPS["demo"]
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
        sentences = dict.fromkeys(_lines(self.files) if self.files else _training_texts(self.data_dir, self.tasks))
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
            raise HarnessError(f"the corpus{of} has {len(order)} distinct sentences, {len(whole)} of them whole: wanted {least} or more")
        nothing = _split([])
        return TaskData(CORPUS, _split(train), _split(held), nothing, nothing, digest(order), str(wanted))

    def encoded(self, encode: Encode, max_length: int) -> TaskData:
        """The sentences with their tokens: of several calls in a row with the same words made once."""
        return _encoded(self, encode, max_length)


@lru_cache(maxsize=1)
def _encoded(corpus: Corpus, encode: Encode, max_length: int) -> TaskData:
    return corpus.data.encoded(encode, max_length)


def corpus_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks that a grid of these tasks takes its corpus from: their groups' members."""
    return tuple(dict.fromkeys(member for members in GROUPS.values() if set(tasks) & set(members) for member in members))


def _split(texts: Sequence[str]) -> Split:
    return Split(np.arange(len(texts)), tuple((text,) for text in texts), np.zeros(len(texts)))


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
            return is_cached(task.name, task.source)
        return (data_dir / task.source.layout.folder / "train.tsv").is_file()

    try:
        found = [load_data(task, data_dir) for task in map(TASKS.__getitem__, names) if has_files(task)]
    except HarnessError as error:
        raise HarnessError(f"the corpus is made of all tasks in the data folder: {error}; or give --corpus FILE") from None
    parts = [part for data in found for name, part in data.splits().items() if name != "train"]
    held = {_letters(text) for part in parts for texts in part.texts for text in texts}
    return [text for data in found for texts in data.train.texts for text in texts if _letters(text) not in held]


def _letters(text: str) -> str:
    """What is left when spelling and spaces do not count: STS-B has sentences of MRPC in another hand."""
    return re.sub(r"[\W_]+", "", text.lower())


@dataclass(frozen=True)
class WordVectors:
    """Vectors of words, as a file in GloVe's format holds them."""

    words: tuple[str, ...]
    table: NDArray[np.float32]
    """[w, v]"""


@lru_cache(maxsize=1)
def read_vectors(path: Path) -> WordVectors:
    """A word and its numbers a line, between spaces; the first `VECTORS_READ` lines. A word may hold spaces itself.

    Raises: HarnessError naming file and line.
    """
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in zip(range(1, VECTORS_READ + 1), file, strict=False):
                word, *numbers = line.rstrip().rsplit(" ", len(rows[0])) if rows else line.rstrip().split(" ")
                row = _numbers(numbers)
                if row is None or (rows and len(row) != len(rows[0])):
                    wanted = f"{len(rows[0])} finite numbers" if rows else "finite numbers"
                    raise HarnessError(f"--glove: {path} line {number}: wanted a word and {wanted}, got {line[:40].rstrip()!r}")
                words.append(word)
                rows.append(row)
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"--glove: cannot read {path}: {reason(error)}") from None
    if not rows:
        raise HarnessError(f"--glove: {path} has no lines")
    return WordVectors(tuple(words), np.stack(rows))


def _numbers(parts: Sequence[str]) -> NDArray[np.float32] | None:
    try:
        row = np.array(parts, dtype=np.float32)
    except ValueError:
        return None
    return row if len(row) and np.isfinite(row).all() else None
