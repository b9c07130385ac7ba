"""The report for a budget: which methods stay within it, the best first."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from harness.analysis.conditions import title
from harness.analysis.ranking import Budget, Ranking, rank
from harness.evaluation.metrics import METRICS
from harness.records import RunRecord
from harness.report.document import CONSTANT, MACS_SAID, Part, Section, Table, number
from harness.report.formats import json_ready, rendered
from harness.store.results import ResultsStore


def render_budget(
    store: ResultsStore,
    records: Sequence[RunRecord],
    budget: Budget,
    form: str,
    methods: Sequence[str] | None = None,
) -> str:
    """The best of each method within a budget, in the forms of the report.

    Raises: IncompleteError when there are no runs; what `ResultsStore.trace` raises.
    """
    rankings = rank(store, records, budget, methods)
    conditions = [ranking.condition for ranking in rankings]
    sections = [_section(ranking, title(ranking.condition, conditions)) for ranking in rankings]
    return rendered(
        form,
        [_json_ready(ranking) for ranking in rankings],
        _flat_rows(rankings),
        sections,
        MACS_SAID,
    )


def _section(ranking: Ranking, title: str) -> Section:
    """The ranking as a table."""
    metrics = list(ranking.constant_scores)
    unit = "ms" if ranking.budget.unit == "ms" else "MMACs"
    times = 1.0 if unit == "ms" else 1e-6
    beyond = f" Beyond it, or not measured: {', '.join(ranking.beyond)}." if ranking.beyond else ""
    clock = (
        f" Milliseconds on {'; '.join(ranking.places)}, of a policy composed from the paths'. Those of different runs were taken at "
        "different times: a method a little beyond a budget may be within it at another; the report's ratios compare better."
    )
    composed = clock if unit == "ms" else ""
    said = (
        f"The best of each method within {ranking.budget} a row: exit and threshold chosen on calibration, which also orders the rows; dev "
        f"only scores.{composed}{beyond}"
    )
    rows = [
        [
            CONSTANT,
            "-",
            "-",
            "-",
            *(f"{100 * score:.1f}" for score in ranking.constant_scores.values()),
            "-",
        ]
    ]
    rows += [
        [
            choice.method,
            str(choice.point),
            str(choice.cost.count),
            number(choice.calibration, 1, 100),
            *(number(choice.scores.get(metric), 1, 100) for metric in metrics),
            number(choice.cost, 2, times),
        ]
        for choice in ranking.choices
    ]
    headers = [
        "method",
        "point",
        "n",
        "calibration x100",
        *(f"{metric} x100" for metric in metrics),
        unit,
    ]
    return Section(f"{title} within {ranking.budget}", (Part(said, Table(headers, rows)),))


def _json_ready(ranking: Ranking) -> dict[str, object]:
    """For json."""
    return {
        "condition": asdict(ranking.condition),
        "budget": asdict(ranking.budget),
        "constant_scores": ranking.constant_scores,
        "places": list(ranking.places),
        "choices": [json_ready(choice) for choice in ranking.choices],
        "beyond": list(ranking.beyond),
    }


def _flat_rows(rankings: Sequence[Ranking]) -> list[dict[str, object]]:
    """For csv: the constant answer and a row a choice, the mean of each figure."""
    found: list[dict[str, object]] = []
    for ranking in rankings:
        given = {
            field.name: getattr(ranking.condition, field.name)
            for field in fields(ranking.condition)
        }
        given |= {"budget": ranking.budget.amount, "unit": ranking.budget.unit}
        found.append(
            {**given, "method": CONSTANT, "point": "-", **_score_columns(ranking.constant_scores)}
        )
        for choice in ranking.choices:
            figures = {
                "seeds": choice.cost.count,
                "calibration": choice.calibration.mean,
                "cost": choice.cost.mean,
            }
            reached = _score_columns(
                {metric: score.mean for metric, score in choice.scores.items()}
            )
            found.append(
                {**given, "method": choice.method, "point": str(choice.point), **figures, **reached}
            )
    return found


def _score_columns(scores: Mapping[str, float]) -> dict[str, float | None]:
    """The same columns whatever the task."""
    return {f"scores.{metric}": scores.get(metric) for metric in METRICS}
