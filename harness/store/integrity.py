"""Whether the figures of a record, and its traces, fit one another: a file of the right form can still be another run's, or altered."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np

from harness.data.custom_tasks import task_of
from harness.data.tasks import Task
from harness.errors import HarnessError, IncompleteError
from harness.evaluation.metrics import scores
from harness.evaluation.policies import make_policy
from harness.evaluation.trace import Trace
from harness.records import FIXED_LENGTH, RunRecord

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
    exits, costs = record.exits, record.costs
    layers = [measured.layer for measured in exits]
    charged = [number for number, piece in enumerate(costs.exits, start=1) if piece is not None]
    if layers != charged or len(costs.layers) != len(costs.exits):
        yield f"exits after layers {layers}, MACs of exits after layers {charged} of {len(costs.layers)}"
        return
    trunk = list(
        accumulate(
            (piece.at(FIXED_LENGTH) for piece in costs.layers),
            initial=costs.embedding.at(FIXED_LENGTH),
        )
    )
    heads = [piece.at(FIXED_LENGTH) for piece in costs.exits if piece is not None]
    for measured, head in zip(exits, heads, strict=True):
        own = trunk[measured.layer] + head
        if own != measured.macs_128:
            yield f"{measured.macs_128} MACs at {FIXED_LENGTH} tokens at exit {measured.layer}, by its polynomials {own}"
    if (record.policy is None) != (len(exits) == 1):
        yield f"{len(exits)} exits and policy {record.policy}"
    if record.policy is not None:
        make_policy(record, task.classes)
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
    ratios = (
        {}
        if timed is None
        else {
            **timed.reference_ratio,
            **{f"{size} (path)": of for size, of in timed.path_ratio.items()},
        }
    )
    short = [size for size, of in ratios.items() if len(of) != len(exits)]
    if short:
        yield f"latency ratios of another number of exits than {len(exits)} at batch size {', '.join(short)}"
    if (
        timed is not None
        and timed.reference is not None
        and set(timed.reference_ratio) != set(timed.path_ratio)
    ):
        yield "static and path latency ratios of different batch sizes"
    found = [
        quartiles
        for measured in exits
        for of in (measured.static_ms, measured.path_ms)
        for quartiles in of.values()
    ]
    found += (
        []
        if timed is None
        else [*timed.reference_ms.values(), *(ratio for of in ratios.values() for ratio in of)]
    )
    if not all(one.q1 <= one.median <= one.q3 for one in found):
        yield "quartiles of the clock that are not in order"


def check_trace(record: RunRecord, trace: Trace, split: str, source: str) -> None:
    """Raises: IncompleteError naming `source` and what does not fit the record."""
    wrong = next(_trace_misfits(record, task_of(record), trace, split), None)
    if wrong is not None:
        raise IncompleteError(
            f"trace {source} is not that of its record: {wrong}; delete its run folder and run it again"
        )


def check_figures(record: RunRecord, traces: Mapping[str, Trace], source: str) -> None:
    """Compute scores and MACs again from the traces (split -> trace, `dev` among them).

    Raises: IncompleteError naming `source` and the first that differs.
    """
    wrong = next(_other_figures(record, task_of(record), traces), None)
    if wrong is not None:
        raise IncompleteError(f"{source}: {wrong}; delete its run folder and run it again")


def _other_figures(record: RunRecord, task: Task, traces: Mapping[str, Trace]) -> Iterator[str]:
    dev = traces["dev"]
    yield from _other_scores(
        record,
        task,
        dev,
        [measured.scores for measured in record.exits],
        record.constant_scores,
        "",
    )
    for measured in record.exits:
        own = float(record.costs.static(measured.layer - 1, dev.lengths).mean())
        if abs(own - measured.macs) > SAME * own:
            yield f"{measured.macs:.0f} mean MACs at exit {measured.layer}, by its trace {own:.0f}"
    if record.mismatched is not None:
        on = " on mismatched"
        yield from _other_scores(
            record,
            task,
            traces["mismatched"],
            record.mismatched.exits,
            record.mismatched.constant,
            on,
        )


def _other_scores(
    record: RunRecord,
    task: Task,
    trace: Trace,
    said: Sequence[Mapping[str, float]],
    constant: Mapping[str, float],
    on: str,
) -> Iterator[str]:
    """`said`: of each exit, `constant`: of an answer that is the same for all rows."""
    reached = scores(task.metrics, trace.predictions().astype(np.float64), trace.labels)
    for place, measured in enumerate(record.exits):
        for metric in task.metrics:
            own = float(reached[metric][place])
            if abs(own - said[place][metric]) > SAME:
                yield f"{metric} at exit {measured.layer}{on} is {said[place][metric]:.4f}, by its trace {own:.4f}"
    always = np.repeat(
        np.arange(task.classes, dtype=np.float64)[:, None], len(trace.labels), axis=1
    )
    possible = scores(task.metrics, always, trace.labels)
    fits = np.all(
        [np.abs(possible[metric] - constant[metric]) <= SAME for metric in task.metrics], axis=0
    )
    if not fits.any():
        figures = ", ".join(f"{metric} {constant[metric]:.4f}" for metric in task.metrics)
        yield f"a constant answer{on} scores {figures}, by its trace none does"


def _trace_misfits(record: RunRecord, task: Task, trace: Trace, split: str) -> Iterator[str]:
    layers = [measured.layer for measured in record.exits]
    if trace.exit_layers.tolist() != layers:
        yield f"exits after layers {trace.exit_layers.tolist()}, wanted {layers}"
    if trace.logits.shape[-1] != task.classes:
        yield f"{trace.logits.shape[-1]} logits a row, wanted {task.classes}"
    if len(trace.ids) != record.data.rows[split]:
        yield f"{len(trace.ids)} rows, wanted {record.data.rows[split]}"
        return
    known = (
        np.isfinite(trace.labels)
        if task.regression
        else np.isin(trace.labels, np.arange(task.classes))
    )
    if not known.all():
        yield f"label {trace.labels[~known][0]:g}"
    if trace.lengths.min() < 1 or trace.lengths.max() > record.spec.max_length:
        yield f"rows of {trace.lengths.min()} to {trace.lengths.max()} tokens, wanted 1 to {record.spec.max_length}"
