"""The stored runs that a report covers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from harness.data.tasks import find_tasks, known_tasks, task_groups
from harness.errors import IncompleteError, unknown
from harness.methods.registry import known_methods
from harness.records import RunRecord, RunSpec
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


class HasSpec(Protocol):
    """A run, stored or pinned in a baseline."""

    @property
    def spec(self) -> RunSpec:
        """Cell and settings of the run."""


Run = TypeVar("Run", bound=HasSpec)


def runs_of(
    runs: Sequence[Run],
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
) -> list[Run]:
    """Return the runs of these tasks or groups, methods and backbones; None means all.

    Raises: HarnessError for a name without runs.
    """
    kept = list(runs)
    for kind, names in (("task", tasks), ("method", methods), ("backbone", backbones)):
        known = {str(getattr(run.spec, kind)) for run in runs}
        groups = {name: set(members) & known for name, members in task_groups().items()}
        usable = {name: {name} for name in known}
        if kind == "task":
            usable |= {name: members for name, members in groups.items() if members}
        for name in names or ():
            if name not in usable:
                raise unknown(kind, name, usable)
        if names is not None:
            allowed = set().union(*(usable[name] for name in names))
            kept = [run for run in kept if getattr(run.spec, kind) in allowed]
    return kept


def no_runs(store: ResultsStore) -> IncompleteError:
    """Return the error for a report or picture of a folder without matching runs."""
    missing = "" if store.root.is_dir() else f", as there is no folder {store.root}"
    return IncompleteError(
        f"no runs in {store.root} match{missing}: see harness list runs, or add runs with "
        "harness run"
    )


def select_runs(
    store: ResultsStore,
    tasks: Sequence[str] | None,
    methods: Sequence[str] | None,
    backbones: Sequence[str] | None = None,
) -> ReportRuns:
    """Read the runs of these tasks or groups (None: all tasks) without opening their traces.

    Raises: HarnessError for an unknown task, for an unknown method that has no runs either, and for
    a backbone without runs.
    """
    records, problems = store.records()
    records = runs_of(records, backbones=backbones)
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
