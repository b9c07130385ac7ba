"""How long a grid will fit, by the stages of earlier runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.methods.compute import Compute
from harness.methods.stages import SEARCH_SEED
from harness.records import RunRecord, RunSpec, canonical


@dataclass
class _Counted:
    """Stages and searches of the plan so far, which later cells find in the cache."""

    stages: set[tuple[str, int, str]] = field(default_factory=set)
    """Task, seed, stage."""
    searches: set[tuple[str, str]] = field(default_factory=set)
    """Task, stage."""


def fitting_minutes(
    cells: Sequence[tuple[RunSpec, bool]],
    tokens: Mapping[str, float],
    records: Sequence[RunRecord],
    compute: Compute,
    device: str,
) -> list[float | None]:
    """Minutes of training of each cell, in the order of the plan; None for a method that has no run to go by. `cells`: what is asked for,
    and whether it is stored.

    The stages of the most similar run of the same method, backbone and kind of device, in proportion to the training part's tokens
    (`tokens`: task -> how many). A stage that several cells of one task and seed share is counted with the first, a search of learning
    rates with the task's first; stored cells have theirs in the cache. What else lies there is not looked for.
    """
    counted = _Counted()
    found: list[float | None] = []
    for spec, stored in sorted(cells, key=lambda cell: not cell[1]):
        similar = [record for record in records if _serves(record, spec, compute)]
        record = max(
            similar, key=lambda record: _likeness(record, spec, compute, device), default=None
        )
        seconds = None
        if record is not None:
            share = tokens[spec.task] / (record.data.rows["train"] * record.data.dev_tokens)
            seconds = share * _seconds(record, spec, counted)
        if not stored:
            found.append(None if seconds is None else seconds / 60)
    return found


def _serves(record: RunRecord, spec: RunSpec, compute: Compute) -> bool:
    same = (record.spec.method, record.spec.backbone) == (spec.method, spec.backbone)
    return (
        same and record.environment.device_type == compute.device.type and record.spec.limit is None
    )


def _likeness(
    record: RunRecord, spec: RunSpec, compute: Compute, device: str
) -> tuple[bool, bool, bool, bool, str]:
    """What matters most first."""
    where = record.environment
    return (
        canonical(record.spec.settings) == canonical(spec.settings),
        record.spec.task == spec.task,
        where.device == device,
        (where.threads, where.precision) == (compute.threads, compute.precision),
        record.created,
    )


def _seconds(record: RunRecord, spec: RunSpec, counted: _Counted) -> float:
    """Of the stages and searches that no cell before had."""
    total = 0.0
    for use in record.stages:
        if (spec.task, spec.seed, use.report.name) not in counted.stages:
            total += use.report.seconds
    for trial in record.search:
        mine = trial.chosen and spec.seed == SEARCH_SEED  # that one is the stage itself
        if (spec.task, trial.stage) not in counted.searches and not mine:
            total += trial.seconds or 0.0
    counted.stages |= {(spec.task, spec.seed, use.report.name) for use in record.stages}
    counted.searches |= {(spec.task, trial.stage) for trial in record.search}
    return total
