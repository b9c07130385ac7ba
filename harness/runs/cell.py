"""Run one cell, from its spec to its record."""

import hashlib
import importlib.metadata
import json
import platform
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import __version__
from harness.data.corpus import Corpus
from harness.data.custom_tasks import summary
from harness.data.dataset import Split, TaskData
from harness.data.loading import load_data
from harness.data.tasks import Task
from harness.evaluation.external_metrics import external_score, load_external_metric
from harness.evaluation.metrics import scores
from harness.evaluation.trace import Trace
from harness.files.digests import file_digest
from harness.files.typed_json import SCHEMA
from harness.measure.inference import collect
from harness.measure.latency import LatencyJob, measure_exits, save_reference, timing_batches
from harness.measure.macs import piece_costs
from harness.methods.compute import Compute, device_name
from harness.methods.planning import PlanningContext
from harness.methods.protocol import Method
from harness.methods.registry import Reference, model_format
from harness.methods.settings import changed_settings
from harness.methods.stages import FitContext, Fitted
from harness.models.backbones import Backbone, find_backbone
from harness.models.multi_exit import MultiExitModel
from harness.models.tokenizers import stated_length
from harness.progress import Progress
from harness.records import (
    FIXED_LENGTH,
    Costs,
    DataSummary,
    Environment,
    ExitMeasurement,
    LatencyConditions,
    RunRecord,
    RunSpec,
    Sources,
    SplitScores,
)
from harness.runs.outlook import CellPlan, Outlook
from harness.store.encoded_rows import RowsKey, save_encoded_rows
from harness.store.results import ResultsStore

EVALUATION_REVISION = 1
"""Raised when tracing, counting or timing may give other results, so that runs get new ids."""

LIBRARIES = ("torch", "accelerate", "fvcore", "numpy", "tokenizers", "transformers")


@dataclass(frozen=True)
class Options:
    """Settings of a whole grid, common to all its cells."""

    data_dir: Path | None
    results_dir: Path
    cache_dir: Path
    compute: Compute
    batch_size: int
    """Examples per batch when tracing, and the second batch size that latency is measured at."""
    latency_s: float
    """Seconds of timing per batch size; 0: latency is not measured."""
    reference: Reference | None
    """Method that latency is compared with."""
    corpus: Corpus = field(default_factory=Corpus)
    """Corpus for methods that pre-train."""
    vectors: Path | None = None
    """Word vectors for augmentation."""


C = TypeVar("C", bound=FitContext)


class DataKey(NamedTuple):
    """Everything that the data of a cell depend on; cells with equal keys share them."""

    task: str
    backbone: str
    """Source of the backbone, as a checkpoint's folder may have another backbone's name."""
    train_rows: int | None


@dataclass(frozen=True)
class Cell:
    """One run of a grid, defined by its spec."""

    spec: RunSpec
    task: Task
    method: Method
    backbone: Backbone

    @property
    def rows(self) -> DataKey:
        """Return the key of the cell's data."""
        return DataKey(self.spec.task, self.backbone.source, self.spec.train_rows)

    @property
    def label(self) -> str:
        """Return the label for progress lines."""
        return f"{self.spec.task} {self.spec.method} seed {self.spec.seed}"


def load_cell_data(cell: Cell, data_dir: Path | None) -> TaskData:
    """Return the cell's data, encoded by its backbone."""
    data = load_data(cell.task, data_dir, cell.spec.train_rows, cell.spec.limit)
    encoded = data.encoded(cell.backbone.encode, cell.spec.max_length)
    folder = cell.backbone.folder
    stated = None if folder is None else stated_length(folder)
    if stated is None or stated >= cell.spec.max_length:
        return encoded
    remark = (
        f"the tokenizer's model_max_length is {stated}, but texts are cut at "
        f"--max-length {cell.spec.max_length}"
    )
    return replace(encoded, remarks=(*encoded.remarks, remark))


def run_id(cell: Cell, data: TaskData, options: Options) -> str:
    """Return the id of a run: a hash of everything that its record depends on.

    It is known before anything is fitted.
    """
    parts = {
        "spec": asdict(cell.spec),
        "revisions": cell.method.revisions(),
        "evaluation": EVALUATION_REVISION,
        "data": data.fingerprint,
        "backbone": cell.backbone.fingerprint,
        "precision": options.compute.precision,
        "device": options.compute.device.type,
        "threads": options.compute.threads,
        "batch size": options.batch_size,
        "latency": [options.latency_s, *reference_shape(options.reference, cell)]
        if options.latency_s > 0
        else None,
    }
    external = sources(cell.method, options)
    if external != Sources():
        parts["sources"] = asdict(external)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def sources(method: Method, options: Options) -> Sources:
    """Return the fingerprints of the method's external inputs.

    Raises: HarnessError if an input cannot be read.
    """
    external_inputs = method.external_inputs()
    return Sources(
        corpus=options.corpus.data.data_fingerprint if external_inputs.corpus else None,
        vectors=file_digest(options.vectors)
        if external_inputs.vectors and options.vectors is not None
        else None,
        checkpoint=find_backbone(external_inputs.checkpoint).fingerprint
        if external_inputs.checkpoint is not None
        else None,
    )


