"""`harness submit`: the answers of stored runs to GLUE's test rows, as the leaderboard takes them."""

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
from harness.files.atomic import check_writable, whole
from harness.methods.compute import Compute
from harness.methods.registry import model_format
from harness.methods.restore import check_same, model_folder, run_backbone
from harness.predict.predictions import predict_rows
from harness.records import RunRecord
from harness.store.results import ResultsStore


@dataclass(frozen=True)
class SubmitOptions:
    """How test rows are answered."""

    policy: str | None
    threshold: float | None
    budget_share: float | None
    """Without any of these three each row is answered by the last exit."""
    backbone: str | None
    """Of runs on a local folder."""
    data_dir: Path | None
    cache_dir: Path
    batch_size: int

    @property
    def early(self) -> bool:
        """Whether rows may leave early."""
        return (self.policy, self.threshold, self.budget_share) != (None, None, None)


class Answered(NamedTuple):
    """A file of the submission, before it is written."""

    entry: Entry
    numbers: tuple[int, ...]
    """Of the rows."""
    words: tuple[str, ...]


class Submitted(NamedTuple):
    """What was written, and what the leaderboard wants besides."""

    files: list[Answered]
    missing: list[Entry]

    def lacking(self) -> list[str]:
        """Why the leaderboard would not take it: files that are missing, or of another number of rows than the official one."""
        other = [file for file in self.files if len(file.words) != file.entry.rows]
        said = [
            f"{file.entry.name}: {len(file.words):,} test rows, officially {file.entry.rows:,}: the leaderboard will not take them"
            for file in other
        ]
        missing = [entry.name for entry in self.missing]
        return said + (
            [f"without {', '.join(missing)}: the leaderboard wants all"] if missing else []
        )


def submit(
    store: ResultsStore,
    records: Sequence[RunRecord],
    out: Path,
    compute: Compute,
    options: SubmitOptions,
) -> Submitted:
    """Answer the test rows of the runs' tasks and write the zip file.

    Raises: HarnessError for a task that is not GLUE's, two runs of one, or test rows that are not to be had; IncompleteError when a model
    is no longer cached.
    """
    by_task = one_a_task(records)
    for record in records:
        model_folder(record, options.cache_dir)
    check_writable(out.parent, "submission's")
    rules = {name: rule_of(store, record, options) for name, record in by_task.items()}
    torch.set_num_threads(compute.threads)
    files = [
        answered
        for entry in ENTRIES
        if entry.task in by_task
        for answered in _answer(entry, by_task[entry.task], rules[entry.task], compute, options)
    ]
    write_zip(out, files)
    there = {file.entry.name for file in files}
    return Submitted(files, [entry for entry in ENTRIES if entry.name not in there])


def one_a_task(records: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """Task -> its run.

    Raises: HarnessError for a task that is not GLUE's, or that has two runs.
    """
    found: dict[str, RunRecord] = {}
    for record in records:
        task = record.spec.task
        if task not in task_groups()["glue"] or record.own_task is not None:
            raise HarnessError(
                f"run {record.run_id} is on {task}: the leaderboard takes {', '.join(task_groups()['glue'])}"
            )
        if task in found:
            raise HarnessError(
                f"runs {found[task].run_id} and {record.run_id} are both on {task}: wanted one a task"
            )
        found[task] = record
    return found


def rule_of(store: ResultsStore, record: RunRecord, options: SubmitOptions) -> Rule:
    """When rows of this run leave: at the last exit unless a policy, a threshold or a budget is named and the run has several exits."""
    if record.policy is None or not options.early:
        return Rule(tolerance=record.tolerance)
    return exit_rule(store, record, options.policy, options.threshold, options.budget_share)


def _answer(
    entry: Entry, record: RunRecord, rule: Rule, compute: Compute, options: SubmitOptions
) -> list[Answered]:
    """One file; none where a diagnostic file is not there."""
    rows = unlabelled(entry, options.data_dir)
    if rows is None:
        return []
    backbone = run_backbone(record, options.backbone or record.spec.backbone)
    check_same("backbone", backbone.fingerprint, record.data.backbone, record)
    tokens = backbone.encode([row.texts for row in rows], record.spec.max_length)
    model = model_format().load_model(model_folder(record, options.cache_dir))
    task = find_task(entry.task)
    found = predict_rows(model, tokens, task.classes, rule, options.batch_size, compute.device)
    return [Answered(entry, tuple(row.number for row in rows), words_of(task, found.logits))]


HEADER = "index\tprediction"


def words_of(task: Task, logits: NDArray[np.float32]) -> tuple[str, ...]:
    """Answers [n, c] as the leaderboard wants them: what the files write for a label; a number from 0 to 5 with three decimals."""
    if task.regression:
        return tuple(
            f"{value:.3f}" for value in np.clip(logits[:, 0].astype(np.float64), 0.0, task.scale)
        )
    return tuple(task.values[place] for place in logits.argmax(-1))


def write_zip(path: Path, files: Sequence[Answered]) -> None:
    """Write a submission, and read it back before it takes its place.

    Raises: IncompleteError when it cannot be written, or what was written is not what the leaderboard takes.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as beside:
            with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    lines = [
                        HEADER,
                        *(
                            f"{index}\t{word}"
                            for index, word in zip(file.numbers, file.words, strict=True)
                        ),
                    ]
                    member = zipfile.ZipInfo(
                        f"{file.entry.name}.tsv"
                    )  # with a fixed date: equal answers are an equal file
                    member.external_attr = 0o644 << 16
                    archive.writestr(member, "\n".join(lines) + "\n", zipfile.ZIP_DEFLATED)
            check_zip(beside, {file.entry.name: file.numbers for file in files})
    except OSError as error:
        raise IncompleteError(
            f"cannot write {path}: {reason(error)}; nothing was written"
        ) from None


def check_zip(path: Path, wanted: Mapping[str, Sequence[int]]) -> None:
    """Read a submission as the leaderboard does. `wanted`: the name of each of its files -> the numbers of its rows.

    Raises: IncompleteError naming the file and the line that does not fit.
    """
    by_name = {entry.name: entry for entry in ENTRIES}
    with zipfile.ZipFile(path) as archive:
        if sorted(archive.namelist()) != sorted(f"{name}.tsv" for name in wanted):
            raise IncompleteError(
                f"{path} holds {', '.join(archive.namelist())}, wanted {', '.join(wanted)}, each .tsv"
            )
        for name, indices in wanted.items():
            header, *lines = archive.read(f"{name}.tsv").decode().removesuffix("\n").split("\n")
            if header != HEADER or len(lines) != len(indices):
                raise IncompleteError(
                    f"{name}.tsv: header {header!r} and {len(lines)} rows, wanted {HEADER!r} and {len(indices)}"
                )
            task = find_task(by_name[name].task)
            for number, (line, index) in enumerate(zip(lines, indices, strict=True), start=2):
                said, _, word = line.partition("\t")
                if said != str(index) or not _allowed(task, word):
                    raise IncompleteError(
                        f"{name}.tsv line {number}: {line!r}, wanted row {index} and {_wanted(task)}"
                    )


def _allowed(task: Task, word: str) -> bool:
    if not task.regression:
        return word in task.values
    whole, _, decimals = word.partition(".")
    return whole.isdecimal() and decimals.isdecimal() and 0 <= float(word) <= task.scale


def _wanted(task: Task) -> str:
    return " or ".join(task.values) or f"a number from 0 to {task.scale:g}"
