"""The GLUE average of methods over comparisons that differ in nothing but the task."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis.comparison import Comparison, Row
from harness.analysis.conditions import Condition
from harness.analysis.points import BudgetShare, Exit, LastExit
from harness.data.tasks import task_groups

EXCLUDED_TASK = "wnli"
"""Task left out of the average by default: most of its dev texts are in train with the other label,
so that the majority-class baseline wins."""


@dataclass(frozen=True)
class AverageRow:
    """A method at its last exit or at a point of its curve, over tasks."""

    method: str
    point: LastExit | BudgetShare
    scores: dict[str, float | None]
    """Task -> mean of its metrics (on MNLI, of matched and mismatched), each a mean over seeds.
    None where the method lacks the point."""


@dataclass(frozen=True)
class GlueAverage:
    """The average on one backbone."""

    condition: Condition
    """Condition of the first task."""
    train_rows: dict[str, int]
    """Task -> training rows, for the tasks that count: those that all methods have."""
    incomplete: dict[str, tuple[str, ...]]
    """Task that does not count -> methods that it lacks."""
    constant: dict[str, float]
    """Task -> score of the majority-class baseline."""
    rows: tuple[AverageRow, ...]


def average(scores: Mapping[str, float | None]) -> float | None:
    """Return the mean over the tasks; None if a task lacks its score or if there is no task."""
    known = [score for score in scores.values() if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def glue_averages(comparisons: Sequence[Comparison], wnli: bool) -> list[GlueAverage]:
    """Return an average for each backbone (and length, precision, ...) with two or more GLUE tasks.

    `wnli`: whether WNLI counts."""
    groups: dict[Condition, dict[str, Comparison]] = defaultdict(dict)
    for comparison in sorted(comparisons, key=_most_complete_first):
        task = comparison.condition.task
        if task in task_groups()["glue"] and (wnli or task != EXCLUDED_TASK):
            groups[_without_task(comparison.condition)].setdefault(task, comparison)
    return [_average(found) for found in groups.values() if len(found) > 1]


def _most_complete_first(comparison: Comparison) -> tuple[int, bool, int]:
    """Return the sort key that chooses among comparisons of one task: most methods first, then all
    training rows, then more of them."""
    rows = comparison.condition.train_rows
    return -len(_methods(comparison)), rows is not None, -(rows or 0)


def _without_task(condition: Condition) -> Condition:
    return replace(condition, task="", train_rows=None, data="", splits="")


def _methods(comparison: Comparison) -> set[str]:
    return {row.method for row in comparison.rows}


def _average(found: dict[str, Comparison]) -> GlueAverage:
    ordered = {task: found[task] for task in task_groups()["glue"] if task in found}
    methods = set().union(*map(_methods, ordered.values()))
    missing = {task: tuple(sorted(methods - _methods(one))) for task, one in ordered.items()}
    counted = {task: one for task, one in ordered.items() if not missing[task]}
    keys = list(dict.fromkeys(_row_key(row) for one in counted.values() for row in one.rows))
    order = list(dict.fromkeys(method for method, _ in keys))
    return GlueAverage(
        condition=next(iter(ordered.values())).condition,
        train_rows={task: one.records[0].data.rows["train"] for task, one in counted.items()},
        incomplete={task: names for task, names in missing.items() if names},
        constant={task: _mean(list(one.constant_scores.values())) for task, one in counted.items()},
        rows=tuple(_row(key, counted) for key in sorted(keys, key=lambda key: order.index(key[0]))),
    )


def _row_key(row: Row) -> tuple[str, LastExit | BudgetShare]:
    return row.method, LastExit() if isinstance(row.point, Exit) else row.point


def _row(key: tuple[str, LastExit | BudgetShare], counted: dict[str, Comparison]) -> AverageRow:
    rows = {
        task: next((row for row in one.rows if _row_key(row) == key), None)
        for task, one in counted.items()
    }
    scores = {
        task: None if row is None else _mean([score.mean for score in row.scores.values()])
        for task, row in rows.items()
    }
    return AverageRow(*key, scores)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
