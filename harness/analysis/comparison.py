"""Comparisons of stored runs: groups of cells, ratios to the reference, statistics over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.conditions import Condition, by_condition
from harness.analysis.operating_points import (
    BUDGETS,
    REPORTED_BUDGETS,
    chosen_thresholds,
    evaluate,
    policy_of,
)
from harness.analysis.points import BudgetShare, Exit
from harness.analysis.variants import runs_by_row
from harness.data.custom_tasks import task_of
from harness.evaluation.statistics import Mean, mean
from harness.records import ExitMeasurement, LatencyConditions, RunRecord
from harness.store.results import ResultsStore

MISMATCHED_PREFIX = "mismatched "
"""Prefix of the names of scores on MNLI's second dev split."""


@dataclass(frozen=True)
class Row:
    """One method at one of its exits or at one point of its curve, averaged over seeds."""

    method: str
    point: Exit | BudgetShare
    scores: dict[str, Mean]
    retained: Mean | None
    """Main score as a share of the reference's score, paired by seed."""
    device: str
    """Processor on which all seeds ran and were timed."""
    threads: int
    parameters: int
    macs: Mean
    mac_ratio: Mean | None
    """Reference MACs / MACs of this row, on the same examples."""
    layers: Mean
    latency_ms: Mean | None
    """Latency at batch size 1: measured for a static exit; for a curve point, the mean path latency
    over the exits that the dev examples take."""
    reference_ms: Mean | None
    """Latency of the reference at batch size 1, measured in the same rounds."""
    latency_ratio: Mean | None
    """Reference ms / ms of this row, paired in the same rounds; for a curve point, composed from
    path ratios, as its latency is from path latencies."""
    clock_spread: float | None
    """Largest Q3/Q1 among the ratios from which the latency ratio is computed."""
    exit_shares: dict[int, float] | None = None
    """Layer of each exit -> share of the dev examples that take it, averaged over seeds; None for a
    static exit."""


@dataclass(frozen=True)
class ExitRow:
    """One exit of one method, averaged over seeds."""

    method: str
    layer: int
    score: Mean
    macs: Mean
    macs_128: int
    parameters: int
    static_ms: dict[str, Mean]
    path_ms: dict[str, Mean]


@dataclass(frozen=True)
class CurveRow:
    """Main score of a dynamic method at each budget, averaged over seeds.

    The thresholds are chosen on the calibration split."""

    method: str
    policy: str
    scores: dict[str, Mean | None]
    macs: dict[str, Mean | None]


@dataclass(frozen=True)
class Comparison:
    """Figures for all tables of one condition."""

    condition: Condition
    metrics: tuple[str, ...]
    constant_scores: dict[str, float]
    rows: tuple[Row, ...]
    points: tuple[Row, ...]
    """Dynamic methods at every budget, of which `rows` has the reported ones."""
    curves: tuple[CurveRow, ...]
    exits: tuple[ExitRow, ...]
    reference: str | None
    """Row name of the reference, or of its variant with the most seeds if there are several; None
    if it has no runs here."""
    records: tuple[RunRecord, ...]


@dataclass(frozen=True)
class PointMeasurement:
    """One run at one point of its curve, on dev."""

    threshold: float
    scores: dict[str, float]
    macs: float
    layers: float
    path_ms: float | None
    """Mean path latency over the exits that the dev examples take."""
    path_ratio: float | None
    """Reference time / path time over the same exits: 1 / mean of the inverse ratios."""
    exit_shares: dict[int, float]
    """Layer of each exit -> share of the dev examples that take it."""


def compare(
    store: ResultsStore,
    records: Sequence[RunRecord],
    reference: str | None,
    methods: Sequence[str] | None = None,
) -> list[Comparison]:
    """Return one comparison for each condition, in the order of the task names.

    With `methods`, the comparisons have rows of these methods only."""
    return [
        _comparison(store, condition, group, reference, methods)
        for condition, group in by_condition(records)
    ]


def _timed_against(record: RunRecord, base: dict[int, RunRecord]) -> LatencyConditions | None:
    """Return the latency of a run if it was timed against the reference of this comparison."""
    references = {reference.spec.method for reference in base.values()}
    return (
        record.latency
        if record.latency is not None and record.latency.reference in references
        else None
    )


