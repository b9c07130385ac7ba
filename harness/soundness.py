"""Whether the figures of a record, and its traces, fit one another: a file of the right form can still be another run's, or altered."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harness.errors import HarnessError, IncompleteError
from harness.metrics import scores
from harness.own_tasks import task_of
from harness.policies import POLICIES
from harness.records import RunRecord
from harness.tasks import Task
from harness.trace import Trace

SAME = 1e-6
"""Scores that are computed again may differ by so much."""

PARTS = ("train", "selection", "calibration", "dev")


def check_record(record: RunRecord, source: str) -> None:
    """Raises: IncompleteError naming `source` and what does not fit."""
    try:
        wrong = next(_misfits(record, task_of(record)), None)
    except HarnessError as error:  # of a task that is neither here nor described
        wrong = str(error)
    if wrong is not None:
        raise IncompleteError(f"{source} does not fit together: {wrong}")


def _misfits(record: RunRecord, task: Task) -> Iterator[str]:
    if not record.stages:
        yield "no stages"
    exits, costs = record.exits, record.costs
    layers = [measured.layer for measured in exits]
    charged = [number for number, piece in enumerate(costs.exits, start=1) if piece is not None]
    if not layers or layers != charged or len(costs.layers) != len(costs.exits):
        yield f"exits after layers {layers}, MACs of exits after layers {charged} of {len(costs.layers)}"
    counts = [figure for measured in exits for figure in (measured.macs, measured.macs_128, measured.parameters)]
    if min((*counts, record.parameters)) <= 0:
        yield "MACs or parameters of 0 or less"
    if record.policy is not None and record.policy not in POLICIES:
        yield f"policy {record.policy!r}, known: {', '.join(POLICIES)}"
    split = ("mismatched",) if record.mismatched is not None else ()
    missing = [name for name in (*PARTS, *split) if record.data.rows.get(name, 0) < 1]
    if missing:
        yield f"no rows of {', '.join(missing)}"
    scored = [record.constant_scores, *(measured.scores for measured in exits)]
    if record.mismatched is not None:
        scored += [record.mismatched.constant, *record.mismatched.exits]
        if len(record.mismatched.exits) != len(exits):
            yield f"{len(record.mismatched.exits)} exits scored on mismatched, {len(exits)} on dev"
    lacking = sorted({metric for found in scored for metric in task.metrics if metric not in found})
    if lacking:
        yield f"an exit or the constant answer has no {', '.join(lacking)}"
    yield from _clock_misfits(record)


def _clock_misfits(record: RunRecord) -> Iterator[str]:
    exits, timed = record.exits, record.latency
    ratios = {} if timed is None else {**timed.reference_ratio, **{f"{size} (path)": of for size, of in timed.path_ratio.items()}}
    short = [size for size, of in ratios.items() if len(of) != len(exits)]
    if short:
        yield f"latency ratios of another number of exits than {len(exits)} at batch size {', '.join(short)}"
    if timed is not None and timed.reference is not None and set(timed.reference_ratio) != set(timed.path_ratio):
        yield "static and path latency ratios of different batch sizes"
    found = [quartiles for measured in exits for of in (measured.static_ms, measured.path_ms) for quartiles in of.values()]
    found += [] if timed is None else [*timed.reference_ms.values(), *(ratio for of in ratios.values() for ratio in of)]
    if not all(0 < one.q1 <= one.median <= one.q3 for one in found):
        yield "quartiles of the clock that are not in order, above 0"


def check_trace(record: RunRecord, trace: Trace, source: str) -> None:
    """Raises: IncompleteError naming `source` and what does not fit the record."""
    wrong = next(_trace_misfits(record, task_of(record), trace), None)
    if wrong is not None:
        raise IncompleteError(f"trace {source} is not that of its record: {wrong}; delete its run folder and run it again")


def check_scores(record: RunRecord, trace: Trace, wanted: Sequence[Mapping[str, float]], source: str) -> None:
    """Compute scores again.

    `wanted`: what the record says of each exit on that split. Raises: IncompleteError naming `source` and the first that differs.
    """
    metrics = task_of(record).metrics
    reached = scores(metrics, trace.predictions().astype(np.float64), trace.labels)
    for place, said in enumerate(wanted):
        for metric in metrics:
            own = float(reached[metric][place])
            if abs(own - said[metric]) > SAME:
                raise IncompleteError(
                    f"{source}: {metric} at exit {record.exits[place].layer} is {said[metric]:.4f}, by its trace {own:.4f}"
                )


def _trace_misfits(record: RunRecord, task: Task, trace: Trace) -> Iterator[str]:
    layers = [measured.layer for measured in record.exits]
    if trace.exit_layers.tolist() != layers:
        yield f"exits after layers {trace.exit_layers.tolist()}, wanted {layers}"
    if trace.logits.shape[-1] != task.classes:
        yield f"{trace.logits.shape[-1]} logits a row, wanted {task.classes}"
    if not len(trace.ids):
        yield "no rows"
        return
    known = np.isfinite(trace.labels) if task.regression else np.isin(trace.labels, np.arange(task.classes))
    if not known.all():
        yield f"label {trace.labels[~known][0]:g}"
    if trace.lengths.min() < 1 or trace.lengths.max() > record.spec.max_length:
        yield f"rows of {trace.lengths.min()} to {trace.lengths.max()} tokens, wanted 1 to {record.spec.max_length}"
