"""GLUE's average over tasks, of comparisons that differ in nothing else; and its table."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis.comparison import Comparison, Row
from harness.analysis.conditions import Condition
from harness.analysis.points import BudgetShare, Exit, LastExit
from harness.data.tasks import task_groups

UNCOUNTED = "wnli"
"""Left out unless asked for: most of its dev rows stand in train with the other label, so that majority answers win."""


@dataclass(frozen=True)
class AverageRow:
    """A method at its last exit or at a point of its curve, over tasks."""

    method: str
    point: LastExit | BudgetShare
    scores: dict[str, float | None]
    """Task -> mean of its metrics (of MNLI matched and mismatched), each a mean over seeds; None where the point is not there."""


@dataclass(frozen=True)
class GlueAverage:
    """The average on one backbone."""

    condition: Condition
    """Of the first task."""
    train_rows: dict[str, int]
    """Task -> rows in training, of the tasks that count: those that all methods have."""
    incomplete: dict[str, tuple[str, ...]]
    """Task that does not count -> methods that it lacks."""
    constant: dict[str, float]
    """Task -> what a constant answer scores."""
    rows: tuple[AverageRow, ...]


def average(scores: Mapping[str, float | None]) -> float | None:
    """Return the mean over the tasks; None where a task lacks its score, or where there is no task."""
    known = [score for score in scores.values() if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def glue_averages(comparisons: Sequence[Comparison], wnli: bool) -> list[GlueAverage]:
    """One for each backbone (and length, precision, device, ...) that has two or more of GLUE's tasks."""
    groups: dict[Condition, dict[str, Comparison]] = defaultdict(dict)
    for comparison in sorted(comparisons, key=_fullest):
        task = comparison.condition.task
        if task in task_groups()["glue"] and (wnli or task != UNCOUNTED):
            groups[_apart_from_task(comparison.condition)].setdefault(task, comparison)
    return [_average(found) for found in groups.values() if len(found) > 1]


def _fullest(comparison: Comparison) -> tuple[int, bool, int]:
    """Of several comparisons of a task the one with most methods counts, then the one on all or on more training rows."""
    rows = comparison.condition.train_rows
    return -len(_methods(comparison)), rows is not None, -(rows or 0)


def _apart_from_task(where: Condition) -> Condition:
    return replace(where, task="", train_rows=None, data="", splits="")


def _methods(comparison: Comparison) -> set[str]:
    return {row.method for row in comparison.rows}


def _average(found: dict[str, Comparison]) -> GlueAverage:
    ordered = {task: found[task] for task in task_groups()["glue"] if task in found}
    methods = set().union(*map(_methods, ordered.values()))
    lacking = {task: tuple(sorted(methods - _methods(one))) for task, one in ordered.items()}
    counted = {task: one for task, one in ordered.items() if not lacking[task]}
    points = list(dict.fromkeys(_place(row) for one in counted.values() for row in one.rows))
    order = list(dict.fromkeys(method for method, _ in points))
    return GlueAverage(
        condition=next(iter(ordered.values())).condition,
        train_rows={task: one.records[0].data.rows["train"] for task, one in counted.items()},
        incomplete={task: names for task, names in lacking.items() if names},
        constant={task: _mean(list(one.constant_scores.values())) for task, one in counted.items()},
        rows=tuple(
            _row(place, counted)
            for place in sorted(points, key=lambda place: order.index(place[0]))
        ),
    )


def _place(row: Row) -> tuple[str, LastExit | BudgetShare]:
    return row.method, LastExit() if isinstance(row.point, Exit) else row.point


def _row(place: tuple[str, LastExit | BudgetShare], counted: dict[str, Comparison]) -> AverageRow:
    rows = {
        task: next((row for row in one.rows if _place(row) == place), None)
        for task, one in counted.items()
    }
    scores = {
        task: None if row is None else _mean([score.mean for score in row.scores.values()])
        for task, row in rows.items()
    }
    return AverageRow(*place, scores)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
