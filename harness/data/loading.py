"""Reading the rows of a task and holding out its parts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data import demo
from harness.data.custom_files import file_rows
from harness.data.dataset import Split, TaskData
from harness.data.glue import tsv_rows
from harness.data.glue_hub import hub_rows
from harness.data.sources import CustomFiles, Row
from harness.data.splits import draw, hold_out_groups, hold_out_sentences, largest_group, part_off
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.files.digests import digest

REGRESSION_STRATA = 5


def load_data(
    task: Task, data_dir: Path | None, train_rows: int | None = None, limit: int | None = None
) -> TaskData:
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
    remarks = [
        *_unofficial(task, read),
        *(_lopsided(task, train, len(selection) + len(calibration)) if limit is None else ()),
    ]
    if train_rows is not None:
        if not 1 <= train_rows <= len(train):
            raise HarnessError(
                f"--train-rows {task.name}={train_rows}: wanted 1 to {len(train)}, the rows of the training part"
            )
        train = train.rows(draw(train.texts, _strata(task, train.labels), train_rows))
    if limit is not None:
        train, selection, calibration, dev = (
            _first(part, limit) for part in (train, selection, calibration, dev)
        )
        further = [_first(part, limit) for part in further]
    splits = digest(str(part.ids.tolist()) for part in (selection, calibration))
    mismatched = further[0] if further else None
    return TaskData(
        task,
        train,
        selection,
        calibration,
        dev,
        fingerprint,
        splits,
        mismatched=mismatched,
        remarks=tuple(remarks),
    )


def _first(part: Split, limit: int) -> Split:
    return part.rows(np.arange(min(limit, len(part))))


def _read(task: Task, data_dir: Path | None) -> list[Split]:
    """Train, dev, and what further splits there are."""
    if task.own is not None:
        return _read_own(task, task.own)
    if task.source is None:
        made = (
            [Row(row.texts, row.label, 0) for row in demo.demo_rows(task.name, split)]
            for split in ("train", "dev")
        )
        return [_make_split(task, rows, task.values, "demo") for rows in made]
    if data_dir is not None:
        return [
            read_tsv(task, data_dir / task.source.layout.folder / f"{name}.tsv")
            for name in task.source.files
        ]
    kept = (
        (name, hub_rows(task.name, task.source, task.labels, name))
        for name in task.source.hub_splits
    )
    return [
        _make_split(task, rows, task.labels, f"the hub's {task.name} {name}") for name, rows in kept
    ]


def read_tsv(task: Task, path: Path) -> Split:
    """Read an official GLUE file, train's or dev's by its name.

    Raises: HarnessError with file, line and columns when a row does not fit.
    """
    source = task.source
    assert source is not None
    layout = source.layout if path.stem == "train" else source.layout.dev or source.layout
    return _make_split(task, tsv_rows(layout, path), task.values, str(path))


def _read_own(task: Task, own: CustomFiles) -> list[Split]:
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
    return Split(
        np.arange(len(rows)), tuple(row.texts for row in rows), np.array(labels, dtype=np.float64)
    )


def _label(task: Task, row: Row, names: Sequence[str], where: str) -> float:
    """The class index, or the value of a regression."""
    if not task.regression:
        if row.label not in names:
            raise HarnessError(
                f"{where} line {row.line}: label {row.label!r}, wanted one of {', '.join(names)}"
            )
        return names.index(row.label)
    low, high = task.bounds or (0.0, task.scale)
    try:
        score = float(row.label)
    except ValueError:
        score = float("nan")
    if not low <= score <= high:
        raise HarnessError(
            f"{where} line {row.line}: label {row.label!r}, wanted a number from {low:g} to {high:g}"
        )
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


def _fingerprint(task: Task, splits: Sequence[Split]) -> str:
    """Of all rows; for a user's own task of what its file says of them, too."""
    rows = (
        (
            "\t".join((*texts, str(label)))
            for texts, label in zip(split.texts, split.labels, strict=True)
        )
        for split in splits
    )
    found = digest(digest(part) for part in rows)
    return (
        found
        if task.own is None
        else digest([found, repr((task.labels, task.metrics, task.scale, task.bounds, task.code))])
    )


def _strata(task: Task, labels: NDArray[np.float64]) -> NDArray[np.int64]:
    """[n] the class, or for a regression the fifth of the label range."""
    if not task.regression:
        return labels.astype(np.int64)
    low, high = task.bounds or (0.0, task.scale)
    return np.minimum(
        (labels - low) / (high - low) * REGRESSION_STRATA, REGRESSION_STRATA - 1
    ).astype(np.int64)
