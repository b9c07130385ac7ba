"""The baseline of `harness check`: for each run, the figures that must not get worse and the
predictions for all dev examples."""

import base64
import binascii
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from harness.analysis.operating_points import (
    BUDGETS,
    REPORTED_BUDGETS,
    OperatingPoint,
    chosen_thresholds,
    evaluate,
    policy_of,
)
from harness.analysis.variants import selected_runs
from harness.data.custom_tasks import task_of
from harness.errors import HarnessError, IncompleteError, reason
from harness.evaluation.trace import Floats
from harness.files.atomic import atomic_write
from harness.files.typed_json import SCHEMA, from_json
from harness.records import DataSummary, Environment, ExitMeasurement, Quartiles, RunRecord, RunSpec
from harness.store.results import ResultsStore

FILE_PREFIX = b'{"schema":'
"""First bytes of a baseline file."""


@dataclass(frozen=True)
class PinnedExit:
    """The figures of one exit."""

    layer: int
    macs: float
    """Mean MACs of the truncated model per dev example."""
    macs_128: int
    parameters: int
    answers: str
    """Predictions of the truncated model on dev, packed by `pack_predictions`."""
    static_ratio: dict[str, Quartiles]
    """Batch size -> reference time over static time, paired by round; empty if the run was not
    timed."""
    path_ratio: dict[str, Quartiles]
    mismatched: str | None = None
    """Packed predictions on MNLI's mismatched dev split."""
    code_scores: dict[str, float] | None = None
    """Scores by external metrics."""


@dataclass(frozen=True)
class PinnedPoint:
    """One threshold of a run with early exits."""

    budget: str
    """Share of the MACs of the run's own last exit, within which the threshold scored best on
    calibration."""
    threshold: float
    left: tuple[Annotated[int, Ge(0)], ...]
    """Number of dev examples that take each exit."""
    answers: str
    """Predictions on dev, packed by `pack_predictions`."""


@dataclass(frozen=True)
class PinnedRun:
    """The figures of one run."""

    run_id: str
    spec: RunSpec
    environment: Environment
    data: DataSummary
    parameters: int
    """Number of parameters of the whole model."""
    reference: str | None
    """Method whose time is the numerator of the latency ratios."""
    exits: tuple[PinnedExit, ...]
    points: tuple[PinnedPoint, ...]
    changed: dict[str, object] | None = None
    """Settings that differ from the method's defaults (`RunRecord.changed`)."""


@dataclass(frozen=True)
class Baseline:
    """The baseline file: `results/baseline.json` for the committed records and
    `tests/demo_baseline.json` for the demo."""

    schema: Literal[2]
    """Schema version of the records, parts of which the baseline contains."""
    runs: tuple[PinnedRun, ...]


def pin_run(store: ResultsStore, record: RunRecord) -> PinnedRun:
    """Return the baseline entry of a stored run.

    Raises: IncompleteError if its traces are missing, damaged or disagree with its record.
    """
    traces, latency = store.checked_traces(record), record.latency
    dev = traces["dev"]
    timed = latency if latency is not None and latency.reference is not None else None
    predictions, classes = dev.predictions(), dev.logits.shape[-1]
    mismatched = traces["mismatched"].predictions() if "mismatched" in traces else None
    exits = tuple(
        PinnedExit(
            layer=measured.layer,
            macs=measured.macs,
            macs_128=measured.macs_128,
            parameters=measured.parameters,
            answers=pack_predictions(predictions[index], classes),
            static_ratio=_ratios_at(index, timed.reference_ratio if timed else {}),
            path_ratio=_ratios_at(index, timed.path_ratio if timed else {}),
            mismatched=pack_predictions(mismatched[index], classes)
            if mismatched is not None
            else None,
            code_scores=external_scores(record, measured),
        )
        for index, measured in enumerate(record.exits)
    )
    points: tuple[PinnedPoint, ...] = ()
    if record.policy is not None:
        policy = policy_of(record)
        budgets = {name: BUDGETS[name] for name in REPORTED_BUDGETS}
        thresholds = chosen_thresholds(store, record, policy, record, budgets)
        points = tuple(
            _pin_point(name, evaluate(record, dev, policy, threshold), classes)
            for name, threshold in thresholds.items()
        )
    return PinnedRun(
        run_id=record.run_id,
        spec=record.spec,
        environment=record.environment,
        data=record.data,
        parameters=record.parameters,
        reference=timed.reference if timed else None,
        exits=exits,
        points=points,
        changed=record.changed,
    )


