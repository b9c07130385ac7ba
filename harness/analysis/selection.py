"""The stored runs that a report is about."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    missing: list[str]
    """Tasks, groups and methods that were asked for and have no runs."""


def gather(store: ResultsStore, tasks: Sequence[str] | None, methods: Sequence[str] | None) -> Gathered:
    """The sound runs of these tasks or groups (None: of all). Runs of other methods than these stay: one may be the reference.

    Raises: HarnessError for a task that does not exist, or a method that neither exists nor has runs.
    """
    records, problems = store.records()
    own = {record.spec.task for record in records if record.own_task is not None}
    possible = {*own, *known_tasks(), *task_groups()}
    for name in tasks or ():
        if name not in possible:
            raise unknown("task", name, possible)
    asked = {name: {name} if name in own else {task.name for task in find_tasks([name])} for name in tasks or ()}
    if tasks is not None:
        records = [record for record in records if any(record.spec.task in members for members in asked.values())]
    known = {*known_methods(), *(record.spec.method for record in records)}
    for name in methods or ():
        if name not in known:
            raise unknown("method", name, known)
    records, damaged = store.sound(records)
    there = {record.spec.task for record in records}
    missing = [name for name, members in asked.items() if not members & there]
    missing += [name for name in methods or () if name not in {record.spec.method for record in records}]
    return Gathered(records, problems + damaged, missing)
