"""The rows of a task, their tokens, and the parts that they are divided into."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.data.tasks import Task
from harness.evaluation.metrics import scores
from harness.files.digests import digest


@dataclass(frozen=True)
class Tokens:
    """Word-piece ids of every row of a split."""

    ids: tuple[NDArray[np.int32], ...]
    """One array [t] a row, special tokens included, no padding."""
    types: tuple[NDArray[np.int32], ...]
    """Token type: 0 for the first text, 1 for the second."""
    truncated: int
    """Rows that were longer than the maximum length."""

    def rows(self, index: NDArray[np.int64]) -> "Tokens":
        """The rows at these positions; nothing of rows that are not encoded yet."""
        if not self.ids:
            return self
        return Tokens(
            tuple(self.ids[i] for i in index), tuple(self.types[i] for i in index), self.truncated
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] tokens of each row."""
        return np.array([len(row) for row in self.ids], dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """Rows of a task with their labels, and their tokens once a backbone has encoded them."""

    ids: NDArray[np.int64]
    """[n] number of each row in its file, from 0."""
    texts: tuple[tuple[str, ...], ...]
    """One or two texts a row."""
    labels: NDArray[np.float64]
    """[n] class index, or the value in label units."""
    tokens: Tokens = Tokens((), (), 0)

    def rows(self, index: NDArray[np.int64]) -> "Split":
        """The rows at these positions, which may repeat; with their tokens where they have some."""
        return Split(
            self.ids[index],
            tuple(self.texts[i] for i in index),
            self.labels[index],
            self.tokens.rows(index),
        )

    def __len__(self) -> int:
        return len(self.ids)


Encode = Callable[[Sequence[tuple[str, ...]], int], Tokens]


@dataclass(frozen=True)
class TaskData:
    """The parts of a task. Training never sees the others; dev only scores."""

    task: Task
    train: Split
    selection: Split
    """Held out of train: best epoch, hyper-parameters, threshold grids."""
    calibration: Split
    """Held out of train: touched only when a threshold is chosen for a quoted number."""
    dev: Split
    data_fingerprint: str
    """Of all rows of the files."""
    split_fingerprint: str
    """Of the held-out rows' ids."""
    max_length: int = 0
    """Tokens after which rows were cut; 0 before they are encoded."""
    mismatched: Split | None = None
    """MNLI's second dev split, of genres that train does not have; it only scores, too."""
    remarks: tuple[str, ...] = ()
    """What a user should know of the rows, though they can be used."""

    @property
    def fingerprint(self) -> str:
        """Of everything that a fit can see: the files' rows, which of them are in which part, and the maximum length."""
        ids = [str(part.ids.tolist()) for part in self.splits().values()]
        task = f"{self.task.name} {self.task.scale} {self.task.metrics}"
        return digest([task, self.data_fingerprint, str(self.max_length), *ids])

    def splits(self) -> dict[str, Split]:
        """Name -> split."""
        parts = {
            "train": self.train,
            "selection": self.selection,
            "calibration": self.calibration,
            "dev": self.dev,
        }
        return parts if self.mismatched is None else {**parts, "mismatched": self.mismatched}

    def encoded(self, encode: Encode, max_length: int) -> "TaskData":
        """The same rows with their tokens, at most `max_length` a row."""

        def with_tokens(part: Split) -> Split:
            return replace(part, tokens=encode(part.texts, max_length))

        return replace(
            self,
            train=with_tokens(self.train),
            selection=with_tokens(self.selection),
            calibration=with_tokens(self.calibration),
            dev=with_tokens(self.dev),
            mismatched=None if self.mismatched is None else with_tokens(self.mismatched),
            max_length=max_length,
        )

    def majority_predictions(self, part: Split) -> NDArray[np.float64]:
        """Train's majority class (or its mean value) for every row."""
        train = self.train.labels
        constant = train.mean() if self.task.regression else np.bincount(train.astype(int)).argmax()
        return np.full(len(part), constant, dtype=np.float64)

    def constant_scores(self, part: Split | None = None) -> dict[str, float]:
        """Scores of always giving the constant answer, on dev unless told."""
        part = self.dev if part is None else part
        return {
            name: float(score)
            for name, score in scores(
                self.task.metrics, self.majority_predictions(part), part.labels
            ).items()
        }
