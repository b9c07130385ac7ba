"""`harness submit`: write the GLUE leaderboard's zip file from predictions of stored runs."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.analysis.operating_points import exit_rule
from harness.data.glue_test import ENTRIES, Entry, unlabelled
from harness.data.tasks import Task, find_task, task_groups
from harness.errors import HarnessError, IncompleteError, reason
from harness.evaluation.policies import Rule
from harness.files.atomic import atomic_write, check_writable
from harness.methods.compute import Compute
from harness.methods.registry import model_format
from harness.methods.restore import check_fingerprint, model_folder, run_backbone
from harness.predict.predictions import predict_examples
from harness.records import RunRecord
from harness.store.results import ResultsStore


@dataclass(frozen=True)
class SubmitOptions:
    """Options of `harness submit`."""

    policy: str | None
    threshold: float | None
    budget_share: float | None
    """Budget for choosing the threshold, as a share of the run's own full MACs.

    Without a policy, threshold or share, every example runs to the last exit."""
    backbone: str | None
    """Folder of the backbone of a run on a local folder; None: the run's backbone."""
    data_dir: Path | None
    cache_dir: Path
    batch_size: int

    @property
    def early(self) -> bool:
        """Whether examples may exit early."""
        return (self.policy, self.threshold, self.budget_share) != (None, None, None)


class PredictionFile(NamedTuple):
    """A file of the submission, not yet written."""

    entry: Entry
    numbers: tuple[int, ...]
    """Row numbers of the test file."""
    words: tuple[str, ...]
    """Predictions as the leaderboard expects them, one per row."""
    clipped: int = 0
    """Number of predicted values outside the labels' range, moved to its nearest end."""


class Submission(NamedTuple):
    """A written submission, and the files that the leaderboard expects in addition."""

    files: list[PredictionFile]
    missing: list[Entry]

    def clipped(self) -> list[str]:
        """Return a remark on each file with predictions that were outside the labels' range."""
        return [
            f"{file.entry.name}: {file.clipped:,} of {len(file.words):,} predictions lay outside "
            "the labels' range and were moved to its nearest end"
            for file in self.files
            if file.clipped
        ]

    def problems(self) -> list[str]:
        """Return the reasons why the leaderboard would refuse it: wrong row counts, missing files.

        The list is empty for a complete submission.
        """
        reasons = [
            f"{file.entry.name}: got {len(file.words):,} test rows, the leaderboard requires"
            f" {file.entry.rows:,}"
            for file in self.files
            if len(file.words) != file.entry.rows
        ]
        missing = [entry.name for entry in self.missing]
        return reasons + (
            [f"the leaderboard requires all files; missing: {', '.join(missing)}"]
            if missing
            else []
        )


def submit(
    store: ResultsStore,
    records: Sequence[RunRecord],
    out: Path,
    compute: Compute,
    options: SubmitOptions,
) -> Submission:
    """Predict the test examples of the runs' tasks and write the zip file.

    Raises: HarnessError for a task outside GLUE, two runs of one task, or test rows that are not
    available; IncompleteError if a model is no longer cached.
    """
    by_task = run_by_task(records)
    for record in records:
        model_folder(record, options.cache_dir)
    check_writable(out.parent, "submission's")
    rules = {name: choose_rule(store, record, options) for name, record in by_task.items()}
    torch.set_num_threads(compute.threads)
    files = [
        file
        for entry in ENTRIES
        if entry.task in by_task
        for file in _predict(entry, by_task[entry.task], rules[entry.task], compute, options)
    ]
    write_zip(out, files)
    written = {file.entry.name for file in files}
    return Submission(files, [entry for entry in ENTRIES if entry.name not in written])


