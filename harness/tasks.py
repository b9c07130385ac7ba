"""Tasks, their files, and the splits that every method and seed shares."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import demo
from harness.errors import HarnessError, unknown
from harness.glue import GLUE, GlueSource, Row, tsv_rows
from harness.hub import hub_rows
from harness.metric_code import MetricCode
from harness.metrics import scores
from harness.own_files import OwnFiles, file_rows
from harness.splits import draw, hold_out_groups, hold_out_sentences, largest_group, part_off

REGRESSION_STRATA = 5


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
    source: GlueSource | None
    """None for the demo tasks, which are made in code, and for a user's own."""
    scale: float = 1.0
    """Regression: labels are divided by it in training, so that they lie in [0, 1]."""
    phrases: bool = False
    """The train file holds the phrases of its sentences: whole sentences are held out, with all that occurs inside them."""
    about: str = ""
    own: OwnFiles | None = None
    """The files of a user's own task."""
    bounds: tuple[float, float] | None = None
    """Regression: the smallest and the largest label; None: 0 to `scale`."""
    code: tuple[MetricCode, ...] = ()
    """Metrics of other people's code, for the scores of exits alone."""

    @property
    def classes(self) -> int:
        """Outputs of a model for this task; 1 is a regression."""
        return len(self.labels) or 1

    @property
    def regression(self) -> bool:
        """Whether labels are numbers."""
        return not self.labels


_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("cola", ("unacceptable", "acceptable"), ("0", "1"), ("matthews",), GLUE["cola"], about="grammatical acceptability"),
        Task("sst2", ("negative", "positive"), ("0", "1"), ("accuracy",), GLUE["sst2"], phrases=True, about="sentiment of film reviews"),
        Task("mrpc", ("not_equivalent", "equivalent"), ("0", "1"), ("f1", "accuracy"), GLUE["mrpc"], about="paraphrase of news sentences"),
        Task("stsb", (), (), ("pearson", "spearman"), GLUE["stsb"], scale=5.0, about="similarity of sentences, 0 to 5"),
        Task("qqp", ("not_duplicate", "duplicate"), ("0", "1"), ("f1", "accuracy"), GLUE["qqp"], about="questions that ask the same"),
        Task("mnli", _NLI, _NLI, ("accuracy",), GLUE["mnli"], about="textual entailment in several genres"),
        Task("qnli", _ENTAILMENT, _ENTAILMENT, ("accuracy",), GLUE["qnli"], about="whether a sentence answers a question"),
        Task("rte", _ENTAILMENT, _ENTAILMENT, ("accuracy",), GLUE["rte"], about="textual entailment"),
        Task("wnli", _ENTAILMENT[::-1], ("0", "1"), ("accuracy",), GLUE["wnli"], about="coreference as entailment"),
        *(Task(name, labels, labels, ("accuracy",), None, about="made in code, for a first look") for name, labels in demo.LABELS.items()),
    )
}

