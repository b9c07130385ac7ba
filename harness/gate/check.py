"""What `harness check` says: each run of a baseline beside the run of the same spec in the results folder."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from harness.analysis.operating_points import evaluate, policy_of
from harness.analysis.variants import Variant, row_name, shown, telling, words
from harness.data.custom_tasks import task_of
from harness.data.tasks import Task
from harness.errors import ExitCode, HarnessError, IncompleteError
from harness.evaluation.metrics import scores
from harness.evaluation.statistics import RESAMPLES, bootstrap
from harness.evaluation.trace import Floats, Trace
from harness.gate.baseline import Baseline, PinnedPoint, PinnedRun, unpacked
from harness.records import Environment, Quartiles, RunRecord, RunSpec, canonical, flat
from harness.store.results import Problem, ResultsStore

Array = NDArray[np.float64]


class Verdict(StrEnum):
    """What became of a figure."""

    REGRESSION = "regression"
    NOT_COMPARABLE = "not comparable"
    MISSING = "missing"
    CHANGED = "changed"
    """Other than the baseline's, within what is allowed, or better."""
    NOT_COMPARED = "not compared"


CODES = {
    Verdict.REGRESSION: ExitCode.REGRESSION,
    Verdict.NOT_COMPARABLE: ExitCode.NOT_COMPARABLE,
    Verdict.MISSING: ExitCode.INCOMPLETE,
}
"""Verdicts that fail a check, the one that counts most first."""


@dataclass(frozen=True)
class Limits:
    """How much worse is a regression."""

    score: float = 0.005
    """Largest drop of a score that never is one, whatever its interval."""
    exits: float = 0.02
    """Largest total-variation distance of where rows leave, in another environment than the baseline's."""
    latency: float | None = 0.10
    """Largest drop of a latency ratio, as a share of it, that never is one; None: latency is not compared."""
    resamples: int = RESAMPLES
    """Of the bootstrap."""


