"""The main report as one flat table."""

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from harness.analysis.comparison import Comparison, Row
from harness.analysis.conditions import Condition
from harness.evaluation.metrics import METRICS
from harness.evaluation.statistics import Mean
from harness.report.document import MAJORITY_BASELINE
from harness.report.formats import flat_frame, json_ready
from harness.report.overview_tables import is_composed

if TYPE_CHECKING:
    import pandas

FIGURES = ("retained", "macs", "mac_ratio", "layers", "latency_ms", "reference_ms", "latency_ratio")
"""Fields of a row that are means over seeds, besides its scores; each gives three columns."""


def comparisons_frame(comparisons: list[Comparison]) -> "pandas.DataFrame":
    """Return the rows of the main tables, those of the majority-class baseline included.

    The column `composed` tells whether the latency is composed of path latencies (marked ~ in the
    tables)."""
    rows: list[dict[str, object]] = []
    for comparison in comparisons:
        common = {**asdict(comparison.condition), "rows": comparison.records[0].data.rows}
        rows += [
            {**common, **row}
            for row in (_baseline_row(comparison), *map(_csv_row, comparison.rows))
        ]
    other_metrics = dict.fromkeys(
        metric
        for comparison in comparisons
        for metric in comparison.metrics
        if metric not in METRICS
    )
    return flat_frame(rows, _columns(other_metrics))


def _columns(other_metrics: Iterable[str]) -> list[str]:
    """Return the names of the columns, which do not depend on the runs.

    They are the condition, the row, and for each figure its mean, deviation and number of seeds.
    The last columns hold the scores that only some tasks have: those on MNLI's mismatched split and
    those of external metrics."""
    figures = [
        *(f"scores.{metric}" for metric in METRICS),
        *FIGURES,
        *(f"scores.{metric}" for metric in other_metrics),
    ]
    parts = [f"{figure}.{part.name}" for figure in figures for part in fields(Mean)]
    row = ("method", "point", "device", "threads", "composed", "clock_spread", "parameters")
    return [*(field.name for field in fields(Condition)), "rows.train", "rows.dev", *row, *parts]


def _csv_row(row: Row) -> dict[str, object]:
    return {**json_ready(row), "composed": is_composed(row)}


def _baseline_row(comparison: Comparison) -> dict[str, object]:
    scores = {metric: {"mean": score} for metric, score in comparison.constant_scores.items()}
    return {"method": MAJORITY_BASELINE, "point": "-", "scores": scores}
