"""`harness submit`: the answers of stored runs to GLUE's test rows, as the leaderboard takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from harness.answering import answer_rows
from harness.errors import HarnessError
from harness.leaderboard import ENTRIES, Answered, Entry, unlabelled, words_of, write_zip
from harness.live import check_same, model_folder, run_backbone
from harness.methods import model_format
from harness.records import RunRecord
from harness.rules import Rule, run_rule
from harness.stages import Compute
from harness.store import ResultsStore, check_writable
from harness.tasks import GROUPS, TASKS


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
        return said + ([f"without {', '.join(missing)}: the leaderboard wants all"] if missing else [])


def submit(store: ResultsStore, records: Sequence[RunRecord], out: Path, compute: Compute, options: SubmitOptions) -> Submitted:
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
        if task not in GROUPS["glue"] or record.own_task is not None:
            raise HarnessError(f"run {record.run_id} is on {task}: the leaderboard takes {', '.join(GROUPS['glue'])}")
        if task in found:
            raise HarnessError(f"runs {found[task].run_id} and {record.run_id} are both on {task}: wanted one a task")
        found[task] = record
    return found


def rule_of(store: ResultsStore, record: RunRecord, options: SubmitOptions) -> Rule:
    """When rows of this run leave: at the last exit unless a policy, a threshold or a budget is named and the run has several exits."""
    if record.policy is None or not options.early:
        return Rule(tolerance=record.tolerance)
    return run_rule(store, record, options.policy, options.threshold, options.budget_share)


def _answer(entry: Entry, record: RunRecord, rule: Rule, compute: Compute, options: SubmitOptions) -> list[Answered]:
    """One file; none where a diagnostic file is not there."""
    rows = unlabelled(entry, options.data_dir)
    if rows is None:
        return []
    backbone = run_backbone(record, options.backbone or record.spec.backbone)
    check_same("backbone", backbone.fingerprint, record.data.backbone, record)
    tokens = backbone.encode([row.texts for row in rows], record.spec.max_length)
    model = model_format().load_model(model_folder(record, options.cache_dir))
    task = TASKS[entry.task]
    found = answer_rows(model, tokens, task.classes, rule, options.batch_size, compute.device)
    return [Answered(entry, tuple(row.number for row in rows), words_of(task, found.logits))]