GROUPS: dict[str, tuple[str, ...]] = {
    "glue": tuple(GLUE),
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
        parts = {"train": self.train, "selection": self.selection, "calibration": self.calibration, "dev": self.dev}
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

    def constant_answers(self, part: Split) -> NDArray[np.float64]:
        """Train's majority class (or its mean value) for every row."""
        train = self.train.labels
        constant = train.mean() if self.task.regression else np.bincount(train.astype(int)).argmax()
        return np.full(len(part), constant, dtype=np.float64)

    def constant_scores(self, part: Split | None = None) -> dict[str, float]:
        """Scores of always giving the constant answer, on dev unless told."""
        part = self.dev if part is None else part
        return {name: float(score) for name, score in scores(self.task.metrics, self.constant_answers(part), part.labels).items()}


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
    read = _read(task, data_dir)
    fingerprint = _fingerprint(task, read)
    train, dev, *further = read
    hold_out = hold_out_sentences if task.phrases else hold_out_groups
    try:
        parts = hold_out(train.texts, _strata(task, train.labels))
    except ValueError as error:
        raise HarnessError(f"task {task.name}: {error}") from None
    train, selection, calibration = (train.rows(part) for part in parts)
    remarks = [*_unofficial(task, read), *(_lopsided(task, train, len(selection) + len(calibration)) if limit is None else ())]
    if train_rows is not None:
        if not 1 <= train_rows <= len(train):
            raise HarnessError(f"--train-rows {task.name}={train_rows}: wanted 1 to {len(train)}, the rows of the training part")
        train = train.rows(draw(train.texts, _strata(task, train.labels), train_rows))
    if limit is not None:
        train, selection, calibration, dev = (_first(part, limit) for part in (train, selection, calibration, dev))
        further = [_first(part, limit) for part in further]
    splits = digest(str(part.ids.tolist()) for part in (selection, calibration))
    mismatched = further[0] if further else None
    return TaskData(task, train, selection, calibration, dev, fingerprint, splits, mismatched=mismatched, remarks=tuple(remarks))


def _first(part: Split, limit: int) -> Split:
    return part.rows(np.arange(min(limit, len(part))))


def _read(task: Task, data_dir: Path | None) -> list[Split]:
    """Train, dev, and what further splits there are."""
    if task.own is not None:
        return _read_own(task, task.own)
    if task.source is None:
        made = ([Row(row.texts, row.label, 0) for row in demo.demo_rows(task.name, split)] for split in ("train", "dev"))
        return [_make_split(task, rows, task.values, "demo") for rows in made]
    if data_dir is not None:
        return [read_tsv(task, data_dir / task.source.layout.folder / f"{name}.tsv") for name in task.source.files]
    kept = ((name, hub_rows(task.name, task.source, task.labels, name)) for name in task.source.hub_splits)
    return [_make_split(task, rows, task.labels, f"the hub's {task.name} {name}") for name, rows in kept]


def read_tsv(task: Task, path: Path) -> Split:
    """Read an official GLUE file, train's or dev's by its name.

    Raises: HarnessError with file, line and columns when a row does not fit.
    """
    source = task.source
    assert source is not None
    layout = source.layout if path.stem == "train" else source.layout.dev or source.layout
    return _make_split(task, tsv_rows(layout, path), task.values, str(path))


def _read_own(task: Task, own: OwnFiles) -> list[Split]:
    """Train and dev; without a dev file a share of train is dev, by groups of rows that share a text."""
    train = _make_split(task, file_rows(own.train, own), task.values, str(own.train))
    if own.dev is not None:
        return [train, _make_split(task, file_rows(own.dev, own), task.values, str(own.dev))]
    assert own.dev_share is not None
    parts = part_off(train.texts, _strata(task, train.labels), own.dev_share)
    if not all(map(len, parts)):
        raise HarnessError(
            f"task {task.name}: dev_share {own.dev_share:g} of {len(train)} rows leaves no row for dev or for train: rows that share a "
            f"text stay together, here up to {largest_group(train.texts)}, and where they are more than a tenth of dev in train"
        )
    return [train.rows(part) for part in parts]


def _make_split(task: Task, rows: Sequence[Row], names: Sequence[str], where: str) -> Split:
    """`names`: how the labels are written where the rows come from.

    Raises: HarnessError with file and line for another label.
    """
    labels = [_label(task, row, names, where) for row in rows]
    return Split(np.arange(len(rows)), tuple(row.texts for row in rows), np.array(labels, dtype=np.float64))


def _label(task: Task, row: Row, names: Sequence[str], where: str) -> float:
    """The class index, or the value of a regression."""
    if not task.regression:
        if row.label not in names:
            raise HarnessError(f"{where} line {row.line}: label {row.label!r}, wanted one of {', '.join(names)}")
        return names.index(row.label)
    low, high = task.bounds or (0.0, task.scale)
    try:
        score = float(row.label)
    except ValueError:
        score = float("nan")
    if not low <= score <= high:
        raise HarnessError(f"{where} line {row.line}: label {row.label!r}, wanted a number from {low:g} to {high:g}")
    return score


def _lopsided(task: Task, train: Split, held_out: int) -> Iterator[str]:
    """Where a task of the user's has little to train on, or nothing of a class."""
    if task.own is None:
        return
    if len(train) < held_out:
        yield f"{len(train):,} rows are left to train on, {held_out:,} of train are held out to select and to calibrate"
    lacking = [label for place, label in enumerate(task.labels) if place not in train.labels]
    if lacking:
        yield f"no row to train on has label {', '.join(lacking)}"


def _unofficial(task: Task, read: Sequence[Split]) -> Iterator[str]:
    """Where a GLUE task has another number of rows than GLUE."""
    if task.source is None:
        return
    for name, part, official in zip(task.source.files, read, task.source.rows, strict=True):
        if len(part) != official:
            yield f"{name} has {len(part):,} rows, officially {official:,}: scores are not comparable with others' on GLUE"


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


def _fingerprint(task: Task, splits: Sequence[Split]) -> str:
    """Of all rows; for a user's own task of what its file says of them, too."""
    rows = (("\t".join((*texts, str(label))) for texts, label in zip(split.texts, split.labels, strict=True)) for split in splits)
    found = digest(digest(part) for part in rows)
    return found if task.own is None else digest([found, repr((task.labels, task.metrics, task.scale, task.bounds, task.code))])


def _strata(task: Task, labels: NDArray[np.float64]) -> NDArray[np.int64]:
    """[n] the class, or for a regression the fifth of the label range."""
    if not task.regression:
        return labels.astype(np.int64)
    low, high = task.bounds or (0.0, task.scale)
    return np.minimum((labels - low) / (high - low) * REGRESSION_STRATA, REGRESSION_STRATA - 1).astype(np.int64)
