"""Load a task: read its rows and hold out parts of train."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import Split, TaskData
from harness.data.sources import RawSplit, Row
from harness.data.splits import draw, hold_out_groups, hold_out_sentences, largest_group, part_off
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.files.digests import digest
from harness.files.text import parse_number, same_text

REGRESSION_STRATA = 5
"""Number of equal parts of a regression's label range that serve as strata."""


def load_data(
    task: Task, data_dir: Path | None, train_rows: int | None = None, limit: int | None = None
) -> TaskData:
    """Read the train and dev rows of a task and hold out `selection` and `calibration`.

    `train_rows` rows are drawn from the training part; the draw depends only on the data.
    `limit` truncates every part to its first rows.
    Raises: HarnessError if a file is missing or malformed, a label is unknown, or there are fewer
        rows than train_rows.
    """
    raw_splits = task.source.at(data_dir).read(task)
    splits = [make_split(task, raw) for raw in raw_splits]
    if raw_splits[0].dev_share is not None:
        splits = _part_off_dev(task, splits[0], raw_splits[0].dev_share)
    fingerprint = _fingerprint(task, splits)
    train, dev, *further = splits
    hold_out = hold_out_sentences if task.phrases else hold_out_groups
    try:
        parts = hold_out(train.texts, _strata(task, train.labels))
    except ValueError as error:
        raise HarnessError(f"task {task.name}: {error}") from None
    train, selection, calibration = (train.rows(part) for part in parts)
    remarks = list(_row_count_remarks(raw_splits))
    if task.custom and limit is None:
        remarks += _training_remarks(task, train, len(selection) + len(calibration))
    if train_rows is not None:
        if not 1 <= train_rows <= len(train):
            raise HarnessError(
                f"--train-rows {task.name}={train_rows}: expected 1 to {len(train)}, "
                "the number of rows in the training part"
            )
        train = train.rows(draw(train.texts, _strata(task, train.labels), train_rows))
    if limit is not None:
        train, selection, calibration, dev = (
            _first(part, limit) for part in (train, selection, calibration, dev)
        )
        further = [_first(part, limit) for part in further]
    return TaskData(
        task,
        train,
        selection,
        calibration,
        dev,
        fingerprint,
        digest(str(part.ids.tolist()) for part in (selection, calibration)),
        mismatched=further[0] if further else None,
        remarks=tuple(remarks),
    )


def _first(part: Split, limit: int) -> Split:
    return part.rows(np.arange(min(limit, len(part))))


def _part_off_dev(task: Task, train: Split, share: float) -> list[Split]:
    """Divide train into train and dev, which gets about this share of the rows."""
    parts = part_off(train.texts, _strata(task, train.labels), share)
    if not all(map(len, parts)):
        raise HarnessError(
            f"task {task.name}: dev_share {share:g} of {len(train)} rows leaves no row for dev or "
            "for train: rows that share a text stay together, and a group larger than a tenth of "
            f"dev stays in train; the largest has {largest_group(train.texts)} rows"
        )
    return [train.rows(part) for part in parts]


def make_split(task: Task, raw: RawSplit) -> Split:
    """Check the labels of a split and turn them into numbers.

    Raises: HarnessError with file and line if a label is unknown.
    """
    known = {same_text(label): index for index, label in enumerate(raw.labels)}
    labels = [_label(task, row, raw, known) for row in raw.rows]
    return Split(
        np.arange(len(raw.rows)),
        tuple(row.texts for row in raw.rows),
        np.array(labels, dtype=np.float64),
    )


def _label(task: Task, row: Row, raw: RawSplit, known: Mapping[str, int]) -> float:
    """Return the class index, or the value of a regression."""
    if not task.regression:
        label = same_text(row.label)
        if label not in known:
            raise HarnessError(
                f"{raw.origin} line {row.line}: label {row.label!r}, "
                f"expected one of {', '.join(raw.labels)}"
            )
        return known[label]
    low, high = task.bounds or (0.0, task.scale)
    try:
        value = parse_number(float, row.label)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise HarnessError(
            f"{raw.origin} line {row.line}: label {row.label!r}, "
            f"expected a number from {low:g} to {high:g}"
        )
    return value


def _training_remarks(task: Task, train: Split, held_out: int) -> Iterator[str]:
    """Yield remarks on a training part that is small or lacks a class."""
    if len(train) < held_out:
        yield (
            f"only {len(train):,} rows are left for training: {held_out:,} rows of train are held "
            "out for selection and calibration"
        )
    missing = [label for index, label in enumerate(task.labels) if index not in train.labels]
    if missing:
        yield f"no training row has label {', '.join(missing)}"


def _row_count_remarks(raw_splits: Sequence[RawSplit]) -> Iterator[str]:
    """Yield remarks on splits whose row counts are not the official ones."""
    for raw in raw_splits:
        if raw.official_rows is not None and len(raw.rows) != raw.official_rows:
            yield (
                f"{raw.split} has {len(raw.rows):,} rows, officially {raw.official_rows:,}: "
                "scores are not comparable with published ones on GLUE"
            )


def _fingerprint(task: Task, splits: Sequence[Split]) -> str:
    """Return a hash of all rows and, for a custom task, of the description in its file."""
    rows = (
        (
            "\t".join((*texts, str(label)))
            for texts, label in zip(split.texts, split.labels, strict=True)
        )
        for split in splits
    )
    rows_digest = digest(digest(part) for part in rows)
    if not task.custom:
        return rows_digest
    description = (task.labels, task.metrics, task.scale, task.bounds, task.external_metrics)
    return digest([rows_digest, repr(description)])


def _strata(task: Task, labels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class [n], or for a regression the fifth of the label range."""
    if not task.regression:
        return labels.astype(np.int64)
    low, high = task.bounds or (0.0, task.scale)
    scaled = (labels - low) / (high - low) * REGRESSION_STRATA
    return np.minimum(scaled, REGRESSION_STRATA - 1).astype(np.int64)
