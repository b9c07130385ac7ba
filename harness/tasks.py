"""Tasks, their files, and the splits that every method and seed shares."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import demo
from harness.errors import HarnessError, unknown
from harness.metrics import scores
from harness.splits import draw, hold_out_groups, hold_out_sentences

REGRESSION_STRATA = 5


@dataclass(frozen=True)
class TsvLayout:
    """Where a GLUE task's texts and labels stand in its official files."""

    folder: str
    columns: int
    texts: tuple[int, ...]
    """Columns of the one or two texts, from 0."""
    label: int
    header: tuple[str, ...] | None
    """Names that the first line gives the text columns and the label's; None: the first line is a row."""


@dataclass(frozen=True)
class Task:
    """A task: its labels, its metrics, and where its rows come from."""

    name: str
    labels: tuple[str, ...]
    """Class names in index order; empty for a regression."""
    values: tuple[str, ...]
    """What the files write for each label, in the same order."""
    metrics: tuple[str, ...]
    """The first is the main one."""
    layout: TsvLayout | None
    """None for the demo tasks, which are made in code."""
    scale: float = 1.0
    """Regression: labels are divided by it in training, so that they lie in [0, 1]."""
    phrases: bool = False
    """The train file holds the phrases of its sentences: whole sentences are held out, with all that occurs inside them."""
    about: str = ""

    @property
    def classes(self) -> int:
        """Outputs of a model for this task; 1 is a regression."""
        return len(self.labels) or 1

    @property
    def regression(self) -> bool:
        """Whether labels are numbers."""
        return not self.labels


_PAIR = ("sentence1", "sentence2", "label")
_ENTAILMENT = ("entailment", "not_entailment")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "cola",
            ("unacceptable", "acceptable"),
            ("0", "1"),
            ("matthews",),
            TsvLayout("CoLA", 4, (3,), 1, None),
            about="grammatical acceptability",
        ),
        Task(
            "sst2",
            ("negative", "positive"),
            ("0", "1"),
            ("accuracy",),
            TsvLayout("SST-2", 2, (0,), 1, ("sentence", "label")),
            phrases=True,
            about="sentiment of film reviews",
        ),
        Task(
            "mrpc",
            ("not_equivalent", "equivalent"),
            ("0", "1"),
            ("f1", "accuracy"),
            TsvLayout("MRPC", 5, (3, 4), 0, ("#1 String", "#2 String", "Quality")),
            about="paraphrase of news sentences",
        ),
        Task(
            "stsb",
            (),
            (),
            ("pearson", "spearman"),
            TsvLayout("STS-B", 10, (7, 8), 9, ("sentence1", "sentence2", "score")),
            scale=5.0,
            about="similarity of sentences, 0 to 5",
        ),
        Task("rte", _ENTAILMENT, _ENTAILMENT, ("accuracy",), TsvLayout("RTE", 4, (1, 2), 3, _PAIR), about="textual entailment"),
        Task(
            "wnli",
            ("not_entailment", "entailment"),
            ("0", "1"),
            ("accuracy",),
            TsvLayout("WNLI", 4, (1, 2), 3, _PAIR),
            about="coreference as entailment",
        ),
        *(Task(name, labels, labels, ("accuracy",), None, about="made in code, for a first look") for name, labels in demo.LABELS.items()),
    )
}

GROUPS: dict[str, tuple[str, ...]] = {
    "glue": ("cola", "sst2", "mrpc", "stsb", "rte", "wnli"),
    "demo": tuple(demo.LABELS),
}


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
        return Tokens(tuple(self.ids[i] for i in index), tuple(self.types[i] for i in index), self.truncated)

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
        return Split(self.ids[index], tuple(self.texts[i] for i in index), self.labels[index], self.tokens.rows(index))

    def __len__(self) -> int:
        return len(self.ids)


Encode = Callable[[Sequence[tuple[str, ...]], int], Tokens]


@dataclass(frozen=True)
class TaskData:
    """The four parts of a task. Training never sees the other three; dev only scores."""

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

    @property
    def fingerprint(self) -> str:
        """Of everything that a fit can see: the files' rows, which of them are in which part, and the maximum length."""
        ids = [str(part.ids.tolist()) for part in self.splits().values()]
        task = f"{self.task.name} {self.task.scale} {self.task.metrics}"
        return digest([task, self.data_fingerprint, str(self.max_length), *ids])

    def splits(self) -> dict[str, Split]:
        """Name -> split."""
        return {"train": self.train, "selection": self.selection, "calibration": self.calibration, "dev": self.dev}

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
            max_length=max_length,
        )

    def constant_scores(self) -> dict[str, float]:
        """Scores on dev of always answering train's majority class (or its mean value)."""
        train = self.train.labels
        constant = train.mean() if self.task.regression else np.bincount(train.astype(int)).argmax()
        answers = np.full(len(self.dev), constant, dtype=np.float64)
        return {name: float(score) for name, score in scores(self.task.metrics, answers, self.dev.labels).items()}


