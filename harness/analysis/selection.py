"""The stored runs that a report is about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.data.tasks import find_tasks, known_tasks, task_groups
from harness.errors import unknown
from harness.methods.registry import known_methods
from harness.records import RunRecord
from harness.store.results import Problem, ResultsStore


@dataclass(frozen=True)
class Gathered:
    """The runs that a report is to be made of."""

    records: list[RunRecord]
    problems: list[Problem]
    """Runs that cannot be read."""
    tasks: dict[str, set[str]]
    """Task or group that was asked for -> its tasks."""
    methods: tuple[str, ...]
    """Methods that were asked for. Runs of others are here too: one may be the reference."""

    @property
    def missing(self) -> list[str]:
        """Tasks, groups and methods that were asked for and have no runs."""
        tasks, methods = (
            {getattr(record.spec, field) for record in self.records} for field in ("task", "method")
        )
        missing = [name for name, members in self.tasks.items() if not members & tasks]
        return missing + [name for name in self.methods if name not in methods]


def gather(
    store: ResultsStore, tasks: Sequence[str] | None, methods: Sequence[str] | None
) -> Gathered:
    """Read the runs of these tasks or groups (None: of all). Their traces are not opened.

    Raises: HarnessError for a task that does not exist, or a method that neither exists nor has runs.
    """
    records, problems = store.records()
    own = {record.spec.task for record in records if record.own_task is not None}
    possible = {*own, *known_tasks(), *task_groups()}
    for name in tasks or ():
        if name not in possible:
            raise unknown("task", name, possible)
    asked = {
        name: {name} if name in own else {task.name for task in find_tasks([name])}
        for name in tasks or ()
    }
    if tasks is not None:
        records = [
            record
            for record in records
            if any(record.spec.task in members for members in asked.values())
        ]
    known = {*known_methods(), *(record.spec.method for record in records)}
    for name in methods or ():
        if name not in known:
            raise unknown("method", name, known)
    return Gathered(records, problems, asked, tuple(methods or ()))


def whole(store: ResultsStore, found: Gathered) -> Gathered:
    """Open all traces and timings of the runs, and leave those out whose are missing or damaged."""
    records, damaged = store.sound(found.records)
    return replace(found, records=records, problems=found.problems + damaged)
