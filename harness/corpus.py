"""Sentences to pre-train on: a user's files, or the training parts of the tasks at hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from harness.errors import HarnessError, reason
from harness.tasks import GROUPS, TASKS, Encode, Split, Task, TaskData, digest, load_data

CORPUS = Task("corpus", ("text",), ("text",), ("accuracy",), None, about="sentences without labels")

HELD_OUT_SHARE, HELD_OUT_ROWS = 0.05, (20, 2_000)
"""Part of the sentences that pre-training is judged by, and the fewest and most."""


@dataclass(frozen=True)
class Corpus:
    """Where sentences come from; they are read when somebody asks for them."""

    files: tuple[Path, ...] = ()
    """One sentence a line."""
    data_dir: Path | None = None
    """Without files: GLUE's folder, or None for the demo tasks. The training parts of all tasks whose files are there give their texts, but
    for those that also stand in a part that is held out, of whatever task."""
    limit: int | None = None
    """A quick look at so many sentences (or the fewest that there must be)."""

    @cached_property
    def data(self) -> TaskData:
        """Distinct sentences in an order of their own (not the files'), without labels: `train`, and `selection` to judge by.

        Raises: HarnessError for a file that cannot be read, or too few sentences.
        """
        sentences = dict.fromkeys(_lines(self.files) if self.files else _training_texts(self.data_dir))
        order = sorted(sentences, key=lambda text: digest([text]))
        if self.limit is not None:
            order = order[: max(self.limit, 2 * HELD_OUT_ROWS[0])]
        held = min(max(round(HELD_OUT_SHARE * len(order)), HELD_OUT_ROWS[0]), HELD_OUT_ROWS[1])
        if len(order) < 2 * held:
            raise HarnessError(f"the corpus has {len(order)} distinct sentences: wanted {2 * HELD_OUT_ROWS[0]} or more")
        nothing = _split([])
        return TaskData(CORPUS, _split(order[held:]), _split(order[:held]), nothing, nothing, digest(order), str(held))

    def encoded(self, encode: Encode, max_length: int) -> TaskData:
        """The sentences with their tokens: of several calls in a row with the same words made once."""
        return _encoded(self, encode, max_length)


@lru_cache(maxsize=1)
def _encoded(corpus: Corpus, encode: Encode, max_length: int) -> TaskData:
    return corpus.data.encoded(encode, max_length)


def _split(texts: Sequence[str]) -> Split:
    return Split(np.arange(len(texts)), tuple((text,) for text in texts), np.zeros(len(texts)))


def _lines(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise HarnessError(f"--corpus: cannot read {path}: {reason(error)}") from None
        yield from (line.strip() for line in text.split("\n") if line.strip())


def _training_texts(data_dir: Path | None) -> list[str]:
    tasks = [TASKS[name] for name in GROUPS["glue" if data_dir else "demo"]]

    def has_files(task: Task) -> bool:
        return task.layout is None or (data_dir is not None and (data_dir / task.layout.folder / "train.tsv").is_file())

    found = [load_data(task, data_dir) for task in tasks if has_files(task)]
    held = {text for data in found for part in (data.selection, data.calibration, data.dev) for texts in part.texts for text in texts}
    return [text for data in found for texts in data.train.texts for text in texts if text not in held]
