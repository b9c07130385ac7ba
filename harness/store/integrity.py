"""Integrity checks: whether the figures of a record and its traces are consistent.

A file with valid fields can still belong to another run, or have been altered.
"""

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

TOLERANCE = 1e-6
"""Largest difference of a recomputed score, and largest relative difference of mean MACs."""

SPLITS = ("train", "selection", "calibration", "dev")


def check_record(record: RunRecord, source: str) -> None:
    """Raise IncompleteError naming `source` and the first inconsistency of the record."""
    try:
        problem = next(_record_problems(record, task_of(record)), None)
    except HarnessError as error:  # the task is neither known nor described in the record
        problem = str(error)
    if problem is not None:
        raise IncompleteError(f"{source} is inconsistent: {problem}")


def _record_problems(record: RunRecord, task: Task) -> Iterator[str]:
    exits, costs = record.exits, record.costs
    layers = [measured.layer for measured in exits]
    counted = [number for number, piece in enumerate(costs.exits, start=1) if piece is not None]
    if layers != counted or len(costs.layers) != len(costs.exits):
        yield (
            f"its exits are after layers {layers}, "
            f"but MACs are given for exits after layers {counted} of {len(costs.layers)}"
        )
        return
    trunk = list(
        accumulate(
            (piece.at(FIXED_LENGTH) for piece in costs.layers),
            initial=costs.embedding.at(FIXED_LENGTH),
        )
    )
    heads = [piece.at(FIXED_LENGTH) for piece in costs.exits if piece is not None]
    for measured, head in zip(exits, heads, strict=True):
        recomputed = trunk[measured.layer] + head
        if recomputed != measured.macs_128:
            yield (
                f"{measured.macs_128} MACs at {FIXED_LENGTH} tokens at exit {measured.layer}, "
                f"but its polynomials give {recomputed}"
            )
    if (record.policy is None) != (len(exits) == 1):
        yield f"it has {len(exits)} exits and policy {record.policy}"
    if record.policy is not None:
        make_policy(record, task.classes)
    split = ("mismatched",) if record.mismatched is not None else ()
    missing = [name for name in (*SPLITS, *split) if record.data.rows.get(name, 0) < 1]
    if missing:
        yield f"it has no examples of {', '.join(missing)}"
    scored = [record.constant_scores, *(measured.scores for measured in exits)]
    if record.mismatched is not None:
        scored += [record.mismatched.constant, *record.mismatched.exits]
        if len(record.mismatched.exits) != len(exits):
            yield (
                f"scores of {len(record.mismatched.exits)} exits on mismatched, "
                f"but of {len(exits)} on dev"
            )
    lacking = sorted({metric for given in scored for metric in task.metrics if metric not in given})
    if lacking:
        yield f"an exit or the majority-class baseline has no {', '.join(lacking)}"
    yield from _latency_problems(record)


def _latency_problems(record: RunRecord) -> Iterator[str]:
    exits, timed = record.exits, record.latency
    ratios = (
        {}
        if timed is None
        else {
            **timed.reference_ratio,
            **{f"{size} (path)": per_exit for size, per_exit in timed.path_ratio.items()},
        }
    )
    sizes = [size for size, per_exit in ratios.items() if len(per_exit) != len(exits)]
    if sizes:
        yield (
            f"the number of latency ratios is not {len(exits)}, the number of exits, "
            f"at batch size {', '.join(sizes)}"
        )
    if (
        timed is not None
        and timed.reference is not None
        and set(timed.reference_ratio) != set(timed.path_ratio)
    ):
        yield "static and path latency ratios have different batch sizes"
    quartiles = [
        one
        for measured in exits
        for by_size in (measured.static_ms, measured.path_ms)
        for one in by_size.values()
    ]
    if timed is not None:
        quartiles += timed.reference_ms.values()
        quartiles += [ratio for per_exit in ratios.values() for ratio in per_exit]
    if not all(one.q1 <= one.median <= one.q3 for one in quartiles):
        yield "latency quartiles are not in ascending order"