def find_tasks(names: Iterable[str]) -> list[Task]:
    """Tasks by name, groups (glue, demo) replaced by their members, each once.

    Raises: HarnessError for an unknown name.
    """
    expanded = [member for name in names for member in GROUPS.get(name, (name,))]
    wrong = [name for name in expanded if name not in TASKS]
    if wrong:
        raise unknown("task", wrong[0], [*TASKS, *GROUPS])
    return [TASKS[name] for name in dict.fromkeys(expanded)]


def load_data(task: Task, data_dir: Path | None, train_rows: int | None = None, limit: int | None = None) -> TaskData:
    """Read a task's train and dev rows and hold out `selection` and `calibration`.

    `train_rows` rows are drawn from the training part, by the data alone; `limit` cuts every part to its first rows.
    Raises: HarnessError for a missing or malformed file, an unknown label, or more train_rows than there are.
    """
    train, dev = (_read(task, name, data_dir) for name in ("train", "dev"))
    fingerprint = _fingerprint(train, dev)
    hold_out = hold_out_sentences if task.phrases else hold_out_groups
    try:
        parts = hold_out(train.texts, _strata(task, train.labels))
    except ValueError as error:
        raise HarnessError(f"task {task.name}: {error}") from None
    train, selection, calibration = (train.rows(part) for part in parts)
    if train_rows is not None:
        if not 1 <= train_rows <= len(train):
            raise HarnessError(f"--train-rows {task.name}={train_rows}: wanted 1 to {len(train)}, the rows of the training part")
        train = train.rows(draw(train.texts, _strata(task, train.labels), train_rows))
    if limit is not None:
        train, selection, calibration, dev = (p.rows(np.arange(min(limit, len(p)))) for p in (train, selection, calibration, dev))
    splits = digest(str(part.ids.tolist()) for part in (selection, calibration))
    return TaskData(task, train, selection, calibration, dev, fingerprint, splits)


def _read(task: Task, split: str, data_dir: Path | None) -> Split:
    if task.layout is None:
        rows = [(row.texts, row.label) for row in demo.demo_rows(task.name, split)]
        return _make_split(rows, [task.values.index(label) for _, label in rows])
    if data_dir is None:
        raise HarnessError(f"task {task.name} needs --data-dir, a folder of GLUE's TSV files with {task.layout.folder}/ in it")
    return read_tsv(task, data_dir / task.layout.folder / f"{split}.tsv")


def _make_split(rows: list[tuple[tuple[str, ...], str]], labels: Sequence[float]) -> Split:
    return Split(np.arange(len(rows)), tuple(texts for texts, _ in rows), np.array(labels, dtype=np.float64))


def read_tsv(task: Task, path: Path) -> Split:
    """Read an official GLUE file: tab-separated, no quoting (the texts hold unbalanced quotes), a byte-order mark allowed.

    Raises: HarnessError with file, line and columns when a row does not fit.
    """
    layout = task.layout
    assert layout is not None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise HarnessError(f"task {task.name}: cannot read {path}: {error.strerror}; check --data-dir") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"task {task.name}: {path} is not UTF-8 text: {error}") from None
    rows: list[tuple[tuple[str, ...], str]] = []
    labels: list[float] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != layout.columns:
            raise HarnessError(f"{path} line {number}: got {len(cells)} columns, wanted {layout.columns}")
        if number == 1 and layout.header is not None:
            _check_header(tuple(cells[column] for column in (*layout.texts, layout.label)), layout.header, path)
            continue
        rows.append((tuple(cells[column].strip() for column in layout.texts), cells[layout.label]))
        labels.append(_label(task, cells[layout.label], path, number))
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return _make_split(rows, labels)


def _check_header(names: tuple[str, ...], wanted: tuple[str, ...], path: Path) -> None:
    """Raises: HarnessError when the columns that are read have other names."""
    if names != wanted:
        raise HarnessError(f"{path} line 1: the columns of texts and label are named {', '.join(names)}, wanted {', '.join(wanted)}")


def _label(task: Task, value: str, path: Path, number: int) -> float:
    """The class index, or the value of a regression.

    Raises: HarnessError with file and line.
    """
    if not task.regression:
        if value not in task.values:
            raise HarnessError(f"{path} line {number}: label {value!r}, wanted one of {', '.join(task.values)}")
        return task.values.index(value)
    try:
        score = float(value)
    except ValueError:
        score = float("nan")
    if not 0 <= score <= task.scale:
        raise HarnessError(f"{path} line {number}: label {value!r}, wanted a number from 0 to {task.scale:g}")
    return score


def digest(parts: Iterable[str]) -> str:
    """Hash of texts in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() + b"\0")
    return found.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(*splits: Split) -> str:
    rows = (("\t".join((*texts, str(label))) for texts, label in zip(split.texts, split.labels, strict=True)) for split in splits)
    return digest(digest(part) for part in rows)


def _strata(task: Task, labels: NDArray[np.float64]) -> NDArray[np.int64]:
    """[n] the class, or for a regression the fifth of the label range."""
    if not task.regression:
        return labels.astype(np.int64)
    return np.minimum(labels / task.scale * REGRESSION_STRATA, REGRESSION_STRATA - 1).astype(np.int64)
