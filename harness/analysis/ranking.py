"""Ranking of methods within a budget of milliseconds or MACs.

The best point of each method is chosen on calibration and scored on dev."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.analysis.conditions import Condition, by_condition, condition_of
from harness.analysis.operating_points import evaluate, policy_of
from harness.analysis.points import Dynamic, Exit
from harness.analysis.selection import no_runs
from harness.analysis.variants import runs_by_row
from harness.data.custom_tasks import task_of
from harness.errors import HarnessError, counted
from harness.evaluation.curves import best_thresholds, exit_macs, thresholds_from
from harness.evaluation.metrics import scores
from harness.evaluation.statistics import Mean, mean
from harness.evaluation.trace import Trace
from harness.records import ExitMeasurement, RunRecord
from harness.store.results import ResultsStore

Array = NDArray[np.float64]

MACS_PER_UNIT = {"kmac": 1e3, "mmac": 1e6, "gmac": 1e9}


@dataclass(frozen=True)
class Budget:
    """The largest mean cost of one dev example."""

    unit: Literal["ms", "MACs"]
    amount: float
    """Milliseconds at batch size 1, or MACs at each example's real length."""

    def __str__(self) -> str:
        return (
            f"{self.amount:g} ms (batch 1)" if self.unit == "ms" else f"{self.amount / 1e6:g} MMACs"
        )


def parse_budget(text: str) -> Budget:
    """Parse a budget such as 10ms, 100MMAC or 1.5GMACs.

    Raises: HarnessError for any other text, or for a budget of 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|[kmg]mac)s?", text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise HarnessError(
            f"--budget {text}: expected a positive number with ms, KMAC, MMAC or GMAC, "
            "such as 10ms or 100MMAC"
        )
    return (
        Budget("ms", float(found[1]))
        if found[2] == "ms"
        else Budget("MACs", float(found[1]) * MACS_PER_UNIT[found[2]])
    )


@dataclass(frozen=True)
class Choice:
    """The best point of a method on calibration among those within the budget."""

    method: str
    point: Exit | Dynamic
    calibration: Mean
    """The task's first metric on the calibration split, by which the point was chosen."""
    scores: dict[str, Mean]
    """Metric -> score on dev."""
    cost: Mean
    """Mean cost on dev, in the budget's unit."""


@dataclass(frozen=True)
class Ranking:
    """Methods under one condition, the best first."""

    condition: Condition
    budget: Budget
    constant_scores: dict[str, float]
    """Scores of the majority-class baseline on dev (for a regression, of the mean value)."""
    places: tuple[str, ...]
    """Processors and threads that the runs were timed on."""
    choices: tuple[Choice, ...]
    beyond: tuple[str, ...]
    """Methods with no point within the budget, or without a measurement in its unit."""


def rank(
    store: ResultsStore, records: Sequence[RunRecord], budget: Budget, methods: Sequence[str] | None
) -> list[Ranking]:
    """Return a ranking for each condition, in the order of the task names.

    Raises: IncompleteError if there are no runs.
    """
    chosen = [record for record in records if methods is None or record.spec.method in methods]
    if not chosen:
        raise no_runs(store)
    return [_ranking(store, group, budget) for _, group in by_condition(chosen)]


def _ranking(store: ResultsStore, records: list[RunRecord], budget: Budget) -> Ranking:
    groups = runs_by_row(records)
    found = {name: _best(store, name, runs, budget) for name, runs in groups.items()}
    ordered = sorted((choice for choice in found.values() if choice is not None), key=_best_first)
    beyond = tuple(name for name, choice in found.items() if choice is None)
    places = tuple(
        dict.fromkeys(
            f"{environment.device}, {counted(environment.threads, 'CPU thread')}"
            for environment in (run.environment for run in records)
        )
    )
    return Ranking(
        condition_of(records[0]), budget, records[0].constant_scores, places, tuple(ordered), beyond
    )


