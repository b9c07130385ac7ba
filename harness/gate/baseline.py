"""What `harness check` compares against: of each run the figures that must not get worse, and its answers row by row."""

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
    POINTS,
    OperatingPoint,
    chosen_thresholds,
    evaluate,
    policy_of,
)
from harness.analysis.variants import standing
from harness.data.custom_tasks import task_of
from harness.errors import HarnessError, IncompleteError, reason
from harness.evaluation.trace import Floats
from harness.files.atomic import whole
from harness.files.typed_json import SCHEMA, from_json
from harness.records import DataSummary, Environment, ExitMeasurement, Quartiles, RunRecord, RunSpec
from harness.store.results import ResultsStore

BEGINNING = b'{"schema":'
"""Of a baseline's file."""


@dataclass(frozen=True)
class PinnedExit:
    """One exit, as it must stay."""

    layer: int
    macs: float
    """Mean MACs per dev row of the truncated model."""
    macs_128: int
    parameters: int
    answers: str
    """What the truncated model answers on each dev row, `packed`."""
    static_ratio: dict[str, Quartiles]
    """Batch size -> reference time over static time, paired in rounds; empty where the run was not timed."""
    path_ratio: dict[str, Quartiles]
    mismatched: str | None = None
    """The same of MNLI's second dev split."""
    code_scores: dict[str, float] | None = None
    """Scores by other people's metrics."""


@dataclass(frozen=True)
class PinnedPoint:
    """One threshold of a dynamic run."""

    budget: str
    """Share of the own last exit's MACs within which the threshold was the best on calibration."""
    threshold: float
    left: tuple[Annotated[int, Ge(0)], ...]
    """Dev rows that leave at each exit."""
    answers: str
    """On each dev row, `packed`."""


@dataclass(frozen=True)
class PinnedRun:
    """One run, as it must stay."""

    run_id: str
    spec: RunSpec
    environment: Environment
    data: DataSummary
    parameters: int
    """Of the whole model."""
    reference: str | None
    """Method whose time the latency ratios are against."""
    exits: tuple[PinnedExit, ...]
    points: tuple[PinnedPoint, ...]
    changed: dict[str, object] | None = None
    """Settings that differ from the method's own (`RunRecord.changed`)."""

    @property
    def cell(self) -> tuple[str, str, str, int]:
        """Task, method, backbone, seed."""
        return self.spec.task, self.spec.method, self.spec.backbone, self.spec.seed


@dataclass(frozen=True)
class Baseline:
    """The file: `results/baseline.json` for the committed records, `tests/demo_baseline.json` for the demo."""

    schema: Literal[2]
    """Version of the form of records, parts of which are in it."""
    runs: tuple[PinnedRun, ...]


def pinned(store: ResultsStore, record: RunRecord) -> PinnedRun:
    """A stored run as a baseline keeps it.

    Raises: IncompleteError when its traces are missing or damaged, or its record says other figures.
    """
    traces, latency = store.checked_traces(record), record.latency
    dev = traces["dev"]
    timed = latency if latency is not None and latency.reference is not None else None
    answers, classes = dev.predictions(), dev.logits.shape[-1]
    further = traces["mismatched"].predictions() if "mismatched" in traces else None
    exits = tuple(
        PinnedExit(
            layer=measured.layer,
            macs=measured.macs,
            macs_128=measured.macs_128,
            parameters=measured.parameters,
            answers=packed(answers[place], classes),
            static_ratio={size: of[place] for size, of in timed.reference_ratio.items()}
            if timed
            else {},
            path_ratio={size: of[place] for size, of in timed.path_ratio.items()} if timed else {},
            mismatched=packed(further[place], classes) if further is not None else None,
            code_scores=code_scores(record, measured),
        )
        for place, measured in enumerate(record.exits)
    )
    points: tuple[PinnedPoint, ...] = ()
    if record.policy is not None:
        policy = policy_of(record)
        chosen = chosen_thresholds(
            store, record, policy, record, {name: BUDGETS[name] for name in POINTS}
        )
        points = tuple(
            _pinned_point(name, evaluate(record, dev, policy, threshold), classes)
            for name, threshold in chosen.items()
        )
    reference = timed.reference if timed else None
    return PinnedRun(
        run_id=record.run_id,
        spec=record.spec,
        environment=record.environment,
        data=record.data,
        parameters=record.parameters,
        reference=reference,
        exits=exits,
        points=points,
        changed=record.changed,
    )


