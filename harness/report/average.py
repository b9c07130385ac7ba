"""The section of GLUE averages in a report."""

from collections.abc import Mapping

from harness.analysis.glue_average import UNCOUNTED, GlueAverage, average
from harness.report.document import CONSTANT, Part, Section, Table
from harness.report.formats import json_ready


def average_section(found: GlueAverage) -> Section:
    """The average as a table."""
    where, tasks = found.condition, list(found.train_rows)
    quick = f", quick look at {where.limit} rows" if where.limit else ""
    lacking = "; ".join(
        f"{task} lacks {', '.join(names)}" for task, names in found.incomplete.items()
    )
    title = f"GLUE average on {where.backbone}{quick}"
    if len(tasks) < 2:
        return Section(
            title,
            (Part(f"No two tasks have all methods: {lacking}. Name fewer by --methods.", None),),
        )
    trained = ", ".join(f"{task} ({rows} training rows)" for task, rows in found.train_rows.items())
    said = (
        f"Over the {len(tasks)} of GLUE's tasks that all methods have: {trained}{f'; {lacking}' if lacking else ''}. A task's score is the "
        "mean of its metrics, MNLI's of matched and mismatched, and each of these is a mean over the seeds of its table above."
        f"{'' if UNCOUNTED in (*tasks, *found.incomplete) else ' Without WNLI (--wnli).'}"
    )
    rows = [
        _cells(CONSTANT, "-", found.constant),
        *(_cells(row.method, str(row.point), row.scores) for row in found.rows),
    ]
    return Section(
        title,
        (
            Part(
                said,
                Table(
                    ["method", "point", *(f"{task} x100" for task in tasks), "average x100"], rows
                ),
            ),
        ),
    )


def plain_average(found: GlueAverage) -> dict[str, object]:
    """For json."""
    return json_ready(found) | {
        "constant": {
            "method": "",
            "point": "",
            "scores": found.constant,
            "average": average(found.constant),
        },
        "rows": [json_ready(row) | {"average": average(row.scores)} for row in found.rows],
    }


def _cells(method: str, point: str, scores: Mapping[str, float | None]) -> list[str]:
    figures = (
        "-" if score is None else f"{100 * score:.1f}"
        for score in (*scores.values(), average(scores))
    )
    return [method, point, *figures]