def _best_first(choice: Choice) -> tuple[float, float]:
    """Return the sort key: the better score on calibration first, then the lower cost."""
    return -choice.calibration.mean, choice.cost.mean


@dataclass(frozen=True)
class _Point:
    """One seed at one point."""

    calibration: float
    scores: dict[str, float]
    cost: float


def _best(store: ResultsStore, name: str, runs: list[RunRecord], budget: Budget) -> Choice | None:
    """Return the best of a method's exits and dynamic points whose mean over seeds is within the
    budget."""
    points: dict[Exit | Dynamic, list[_Point]] = {}
    for run in runs:
        for point, reached in _points(store, run, budget).items():
            points.setdefault(point, []).append(reached)
    found = [
        Choice(
            name,
            point,
            mean(reached.calibration for reached in seeds),
            {
                metric: mean(reached.scores[metric] for reached in seeds)
                for metric in seeds[0].scores
            },
            mean(reached.cost for reached in seeds),
        )
        for point, seeds in points.items()
        if len(seeds) == len(runs)
    ]
    affordable = [
        choice
        for choice in found
        if choice.cost.mean <= budget.amount or isinstance(choice.point, Dynamic)
    ]
    return min(affordable, key=_best_first, default=None)


def _points(store: ResultsStore, run: RunRecord, budget: Budget) -> dict[Exit | Dynamic, _Point]:
    """Return every exit as a truncated model and, for a dynamic method, the point at the threshold
    that is best on calibration within the budget."""
    dev, calibration, metrics = (
        store.trace(run),
        store.trace(run, "calibration"),
        task_of(run).metrics,
    )

    on_dev, on_calibration = (
        trace.predictions().astype(np.float64) for trace in (dev, calibration)
    )

    def point(chosen_by: Array, predictions: Array, cost: float) -> _Point:
        (first,), reached = (
            scores(metrics[:1], chosen_by, calibration.labels).values(),
            scores(metrics, predictions, dev.labels),
        )
        return _Point(float(first), {name: float(value) for name, value in reached.items()}, cost)

    found: dict[Exit | Dynamic, _Point] = {}
    for index, measured in enumerate(run.exits):
        cost = _static_cost(measured, budget)
        if cost is not None:
            found[Exit(measured.layer)] = point(on_calibration[index], on_dev[index], cost)
    costs = (
        [_path_costs(run, trace, budget) for trace in (calibration, dev)]
        if run.policy is not None
        else []
    )
    if not costs or costs[0] is None or costs[1] is None:
        return found
    policy = policy_of(run)
    thresholds = thresholds_from(policy, store.trace(run, "selection"))
    (threshold,) = best_thresholds(
        policy, calibration, costs[0], metrics[0], thresholds, [budget.amount]
    )
    if threshold is not None:
        chosen_by, reached = (
            evaluate(run, trace, policy, threshold) for trace in (calibration, dev)
        )
        found[Dynamic(policy.name)] = _Point(
            chosen_by.scores[metrics[0]], reached.scores, reached.cost(costs[1])
        )
    return found


def _static_cost(measured: ExitMeasurement, budget: Budget) -> float | None:
    timed = measured.static_ms.get("1")
    return measured.macs if budget.unit == "MACs" else timed.median if timed is not None else None


def _path_costs(run: RunRecord, trace: Trace, budget: Budget) -> Array | None:
    """Return the cost [e, n] of each example at each exit, including the exits passed on the way;
    None if the budget is in milliseconds and the paths were not all timed."""
    if budget.unit == "MACs":
        return exit_macs(run.costs, trace)
    timed = [measured.path_ms.get("1") for measured in run.exits]
    medians = [quartiles.median for quartiles in timed if quartiles is not None]
    return (
        np.repeat(np.array(medians)[:, None], len(trace.ids), axis=1)
        if len(medians) == len(timed)
        else None
    )
