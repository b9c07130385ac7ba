"""Live timing of early exit on the dev examples of a stored run (`harness time`)."""

import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.custom_tasks import task_of
from harness.data.dataset import Split
from harness.data.loading import load_data
from harness.errors import HarnessError, IncompleteError
from harness.evaluation.metrics import scores
from harness.evaluation.policies import Policy, make_policy
from harness.evaluation.trace import predictions
from harness.measure.inference import predict_early
from harness.measure.latency import (
    LatencyJob,
    paired_ratio,
    quartiles,
    run_job,
    save_reference,
    token_ids,
)
from harness.methods.compute import Compute, device_name
from harness.methods.registry import Reference, model_format
from harness.methods.restore import check_fingerprint, model_folder, run_backbone
from harness.models.backbones import Backbone
from harness.models.batches import collate, sorted_batches
from harness.records import RunRecord, Timing
from harness.store.encoded_rows import RowsKey, load_encoded_rows


@dataclass(frozen=True)
class LiveOptions:
    """Settings of one timing."""

    policy: str | None
    """None for the method's own policy."""
    threshold: float
    batch_size: int
    rounds: int
    limit: int | None
    """Number of dev examples to time, from the first; None for all."""
    precision: str
    reference: Reference | None
    backbone: str
    """Name or folder, as given by the user."""
    data_dir: Path | None
    cache_dir: Path


def time_run(record: RunRecord, compute: Compute, options: LiveOptions) -> Timing:
    """Time early exit and the reference on the same batches.

    Examples that exit early are removed from the batch.

    Raises: HarnessError for a run with one exit; IncompleteError if its model is no longer cached;
    NotComparableError if the data or the backbone differ from the run's.
    """
    name = _policy_name(record, options)
    task = task_of(record)
    policy = make_policy(record, task.classes, options.policy)
    score_threshold = policy.score_threshold(options.threshold)
    folder = model_folder(record, options.cache_dir)
    backbone = run_backbone(record, options.backbone)
    dev = _dev_split(record, backbone, options)
    count = min(options.limit or len(dev), len(dev))
    batches = sorted_batches(dev.tokens.lengths[:count], options.batch_size)
    torch.set_num_threads(compute.threads)
    logits, exits = _predict_live(
        folder, dev, batches, policy, score_threshold, compute, options.precision
    )
    order = np.concatenate(batches)
    metric_values = scores(task.metrics, predictions(logits).astype(np.float64), dev.labels[order])
    job = LatencyJob(
        model=str(folder),
        reference=None,
        batches={str(options.batch_size): tuple(token_ids(dev.tokens, batch) for batch in batches)},
        device=compute.device.type,
        precision=options.precision,
        threads=compute.threads,
        policy=name,
        tolerance=record.tolerance,
        threshold=options.threshold,
        seconds=0.0,
        rounds=options.rounds,
    )
    with tempfile.TemporaryDirectory() as reference_folder:
        reference = save_reference(options.reference, backbone, task, Path(reference_folder))
        measured = run_job(replace(job, reference=reference), compute.progress)
    samples = measured.milliseconds[str(options.batch_size)]
    layers = [measured.layer for measured in record.exits]
    return Timing(
        run_id=record.run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy=name,
        threshold=options.threshold,
        batch_size=options.batch_size,
        device=device_name(compute.device),
        precision=options.precision,
        threads=compute.threads,
        rows=count,
        rounds=options.rounds,
        tokens=round(float(np.mean([dev.tokens.lengths[batch].max() for batch in batches])), 2),
        mean_layers=round(float(np.array(layers)[exits].mean()), 4),
        scores={metric: float(value) for metric, value in metric_values.items()},
        early_ms=quartiles(samples["live"]),
        reference=options.reference.name if options.reference else None,
        reference_ms=quartiles(samples["reference"]),
        ratio=paired_ratio(samples["reference"], samples["live"]),
    )


def _policy_name(record: RunRecord, options: LiveOptions) -> str:
    """Return the name of the policy; raise HarnessError if the run has a single exit."""
    name = options.policy or record.policy
    if name is None or record.policy is None:
        advice = (
            "its latency is in the record"
            if record.latency is not None
            else "measure its latency with run --latency"
        )
        raise HarnessError(
            f"run {record.short_id} ({record.spec.method}) has a single exit and cannot exit "
            f"early: {advice}"
        )
    return name


def _dev_split(record: RunRecord, backbone: Backbone, options: LiveOptions) -> Split:
    """Return the run's encoded dev split, from the cache or else from the task's source.

    Given a data folder, only a custom task is taken from the cache.

    Raises: IncompleteError if a custom task's split is no longer cached; NotComparableError if the
    data or the backbone differ from the run's.
    """
    spec = record.spec
    if options.data_dir is None or record.own_task is not None:
        cached = load_encoded_rows(
            options.cache_dir,
            RowsKey(record.data.data, record.data.backbone, spec.max_length, spec.limit),
        )
        if cached is not None:
            if options.reference is not None:
                check_fingerprint("backbone", backbone.fingerprint, record.data.backbone, record)
            return cached
    if record.own_task is not None:
        raise IncompleteError(
            f"the dev examples of run {record.short_id} are not in {options.cache_dir}: "
            "repeat harness run with its task file, this --cache-dir and another --results-dir"
        )
    data = load_data(task_of(record), options.data_dir, spec.train_rows, spec.limit)
    encoded = data.encoded(backbone.encode, spec.max_length)
    check_fingerprint("data", encoded.data_fingerprint, record.data.data, record)
    check_fingerprint("backbone", backbone.fingerprint, record.data.backbone, record)
    return encoded.dev


def _predict_live(
    folder: Path,
    dev: Split,
    batches: list[NDArray[np.int64]],
    policy: Policy,
    score_threshold: float,
    compute: Compute,
    precision: str,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits [n, c] and exits [n] of early exit, in the order of the batches."""
    model = model_format().load_model(folder).to(compute.device)
    with torch.autocast(compute.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = [
            predict_early(
                model, collate(dev.tokens, batch).to(compute.device), policy, score_threshold
            )
            for batch in batches
        ]
    logits = torch.cat([output.logits for output in outputs]).float().cpu().numpy()
    return logits, torch.cat([output.exits for output in outputs]).cpu().numpy()