@dataclass(frozen=True)
class Finding:
    """A figure that is not the baseline's."""

    what: str
    verdict: Verdict
    old: str
    """The baseline's value."""
    new: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.old} -> {self.new}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class CellCheck:
    """One run of the baseline, checked."""

    cell: str
    compared: int
    """Figures that were looked at."""
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that fail the check."""
        return tuple(finding for finding in self.findings if finding.verdict in CODES)


def check(
    baseline: Baseline, store: ResultsStore, records: Sequence[RunRecord], limits: Limits
) -> list[CellCheck]:
    """Every run of the baseline against those of the same spec; runs that the baseline does not have are not looked at."""
    asked = [asks_for(run) for run in baseline.runs]
    names = cell_names(baseline.runs)
    found = []
    for name, old, own in zip(names, baseline.runs, asked, strict=True):
        alike = zip(baseline.runs, asked, strict=True)
        pinned = [
            run.environment
            for run, other in alike
            if other == own and _cell(run.spec) == _cell(old.spec)
        ]
        found += _check_run(name, old, pinned, store, records, limits)
    return found


def unreadable(problems: Sequence[Problem]) -> list[CellCheck]:
    """Run folders that cannot be read, each a cell that is missing."""
    return [
        CellCheck(one.folder, 0, (Finding("run", Verdict.MISSING, "-", "-", one.reason),))
        for one in problems
    ]


def verified(store: ResultsStore, records: Sequence[RunRecord]) -> list[CellCheck]:
    """Each run by itself: its traces and timings are read, and the scores and MACs of its exits computed again."""
    return [_verified(store, record) for record in records]


def _verified(store: ResultsStore, record: RunRecord) -> CellCheck:
    cell = f"{record.spec.task}/{record.spec.method}/{record.run_id}"
    try:
        store.checked_traces(record)
        store.timings(record)
    except IncompleteError as error:
        return CellCheck(
            cell, 0, (Finding("run", Verdict.MISSING, record.run_id, "-", str(error)),)
        )
    return CellCheck(cell, len(record.exits) * (1 + len(task_of(record).metrics)), ())


def exit_code(checks: Sequence[CellCheck]) -> ExitCode:
    """The code of the worst finding; incomplete when nothing was compared."""
    verdicts = {finding.verdict for checked in checks for finding in checked.findings}
    worst = next((code for verdict, code in CODES.items() if verdict in verdicts), ExitCode.OK)
    compared = any(checked.compared for checked in checks)
    return ExitCode.INCOMPLETE if worst == ExitCode.OK and not compared else worst


def cell_names(runs: Sequence[PinnedRun]) -> list[str]:
    """Each cell in words; of several runs of one task, method and backbone with the settings that set it apart, as the report has them."""
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        groups[run.spec.task, run.spec.method, run.spec.backbone].append(place)
    own: dict[int, dict[str, object]] = {}
    for places in groups.values():
        variants = [
            Variant(flat(runs[place].spec.settings), runs[place].changed, flat(_job(runs[place])))
            for place in places
        ]
        own |= dict(zip(places, telling(variants), strict=True))
    specs = [run.spec for run in runs]
    return [
        f"{spec.task} {row_name(spec.method, own[place])} on {spec.backbone}, seed {spec.seed}"
        for place, spec in enumerate(specs)
    ]


def _check_run(
    name: str,
    old: PinnedRun,
    pinned: Sequence[Environment],
    store: ResultsStore,
    records: Sequence[RunRecord],
    limits: Limits,
) -> list[CellCheck]:
    """`pinned`: the environments in which the baseline has a run of this job."""
    candidates = [record for record in records if _cell(record.spec) == _cell(old.spec)]
    like = [record for record in candidates if asks_for(record) == asks_for(old)]
    if not candidates:
        return [CellCheck(name, 0, (Finding("run", Verdict.MISSING, old.run_id, "none"),))]
    if not like:
        return [CellCheck(name, 0, tuple(_differences(asks_for(old), asks_for(candidates[-1]))))]
    chosen = _to_check(old, like, pinned)
    names = [name] if len(chosen) == 1 else [f"{name}, run {new.run_id}" for new in chosen]
    return [_compared(own, old, new, store, limits) for own, new in zip(names, chosen, strict=True)]


def _to_check(
    old: PinnedRun, like: Sequence[RunRecord], pinned: Sequence[Environment]
) -> list[RunRecord]:
    """Of the runs in the baseline's own environment, else on its processor and threads, else of any (best where the baseline has none), the
    one that the report shows and the newest; and the newest from where the baseline has none, if it is later: what was run last must not
    hide behind what was run before. Never nothing."""
    ordered = sorted(like, key=lambda record: record.created)
    elsewhere = [record for record in ordered if record.environment not in pinned]
    equal = [record for record in ordered if record.environment == old.environment]
    near = [record for record in elsewhere if _place(record.environment) == _place(old.environment)]
    own = equal or near or elsewhere or ordered
    later = [record for record in elsewhere[-1:] if record.created > own[-1].created]
    return list(
        {record.run_id: record for record in (shown(own, old.reference), own[-1], *later)}.values()
    )


def _place(environment: Environment) -> tuple[str, int]:
    return environment.device, environment.threads


def _compared(
    name: str, old: PinnedRun, new: RunRecord, store: ResultsStore, limits: Limits
) -> CellCheck:
    other = [
        Finding(what, Verdict.NOT_COMPARABLE, was, now)
        for what, was, now in _data(old, new)
        if was != now
    ]
    if other:
        return CellCheck(name, 0, tuple(other))
    try:
        traces = store.checked_traces(new)
    except IncompleteError as error:
        return CellCheck(
            name, 0, (Finding("run", Verdict.MISSING, old.run_id, new.run_id, str(error)),)
        )
    found = list(_figures(old, new, traces, limits))
    return CellCheck(name, len(found), tuple(finding for finding in found if finding is not None))


def _cell(spec: RunSpec) -> tuple[str, str, str, int]:
    return spec.task, spec.method, spec.backbone, spec.seed


def asks_for(run: RunRecord | PinnedRun) -> dict[str, object]:
    """All of a spec that is not the cell's name, the precision, and what the method learned from beside the rows: two runs where these are
    equal are of the same job."""
    found: dict[str, object] = json.loads(canonical(run.spec.settings | _job(run)))
    return found


def _job(run: RunRecord | PinnedRun) -> dict[str, object]:
    """What a run is beside its cell and the settings of its method."""
    spec = run.spec
    job = {"train_rows": spec.train_rows, "max_length": spec.max_length, "limit": spec.limit}
    return job | {"precision": run.environment.precision, "sources": asdict(run.data.sources)}


def _differences(old: dict[str, object], new: dict[str, object]) -> Iterator[Finding]:
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was != now:
            said = str if words(was) == words(now) else words
            yield Finding(name, Verdict.NOT_COMPARABLE, said(was), said(now))


def _data(old: PinnedRun, new: RunRecord) -> list[tuple[str, str, str]]:
    """What both must share: name, the baseline's, the run's."""
    names = {
        "data": "rows of the task's files",
        "splits": "held-out rows",
        "backbone": "weights of the backbone",
    }
    return [
        (said, getattr(old.data, name), getattr(new.data, name)) for name, said in names.items()
    ]


def _figures(
    old: PinnedRun, new: RunRecord, traces: Mapping[str, Trace], limits: Limits
) -> Iterator[Finding | None]:
    """Every figure that both have: None where it is the same. In an equal environment the same run gives the same answers."""
    layers, exits = (
        [pinned.layer for pinned in old.exits],
        [measured.layer for measured in new.exits],
    )
    yield _exact("layers with an exit", layers, exits)
    yield _exact("parameters", old.parameters, new.parameters)
    if layers != exits:
        return
    task, dev, same = task_of(new), traces["dev"], old.environment == new.environment
    again = same and old.run_id == new.run_id
    for place, (pinned, measured) in enumerate(zip(old.exits, new.exits, strict=True)):
        where = f"at exit {pinned.layer}"
        yield _exact(f"parameters {where}", pinned.parameters, measured.parameters)
        yield _exact(f"MACs at 128 tokens {where}", pinned.macs_128, measured.macs_128)
        yield _exact(f"mean MACs {where}", round(pinned.macs, 3), round(measured.macs, 3))
        for split, text in (("dev", pinned.answers), ("mismatched", pinned.mismatched)):
            if text is not None:
                on = where if split == "dev" else f"{where} on {split}"
                yield from _answers(on, text, traces.get(split), place, task, again, limits)
        for metric, score in (pinned.code_scores or {}).items():
            yield _code_score(f"{metric} {where}", score, measured.scores.get(metric), limits)
    for point in old.points:
        yield from _point(point, new, dev, task, same, limits)
    if limits.latency is not None:
        yield from _latency(old, new, limits.latency)


def _exact(what: str, old: object, new: object) -> Finding | None:
    return (
        None
        if old == new
        else Finding(what, Verdict.REGRESSION, str(old), str(new), "wanted the same")
    )


def _answers(
    where: str, text: str, trace: Trace | None, place: int, task: Task, again: bool, limits: Limits
) -> Iterator[Finding | None]:
    """The answers of one exit on a split, and what they score; `again`: they must be the same."""
    if trace is None:
        yield Finding(f"answers {where}", Verdict.MISSING, "there", "none")
        return
    old, new = unpacked(text, task.classes, len(trace.ids)), trace.predictions()[place]
    yield from _scores(where, old, new, trace.labels, task, limits)
    if again:
        others = int((old != new).sum())
        said = f"answers {where}", Verdict.REGRESSION, f"{len(old)} rows", f"{others} of them other"
        yield (
            Finding(*said, "wanted the same: the same run in an equal environment")
            if others
            else None
        )


def _code_score(what: str, old: float, new: float | None, limits: Limits) -> Finding | None:
    """A score by other people's metric, of which neither an interval is known nor whether more of it is better."""
    if new is None:
        return Finding(what, Verdict.MISSING, f"{old:.4f}", "none")
    if old == new:
        return None
    verdict = Verdict.NOT_COMPARABLE if abs(old - new) > limits.score else Verdict.CHANGED
    return Finding(
        what,
        verdict,
        f"{old:.4f}",
        f"{new:.4f}",
        f"allowed {limits.score:g} either way: which way is better is not known",
    )


