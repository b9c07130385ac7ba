"""Examples of a task, their tokens, and the splits that they are divided into."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.data.tasks import Task
from harness.evaluation.metrics import scores
from harness.files.digests import digest


@dataclass(frozen=True)
class Tokens:
    """Token ids of every row of a split."""

    ids: tuple[NDArray[np.int32], ...]
    """One array [t] per row, with special tokens and without padding."""
    types: tuple[NDArray[np.int32], ...]
    """Token types: 0 for the first text, 1 for the second."""
    truncated: int
    """Number of rows that exceeded the maximum length."""
    mark: str = ""
    """Text for the fingerprint of the data, if these tokens depend on more than the fingerprints of
    data and backbone tell."""

    def rows(self, index: NDArray[np.int64]) -> "Tokens":
        """Return the tokens of the rows at these indices; no tokens if none are encoded yet."""
        if not self.ids:
            return self
        return Tokens(
            tuple(self.ids[i] for i in index),
            tuple(self.types[i] for i in index),
            self.truncated,
            self.mark,
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each row [n]."""
        return np.array([len(row) for row in self.ids], dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """Rows of a task with their labels, and with tokens once they are encoded."""

    ids: NDArray[np.int64]
    """Index of each row in its file [n], from 0."""
    texts: tuple[tuple[str, ...], ...]
    """One or two texts per row."""
    labels: NDArray[np.float64]
    """Class index, or the value in label units [n]."""
    tokens: Tokens = Tokens((), (), 0)

    def rows(self, index: NDArray[np.int64]) -> "Split":
        """Return the rows at these indices, which may repeat, with their tokens if encoded."""
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
    """Splits of a task. Training sees only `train`; dev is only scored."""

    task: Task
    train: Split
    selection: Split
    """Held out of train to select epochs, hyper-parameters and threshold grids."""
    calibration: Split
    """Held out of train to choose the thresholds of reported operating points."""
    dev: Split
    data_fingerprint: str
    """Hash of all rows of the files."""
    split_fingerprint: str
    """Hash of the ids of the held-out rows."""
    max_length: int = 0
    """Number of tokens that rows are truncated to; 0 before they are encoded."""
    mismatched: Split | None = None
    """MNLI's second dev split, of genres that train lacks; it is only scored."""
    remarks: tuple[str, ...] = ()
    """Warnings about the data, which do not prevent its use."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that training depends on: rows, splits, and the maximum length."""
        ids = [str(part.ids.tolist()) for part in self.splits().values()]
        task = f"{self.task.name} {self.task.scale} {self.task.metrics}"
        return digest([task, self.data_fingerprint, str(self.max_length), *ids])

    def splits(self) -> dict[str, Split]:
        """Return the splits by name."""
        parts = {
            "train": self.train,
            "selection": self.selection,
            "calibration": self.calibration,
            "dev": self.dev,
        }
        return parts if self.mismatched is None else {**parts, "mismatched": self.mismatched}

    def encoded(self, encode: Encode, max_length: int) -> "TaskData":
        """Return the same rows with tokens, at most `max_length` per row."""

        def with_tokens(part: Split) -> Split:
            return replace(part, tokens=encode(part.texts, max_length))

        encoded = replace(
            self,
            train=with_tokens(self.train),
            selection=with_tokens(self.selection),
            calibration=with_tokens(self.calibration),
            dev=with_tokens(self.dev),
            mismatched=None if self.mismatched is None else with_tokens(self.mismatched),
            max_length=max_length,
        )
        marks = sorted({part.tokens.mark for part in encoded.splits().values()} - {""})
        return replace(encoded, data_fingerprint=" ".join([self.data_fingerprint, *marks]))

    def majority_predictions(self, part: Split) -> NDArray[np.float64]:
        """Return the majority class of train for every row; for a regression, its mean."""
        train = self.train.labels
        value = train.mean() if self.task.regression else np.bincount(train.astype(int)).argmax()
        return np.full(len(part), value, dtype=np.float64)

    def constant_scores(self, part: Split | None = None) -> dict[str, float]:
        """Return the scores of the majority-class baseline on `part`, by default dev."""
        part = self.dev if part is None else part
        return {
            name: float(score)
            for name, score in scores(
                self.task.metrics, self.majority_predictions(part), part.labels
            ).items()
        }
