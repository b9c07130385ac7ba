"""The stored runs that a report covers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.data.tasks import find_tasks, known_tasks, task_groups
from harness.errors import unknown
from harness.methods.registry import known_methods
from harness.records import RunRecord
from harness.store.results import Problem, ResultsStore


@dataclass(frozen=True)
class ReportRuns:
    """The runs for a report, and the tasks and methods that were requested."""

    records: list[RunRecord]
    problems: list[Problem]
    """Runs that cannot be read."""
    tasks: dict[str, set[str]]
    """Requested task or group -> its tasks."""
    methods: tuple[str, ...]
    """Requested methods. Runs of other methods are kept too: one may be the reference."""

    @property
    def missing(self) -> list[str]:
        """Requested tasks, groups and methods that have no runs."""
        tasks, methods = (
            {getattr(record.spec, field) for record in self.records} for field in ("task", "method")
        )
        missing = [name for name, members in self.tasks.items() if not members & tasks]
        return missing + [name for name in self.methods if name not in methods]


def select_runs(
    store: ResultsStore, tasks: Sequence[str] | None, methods: Sequence[str] | None
) -> ReportRuns:
    """Read the runs of these tasks or groups (None: all tasks) without opening their traces.

    Raises: HarnessError for an unknown task, or for an unknown method that has no runs either.
    """
    records, problems = store.records()
    custom = {record.spec.task for record in records if record.own_task is not None}
    known = {*custom, *known_tasks(), *task_groups()}
    for name in tasks or ():
        if name not in known:
            raise unknown("task", name, known)
    requested = {
        name: {name} if name in custom else {task.name for task in find_tasks([name])}
        for name in tasks or ()
    }
    if tasks is not None:
        records = [
            record
            for record in records
            if any(record.spec.task in members for members in requested.values())
        ]
    known = {*known_methods(), *(record.spec.method for record in records)}
    for name in methods or ():
        if name not in known:
            raise unknown("method", name, known)
    return ReportRuns(records, problems, requested, tuple(methods or ()))


def intact_runs(store: ResultsStore, runs: ReportRuns) -> ReportRuns:
    """Open all traces and timings, and leave out the runs that have a missing or damaged one."""
    records, damaged = store.intact(runs.records)
    return replace(runs, records=records, problems=runs.problems + damaged)
