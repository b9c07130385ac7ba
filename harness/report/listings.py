"""Plain listings: what there is, and a run's curve."""

import csv
import io
import json
from collections import defaultdict
from dataclasses import replace

from tabulate import tabulate

from harness.analysis.variants import described_by, telling
from harness.data.custom_tasks import task_of
from harness.errors import HarnessError
from harness.evaluation.curves import sweep, thresholds_from
from harness.evaluation.policies import make_policy
from harness.records import RunRecord
from harness.store.results import ResultsStore

Rows = list[dict[str, object]]


def runs(records: list[RunRecord]) -> Rows:
    """Run id, cell, last exit's scores, and the settings that set the run apart from others of its method."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.spec.method, record.spec.backbone].append(record)
    settings = {
        record.run_id: own
        for of in groups.values()
        for record, own in zip(of, telling([described_by(one) for one in of]), strict=True)
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


def text(rows: Rows) -> str:
    """Rows as a table for people."""
    return tabulate(
        [{name: _words(value) for name, value in row.items()} for row in rows],
        headers="keys",
        disable_numparse=True,
    )


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_words(item) for item in value)
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def curve_table(
    store: ResultsStore,
    record: RunRecord,
    policy: str | None,
    points: int,
    tolerance: float | None,
    form: str,
) -> str:
    """The dev curve of a policy through thresholds found on selection, as markdown (under what a constant answer scores), csv or json.

    Raises: HarnessError for a run with one exit, or a tolerance that the policy does not use.
    """
    name = policy or record.policy
    if name is None or record.policy is None:
        raise HarnessError(
            f"run {record.run_id} ({record.spec.method}) has a single exit: there is no curve"
        )
    task = task_of(record)
    if tolerance is not None and not (name == "patience" and task.regression):
        raise HarnessError(
            f"--tolerance is for patience on a regression, this is {name} on {task.name}"
        )
    chosen = make_policy(
        record if tolerance is None else replace(record, tolerance=tolerance), task.classes, policy
    )
    thresholds = thresholds_from(chosen, store.trace(record, "selection"), points)
    curve = sweep(chosen, store.trace(record), record.costs, task.metrics, thresholds)
    last = float(
        record.costs.static(len(record.costs.layers) - 1, store.trace(record).lengths).mean()
    )
    columns = {f"{chosen.name} ({chosen.unit})": curve.thresholds, **curve.scores}
    columns |= {
        "MMACs": curve.macs / 1e6,
        "own full MACs / MACs": last / curve.macs,
        "layers": curve.layers,
    }
    new = [
        place
        for place in range(len(thresholds))
        if not place or (curve.left[place] != curve.left[place - 1]).any()
    ]
    rows = [{name: float(values[place]) for name, values in columns.items()} for place in new]
    constant = ", ".join(
        f"{metric} {score:.6g}" for metric, score in record.constant_scores.items()
    )
    return (f"A constant answer scores {constant}.\n\n" if form == "markdown" else "") + table(
        rows, form
    )


def answers_text(lines: list[int], answers: Rows, form: str) -> str:
    """Answers to rows, with the line where each row stands, as text (an answer a line), csv or json."""
    rows: Rows = [{"row": line, **answer} for line, answer in zip(lines, answers, strict=True)]
    if form == "json":
        return json.dumps(rows, indent=1) + "\n"
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()
    return "".join("\t".join(_answer_words(row)) + "\n" for row in rows)


def _answer_words(row: dict[str, object]) -> list[str]:
    sure = [] if row["probability"] is None else [f"probability {row['probability']:.3f}"]
    return [f"{row['answer']}", f"exit {row['exit']}", *sure, f"{row['milliseconds']:.2f} ms"]


def table(rows: list[dict[str, float]] | list[dict[str, int]], form: str) -> str:
    """Rows as markdown, csv or json."""
    if form == "json":
        return json.dumps(rows, indent=1) + "\n"
    if form == "csv":
        lines = [
            ",".join(rows[0]),
            *(",".join(str(value) for value in row.values()) for row in rows),
        ]
        return "\n".join(lines) + "\n"
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=".6g", intfmt=",") + "\n"
