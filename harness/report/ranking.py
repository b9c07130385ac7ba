"""The report for a budget: the methods that stay within it, the best first."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from harness.analysis.conditions import condition_title
from harness.analysis.ranking import Budget, Ranking, rank
from harness.evaluation.metrics import METRICS
from harness.records import RunRecord
from harness.report.document import MACS_NOTE, MAJORITY_BASELINE, Part, Section, Table, number
from harness.report.formats import json_ready, rendered
from harness.store.results import ResultsStore


def render_budget(
    store: ResultsStore,
    records: Sequence[RunRecord],
    budget: Budget,
    form: str,
    methods: Sequence[str] | None = None,
) -> str:
    """Return the report of each method's best point within a budget, as markdown, LaTeX, csv or
    json.

    Raises: IncompleteError if there are no runs or if a trace cannot be read.
    """
    rankings = rank(store, records, budget, methods)
    conditions = [ranking.condition for ranking in rankings]
    sections = [
        _section(ranking, condition_title(ranking.condition, conditions)) for ranking in rankings
    ]
    return rendered(
        form,
        [_json_ready(ranking) for ranking in rankings],
        _csv_rows(rankings),
        sections,
        MACS_NOTE,
    )


def _section(ranking: Ranking, title: str) -> Section:
    """Return the section with the ranking as a table."""
    metrics = list(ranking.constant_scores)
    unit = "ms" if ranking.budget.unit == "ms" else "MMACs"
    factor = 1.0 if unit == "ms" else 1e-6
    beyond = (
        f" Beyond the budget, or not measured: {', '.join(ranking.beyond)}."
        if ranking.beyond
        else ""
    )
    latency_note = (
        f" Milliseconds were measured on {'; '.join(ranking.places)}; those of a policy are "
        "composed from path latencies. Runs were timed at different times, so that a method "
        "slightly beyond the budget may be within it at another time: the latency ratios of the "
        "main report are more comparable."
    )
    latency = latency_note if unit == "ms" else ""
    caption = (
        f"The best point of each method within {ranking.budget} per example. Exits and thresholds "
        "are chosen, and the rows ordered, by the score on calibration; dev is only scored."
        f"{latency}{beyond}"
    )
    rows = [
        [
            MAJORITY_BASELINE,
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
            number(choice.cost, 2, factor),
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
    return Section(f"{title} within {ranking.budget}", (Part(caption, Table(headers, rows)),))


def _json_ready(ranking: Ranking) -> dict[str, object]:
    """Return the ranking as a JSON object."""
    return {
        "condition": asdict(ranking.condition),
        "budget": asdict(ranking.budget),
        "constant_scores": ranking.constant_scores,
        "places": list(ranking.places),
        "choices": [json_ready(choice) for choice in ranking.choices],
        "beyond": list(ranking.beyond),
    }


def _csv_rows(rankings: Sequence[Ranking]) -> list[dict[str, object]]:
    """Return csv rows: for each ranking the majority-class baseline, then a row per choice with the
    mean of each figure."""
    found: list[dict[str, object]] = []
    for ranking in rankings:
        common = {
            field.name: getattr(ranking.condition, field.name)
            for field in fields(ranking.condition)
        }
        common |= {"budget": ranking.budget.amount, "unit": ranking.budget.unit}
        found.append(
            {
                **common,
                "method": MAJORITY_BASELINE,
                "point": "-",
                **_score_columns(ranking.constant_scores),
            }
        )
        for choice in ranking.choices:
            figures = {
                "seeds": choice.cost.count,
                "calibration": choice.calibration.mean,
                "cost": choice.cost.mean,
            }
            scores = _score_columns({metric: score.mean for metric, score in choice.scores.items()})
            found.append(
                {**common, "method": choice.method, "point": str(choice.point), **figures, **scores}
            )
    return found


def _score_columns(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return the score columns, which are the same for all tasks."""
    return {f"scores.{metric}": scores.get(metric) for metric in METRICS}
