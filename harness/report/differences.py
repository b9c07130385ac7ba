"""The report of paired differences between rows."""

from collections.abc import Sequence
from dataclasses import fields

from harness.analysis.conditions import title
from harness.analysis.differences import Difference, Differences, differences
from harness.evaluation.statistics import RESAMPLES
from harness.records import RunRecord
from harness.report.document import MACS_SAID, Part, Section, Table, number
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
    """Paired differences from one row, in the forms of the report.

    Raises: what `differences` raises.
    """
    found = differences(store, records, against, reference, methods)
    conditions = [one.condition for one in found]
    sections = [_section(one, title(one.condition, conditions)) for one in found]
    return rendered(form, [json_ready(one) for one in found], _flat(found), sections, MACS_SAID)


def _section(found: Differences, title: str) -> Section:
    """The differences of one condition as a table."""
    whom = ", ".join(dict.fromkeys(row.against for row in found.rows if row.against is not None))
    said = (
        f"Paired differences from {whom}, at the same point (of a method with one exit, that one): mean ± sd over the seeds that both have "
        f"(n), and 95 % of that mean over {RESAMPLES:,} resamples of dev's rows, the same rows for both: chance in the rows, not in the "
        f"seeds. Under another setting a seed draws other random numbers. A constant answer scores {100 * found.constant:.1f}."
        f"{found.settings}"
    )
    headers = [
        "method",
        "point",
        f"{found.metric} x100",
        "MMACs",
        "n",
        "difference x100",
        "95 % of resamples",
    ]
    return Section(
        f"{title}, {found.metric}",
        (Part(said, Table(headers, [_cells(row) for row in found.rows])),),
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


def _flat(found: Sequence[Differences]) -> list[dict[str, object]]:
    """For csv: a row for each difference."""
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