def check_trace(record: RunRecord, trace: Trace, split: str, source: str) -> None:
    """Raise IncompleteError naming `source` and the first mismatch with the record."""
    problem = next(_trace_problems(record, task_of(record), trace, split), None)
    if problem is not None:
        raise IncompleteError(
            f"trace {source} does not match its record: {problem}; "
            "delete its run folder and run it again"
        )


def check_figures(record: RunRecord, traces: Mapping[str, Trace], source: str) -> None:
    """Recompute scores and MACs from the traces (split -> trace, including `dev`).

    Raises: IncompleteError naming `source` and the first figure that differs.
    """
    problem = next(_figure_problems(record, task_of(record), traces), None)
    if problem is not None:
        raise IncompleteError(f"{source}: {problem}; delete its run folder and run it again")


def _figure_problems(record: RunRecord, task: Task, traces: Mapping[str, Trace]) -> Iterator[str]:
    dev = traces["dev"]
    yield from _score_problems(
        record,
        task,
        dev,
        [measured.scores for measured in record.exits],
        record.constant_scores,
        "",
    )
    for measured in record.exits:
        recomputed = float(record.costs.static(measured.layer - 1, dev.lengths).mean())
        if abs(recomputed - measured.macs) > TOLERANCE * recomputed:
            yield (
                f"mean MACs are {measured.macs:.0f} at exit {measured.layer}, "
                f"but its trace gives {recomputed:.0f}"
            )
    if record.mismatched is not None:
        where = " on mismatched"
        yield from _score_problems(
            record,
            task,
            traces["mismatched"],
            record.mismatched.exits,
            record.mismatched.constant,
            where,
        )


def _score_problems(
    record: RunRecord,
    task: Task,
    trace: Trace,
    recorded: Sequence[Mapping[str, float]],
    constant: Mapping[str, float],
    where: str,
) -> Iterator[str]:
    """Compare the recorded scores of each exit and of the majority-class baseline (`constant`)."""
    reached = scores(task.metrics, trace.predictions().astype(np.float64), trace.labels)
    for index, measured in enumerate(record.exits):
        for metric in task.metrics:
            recomputed = float(reached[metric][index])
            if abs(recomputed - recorded[index][metric]) > TOLERANCE:
                yield (
                    f"{metric} at exit {measured.layer}{where} is {recorded[index][metric]:.4f}, "
                    f"but its trace gives {recomputed:.4f}"
                )
    constant_predictions = np.repeat(
        np.arange(task.classes, dtype=np.float64)[:, None], len(trace.labels), axis=1
    )
    possible = scores(task.metrics, constant_predictions, trace.labels)
    matches = np.all(
        [np.abs(possible[metric] - constant[metric]) <= TOLERANCE for metric in task.metrics],
        axis=0,
    )
    if not matches.any():
        figures = ", ".join(f"{metric} {constant[metric]:.4f}" for metric in task.metrics)
        yield (
            f"the majority-class baseline{where} scores {figures}, "
            "but by its trace no constant prediction does"
        )


def _trace_problems(record: RunRecord, task: Task, trace: Trace, split: str) -> Iterator[str]:
    layers = [measured.layer for measured in record.exits]
    if trace.exit_layers.tolist() != layers:
        yield f"its exits are after layers {trace.exit_layers.tolist()}, expected {layers}"
    if trace.logits.shape[-1] != task.classes:
        yield f"{trace.logits.shape[-1]} logits per example, expected {task.classes}"
    if len(trace.ids) != record.data.rows[split]:
        yield f"{len(trace.ids)} examples, expected {record.data.rows[split]}"
        return
    known = (
        np.isfinite(trace.labels)
        if task.regression
        else np.isin(trace.labels, np.arange(task.classes))
    )
    if not known.all():
        yield f"label {trace.labels[~known][0]:g} is not a label of the task"
    if trace.lengths.min() < 1 or trace.lengths.max() > record.spec.max_length:
        yield (
            f"examples of {trace.lengths.min()} to {trace.lengths.max()} tokens, "
            f"expected 1 to {record.spec.max_length}"
        )
