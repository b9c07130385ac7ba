"""Fit a stored run again: the grid of one cell that has the same run id."""

from dataclasses import asdict, dataclass
from pathlib import Path

from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError, NotComparableError
from harness.files.text import option_text
from harness.methods.compute import Compute
from harness.methods.registry import CHECKPOINT
from harness.methods.settings import Setting
from harness.records import RunRecord, flat
from harness.runs.cell import Cell, Options, load_cell_data, run_id, sources
from harness.runs.request import GridRequest, plan_request


@dataclass(frozen=True)
class Paths:
    """Inputs of a run that its record does not locate."""

    results_dir: Path
    """Results folder of the new run."""
    cache_dir: Path | None = None
    data_dir: Path | None = None
    corpus: tuple[Path, ...] = ()
    vectors: Path | None = None
    custom_tasks: tuple[Task, ...] = ()
    backbone: str | None = None
    """Folder of the backbone or checkpoint, if it is not found by its name."""


def plan_again(record: RunRecord, paths: Paths, compute: Compute) -> tuple[Cell, Options]:
    """Return the cell of a stored run and its options.

    Raises: NotComparableError that says what differs if the run would get another id; HarnessError
        if an input is missing.
    """
    cells, options = plan_request(_request(record, paths), compute)
    (cell,) = cells
    data = load_cell_data(cell, options.data_dir)
    if run_id(cell, data, options) != record.run_id:
        found = "; ".join(_differences(record, cell, data, options))
        raise NotComparableError(f"run {record.short_id} cannot be fitted again here: {found}")
    return cell, options


def _request(record: RunRecord, paths: Paths) -> GridRequest:
    spec, latency = record.spec, record.latency
    if record.own_task is not None and spec.task not in [one.name for one in paths.custom_tasks]:
        raise HarnessError(f"{spec.task} is a custom task: give its --task-file")
    if record.changed is None:
        raise HarnessError(
            f"run {record.short_id} was stored by a version that did not note which settings were "
            "changed: it cannot be fitted again from its record"
        )
    is_checkpoint = spec.method == CHECKPOINT
    location = paths.backbone or spec.backbone
    changed = {} if is_checkpoint else record.changed
    latency_s = record.latency_seconds
    if latency_s is None:  # older records do not have it, nor the batch size
        latency_s = 0.0 if latency is None else GridRequest.latency_s
    return GridRequest(
        methods=[spec.method],
        tasks=None if record.own_task is not None else [spec.task],
        custom_tasks=[one for one in paths.custom_tasks if one.name == spec.task],
        backbone=None if is_checkpoint else location,
        checkpoint=location if is_checkpoint else None,
        seeds=[spec.seed],
        settings=[
            Setting(spec.method, tuple(name.split(".")), option_text(value))
            for name, value in changed.items()
        ],
        train_rows={} if spec.train_rows is None else {spec.task: spec.train_rows},
        max_length=spec.max_length,
        limit=spec.limit,
        data_dir=paths.data_dir,
        corpus=paths.corpus,
        vectors=paths.vectors,
        batch_size=record.batch_size or GridRequest.batch_size,
        latency_s=latency_s,
        reference="none" if latency is None else latency.reference or "none",
        results_dir=paths.results_dir,
        cache_dir=paths.cache_dir,
    )


def _differences(record: RunRecord, cell: Cell, data: TaskData, options: Options) -> list[str]:
    """Return what differs from the stored run, in words."""
    environment, summary = record.environment, record.data
    found = {
        "data": (summary.data, data.data_fingerprint),
        "splits": (summary.splits, data.split_fingerprint),
        "backbone": (summary.backbone, cell.backbone.fingerprint),
        "sources": (asdict(summary.sources), asdict(sources(cell.method, options))),
        "precision": (environment.precision, options.compute.precision),
        "kind of device": (environment.device_type, options.compute.device.type),
        "threads": (environment.threads, options.compute.threads),
    }
    stored, planned = flat(record.spec.settings), flat(cell.spec.settings)
    found |= {f"setting {name}": (stored.get(name), planned.get(name)) for name in stored | planned}
    differing = [
        f"{name} {option_text(old)}, here {option_text(new)}"
        for name, (old, new) in found.items()
        if option_text(old) != option_text(new)
    ]
    return differing or [
        "its batch size, its timing or the revision of a stage differs from what this version "
        "would use"
    ]
