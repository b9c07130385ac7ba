"""Listings of stored runs, curves and predictions."""

import csv
import io
import json
from collections import defaultdict
from dataclasses import replace

from tabulate import tabulate

from harness.analysis.variants import distinguishing_settings, variant_of
from harness.data.custom_tasks import task_of
from harness.errors import HarnessError
from harness.evaluation.curves import sweep, thresholds_from
from harness.evaluation.policies import make_policy
from harness.records import RunRecord, short_id
from harness.store.results import ResultsStore

Rows = list[dict[str, object]]


def runs(records: list[RunRecord]) -> Rows:
    """Return a row per run: id, cell, last exit's scores, and distinguishing settings.

    These settings distinguish the run from others of its method and backbone."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.spec.method, record.spec.backbone].append(record)
    settings = {
        record.run_id: own
        for group in groups.values()
        for record, own in zip(
            group, distinguishing_settings([variant_of(one) for one in group]), strict=True
        )
    }
    return [
        {
            "run": record.run_id,
            "task": record.spec.task,
            "method": record.spec.method,
            "backbone": record.spec.backbone,
            "seed": record.spec.seed,
            "rows": record.data.rows["train"],
            "limit": record.spec.limit,
            "threads": record.environment.threads,
            "exits": len(record.exits),
            "scores": record.exits[-1].scores,
            "settings": settings[record.run_id],
            "created": record.created,
        }
        for record in records
    ]


def with_short_ids(rows: Rows) -> Rows:
    """Return the rows of runs with the first digits of their ids."""
    return [row | {"run": short_id(str(row["run"]))} for row in rows]


def text(rows: Rows) -> str:
    """Format rows as a table for people."""
    return tabulate(
        [{name: cell_text(value) for name, value in row.items()} for row in rows],
        headers="keys",
        disable_numparse=True,
    )


def cell_text(value: object) -> str:
    """Return the text of a table cell."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={cell_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(cell_text(item) for item in value)
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def curve_table(
    store: ResultsStore,
    record: RunRecord,
    policy: str | None,
    points: int,
    tolerance: float | None,
    form: str,
) -> str:
    """Return a policy's curve on dev, over thresholds found on selection, as markdown, csv or json.

    The markdown form starts with the scores of the majority-class baseline.

    Raises: HarnessError for a run with a single exit, or for a tolerance that the policy does not
    use.
    """
    name = policy or record.policy
    if name is None or record.policy is None:
        raise HarnessError(
            f"run {record.short_id} ({record.spec.method}) has a single exit and so no curve"
        )
    task = task_of(record)
    if tolerance is not None and not (name == "patience" and task.regression):
        raise HarnessError(
            f"--tolerance applies to patience on a regression; this is {name} on {task.name}"
        )
    exit_policy = make_policy(
        record if tolerance is None else replace(record, tolerance=tolerance), task.classes, policy
    )
    thresholds = thresholds_from(exit_policy, store.trace(record, "selection"), points)
    curve = sweep(exit_policy, store.trace(record), record.costs, task.metrics, thresholds)
    full_macs = float(
        record.costs.static(len(record.costs.layers) - 1, store.trace(record).lengths).mean()
    )
    columns = {f"{exit_policy.name} ({exit_policy.unit})": curve.thresholds, **curve.scores}
    columns |= {
        "MMACs": curve.macs / 1e6,
        "own full MACs / MACs": full_macs / curve.macs,
        "layers": curve.layers,
    }
    distinct = [
        index
        for index in range(len(thresholds))
        if not index or (curve.left[index] != curve.left[index - 1]).any()
    ]
    rows = [{name: float(values[index]) for name, values in columns.items()} for index in distinct]
    baseline = ", ".join(
        f"{metric} {score:.6g}" for metric, score in record.constant_scores.items()
    )
    caption = f"The majority-class baseline scores {baseline}.\n\n" if form == "markdown" else ""
    return caption + table(rows, form)


def predictions_text(lines: list[int], predictions: Rows, form: str) -> str:
    """Return predictions, with the line numbers of their rows, as text, csv or json."""
    rows: Rows = [
        {"row": line, **prediction} for line, prediction in zip(lines, predictions, strict=True)
    ]
    if form == "json":
        return json.dumps(rows, indent=1) + "\n"
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()
    return "".join("\t".join(_prediction_cells(row)) + "\n" for row in rows)


def _prediction_cells(row: dict[str, object]) -> list[str]:
    probability = [] if row["probability"] is None else [f"probability {row['probability']:.3f}"]
    return [
        f"{row['answer']}",
        f"exit {row['exit']}",
        *probability,
        f"{row['milliseconds']:.2f} ms",
    ]


def table(rows: list[dict[str, float]] | list[dict[str, int]], form: str) -> str:
    """Format rows of numbers as markdown, csv or json."""
    if form == "json":
        return json.dumps(rows, indent=1) + "\n"
    if form == "csv":
        lines = [
            ",".join(rows[0]),
            *(",".join(str(value) for value in row.values()) for row in rows),
        ]
        return "\n".join(lines) + "\n"
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=".6g", intfmt=",") + "\n"