def code_scores(record: RunRecord, measured: ExitMeasurement) -> dict[str, float] | None:
    """An exit's scores by metrics that are not the task's own; None where there are none."""
    own = task_of(record).metrics
    return {name: score for name, score in measured.scores.items() if name not in own} or None


def _pinned_point(budget: str, reached: OperatingPoint, classes: int) -> PinnedPoint:
    return PinnedPoint(
        budget, reached.threshold, reached.counts, packed(reached.predictions, classes)
    )


def packed(answers: Floats, classes: int) -> str:
    """Answers [n] as text: class indices as 16 bits each, values of a regression (1 class) as 32-bit floats; compressed, base 64."""
    return base64.b64encode(zlib.compress(answers.astype(_kind(classes)).tobytes(), 9)).decode()


def unpacked(text: str, classes: int, rows: int) -> NDArray[np.float64]:
    """The answers [n] again; a class index as a float.

    Raises: HarnessError when the text does not hold so many.
    """
    kind = _kind(classes)
    wanted = rows * kind.itemsize
    try:
        data = zlib.decompressobj().decompress(
            base64.b64decode(text, validate=True), wanted + 1
        )  # bounded, whatever the text says
    except (binascii.Error, ValueError, zlib.error) as error:
        raise HarnessError(f"answers of the baseline cannot be read: {error}") from None
    if len(data) != wanted:
        raise HarnessError(f"answers of the baseline are not those of {rows} rows")
    return np.frombuffer(data, kind).astype(np.float64)


def _kind(classes: int) -> np.dtype[np.generic]:
    return np.dtype("<f4") if classes == 1 else np.dtype("<u2")


def baseline_of(store: ResultsStore, records: Sequence[RunRecord]) -> Baseline:
    """All these runs pinned, of several of one variant the one that the report shows."""
    return Baseline(SCHEMA, tuple(pinned(store, record) for record in standing(records)))


def read_baseline(path: Path) -> Baseline:
    """Raises: HarnessError when the file cannot be read or is no baseline."""
    try:
        baseline = from_json(Baseline, path.read_text(encoding="utf-8"), str(path))
        for run in baseline.runs:
            if not all(_fits(run, point) for point in run.points):
                rows = run.data.rows.get("dev")
                raise IncompleteError(
                    f"{path}: run {run.run_id}: its points do not fit its {len(run.exits)} exits and {rows} dev rows"
                )
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(
            f"cannot read the baseline {path}: {reason(error)}; --update makes one"
        ) from None
    except IncompleteError as error:
        raise HarnessError(f"{error}; --update makes a new baseline") from None
    return baseline


def _fits(run: PinnedRun, point: PinnedPoint) -> bool:
    """Whether all dev rows leave at the run's exits, of which there are several."""
    return len(run.exits) == len(point.left) > 1 and sum(point.left) == run.data.rows.get("dev")


def _may_be_a_baseline(path: Path) -> bool:
    """Whole or damaged, of this form or an earlier one; an empty file too."""
    with path.open("rb") as file:
        begin = file.read(len(BEGINNING))
    return BEGINNING.startswith(begin.strip())


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Whole or not at all; a run a line, so that version control shows which changed.

    Raises: HarnessError for a file that is no baseline; IncompleteError when it cannot be written.
    """
    runs = ",\n".join(
        json.dumps(asdict(run), separators=(",", ":"), allow_nan=False) for run in baseline.runs
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and not _may_be_a_baseline(path):
            raise HarnessError(
                f"{path} is a file of something else, which stays as it is: give another --baseline, or remove it"
            )
        with whole(path) as beside:
            beside.write_text(
                f'{BEGINNING.decode()} {baseline.schema}, "runs": [\n{runs}\n]}}\n',
                encoding="utf-8",
            )
    except OSError as error:
        raise IncompleteError(f"cannot write the baseline {path}: {error.strerror}") from None
