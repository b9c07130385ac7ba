"""The best of each method within a budget of milliseconds or MACs: chosen on calibration, scored on dev."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.analysis.conditions import Condition, by_condition, condition
from harness.analysis.operating_points import evaluate, policy_of
from harness.analysis.points import Dynamic, Exit
from harness.analysis.variants import labels
from harness.data.custom_tasks import task_of
from harness.errors import HarnessError, IncompleteError
from harness.evaluation.curves import best_thresholds, exit_macs, thresholds_from
from harness.evaluation.metrics import scores
from harness.evaluation.statistics import Mean, mean
from harness.evaluation.trace import Trace
from harness.records import ExitMeasurement, RunRecord
from harness.store.results import ResultsStore

Array = NDArray[np.float64]

MACS = {"kmac": 1e3, "mmac": 1e6, "gmac": 1e9}


@dataclass(frozen=True)
class Budget:
    """What one dev row may cost on average."""

    unit: Literal["ms", "MACs"]
    amount: float
    """Milliseconds at batch 1, or MACs at each row's real length."""

    def __str__(self) -> str:
        return (
            f"{self.amount:g} ms (batch 1)" if self.unit == "ms" else f"{self.amount / 1e6:g} MMACs"
        )


def parse_budget(text: str) -> Budget:
    """10ms, 100MMAC, 1.5GMACs.

    Raises: HarnessError for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|[kmg]mac)s?", text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise HarnessError(
            f"--budget {text}: wanted a number with ms, KMAC, MMAC or GMAC, such as 10ms or 100MMAC"
        )
    return (
        Budget("ms", float(found[1]))
        if found[2] == "ms"
        else Budget("MACs", float(found[1]) * MACS[found[2]])
    )


@dataclass(frozen=True)
class Choice:
    """The point of a method that is best on calibration among those within the budget."""

    method: str
    point: Exit | Dynamic
    calibration: Mean
    """The task's first metric on the rows that it was chosen by."""
    scores: dict[str, Mean]
    """On dev."""
    cost: Mean
    """On dev, in the budget's unit."""


@dataclass(frozen=True)
class Ranking:
    """Methods of one task, the best first."""

    condition: Condition
    budget: Budget
    constant_scores: dict[str, float]
    """On dev, of always answering the training part's majority label (or mean value)."""
    places: tuple[str, ...]
    """Processors and threads that the runs were timed on."""
    choices: tuple[Choice, ...]
    beyond: tuple[str, ...]
    """Methods with no point within the budget, or without the figure."""


def rank(
    store: ResultsStore, records: Sequence[RunRecord], budget: Budget, methods: Sequence[str] | None
) -> list[Ranking]:
    """A ranking for each condition, in the order of the tasks.

    Raises: IncompleteError when there are no runs.
    """
    chosen = [record for record in records if methods is None or record.spec.method in methods]
    if not chosen:
        raise IncompleteError(f"no runs in {store.root} match: see harness list runs")
    return [_ranking(store, group, budget) for _, group in by_condition(chosen)]


def _ranking(store: ResultsStore, records: list[RunRecord], budget: Budget) -> Ranking:
    groups = labels(records)
    found = {label: _best(store, label, runs, budget) for label, runs in groups.items()}
    ordered = sorted((choice for choice in found.values() if choice is not None), key=_order)
    beyond = tuple(label for label, choice in found.items() if choice is None)
    places = tuple(
        dict.fromkeys(
            f"{where.device}, {where.threads} CPU thread(s)"
            for where in (run.environment for run in records)
        )
    )
    return Ranking(
        condition(records[0]), budget, records[0].constant_scores, places, tuple(ordered), beyond
    )


def _order(choice: Choice) -> tuple[float, float]:
    """The better on calibration, of equals the cheaper."""
    return -choice.calibration.mean, choice.cost.mean


@dataclass(frozen=True)
class _Point:
    """One seed at one point."""

    calibration: float
    scores: dict[str, float]
    cost: float


def _best(store: ResultsStore, label: str, runs: list[RunRecord], budget: Budget) -> Choice | None:
    """The best of a method's exits and dynamic points that keep the budget in the mean over seeds."""
    points: dict[Exit | Dynamic, list[_Point]] = {}
    for run in runs:
        for name, point in _points(store, run, budget).items():
            points.setdefault(name, []).append(point)
    found = [
        Choice(
            label,
            name,
            mean(point.calibration for point in seeds),
            {metric: mean(point.scores[metric] for point in seeds) for metric in seeds[0].scores},
            mean(point.cost for point in seeds),
        )
        for name, seeds in points.items()
        if len(seeds) == len(runs)
    ]
    affordable = [
        choice
        for choice in found
        if choice.cost.mean <= budget.amount or isinstance(choice.point, Dynamic)
    ]
    return min(affordable, key=_order, default=None)


def _points(store: ResultsStore, run: RunRecord, budget: Budget) -> dict[Exit | Dynamic, _Point]:
    """Every exit as a truncated model, and where the method is dynamic the best threshold within the budget on calibration."""
    dev, calibration, metrics = (
        store.trace(run),
        store.trace(run, "calibration"),
        task_of(run).metrics,
    )

    said, own = (trace.predictions().astype(np.float64) for trace in (dev, calibration))

    def point(chosen_by: Array, answers: Array, cost: float) -> _Point:
        (first,), reached = (
            scores(metrics[:1], chosen_by, calibration.labels).values(),
            scores(metrics, answers, dev.labels),
        )
        return _Point(float(first), {name: float(value) for name, value in reached.items()}, cost)

    found: dict[Exit | Dynamic, _Point] = {}
    for place, measured in enumerate(run.exits):
        cost = _static_cost(measured, budget)
        if cost is not None:
            found[Exit(measured.layer)] = point(own[place], said[place], cost)
    prices = (
        [_prices(run, trace, budget) for trace in (calibration, dev)]
        if run.policy is not None
        else []
    )
    if not prices or prices[0] is None or prices[1] is None:
        return found
    policy = policy_of(run)
    thresholds = thresholds_from(policy, store.trace(run, "selection"))
    (threshold,) = best_thresholds(
        policy, calibration, prices[0], metrics[0], thresholds, [budget.amount]
    )
    if threshold is not None:
        chosen_by, reached = (
            evaluate(run, trace, policy, threshold) for trace in (calibration, dev)
        )
        found[Dynamic(policy.name)] = _Point(
            chosen_by.scores[metrics[0]], reached.scores, reached.cost(prices[1])
        )
    return found


def _static_cost(measured: ExitMeasurement, budget: Budget) -> float | None:
    timed = measured.static_ms.get("1")
    return measured.macs if budget.unit == "MACs" else timed.median if timed is not None else None


def _prices(run: RunRecord, trace: Trace, budget: Budget) -> Array | None:
    """[e, n] what each row costs if it leaves at each exit, exits on the way included; None where it was not timed."""
    if budget.unit == "MACs":
        return exit_macs(run.costs, trace)
    timed = [measured.path_ms.get("1") for measured in run.exits]
    medians = [quartiles.median for quartiles in timed if quartiles is not None]
    return (
        np.repeat(np.array(medians)[:, None], len(trace.ids), axis=1)
        if len(medians) == len(timed)
        else None
    )