def run_by_task(records: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """Return the run of each task.

    Raises: HarnessError for a task outside GLUE, or two runs of one task.
    """
    found: dict[str, RunRecord] = {}
    for record in records:
        task = record.spec.task
        if task not in task_groups()["glue"] or record.own_task is not None:
            raise HarnessError(
                f"run {record.short_id} is on {task}: the leaderboard has the tasks"
                f" {', '.join(task_groups()['glue'])}"
            )
        if task in found:
            raise HarnessError(
                f"runs {found[task].short_id} and {record.short_id} are both on {task}: "
                "expected one run per task"
            )
        found[task] = record
    return found


def choose_rule(store: ResultsStore, record: RunRecord, options: SubmitOptions) -> Rule:
    """Return the exit rule of a run.

    It is the last exit unless the run has several exits and the options name a policy, a threshold
    or a budget.
    """
    if record.policy is None or not options.early:
        return Rule(tolerance=record.tolerance)
    return exit_rule(store, record, options.policy, options.threshold, options.budget_share)


def _predict(
    entry: Entry, record: RunRecord, rule: Rule, compute: Compute, options: SubmitOptions
) -> list[PredictionFile]:
    """Return one file, or none for a diagnostic file that is not available."""
    rows = unlabelled(entry, options.data_dir)
    if rows is None:
        return []
    backbone = run_backbone(record, options.backbone or record.spec.backbone)
    check_fingerprint("backbone", backbone.fingerprint, record.data.backbone, record)
    tokens = backbone.encode([row.texts for row in rows], record.spec.max_length)
    model = model_format().load_model(model_folder(record, options.cache_dir))
    task = find_task(entry.task)
    found = predict_examples(model, tokens, task.classes, rule, options.batch_size, compute.device)
    numbers = tuple(row.number for row in rows)
    values, (low, high) = found.logits[:, 0], task.label_range
    clipped = int(((values < low) | (values > high)).sum()) if task.regression else 0
    return [PredictionFile(entry, numbers, leaderboard_words(task, found.logits), clipped)]


HEADER = "index\tprediction"


def leaderboard_words(task: Task, logits: NDArray[np.float32]) -> tuple[str, ...]:
    """Return predictions as the leaderboard expects them, from logits [n, c].

    They are the label values of GLUE's files or, for a regression, numbers from 0 to 5 with three
    decimals.
    """
    if task.regression:
        values = np.clip(logits[:, 0].astype(np.float64), *task.label_range)
        return tuple(f"{value:.3f}" for value in values)
    return tuple(task.values[index] for index in logits.argmax(-1))


def write_zip(path: Path, files: Sequence[PredictionFile]) -> None:
    """Write a submission atomically, after checking what was written.

    Raises: IncompleteError if it cannot be written, or the leaderboard would refuse it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    pairs = zip(file.numbers, file.words, strict=True)
                    lines = [HEADER, *(f"{number}\t{word}" for number, word in pairs)]
                    # ZipInfo has a fixed date: equal predictions give identical files.
                    member = zipfile.ZipInfo(f"{file.entry.name}.tsv")
                    member.external_attr = 0o644 << 16
                    archive.writestr(member, "\n".join(lines) + "\n", zipfile.ZIP_DEFLATED)
            check_zip(temporary, {file.entry.name: file.numbers for file in files})
    except OSError as error:
        raise IncompleteError(
            f"cannot write {path}: {reason(error)}; nothing was written"
        ) from None


def check_zip(path: Path, expected: Mapping[str, Sequence[int]]) -> None:
    """Read a submission as the leaderboard does; `expected` maps each file's name to its row
    numbers.

    Raises: IncompleteError with the file and line that are wrong.
    """
    by_name = {entry.name: entry for entry in ENTRIES}
    with zipfile.ZipFile(path) as archive:
        names = [f"{name}.tsv" for name in expected]
        if sorted(archive.namelist()) != sorted(names):
            raise IncompleteError(
                f"{path} contains {', '.join(archive.namelist())}, expected {', '.join(names)}"
            )
        for name, numbers in expected.items():
            header, *lines = archive.read(f"{name}.tsv").decode().removesuffix("\n").split("\n")
            if header != HEADER or len(lines) != len(numbers):
                raise IncompleteError(
                    f"{name}.tsv: header {header!r} and {len(lines)} rows,"
                    f" expected {HEADER!r} and {len(numbers)} rows"
                )
            task = find_task(by_name[name].task)
            for line_number, (line, number) in enumerate(zip(lines, numbers, strict=True), start=2):
                found, _, word = line.partition("\t")
                if found != str(number) or not _allowed(task, word):
                    raise IncompleteError(
                        f"{name}.tsv line {line_number}: {line!r},"
                        f" expected row {number} and {_expected(task)}"
                    )


def _allowed(task: Task, word: str) -> bool:
    if not task.regression:
        return word in task.values
    integer, _, decimals = word.partition(".")
    return integer.isdecimal() and decimals.isdecimal() and 0 <= float(word) <= task.scale


def _expected(task: Task) -> str:
    return " or ".join(task.values) or f"a number from 0 to {task.scale:g}"
