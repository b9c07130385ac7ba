"""Group stored runs by the conditions that they must share to be in one table."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import RunRecord


@dataclass(frozen=True)
class Condition:
    """Conditions that two runs must share to be in one table.

    The processor is not one of them: scores and MACs do not depend on it beyond rounding, and
    latency is compared as a ratio to the reference on the same processor."""

    task: str
    backbone: str
    train_rows: int | None
    limit: int | None
    max_length: int
    data: str
    splits: str
    weights: str
    precision: str


def by_condition(records: Sequence[RunRecord]) -> list[tuple[Condition, list[RunRecord]]]:
    """Group the runs that can be in one table, in the order of the task names."""
    groups: dict[Condition, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[condition_of(record)].append(record)
    return sorted(groups.items(), key=lambda item: json.dumps(item[0].__dict__, default=str))


def condition_of(record: RunRecord) -> Condition:
    """Return the condition under which a record can be compared."""
    spec, data, environment = record.spec, record.data, record.environment
    return Condition(
        task=spec.task,
        backbone=spec.backbone,
        train_rows=spec.train_rows,
        limit=spec.limit,
        max_length=spec.max_length,
        data=data.data,
        splits=data.splits,
        weights=data.backbone,
        precision=environment.precision,
    )


def condition_title(condition: Condition, all_conditions: Sequence[Condition]) -> str:
    """Return task and backbone, with what distinguishes the table from others of the same two."""
    limit = f", limited to {condition.limit} rows" if condition.limit else ""
    similar = [
        other
        for other in all_conditions
        if (other.task, other.backbone, other.limit)
        == (condition.task, condition.backbone, condition.limit)
    ]
    descriptions = {
        "train_rows": f"{condition.train_rows or 'all'} training rows",
        "max_length": f"truncated at {condition.max_length} tokens",
        "data": f"data {condition.data}",
        "splits": f"splits {condition.splits}",
        "weights": f"weights {condition.weights}",
        "precision": f"in {condition.precision}",
    }
    differing = [
        description
        for name, description in descriptions.items()
        if len({getattr(other, name) for other in similar}) > 1
    ]
    return ", ".join([f"{condition.task} on {condition.backbone}{limit}", *differing])
