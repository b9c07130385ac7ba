"""Paired differences between rows of the report: the effect of a setting or of another method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.comparison import base_for, full_run, reference_runs
from harness.analysis.conditions import Condition, by_condition
from harness.analysis.operating_points import (
    BUDGETS,
    REPORTED_BUDGETS,
    chosen_thresholds,
    evaluate,
    policy_of,
)
from harness.analysis.points import AllExits, BudgetShare, LastExit, Point
from harness.analysis.variants import runs_by_row, shared_settings
from harness.data.custom_tasks import task_of
from harness.errors import IncompleteError, unknown
from harness.evaluation.metrics import METRICS
from harness.evaluation.statistics import Mean, bootstrap, mean
from harness.records import RunRecord
from harness.store.results import ResultsStore

Array = NDArray[np.float64]

DEFAULT_ROW = "default"
"""Value in place of a row name: compare each row with its method's default row, whose name is just
the method's."""

FORMER_DEFAULT = "plain"
"""Former spelling of that value, still accepted."""


@dataclass(frozen=True)
class Difference:
    """A row at one point, compared with another row at the same point."""

    method: str
    """Row name in the report, including the settings that differ."""
    point: Point
    score: Mean
    """Score on dev by the metric, averaged over all seeds of the row."""
    macs: Mean
    """Mean MACs per dev example; for the mean of exits, averaged over them."""
    against: str | None
    """Name of the other row; if that row has a single exit, it is compared with every point of a
    curve. None for that row itself, and where it lacks the point or shares no seed."""
    gain: Mean | None
    """Score minus the other row's score, over the seeds that both have."""
    interval: tuple[float, float] | None
    """95 % interval of the mean gain over resamples of the dev examples; all seeds and both rows
    share the resamples."""


@dataclass(frozen=True)
class Differences:
    """All differences under one condition by one metric of the task."""

    condition: Condition
    metric: str
    constant: float
    """Score of the majority-class baseline."""
    settings: str
    """Sentence with the settings that all runs of a method share and that differ from the method's
    defaults; empty if there are none."""
    rows: tuple[Difference, ...]


@dataclass(frozen=True)
class _Reached:
    """Predictions, scores and MACs of one seed at one point."""

    predictions: tuple[Array, ...]
    """Predictions [n] of each exit that counts."""
    scores: tuple[float, ...]
    macs: float


def differences(
    store: ResultsStore,
    records: Sequence[RunRecord],
    against: str,
    reference: str | None,
    methods: Sequence[str] | None = None,
) -> list[Differences]:
    """Return the differences of rows from the row `against`, in the order of the task names.

    With `DEFAULT_ROW`, each row is compared with its method's default row. Budgets are shares of
    the reference's MACs.

    Raises: HarnessError if there is no such row; IncompleteError if no other row can be compared
    with it.
    """
    groups = {
        condition: runs_by_row(group, reference) for condition, group in by_condition(records)
    }
    names = {name for rows in groups.values() for name in rows}
    against = DEFAULT_ROW if against == FORMER_DEFAULT else against
    if against != DEFAULT_ROW and against not in names:
        raise unknown("row", against, {DEFAULT_ROW, *names})
    found = [
        _differences(store, condition, rows, metric, against, reference, methods)
        for condition, rows in groups.items()
        for metric in task_of(_first(rows)).metrics
    ]
    kept = [one for one in found if any(row.gain is not None for row in one.rows)]
    if not kept:
        if against == DEFAULT_ROW and any(record.changed is None for record in records):
            raise IncompleteError(
                f"no row of {store.root} is known to be a method's default: records of earlier "
                "versions do not say; give a row of harness report instead of default"
            )
        raise IncompleteError(
            f"no row of {store.root} can be compared with {against}: none shares a seed with it; "
            "see harness report"
        )
    return kept


def _first(groups: Mapping[str, list[RunRecord]]) -> RunRecord:
    return next(iter(groups.values()))[0]


