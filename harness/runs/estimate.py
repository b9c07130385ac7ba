"""Estimate the training time of a grid from the stages of earlier runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.methods.compute import Compute
from harness.methods.stages import SEARCH_SEED
from harness.records import RunRecord, RunSpec, canonical


@dataclass
class _Counted:
    """Stages and searches of earlier cells of the plan, which later cells find in the cache."""

    stages: set[tuple[str, int, str]] = field(default_factory=set)
    """(task, seed, stage) triples."""
    searches: set[tuple[str, str]] = field(default_factory=set)
    """(task, stage) pairs."""


def estimate_minutes(
    cells: Sequence[tuple[RunSpec, bool]],
    tokens: Mapping[str, float],
    records: Sequence[RunRecord],
    compute: Compute,
    device: str,
) -> list[float | None]:
    """Return the estimated minutes of training of each cell that is not stored, in plan order.

    `cells` holds each cell's spec and whether it is stored. The estimate is None for a method
    without an earlier run. Otherwise it is the time of the stages of the most similar run of the
    same method, backbone and kind of device, in proportion to the number of training tokens
    (`tokens`, by task). A stage that several cells of a task and seed share is counted for the
    first of them, a learning-rate search for the task's first cell. The stages of stored cells
    count as cached; the rest of the cache is ignored.
    """
    counted = _Counted()
    estimates: list[float | None] = []
    for spec, stored in sorted(cells, key=lambda cell: not cell[1]):
        similar = [record for record in records if _is_comparable(record, spec, compute)]
        record = max(
            similar, key=lambda record: _similarity(record, spec, compute, device), default=None
        )
        seconds = None
        if record is not None:
            ratio = tokens[spec.task] / (record.data.rows["train"] * record.data.dev_tokens)
            seconds = ratio * _seconds(record, spec, counted)
        if not stored:
            estimates.append(None if seconds is None else seconds / 60)
    return estimates


def _is_comparable(record: RunRecord, spec: RunSpec, compute: Compute) -> bool:
    same = (record.spec.method, record.spec.backbone) == (spec.method, spec.backbone)
    return (
        same and record.environment.device_type == compute.device.type and record.spec.limit is None
    )


def _similarity(
    record: RunRecord, spec: RunSpec, compute: Compute, device: str
) -> tuple[bool, bool, bool, bool, str]:
    """Return the sort key of similarity, the most important criterion first."""
    environment = record.environment
    return (
        canonical(record.spec.settings) == canonical(spec.settings),
        record.spec.task == spec.task,
        environment.device == device,
        (environment.threads, environment.precision) == (compute.threads, compute.precision),
        record.created,
    )


def _seconds(record: RunRecord, spec: RunSpec, counted: _Counted) -> float:
    """Count the stages and searches that no earlier cell counted and return their seconds."""
    total = 0.0
    for use in record.stages:
        if (spec.task, spec.seed, use.report.name) not in counted.stages:
            total += use.report.seconds
    for trial in record.search:
        is_stage = trial.chosen and spec.seed == SEARCH_SEED  # counted as a stage above
        if (spec.task, trial.stage) not in counted.searches and not is_stage:
            total += trial.seconds or 0.0
    counted.stages |= {(spec.task, spec.seed, use.report.name) for use in record.stages}
    counted.searches |= {(spec.task, trial.stage) for trial in record.search}
    return total