def _comparison(
    store: ResultsStore,
    condition: Condition,
    records: list[RunRecord],
    reference: str | None,
    methods: Sequence[str] | None,
) -> Comparison:
    groups = runs_by_row(records, reference)
    names = sorted(groups, key=lambda name: (groups[name][0].spec.method != reference, name))
    bases = reference_runs(groups, reference)
    names = [name for name in names if methods is None or groups[name][0].spec.method in methods]
    task = task_of(records[0])
    rows: list[Row] = []
    all_points: list[Row] = []
    curves: list[CurveRow] = []
    for name in names:
        base = base_for(groups[name], bases)
        rows.append(_last_exit_row(name, groups[name], base, task.metrics[0]))
        if groups[name][0].policy is not None:
            points = _points_by_budget(store, groups[name], base)
            found = {
                budget: _point_row(name, budget, groups[name], at_budget, base, task.metrics[0])
                for budget, at_budget in points.items()
                if at_budget
            }
            all_points += found.values()
            rows += [found[budget] for budget in REPORTED_BUDGETS if budget in found]
            curves.append(_curve_row(name, groups[name], points, task.metrics[0]))
    return Comparison(
        condition=condition,
        metrics=tuple(dict.fromkeys((*task.metrics, *all_scores(records[0])))),
        constant_scores=records[0].constant_scores
        | _mismatched(records[0].mismatched.constant if records[0].mismatched else {}),
        rows=tuple(rows),
        points=tuple(all_points),
        curves=tuple(curves),
        exits=tuple(
            row for name in names for row in _exit_rows(name, groups[name], task.metrics[0])
        ),
        reference=next(iter(bases), None),
        records=tuple(record for name in names for record in groups[name]),
    )


def reference_runs(
    groups: Mapping[str, Sequence[RunRecord]], reference: str | None
) -> dict[str, dict[int, RunRecord]]:
    """Return row name -> seed -> run of the reference, the variant with the most seeds first."""
    found = [name for name in sorted(groups) if groups[name][0].spec.method == reference]
    return {
        name: {run.spec.seed: run for run in groups[name]}
        for name in sorted(found, key=lambda name: -len(groups[name]))
    }


def base_for(
    records: Sequence[RunRecord], bases: Mapping[str, dict[int, RunRecord]]
) -> dict[int, RunRecord]:
    """Return the runs of the reference, by seed, that these records are compared with.

    They ran on the same processor with the same number of threads if there are such runs;
    otherwise they belong to the variant with the most seeds, which comes first in `bases`."""

    def other_hardware(base: dict[int, RunRecord]) -> bool:
        one, other = records[0].environment, next(iter(base.values())).environment
        return (one.device, one.threads) != (other.device, other.threads)

    return min(bases.values(), key=other_hardware, default={})


def full_run(record: RunRecord, base: Mapping[int, RunRecord]) -> RunRecord:
    """Return the run whose MACs a budget is a share of: the reference's run of the same seed, else
    its run of any seed, else the record itself."""
    return base.get(record.spec.seed, next(iter(base.values()), record))


def all_scores(record: RunRecord) -> dict[str, float]:
    """Return the last exit's scores on dev, and on mismatched if the task has that split."""
    return record.exits[-1].scores | _mismatched(
        record.mismatched.exits[-1] if record.mismatched else {}
    )


def _mismatched(scores: dict[str, float]) -> dict[str, float]:
    """Return the scores under names that distinguish them from the scores on dev."""
    return {MISMATCHED_PREFIX + metric: score for metric, score in scores.items()}


def _paired_mean(
    records: Sequence[RunRecord],
    base: dict[int, RunRecord],
    value: Callable[[RunRecord, ExitMeasurement], float | None],
) -> Mean | None:
    """Return the mean of a figure over the seeds that the reference has too; None if there are no
    such seeds or if one of them lacks the figure."""
    values = [
        value(record, base[record.spec.seed].exits[-1])
        for record in records
        if record.spec.seed in base
    ]
    known = [number for number in values if number is not None]
    return mean(known) if known and len(known) == len(values) else None


def _last_exit_row(
    name: str, records: list[RunRecord], base: dict[int, RunRecord], metric: str
) -> Row:
    milliseconds = [record.exits[-1].static_ms.get("1") for record in records]
    timed = [_timed_against(record, base) for record in records]
    ratios = [latency.reference_ratio.get("1") if latency else None for latency in timed]
    return Row(
        method=name,
        point=Exit(records[0].exits[-1].layer),
        scores={
            m: mean(all_scores(r)[m] for r in records)
            for m in all_scores(records[0])
            if all(m in all_scores(r) for r in records)
        },
        retained=_paired_mean(
            records, base, lambda r, b: _share(r.exits[-1].scores[metric], b.scores[metric])
        ),
        device=records[0].environment.device,
        threads=records[0].environment.threads,
        parameters=records[0].exits[-1].parameters,
        macs=mean(r.exits[-1].macs for r in records),
        mac_ratio=_paired_mean(records, base, lambda r, b: b.macs / r.exits[-1].macs),
        layers=mean(r.exits[-1].layer for r in records),
        latency_ms=mean(q.median for q in milliseconds if q) if all(milliseconds) else None,
        reference_ms=_reference_ms(timed),
        latency_ratio=mean(q[-1].median for q in ratios if q) if all(ratios) else None,
        clock_spread=max(q[-1].spread for q in ratios if q) if all(ratios) else None,
    )


def _reference_ms(timed: Sequence[LatencyConditions | None]) -> Mean | None:
    milliseconds = [latency.reference_ms.get("1") if latency else None for latency in timed]
    return mean(q.median for q in milliseconds if q) if all(milliseconds) else None


