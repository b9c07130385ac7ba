"""The report of paired differences between rows."""

from collections.abc import Sequence
from dataclasses import fields

from harness.analysis.conditions import condition_title
from harness.analysis.differences import Difference, Differences, differences
from harness.evaluation.statistics import RESAMPLES
from harness.records import RunRecord
from harness.report.document import MACS_NOTE, Part, Section, Table, number
from harness.report.formats import json_ready, rendered
from harness.store.results import ResultsStore


def render_differences(
    store: ResultsStore,
    records: Sequence[RunRecord],
    against: str,
    reference: str | None,
    form: str,
    methods: Sequence[str] | None = None,
) -> str:
    """Return the report of paired differences from one row, as markdown, LaTeX, csv or json.

    Raises: HarnessError and IncompleteError as `differences` does.
    """
    found = differences(store, records, against, reference, methods)
    conditions = [one.condition for one in found]
    sections = [_section(one, condition_title(one.condition, conditions)) for one in found]
    return rendered(form, [json_ready(one) for one in found], _csv_rows(found), sections, MACS_NOTE)


def _section(found: Differences, title: str) -> Section:
    """Return the section with the differences of one condition as a table."""
    compared = ", ".join(
        dict.fromkeys(row.against for row in found.rows if row.against is not None)
    )
    caption = (
        f"Paired differences from {compared} at the same point (from a method with a single exit, "
        "at that exit): mean ± sd over the seeds that both rows have (n), and the 95 % interval of "
        f"that mean over {RESAMPLES:,} bootstrap resamples of the dev examples, paired between the "
        "rows. The interval reflects chance in the examples, not in the seeds; with another "
        "setting, a seed draws other random numbers. The majority-class baseline scores "
        f"{100 * found.constant:.1f}.{found.settings}"
    )
    headers = [
        "method",
        "point",
        f"{found.metric} x100",
        "MMACs",
        "n",
        "difference x100",
        "95 % interval",
    ]
    return Section(
        f"{title}, {found.metric}",
        (Part(caption, Table(headers, [_cells(row) for row in found.rows])),),
    )


def _cells(row: Difference) -> list[str]:
    figures = [row.method, str(row.point), number(row.score, 1, 100), number(row.macs, 1, 1e-6)]
    if row.gain is None or row.interval is None:
        return [*figures, str(row.score.count), "-", "-"]
    low, high = row.interval
    return [
        *figures,
        str(row.gain.count),
        number(row.gain, 1, 100, signed=True),
        f"{100 * low:+.1f} to {100 * high:+.1f}",
    ]


def _csv_rows(found: Sequence[Differences]) -> list[dict[str, object]]:
    """Return one csv row per difference."""
    return [
        {
            **{field.name: getattr(one.condition, field.name) for field in fields(one.condition)},
            "metric": one.metric,
            "constant": one.constant,
            "method": row.method,
            "point": str(row.point),
            "against": row.against,
            "score": row.score.mean,
            "macs": row.macs.mean,
            "seeds": row.gain.count if row.gain else None,
            "difference": row.gain.mean if row.gain else None,
            "deviation": row.gain.deviation if row.gain else None,
            "low": row.interval[0] if row.interval else None,
            "high": row.interval[1] if row.interval else None,
        }
        for one in found
        for row in one.rows
    ]