def reference_shape(reference: Reference | None, cell: Cell) -> list[str]:
    """Return the reference's name and a hash of the names and shapes of its tensors.

    They determine its latency. The list is empty without a reference.
    """
    if reference is None:
        return []
    with torch.device("meta"):
        tensors = reference.method.build(cell.backbone, cell.task).state_dict()
    shapes = [[name, list(tensor.shape)] for name, tensor in tensors.items()]
    return [reference.name, hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]]


def is_stored(cell: Cell, data: TaskData, options: Options) -> bool:
    """Return whether the results folder holds the cell's run."""
    store = ResultsStore(options.results_dir)
    return store.holds(cell.spec.task, cell.spec.method, run_id(cell, data, options))


def fit_context(cell: Cell, options: Options, kind: type[C]) -> C:
    """Return the context of the cell's fit, of this kind."""
    return kind(
        cell.spec.seed,
        options.compute,
        options.cache_dir,
        model_format(),
        cell.label,
        options.corpus,
        options.vectors,
    )


def plan_cell(cell: Cell, data: TaskData, options: Options) -> CellPlan:
    """Return what is left to do for a cell that is not stored."""
    context = fit_context(cell, options, PlanningContext)
    cell.method.fit(data, cell.backbone, context)
    timing_s = options.latency_s * len(batch_sizes(data, options))
    return CellPlan(tuple(context.planned.values()), timing_s)


def run_cell(
    cell: Cell, data: TaskData, options: Options, outlook: Outlook
) -> tuple[RunRecord, bool]:
    """Run the outlook's current cell and return its record and whether it was already stored.

    The steps are: fit (stages cached) -> traces -> MACs -> latency -> record -> store.
    """
    store = ResultsStore(options.results_dir)
    identity = run_id(cell, data, options)
    if store.holds(cell.spec.task, cell.spec.method, identity):
        return store.find(identity), True
    started = time.perf_counter()
    progress = options.compute.progress.labelled(outlook.position)
    context = replace(
        fit_context(cell, options, FitContext),
        compute=replace(options.compute, progress=progress),
        observer=outlook,
    )
    fitted = cell.method.fit(data, cell.backbone, context)
    model = fitted.stage.model
    outlook.start_measuring()
    progress = progress.labelled(f"{outlook.position}, {cell.label}")
    save_encoded_rows(
        options.cache_dir,
        RowsKey(data.data_fingerprint, cell.backbone.fingerprint, data.max_length, cell.spec.limit),
        data.dev,
    )
    traces = {
        name: collect(model, split, options.batch_size, options.compute.device, progress)
        for name, split in data.splits().items()
        if name != "train"
    }
    costs = piece_costs(model.to("cpu"))
    exits = with_external_scores(
        static_exits(model, traces["dev"], costs, data.task.metrics), traces["dev"], data.task
    )
    policy = policy_name(cell.method, data.task.classes)
    latency = None
    if options.latency_s > 0:
        exits, latency = _with_latency(exits, cell, data, fitted, policy, options, progress)
    record = RunRecord(
        schema=SCHEMA,
        run_id=identity,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        spec=cell.spec,
        environment=environment(options.compute),
        data=_data_summary(data, cell.backbone, sources(cell.method, options)),
        constant_scores=data.constant_scores()
        | external_scores(data.task, data.majority_predictions(data.dev)[None], data.dev.labels)[0],
        policy=policy,
        tolerance=cell.method.tolerance,
        parameters=model.parameter_count(),
        costs=costs,
        exits=exits,
        latency=latency,
        stages=fitted.uses(),
        search=fitted.trials,
        weights=fitted.stage.weights(),
        seconds=round(time.perf_counter() - started, 1),
        own_task=summary(data.task),
        mismatched=split_scores(data, data.mismatched, traces["mismatched"])
        if data.mismatched is not None
        else None,
        remarks=fitted.remarks,
        changed=changed_settings(cell.spec.method, cell.method, cell.backbone),
        batch_size=options.batch_size,
        latency_seconds=options.latency_s,
    )
    store.save(record, traces)
    return record, False