def _scores(
    where: str, old: Array, new: Floats, labels: Array, task: Task, limits: Limits
) -> Iterator[Finding | None]:
    """Each metric of the task on answers [n] of the baseline and of the run."""
    new = new.astype(np.float64)
    before, after = (scores(task.metrics, answers, labels) for answers in (old, new))
    for metric in task.metrics:
        drop = float(before[metric]) - float(after[metric])
        if drop == 0:
            yield None
            continue
        said = f"{metric} {where}", f"{float(before[metric]):.4f}", f"{float(after[metric]):.4f}"
        if drop <= limits.score:
            yield Finding(said[0], Verdict.CHANGED, *said[1:])
            continue
        low, high = bootstrap(metric, [(old, new)], labels, limits.resamples)
        verdict = Verdict.REGRESSION if high < 0 else Verdict.CHANGED
        yield Finding(
            said[0],
            verdict,
            *said[1:],
            f"95 % of paired resamples: {low:+.4f} to {high:+.4f}; allowed {-limits.score:g}",
        )


def _point(
    point: PinnedPoint, new: RunRecord, trace: Trace, task: Task, same: bool, limits: Limits
) -> Iterator[Finding | None]:
    """Where rows leave at the baseline's threshold, and the scores of what they are answered there."""
    where = f"at MACs <= {point.budget} (threshold {point.threshold:.4g})"
    try:
        reached = evaluate(new, trace, policy_of(new), point.threshold)
    except HarnessError as error:  # the baseline is another policy's
        yield Finding(
            f"threshold {where}",
            Verdict.NOT_COMPARABLE,
            f"{point.threshold:.4g}",
            str(new.policy),
            str(error),
        )
        return
    yield _exits(f"rows that leave at each exit {where}", point.left, reached.counts, same, limits)
    yield from _scores(
        where,
        unpacked(point.answers, task.classes, len(trace.ids)),
        reached.predictions,
        trace.labels,
        task,
        limits,
    )


