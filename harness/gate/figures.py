"""Compare the figures of a run with the baseline's: sizes, predictions, scores, exits and
latency."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from harness.analysis.operating_points import evaluate, policy_of
from harness.data.custom_tasks import task_of
from harness.data.tasks import Task
from harness.errors import HarnessError, counted
from harness.evaluation.metrics import scores
from harness.evaluation.statistics import bootstrap
from harness.evaluation.trace import Floats, Trace
from harness.gate.baseline import PinnedPoint, PinnedRun, unpack_predictions
from harness.gate.findings import Finding, Limits, Verdict
from harness.records import Quartiles, RunRecord

Array = NDArray[np.float64]


def compare_figures(
    old: PinnedRun, new: RunRecord, traces: Mapping[str, Trace], limits: Limits
) -> Iterator[Finding | None]:
    """Compare every figure that both runs have; yield None for each that is equal.

    The same run must give the same predictions in an equal environment.
    """
    old_layers = [pinned.layer for pinned in old.exits]
    new_layers = [measured.layer for measured in new.exits]
    yield _exact("layers with an exit", old_layers, new_layers)
    yield _exact("parameters", old.parameters, new.parameters)
    if old_layers != new_layers:
        return
    task, dev = task_of(new), traces["dev"]
    same_environment = old.environment == new.environment
    same_run = same_environment and old.run_id == new.run_id
    for index, (pinned, measured) in enumerate(zip(old.exits, new.exits, strict=True)):
        where = f"at exit {pinned.layer}"
        yield _exact(f"parameters {where}", pinned.parameters, measured.parameters)
        yield _exact(f"MACs at 128 tokens {where}", pinned.macs_128, measured.macs_128)
        yield _exact(f"mean MACs {where}", round(pinned.macs, 3), round(measured.macs, 3))
        for split, text in (("dev", pinned.answers), ("mismatched", pinned.mismatched)):
            if text is not None:
                on = where if split == "dev" else f"{where} on {split}"
                yield from _predictions(on, text, traces.get(split), index, task, same_run, limits)
        for metric, score in (pinned.code_scores or {}).items():
            yield _external_score(f"{metric} {where}", score, measured.scores.get(metric), limits)
    for point in old.points:
        yield from _point(point, new, dev, task, same_environment, limits)
    if limits.latency is not None:
        yield from _latency(old, new, limits.latency)


def _exact(what: str, old: object, new: object) -> Finding | None:
    if old == new:
        return None
    return Finding(what, Verdict.REGRESSION, str(old), str(new), "must be equal")


def _predictions(
    where: str,
    text: str,
    trace: Trace | None,
    index: int,
    task: Task,
    same_run: bool,
    limits: Limits,
) -> Iterator[Finding | None]:
    """Compare the scores of one exit on a split and, for the `same_run`, its predictions."""
    if trace is None:
        yield Finding(f"predictions {where}", Verdict.MISSING, "present", "none")
        return
    old = unpack_predictions(text, task.classes, len(trace.ids))
    new = trace.predictions()[index]
    yield from _scores(where, old, new, trace.labels, task, limits)
    if same_run:
        changed = int((old != new).sum())
        yield (
            Finding(
                f"predictions {where}",
                Verdict.REGRESSION,
                f"{len(old)} examples",
                f"{changed} differ",
                "must be equal: same run, equal environment",
            )
            if changed
            else None
        )


def _external_score(what: str, old: float, new: float | None, limits: Limits) -> Finding | None:
    """Compare a score by an external metric.

    The margin is two-sided and without an interval: it is not known which direction is better.
    """
    if new is None:
        return Finding(what, Verdict.MISSING, f"{old:.4f}", "none")
    if old == new:
        return None
    verdict = Verdict.NOT_COMPARABLE if abs(old - new) > limits.score else Verdict.CHANGED
    note = f"allowed {limits.score:g} either way: which direction is better is unknown"
    return Finding(what, verdict, f"{old:.4f}", f"{new:.4f}", note)


def _scores(
    where: str, old: Array, new: Floats, labels: Array, task: Task, limits: Limits
) -> Iterator[Finding | None]:
    """Compare each metric of the task on the predictions [n] of the baseline and of the run."""
    new = new.astype(np.float64)
    before, after = (scores(task.metrics, predictions, labels) for predictions in (old, new))
    for metric in task.metrics:
        drop = float(before[metric]) - float(after[metric])
        if drop == 0:
            yield None
            continue
        what = f"{metric} {where}"
        values = f"{float(before[metric]):.4f}", f"{float(after[metric]):.4f}"
        if drop <= limits.score:
            yield Finding(what, Verdict.CHANGED, *values)
            continue
        low, high = bootstrap(metric, [(old, new)], labels, limits.resamples)
        verdict = Verdict.REGRESSION if high < 0 else Verdict.CHANGED
        note = (
            f"95 % paired bootstrap interval {low:+.4f} to {high:+.4f}; allowed {-limits.score:g}"
        )
        yield Finding(what, verdict, *values, note)


def _point(
    point: PinnedPoint,
    new: RunRecord,
    trace: Trace,
    task: Task,
    same_environment: bool,
    limits: Limits,
) -> Iterator[Finding | None]:
    """Compare exits and scores at one threshold of the baseline."""
    where = f"at MACs <= {point.budget} (threshold {point.threshold:.4g})"
    try:
        reached = evaluate(new, trace, policy_of(new), point.threshold)
    except HarnessError as error:  # the baseline's threshold belongs to another policy
        yield Finding(
            f"threshold {where}",
            Verdict.NOT_COMPARABLE,
            f"{point.threshold:.4g}",
            str(new.policy),
            str(error),
        )
        return
    yield _exits(f"examples per exit {where}", point.left, reached.counts, same_environment, limits)
    yield from _scores(
        where,
        unpack_predictions(point.answers, task.classes, len(trace.ids)),
        reached.predictions,
        trace.labels,
        task,
        limits,
    )


def _exits(
    what: str,
    old: tuple[int, ...],
    new: tuple[int, ...],
    same_environment: bool,
    limits: Limits,
) -> Finding | None:
    """Compare the numbers of examples per exit by their total-variation distance."""
    if old == new:
        return None
    distance = float(np.abs(np.array(old) - np.array(new)).sum()) / 2 / sum(old)
    allowed = 0.0 if same_environment else limits.exits
    return Finding(
        what,
        Verdict.REGRESSION if distance > allowed else Verdict.CHANGED,
        "/".join(map(str, old)),
        "/".join(map(str, new)),
        f"total-variation distance {distance:.4f}, allowed {allowed:g}",
    )


def _latency(old: PinnedRun, new: RunRecord, margin: float) -> Iterator[Finding | None]:
    """Compare latency ratios if both runs were timed against the same reference on the same
    device with the same number of threads."""
    if old.reference is None:
        return
    timed = new.latency
    before = old.reference, old.environment.device, str(old.environment.threads)
    after = (
        timed.reference if timed is not None else None,
        new.environment.device,
        str(new.environment.threads),
    )
    if timed is None or before != after:
        yield Finding(
            "latency ratios", Verdict.NOT_COMPARED, _timing_setup(*before), _timing_setup(*after)
        )
        return
    old_sizes = {size for pinned in old.exits for size in pinned.static_ratio}
    for size in sorted(old_sizes - set(timed.reference_ratio)):
        what = f"latency ratios at batch size {size}"
        yield Finding(what, Verdict.NOT_COMPARED, "timed", "not timed")
    for index, pinned in enumerate(old.exits):
        for kind, old_ratios, new_ratios in (
            ("static", pinned.static_ratio, timed.reference_ratio),
            ("path", pinned.path_ratio, timed.path_ratio),
        ):
            for size in sorted(old_ratios.keys() & new_ratios.keys()):
                yield _ratio(
                    f"{kind} latency ratio at exit {pinned.layer}, batch size {size}",
                    old_ratios[size],
                    new_ratios[size][index],
                    margin,
                )


def _timing_setup(reference: str | None, device: str, threads: str) -> str:
    if reference is None:
        return "not timed"
    return f"against {reference} on {device}, {counted(int(threads), 'thread')}"


def _ratio(what: str, old: Quartiles, new: Quartiles, margin: float) -> Finding | None:
    """Compare two latency ratios.

    A ratio is worse if its quartile interval lies below the baseline's and its median dropped by
    more than the margin, and better in the opposite case. Anything else is timing noise.
    """
    worse = new.q3 < old.q1 and new.median < old.median * (1 - margin)
    better = new.q1 > old.q3 and new.median > old.median * (1 + margin)
    if not (worse or better):
        return None
    verdict = Verdict.REGRESSION if worse else Verdict.CHANGED
    note = f"median [Q1, Q3]; allowed -{margin:.0%}"
    return Finding(what, verdict, _quartiles(old), _quartiles(new), note)


def _quartiles(ratio: Quartiles) -> str:
    return f"{ratio.median:.2f} [{ratio.q1:.2f}, {ratio.q3:.2f}]"
