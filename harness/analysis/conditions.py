"""What stored runs must share to stand in one table."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import RunRecord


@dataclass(frozen=True)
class Condition:
    """What two runs must share to stand in one table. Not the processor: scores and MACs do not depend on it beyond rounding, and latency
    is a ratio to the reference on the run's own."""

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
    """Runs that can stand in one table, together, in the order of the tasks' names."""
    groups: dict[Condition, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[condition(record)].append(record)
    return sorted(groups.items(), key=lambda item: json.dumps(item[0].__dict__, default=str))


def condition(record: RunRecord) -> Condition:
    """What the record can be compared under."""
    spec, data, where = record.spec, record.data, record.environment
    return Condition(
        task=spec.task,
        backbone=spec.backbone,
        train_rows=spec.train_rows,
        limit=spec.limit,
        max_length=spec.max_length,
        data=data.data,
        splits=data.splits,
        weights=data.backbone,
        precision=where.precision,
    )


def title(where: Condition, all_: Sequence[Condition]) -> str:
    """Task and backbone, and what sets this table apart from others of the same."""
    quick = f", quick look at {where.limit} rows" if where.limit else ""
    like = [
        other
        for other in all_
        if (other.task, other.backbone, other.limit) == (where.task, where.backbone, where.limit)
    ]
    words = {
        "train_rows": f"{where.train_rows or 'all'} training rows",
        "max_length": f"cut at {where.max_length} tokens",
        "data": f"data {where.data}",
        "splits": f"splits {where.splits}",
        "weights": f"weights {where.weights}",
        "precision": f"trained in {where.precision}",
    }
    differing = [
        said for name, said in words.items() if len({getattr(other, name) for other in like}) > 1
    ]
    return ", ".join([f"{where.task} on {where.backbone}{quick}", *differing])