def _share(score: float, reference: float) -> float | None:
    """Return score / reference, or None for a reference at or below 0."""
    return score / reference if reference > 0 else None


def _points_by_budget(
    store: ResultsStore, records: list[RunRecord], base: dict[int, RunRecord]
) -> dict[str, list[PointMeasurement]]:
    """Return budget -> one point per seed; the list is empty if some seed has no threshold within
    the budget."""
    found: dict[str, list[PointMeasurement]] = {name: [] for name in BUDGETS}
    for record in records:
        for name, point in record_points(store, record, full_run(record, base), base).items():
            found[name].append(point)
    return {name: points if len(points) == len(records) else [] for name, points in found.items()}


def record_points(
    store: ResultsStore, record: RunRecord, full: RunRecord, base: dict[int, RunRecord]
) -> dict[str, PointMeasurement]:
    """Return budget -> point on dev; the thresholds are the best ones on calibration within shares
    of the full model's MACs.

    Latency ratios need a run that was timed against one of the reference's runs in `base`."""
    policy, dev, latency = policy_of(record), store.trace(record), _timed_against(record, base)
    points = {}
    for name, threshold in chosen_thresholds(store, record, policy, full, BUDGETS).items():
        operating_point = evaluate(record, dev, policy, threshold)
        shares = np.array(operating_point.counts) / sum(operating_point.counts)
        path = [exit_.path_ms.get("1") for exit_ in record.exits]
        milliseconds = (
            sum(share * q.median for share, q in zip(shares, path, strict=True) if q)
            if all(path)
            else None
        )
        ratios = latency.path_ratio.get("1") if latency else None
        ratio = (
            1 / sum(share / q.median for share, q in zip(shares, ratios, strict=True))
            if ratios
            else None
        )
        scores = operating_point.scores
        if record.mismatched is not None:
            scores = scores | _mismatched(
                evaluate(record, store.trace(record, "mismatched"), policy, threshold).scores
            )
        layers = [exit_.layer for exit_ in record.exits]
        points[name] = PointMeasurement(
            threshold,
            scores,
            operating_point.macs,
            operating_point.layers,
            milliseconds,
            ratio,
            dict(zip(layers, shares.tolist(), strict=True)),
        )
    return points


def _point_row(
    name: str,
    budget: str,
    records: list[RunRecord],
    points: list[PointMeasurement],
    base: dict[int, RunRecord],
    metric: str,
) -> Row:
    by_seed = {record.spec.seed: point for record, point in zip(records, points, strict=True)}
    milliseconds = [point.path_ms for point in points]
    ratios = [point.path_ratio for point in points]
    timed = [_timed_against(record, base) for record in records]
    paths = [latency.path_ratio.get("1") if latency else None for latency in timed]
    return Row(
        method=name,
        point=BudgetShare(budget),
        scores={m: mean(point.scores[m] for point in points) for m in points[0].scores},
        retained=_paired_mean(
            records,
            base,
            lambda r, b: _share(by_seed[r.spec.seed].scores[metric], b.scores[metric]),
        ),
        device=records[0].environment.device,
        threads=records[0].environment.threads,
        parameters=records[0].parameters,
        macs=mean(point.macs for point in points),
        mac_ratio=_paired_mean(records, base, lambda r, b: b.macs / by_seed[r.spec.seed].macs),
        layers=mean(point.layers for point in points),
        latency_ms=mean(ms for ms in milliseconds if ms) if all(milliseconds) else None,
        reference_ms=_reference_ms(timed),
        latency_ratio=mean(r for r in ratios if r) if all(ratios) else None,
        clock_spread=max(q.spread for path in paths for q in path or ()) if all(paths) else None,
        exit_shares={
            layer: sum(point.exit_shares[layer] for point in points) / len(points)
            for layer in points[0].exit_shares
        },
    )


def _curve_row(
    name: str, records: list[RunRecord], points: dict[str, list[PointMeasurement]], metric: str
) -> CurveRow:
    return CurveRow(
        method=name,
        policy=str(records[0].policy),
        scores={
            b: mean(p.scores[metric] for p in found) if found else None
            for b, found in points.items()
        },
        macs={b: mean(p.macs for p in found) if found else None for b, found in points.items()},
    )


def _exit_rows(name: str, records: list[RunRecord], metric: str) -> list[ExitRow]:
    rows = []
    for index, first in enumerate(records[0].exits):
        exits = [record.exits[index] for record in records]
        rows.append(
            ExitRow(
                method=name,
                layer=first.layer,
                score=mean(e.scores[metric] for e in exits),
                macs=mean(e.macs for e in exits),
                macs_128=first.macs_128,
                parameters=first.parameters,
                static_ms={
                    size: mean(e.static_ms[size].median for e in exits if size in e.static_ms)
                    for size in first.static_ms
                },
                path_ms={
                    size: mean(e.path_ms[size].median for e in exits if size in e.path_ms)
                    for size in first.path_ms
                },
            )
        )
    return rows
