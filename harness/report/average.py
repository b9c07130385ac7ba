"""The section of GLUE averages in a report."""

from dataclasses import asdict, replace

from harness.analysis.glue_average import UNCOUNTED, AverageRow, GlueAverage
from harness.report.document import CONSTANT, Part, Section, Table


def average_section(found: GlueAverage) -> Section:
    """The average as a table."""
    where, tasks = found.condition, list(found.train_rows)
    quick = f", quick look at {where.limit} rows" if where.limit else ""
    lacking = "; ".join(f"{task} lacks {', '.join(names)}" for task, names in found.incomplete.items())
    title = f"GLUE average on {where.backbone}{quick}"
    if len(tasks) < 2:
        return Section(title, (Part(f"No two tasks have all methods: {lacking}. Name fewer by --methods.", None),))
    trained = ", ".join(f"{task} ({rows} training rows)" for task, rows in found.train_rows.items())
    said = (
        f"Over the {len(tasks)} of GLUE's tasks that all methods have: {trained}{f'; {lacking}' if lacking else ''}. A task's score is the "
        "mean of its metrics, MNLI's of matched and mismatched, and each of these is a mean over the seeds of its table above."
        f"{'' if UNCOUNTED in (*tasks, *found.incomplete) else ' Without WNLI (--wnli).'}"
    )
    rows = [_cells(row) for row in (replace(found.constant, method=CONSTANT, point="-"), *found.rows)]
    return Section(title, (Part(said, Table(["method", "point", *(f"{task} x100" for task in tasks), "average x100"], rows)),))


def plain_average(found: GlueAverage) -> dict[str, object]:
    """For json."""
    return asdict(found) | {
        "constant": asdict(found.constant) | {"average": found.constant.average},
        "rows": [asdict(row) | {"average": row.average} for row in found.rows],
    }


def _cells(row: AverageRow) -> list[str]:
    return [row.method, row.point, *("-" if score is None else f"{100 * score:.1f}" for score in (*row.scores.values(), row.average))]