def _differences(
    store: ResultsStore,
    condition: Condition,
    groups: Mapping[str, list[RunRecord]],
    metric: str,
    against: str,
    reference: str | None,
    methods: Sequence[str] | None,
) -> Differences:
    first = _first(groups)
    labels = store.trace(first).labels
    bases = reference_runs(groups, reference)
    others = _compared_rows(groups, against, methods)
    reached = {
        name: _reached(store, groups[name], base_for(groups[name], bases), metric)
        for name in {*others, *others.values()}
    }
    order = sorted(others, key=lambda name: (others[name], name != others[name], name))
    rows = [row for name in order for row in _rows(name, others[name], reached, metric, labels)]
    settings = shared_settings([run for name in others for run in groups[name]])
    return Differences(condition, metric, first.constant_scores[metric], settings, tuple(rows))


def _compared_rows(
    groups: Mapping[str, Sequence[RunRecord]], against: str, methods: Sequence[str] | None
) -> dict[str, str]:
    """Return row -> the row that it is compared with; the latter is among the keys too."""
    method_of = {name: runs[0].spec.method for name, runs in groups.items()}
    chosen = [name for name in groups if methods is None or method_of[name] in methods]
    if against != DEFAULT_ROW:
        return dict.fromkeys([*chosen, against], against) if against in groups else {}
    variants = [
        name
        for name in chosen
        if list(method_of.values()).count(method_of[name]) > 1 and method_of[name] in groups
    ]
    return {name: method_of[name] for name in variants}


def _rows(
    name: str,
    other: str,
    reached: Mapping[str, Mapping[Point, Mapping[int, _Reached]]],
    metric: str,
    labels: Array,
) -> Iterator[Difference]:
    single = list(reached[other]) == [LastExit()]
    for point, seeds in reached[name].items():
        other_point = LastExit() if single else point
        other_seeds = reached[other].get(other_point, {}) if name != other else {}
        pairs = [
            (other_seeds[seed], new)
            for seed, new in seeds.items()
            if seed in other_seeds and len(other_seeds[seed].scores) == len(new.scores)
        ]
        predictions = [
            pair
            for old, new in pairs
            for pair in zip(old.predictions, new.predictions, strict=True)
        ]
        yield Difference(
            method=name,
            point=point,
            score=mean(float(np.mean(new.scores)) for new in seeds.values()),
            macs=mean(new.macs for new in seeds.values()),
            against=other if pairs else None,
            gain=mean(float(np.mean(new.scores) - np.mean(old.scores)) for old, new in pairs)
            if pairs
            else None,
            interval=bootstrap(metric, predictions, labels) if pairs else None,
        )


def _reached(
    store: ResultsStore, runs: Sequence[RunRecord], base: Mapping[int, RunRecord], metric: str
) -> dict[Point, dict[int, _Reached]]:
    """Return point -> seed -> what was reached there, for the points that all seeds have."""
    found: dict[Point, dict[int, _Reached]] = {}
    for run in runs:
        for point, reached in _points(store, run, full_run(run, base), metric).items():
            found.setdefault(point, {})[run.spec.seed] = reached
    return {point: seeds for point, seeds in found.items() if len(seeds) == len(runs)}


def _points(
    store: ResultsStore, run: RunRecord, full: RunRecord, metric: str
) -> dict[Point, _Reached]:
    dev = store.trace(run)
    exits = tuple(dev.predictions().astype(np.float64))

    def scored(predictions: tuple[Array, ...], macs: float) -> _Reached:
        return _Reached(
            predictions, tuple(float(METRICS[metric](one, dev.labels)) for one in predictions), macs
        )

    found: dict[Point, _Reached] = {LastExit(): scored(exits[-1:], run.exits[-1].macs)}
    if len(exits) > 1:
        found[AllExits()] = scored(exits, float(np.mean([measured.macs for measured in run.exits])))
    if run.policy is None:
        return found
    policy = policy_of(run)
    for name, threshold in chosen_thresholds(
        store, run, policy, full, {name: BUDGETS[name] for name in REPORTED_BUDGETS}
    ).items():
        reached = evaluate(run, dev, policy, threshold)
        found[BudgetShare(name)] = _Reached(
            (reached.predictions,), (reached.scores[metric],), reached.macs
        )
    return found