def _exits(
    what: str, old: tuple[int, ...], new: tuple[int, ...], same: bool, limits: Limits
) -> Finding | None:
    if old == new:
        return None
    distance = float(np.abs(np.array(old) - np.array(new)).sum()) / 2 / sum(old)
    allowed = 0.0 if same else limits.exits
    verdict = Verdict.REGRESSION if distance > allowed else Verdict.CHANGED
    return Finding(
        what,
        verdict,
        "/".join(map(str, old)),
        "/".join(map(str, new)),
        f"distance {distance:.4f}, allowed {allowed:g}",
    )


def _latency(old: PinnedRun, new: RunRecord, margin: float) -> Iterator[Finding | None]:
    """Paired ratios to the reference, where both were timed against the same one on the same processor."""
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
        yield Finding("latency ratios", Verdict.NOT_COMPARED, _clock(*before), _clock(*after))
        return
    for size in sorted(
        {size for pinned in old.exits for size in pinned.static_ratio} - set(timed.reference_ratio)
    ):
        yield Finding(
            f"latency ratios at batch size {size}", Verdict.NOT_COMPARED, "timed", "not timed"
        )
    for place, pinned in enumerate(old.exits):
        for kind, ratios, now in (
            ("static", pinned.static_ratio, timed.reference_ratio),
            ("path", pinned.path_ratio, timed.path_ratio),
        ):
            for size in sorted(ratios.keys() & now.keys()):
                yield _ratio(
                    f"{kind} latency ratio at exit {pinned.layer}, batch {size}",
                    ratios[size],
                    now[size][place],
                    margin,
                )


def _clock(reference: str | None, device: str, threads: str) -> str:
    return (
        f"against {reference} on {device}, {threads} thread(s)"
        if reference is not None
        else "not timed"
    )


def _ratio(what: str, old: Quartiles, new: Quartiles, margin: float) -> Finding | None:
    """A regression when the whole interval lies below the baseline's and the median dropped by more than the margin; a change when it is so
    the other way round. All else is the clock's noise."""
    worse = new.q3 < old.q1 and new.median < old.median * (1 - margin)
    better = new.q1 > old.q3 and new.median > old.median * (1 + margin)
    if not (worse or better):
        return None
    verdict = Verdict.REGRESSION if worse else Verdict.CHANGED
    return Finding(
        what, verdict, _quartiles(old), _quartiles(new), f"quartiles; allowed -{margin:.0%}"
    )


def _quartiles(ratio: Quartiles) -> str:
    return f"{ratio.median:.2f} [{ratio.q1:.2f}, {ratio.q3:.2f}]"
