"""Load a task: read its rows and hold out parts of train."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import Split, TaskData
from harness.data.sources import RawSplit, Row
from harness.data.splits import (
    LARGEST_SHIFT,
    FairParts,
    divide_fairly,
    draw,
    hold_out_fairly,
    hold_out_groups,
    hold_out_sentences,
    largest_group,
)
from harness.data.tasks import Task
from harness.errors import HarnessError, counted
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
    remarks = list(_row_count_remarks(raw_splits))
    splits = [make_split(task, raw) for raw in raw_splits]
    if raw_splits[0].dev_share is not None:
        splits, remarks = _part_off_dev(task, splits[0], raw_splits[0].dev_share)
    fingerprint = _fingerprint(task, splits)
    train, dev, *further = splits
    try:
        parts, held_out_remarks = _hold_out(task, train)
    except ValueError as error:
        raise HarnessError(f"task {task.name}: {error}") from None
    train, selection, calibration = parts
    if limit is None:
        remarks += held_out_remarks
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


def _hold_out(task: Task, train: Split) -> tuple[list[Split], list[str]]:
    """Return train, selection and calibration, and remarks on those of a custom task.

    Raises: ValueError if there are too few rows.
    """
    strata = _strata(task, train.labels)
    if not task.custom:
        hold_out = hold_out_sentences if task.phrases else hold_out_groups
        return [train.rows(part) for part in hold_out(train.texts, strata)], []
    fair = hold_out_fairly(train.texts, strata)
    parts = [train.rows(part) for part in fair.positions]
    names = ("train", "selection", "calibration")
    return parts, [*_fairness_remarks(task, train, fair, names), *_training_remarks(task, parts)]


def _part_off_dev(task: Task, train: Split, share: float) -> tuple[list[Split], list[str]]:
    """Divide train into train and dev, which gets about this share of the rows."""
    size = round(share * len(train))
    if not 0 < size < len(train):
        raise HarnessError(
            f"task {task.name}: dev_share {share:g} of {len(train)} rows leaves no row for dev or "
            "for train"
        )
    fair = divide_fairly(train.texts, _strata(task, train.labels), [size], [1])
    parts = [train.rows(part) for part in fair.positions]
    return parts, list(_fairness_remarks(task, train, fair, ("train", "dev")))


def _fairness_remarks(
    task: Task, rows: Split, fair: FairParts, names: Sequence[str]
) -> Iterator[str]:
    """Yield remarks on parts that divide rows with the same text, or that lack a class."""
    if fair.groups_divided:
        count, text = largest_group(rows.texts)
        yield (
            f"rows that share a text are divided among {', '.join(names)}, because {count:,} of "
            f"{len(rows):,} rows are linked by texts such as {text[:40]!r}"
        )
    strata = _strata(task, rows.labels)
    for name, part in zip(names, fair.positions, strict=True):
        missing = sorted(set(strata.tolist()) - set(strata[part].tolist()))
        if missing:
            labels = ", ".join(_stratum_name(task, stratum) for stratum in missing)
            yield f"{name} has no row with label {labels}"
        shift, stratum = _largest_shift(strata, part)
        if shift > LARGEST_SHIFT:
            own, whole = np.mean(strata[part] == stratum), np.mean(strata == stratum)
            yield (
                f"{name} has {counted(len(part), 'row')}, of which {own:.0%} have label "
                f"{_stratum_name(task, stratum)}, while {whole:.0%} of all rows have it"
            )


def _largest_shift(strata: NDArray[np.int64], part: NDArray[np.int64]) -> tuple[float, int]:
    """Return the largest difference of a stratum's share between a part and all rows."""
    shifts = [
        (abs(float(np.mean(strata[part] == stratum) - np.mean(strata == stratum))), int(stratum))
        for stratum in np.unique(strata)
    ]
    return max(shifts) if len(part) else (0.0, 0)


def _stratum_name(task: Task, stratum: int) -> str:
    if not task.regression:
        return task.labels[stratum]
    low, high = task.label_range
    step = (high - low) / REGRESSION_STRATA
    return f"from {low + stratum * step:g} to {low + (stratum + 1) * step:g}"


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
        index = known.get(row.label)
        if index is None:  # a rare spelling; most labels need no normalisation
            index = known.get(same_text(row.label))
        if index is None:
            raise HarnessError(
                f"{raw.origin} line {row.line}: label {row.label!r}, "
                f"expected one of {', '.join(raw.labels)}"
            )
        return index
    low, high = task.label_range
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


def _training_remarks(task: Task, parts: Sequence[Split]) -> Iterator[str]:
    """Yield remarks on a training part that is smaller than the others, or on an absent class."""
    train, *held_out = map(len, parts)
    if train < sum(held_out):
        yield (
            f"only {train:,} rows are left for training: {sum(held_out):,} rows of train are held "
            "out for selection and calibration"
        )
    present = {float(label) for part in parts for label in part.labels}
    absent = [label for index, label in enumerate(task.labels) if index not in present]
    if absent:
        yield f"no row of train has label {', '.join(absent)}"
    if task.regression and len(present) == 1:
        yield (
            f"all rows of train have label {present.pop():g}: there is nothing to learn, and "
            "correlations are undefined"
        )


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
    low, high = task.label_range
    scaled = (labels - low) / (high - low) * REGRESSION_STRATA
    return np.minimum(scaled, REGRESSION_STRATA - 1).astype(np.int64)