def _ratios_at(index: int, ratios: dict[str, tuple[Quartiles, ...]]) -> dict[str, Quartiles]:
    """Return the latency ratios of one exit: batch size -> quartiles."""
    return {size: by_exit[index] for size, by_exit in ratios.items()}


def external_scores(record: RunRecord, measured: ExitMeasurement) -> dict[str, float] | None:
    """Return an exit's scores by metrics other than the task's own, or None if there are none."""
    task_metrics = task_of(record).metrics
    return {
        name: score for name, score in measured.scores.items() if name not in task_metrics
    } or None


def _pin_point(budget: str, point: OperatingPoint, classes: int) -> PinnedPoint:
    return PinnedPoint(
        budget, point.threshold, point.counts, pack_predictions(point.predictions, classes)
    )


def pack_predictions(predictions: Floats, classes: int) -> str:
    """Encode predictions [n] as base64 of zlib-compressed bytes.

    Class indices are stored as 16-bit integers, regression values (1 class) as 32-bit floats.
    """
    data = predictions.astype(_dtype(classes)).tobytes()
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpack_predictions(text: str, classes: int, count: int) -> NDArray[np.float64]:
    """Decode predictions [n] packed by `pack_predictions`; class indices become floats.

    Raises: HarnessError if the text does not hold exactly `count` predictions.
    """
    dtype = _dtype(classes)
    expected = count * dtype.itemsize
    try:
        # The output is bounded, so that a crafted text cannot exhaust memory.
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), expected + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise HarnessError(f"predictions in the baseline cannot be read: {error}") from None
    if len(data) != expected:
        raise HarnessError(
            f"predictions in the baseline hold other than {count} examples: create it with --update"
        )
    return np.frombuffer(data, dtype).astype(np.float64)


def _dtype(classes: int) -> np.dtype[np.generic]:
    return np.dtype("<f4") if classes == 1 else np.dtype("<u2")


def baseline_of(store: ResultsStore, records: Sequence[RunRecord]) -> Baseline:
    """Return a baseline of the runs that the report selects: one per variant and seed."""
    return Baseline(SCHEMA, tuple(pin_run(store, record) for record in selected_runs(records)))


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file.

    Raises: HarnessError if the file cannot be read or is not a baseline.
    """
    try:
        baseline = from_json(Baseline, path.read_text(encoding="utf-8"), str(path))
        for run in baseline.runs:
            if not all(_fits(run, point) for point in run.points):
                rows = run.data.rows.get("dev")
                raise IncompleteError(
                    f"{path}: run {run.run_id}: its operating points do not fit its"
                    f" {len(run.exits)} exits and {rows} dev examples"
                )
    except FileNotFoundError:
        raise HarnessError(
            f"there is no baseline {path}: make one of the stored runs by harness check --update"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(
            f"cannot read the baseline {path}: {reason(error)}; create it with --update"
        ) from None
    except IncompleteError as error:
        raise HarnessError(f"{error}; create a new baseline with --update") from None
    return baseline


def _fits(run: PinnedRun, point: PinnedPoint) -> bool:
    """Return whether the point counts every dev example once over the run's two or more exits."""
    return len(run.exits) == len(point.left) > 1 and sum(point.left) == run.data.rows.get("dev")


def _may_be_a_baseline(path: Path) -> bool:
    """Return whether the file is empty or begins like a baseline, damaged or of any version."""
    with path.open("rb") as file:
        start = file.read(len(FILE_PREFIX))
    return FILE_PREFIX.startswith(start.strip())


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline file atomically, one run per line, so that diffs show which runs changed.

    Raises: HarnessError if the path holds some other file; IncompleteError if writing fails.
    """
    runs = ",\n".join(
        json.dumps(asdict(run), separators=(",", ":"), allow_nan=False) for run in baseline.runs
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and not _may_be_a_baseline(path):
            raise HarnessError(
                f"{path} is not a baseline and is not replaced: give another --baseline, or"
                " remove the file"
            )
        with atomic_write(path) as temporary:
            temporary.write_text(
                f'{FILE_PREFIX.decode()} {baseline.schema}, "runs": [\n{runs}\n]}}\n',
                encoding="utf-8",
            )
    except OSError as error:
        raise IncompleteError(f"cannot write the baseline {path}: {error.strerror}") from None
