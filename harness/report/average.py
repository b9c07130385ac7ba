"""The GLUE averages in a report."""

from collections.abc import Mapping

from harness.analysis.glue_average import EXCLUDED_TASK, GlueAverage, average
from harness.report.document import MAJORITY_BASELINE, Part, Section, Table
from harness.report.formats import json_ready


def average_section(found: GlueAverage) -> Section:
    """Return the section with the average as a table."""
    condition, tasks = found.condition, list(found.train_rows)
    limit = f", limited to {condition.limit} rows" if condition.limit else ""
    missing = "; ".join(
        f"{task} lacks {', '.join(names)}" for task, names in found.incomplete.items()
    )
    title = f"GLUE average on {condition.backbone}{limit}"
    if len(tasks) < 2:
        return Section(
            title,
            (
                Part(
                    f"No two tasks have runs of all methods: {missing}. "
                    "Select fewer methods with --methods.",
                    None,
                ),
            ),
        )
    trained = ", ".join(f"{task} ({rows} training rows)" for task, rows in found.train_rows.items())
    left_out = f"; left out: {missing}" if missing else ""
    without_wnli = (
        ""
        if EXCLUDED_TASK in (*tasks, *found.incomplete)
        else " WNLI is not counted (add it with --wnli)."
    )
    caption = (
        f"Average over the {len(tasks)} GLUE tasks that have runs of all methods: "
        f"{trained}{left_out}. A task's score is the mean of its metrics (for MNLI, of matched and "
        "mismatched), each a mean over the seeds of the task's table above."
        f"{without_wnli}"
    )
    rows = [
        _cells(MAJORITY_BASELINE, "-", found.constant),
        *(_cells(row.method, str(row.point), row.scores) for row in found.rows),
    ]
    headers = ["method", "point", *(f"{task} x100" for task in tasks), "average x100"]
    return Section(title, (Part(caption, Table(headers, rows)),))


def average_json(found: GlueAverage) -> dict[str, object]:
    """Return the average as a JSON object."""
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