def policy_name(method: Method, classes: int) -> str | None:
    """Return the method's exit policy; on a regression patience, the only applicable one."""
    return "patience" if method.policy is not None and classes == 1 else method.policy


def static_exits(
    model: MultiExitModel, dev: Trace, costs: Costs, metrics: tuple[str, ...]
) -> tuple[ExitMeasurement, ...]:
    """Return scores, MACs and parameters of each truncated model; latency is added later."""
    metric_values = scores(metrics, dev.predictions().astype(np.float64), dev.labels)
    return tuple(
        ExitMeasurement(
            layer=int(layer),
            scores={name: float(values[index]) for name, values in metric_values.items()},
            macs=float(costs.static(int(layer) - 1, dev.lengths).mean()),
            macs_128=int(costs.static(int(layer) - 1, FIXED_LENGTH)),
            parameters=model.truncated(int(layer)).parameter_count(),
            static_ms={},
            path_ms={},
        )
        for index, layer in enumerate(dev.exit_layers)
    )


def with_external_scores(
    exits: tuple[ExitMeasurement, ...], dev: Trace, task: Task
) -> tuple[ExitMeasurement, ...]:
    """Return the exits with the scores of the task's external metrics added."""
    added = external_scores(task, dev.predictions().astype(np.float64), dev.labels)
    return tuple(
        replace(measured, scores=measured.scores | external)
        for measured, external in zip(exits, added, strict=True)
    )


def external_scores(
    task: Task, predictions: NDArray[np.float64], labels: NDArray[np.float64]
) -> list[dict[str, float]]:
    """Return for each exit the scores of the predictions [e, n] by the external metrics."""
    metrics = [(metric, load_external_metric(metric)) for metric in task.external_metrics]
    integers = not task.regression
    return [
        {
            metric.name: external_score(metric, loaded, exit_predictions, labels, integers)
            for metric, loaded in metrics
        }
        for exit_predictions in predictions
    ]


def split_scores(data: TaskData, part: Split, trace: Trace) -> SplitScores:
    """Return the scores of a further split, of the majority-class baseline and each exit."""
    metric_values = scores(data.task.metrics, trace.predictions().astype(np.float64), trace.labels)
    exits = tuple(
        {name: float(values[index]) for name, values in metric_values.items()}
        for index in range(len(trace.exit_layers))
    )
    return SplitScores(data.constant_scores(part), exits)


def batch_sizes(data: TaskData, options: Options) -> list[int]:
    """Return the batch sizes at which latency is measured."""
    return list(dict.fromkeys(min(size, len(data.dev)) for size in (1, options.batch_size)))


def _with_latency(
    exits: tuple[ExitMeasurement, ...],
    cell: Cell,
    data: TaskData,
    fitted: Fitted,
    policy: str | None,
    options: Options,
    progress: Progress,
) -> tuple[tuple[ExitMeasurement, ...], LatencyConditions]:
    """Return the exits with their latency at batch size 1 and at the given batch size."""
    sizes = batch_sizes(data, options)
    with tempfile.TemporaryDirectory() as folder:
        reference = save_reference(options.reference, cell.backbone, data.task, Path(folder))
        job = LatencyJob(
            model=str(fitted.stage.model_folder),
            reference=reference,
            batches={str(size): timing_batches(data.dev.tokens, size) for size in sizes},
            device=options.compute.device.type,
            precision="float32",
            threads=options.compute.threads,
            policy=policy,
            tolerance=cell.method.tolerance,
            threshold=None,
            seconds=options.latency_s,
        )
        return measure_exits(
            exits,
            job,
            options.reference.name if options.reference else None,
            progress,
        )


def _data_summary(data: TaskData, backbone: Backbone, external: Sources) -> DataSummary:
    training_texts = set(data.train.texts)
    return DataSummary(
        rows={name: len(split) for name, split in data.splits().items()},
        truncated={name: split.tokens.truncated for name, split in data.splits().items()},
        repeated=len([texts for texts in data.dev.texts if texts in training_texts]),
        dev_tokens=round(float(data.dev.tokens.lengths.mean()), 2),
        data=data.data_fingerprint,
        splits=data.split_fingerprint,
        backbone=backbone.fingerprint,
        sources=external,
    )


def environment(compute: Compute) -> Environment:
    """Return the environment that the model ran in: device, precision, threads and versions."""
    versions = {"harness": __version__, "python": platform.python_version()}
    return Environment(
        device=device_name(compute.device),
        device_type=compute.device.type,
        precision=compute.precision,
        threads=compute.threads,
        versions=versions | {name: importlib.metadata.version(name) for name in LIBRARIES},
    )
