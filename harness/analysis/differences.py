"""Paired differences between rows of the report: what a setting changes, or another method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.comparison import base_for, full_run, reference_runs
from harness.analysis.conditions import Condition, by_condition
from harness.analysis.operating_points import (
    BUDGETS,
    POINTS,
    chosen_thresholds,
    evaluate,
    policy_of,
)
from harness.analysis.points import AllExits, BudgetShare, LastExit, Point
from harness.analysis.variants import labels, shared_settings
from harness.data.custom_tasks import task_of
from harness.errors import IncompleteError, unknown
from harness.evaluation.metrics import METRICS
from harness.evaluation.statistics import Mean, bootstrap, mean
from harness.records import RunRecord
from harness.store.results import ResultsStore

Array = NDArray[np.float64]

PLAIN = "plain"
"""In the place of a row's name: of each method with several rows the plain one, which is called as the method."""


@dataclass(frozen=True)
class Difference:
    """A row at one point, beside another row at the same point."""

    method: str
    """The row's name in the report, settings that differ included."""
    point: Point
    score: Mean
    """By the metric, on dev, over all seeds of the row."""
    macs: Mean
    """Per dev row; of all exits the mean."""
    against: str | None
    """The other row's name, whose only exit stands beside every point of a curve; None for that row itself, and where it lacks the point or
    every seed."""
    gain: Mean | None
    """Score less the other's, over the seeds that both have."""
    interval: tuple[float, float] | None
    """95 % of the mean gain over resamples of dev's rows, the same for all seeds and both rows."""


@dataclass(frozen=True)
class Differences:
    """All of one condition by one of the task's metrics."""

    condition: Condition
    metric: str
    constant: float
    """What a constant answer scores."""
    settings: str
    """A sentence with those of each method's plain row that are not the method's own; empty where there is none."""
    rows: tuple[Difference, ...]


@dataclass(frozen=True)
class _Reached:
    """One seed at one point."""

    answers: tuple[Array, ...]
    """[n] of each exit that counts."""
    scores: tuple[float, ...]
    macs: float


def differences(
    store: ResultsStore,
    records: Sequence[RunRecord],
    against: str,
    reference: str | None,
    methods: Sequence[str] | None = None,
) -> list[Differences]:
    """Rows less the row `against` (`PLAIN`: each method's own), in the order of the tasks' names. Budgets are shares of the reference's
    MACs.

    Raises: HarnessError when no row is called so; IncompleteError when there is no other row to compare with it.
    """
    groups = {where: labels(group, reference) for where, group in by_condition(records)}
    names = {name for found in groups.values() for name in found}
    if against != PLAIN and against not in names:
        raise unknown("row", against, {PLAIN, *names})
    found = [
        _differences(store, where, found, metric, against, reference, methods)
        for where, found in groups.items()
        for metric in task_of(_first(found)).metrics
    ]
    kept = [one for one in found if any(row.gain is not None for row in one.rows)]
    if not kept:
        raise IncompleteError(
            f"no two rows of {store.root} share a seed and differ from {against}: see harness report"
        )
    return kept


def _first(groups: Mapping[str, list[RunRecord]]) -> RunRecord:
    return next(iter(groups.values()))[0]


def _differences(
    store: ResultsStore,
    where: Condition,
    groups: Mapping[str, list[RunRecord]],
    metric: str,
    against: str,
    reference: str | None,
    methods: Sequence[str] | None,
) -> Differences:
    first = _first(groups)
    labelled = store.trace(first).labels
    bases = reference_runs(groups, reference)
    others = _others(groups, against, methods)
    reached = {
        name: _reached(store, groups[name], base_for(groups[name], bases), metric)
        for name in {*others, *others.values()}
    }
    order = sorted(others, key=lambda name: (others[name], name != others[name], name))
    rows = [row for name in order for row in _rows(name, others[name], reached, metric, labelled)]
    settings = shared_settings([run for name in others for run in groups[name]])
    return Differences(where, metric, first.constant_scores[metric], settings, tuple(rows))


def _others(
    groups: Mapping[str, Sequence[RunRecord]], against: str, methods: Sequence[str] | None
) -> dict[str, str]:
    """Row -> the row that it is compared with, itself among them."""
    own = {name: runs[0].spec.method for name, runs in groups.items()}
    chosen = [name for name in groups if methods is None or own[name] in methods]
    if against != PLAIN:
        return dict.fromkeys([*chosen, against], against) if against in groups else {}
    several = [
        name for name in chosen if list(own.values()).count(own[name]) > 1 and own[name] in groups
    ]
    return {name: own[name] for name in several}


def _rows(
    name: str,
    other: str,
    reached: Mapping[str, Mapping[Point, Mapping[int, _Reached]]],
    metric: str,
    labelled: Array,
) -> Iterator[Difference]:
    single = list(reached[other]) == [LastExit()]
    for point, seeds in reached[name].items():
        like = LastExit() if single else point
        theirs = reached[other].get(like, {}) if name != other else {}
        pairs = [
            (theirs[seed], own)
            for seed, own in seeds.items()
            if seed in theirs and len(theirs[seed].scores) == len(own.scores)
        ]
        answers = [
            pair for old, new in pairs for pair in zip(old.answers, new.answers, strict=True)
        ]
        yield Difference(
            method=name,
            point=point,
            score=mean(float(np.mean(own.scores)) for own in seeds.values()),
            macs=mean(own.macs for own in seeds.values()),
            against=other if pairs else None,
            gain=mean(float(np.mean(new.scores) - np.mean(old.scores)) for old, new in pairs)
            if pairs
            else None,
            interval=bootstrap(metric, answers, labelled) if pairs else None,
        )


def _reached(
    store: ResultsStore, runs: Sequence[RunRecord], base: Mapping[int, RunRecord], metric: str
) -> dict[Point, dict[int, _Reached]]:
    """Point -> seed -> what was answered there, of points that all seeds have."""
    found: dict[Point, dict[int, _Reached]] = {}
    for run in runs:
        for point, at in _points(store, run, full_run(run, base), metric).items():
            found.setdefault(point, {})[run.spec.seed] = at
    return {point: seeds for point, seeds in found.items() if len(seeds) == len(runs)}


def _points(
    store: ResultsStore, run: RunRecord, full: RunRecord, metric: str
) -> dict[Point, _Reached]:
    dev = store.trace(run)
    said = tuple(dev.predictions().astype(np.float64))

    def at(answers: tuple[Array, ...], macs: float) -> _Reached:
        return _Reached(
            answers, tuple(float(METRICS[metric](one, dev.labels)) for one in answers), macs
        )

    found: dict[Point, _Reached] = {LastExit(): at(said[-1:], run.exits[-1].macs)}
    if len(said) > 1:
        found[AllExits()] = at(said, float(np.mean([measured.macs for measured in run.exits])))
    if run.policy is None:
        return found
    policy = policy_of(run)
    for name, threshold in chosen_thresholds(
        store, run, policy, full, {name: BUDGETS[name] for name in POINTS}
    ).items():
        reached = evaluate(run, dev, policy, threshold)
        found[BudgetShare(name)] = _Reached(
            (reached.predictions,), (reached.scores[metric],), reached.macs
        )
    return found
