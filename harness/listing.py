"""Plain listings: what there is, and a run's curve."""

import csv
import io
import json
import textwrap
from collections import defaultdict
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args, get_origin, get_type_hints

from tabulate import tabulate

from harness.backbones import BACKBONES
from harness.errors import HarnessError
from harness.groups import telling
from harness.methods import METHODS, load_method
from harness.own_tasks import task_of
from harness.policies import make_policy
from harness.records import RunRecord, flat, variant
from harness.store import ResultsStore
from harness.sweep import sweep, thresholds_from
from harness.tasks import GROUPS, TASKS
from harness.typed_json import field_notes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Rows = list[dict[str, object]]


def methods(settings: bool = False) -> Rows:
    """Name, what it is, source; with `settings` the fields that --set takes and their values (null: the backbone's own)."""
    rows: Rows = [{"method": name, "about": entry.about, "source": entry.source} for name, entry in METHODS.items()]
    return [{**row, "settings": flat(asdict(load_method(str(row["method"]))))} for row in rows] if settings else rows


def settings(method: str) -> Rows:
    """Each setting of a method by the name that --set takes: value (null: the backbone's own), the values that it may have where they are
    named, and what it is.

    Raises: HarnessError for an unknown method.
    """
    return _settings(load_method(method), f"{method}.")


def _settings(method: "DataclassInstance", prefix: str) -> Rows:
    hints, notes, rows = get_type_hints(type(method)), field_notes(type(method)), []
    for field in fields(method):
        value, name = getattr(method, field.name), prefix + field.name
        if is_dataclass(value):
            rows += _settings(cast("DataclassInstance", value), f"{name}.")
        elif not any(map(is_dataclass, get_args(hints[field.name]))):  # one that may be such, and is none, is for Python alone
            rows.append({"setting": name, "value": value, "choices": _choices(hints[field.name]), "about": notes.get(field.name, "")})
    return rows


def _choices(kind: object) -> tuple[object, ...] | None:
    """The values of a field that has named ones, or may be None."""
    return next((get_args(part) for part in (kind, *get_args(kind)) if get_origin(part) is Literal), None)


def settings_text(rows: Rows) -> str:
    """A setting and its value on a line, what it is below."""
    blocks = []
    for row in rows:
        value = "none" if row["value"] is None else _words(row["value"]).lower() if isinstance(row["value"], bool) else _words(row["value"])
        choices = f"  ({', '.join(map(str, row['choices']))})" if isinstance(row["choices"], tuple) else ""
        blocks.append(
            f"{row['setting']}={value}{choices}\n" + textwrap.indent(textwrap.fill(" ".join(str(row["about"]).split()), 100), "    ")
        )
    return "\n".join(blocks)


def tasks() -> Rows:
    """Name, groups, labels, metrics."""
    return [
        {
            "task": task.name,
            "groups": ", ".join(group for group, members in GROUPS.items() if task.name in members),
            "labels": ", ".join(task.labels) or f"0 to {task.scale:g}",
            "metrics": ", ".join(task.metrics),
            "about": task.about,
        }
        for task in TASKS.values()
    ]


def backbones() -> Rows:
    """Name, shape, pooling, source, licence."""
    return [
        {
            "backbone": backbone.name,
            "layers": backbone.shape.layers,
            "hidden": backbone.shape.hidden,
            "heads": backbone.shape.heads[0],
            "ffn": backbone.shape.ffn[0],
            "pooling": backbone.pooling,
            "weights": backbone.source,
            "licence": backbone.licence,
        }
        for backbone in BACKBONES.values()
    ]


def runs(records: list[RunRecord]) -> Rows:
    """Run id, cell, last exit's scores, and the settings that set the run apart from others of its method."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.spec.method, record.spec.backbone].append(record)
    settings = {
        record.run_id: own
        for (method, backbone), of in groups.items()
        for record, own in zip(of, telling(method, backbone, [variant(one) for one in of]), strict=True)
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
    return tabulate([{name: _words(value) for name, value in row.items()} for row in rows], headers="keys", disable_numparse=True)


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_words(item) for item in value)
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def curve_table(store: ResultsStore, record: RunRecord, policy: str | None, points: int, tolerance: float | None, form: str) -> str:
    """The dev curve of a policy through thresholds found on selection, as markdown (under what a constant answer scores), csv or json.

    Raises: HarnessError for a run with one exit, or a tolerance that the policy does not use.
    """
    name = policy or record.policy
    if name is None or record.policy is None:
        raise HarnessError(f"run {record.run_id} ({record.spec.method}) has a single exit: there is no curve")
    task = task_of(record)
    if tolerance is not None and not (name == "patience" and task.regression):
        raise HarnessError(f"--tolerance is for patience on a regression, this is {name} on {task.name}")
    chosen = make_policy(name, task.classes, tolerance or record.tolerance)
    thresholds = thresholds_from(chosen, store.trace(record, "selection"), points)
    curve = sweep(chosen, store.trace(record), record.costs, task.metrics, thresholds)
    last = float(record.costs.static(len(record.costs.layers) - 1, store.trace(record).lengths).mean())
    columns = {f"{chosen.name} ({chosen.unit})": curve.thresholds, **curve.scores}
    columns |= {"MMACs": curve.macs / 1e6, "own full MACs / MACs": last / curve.macs, "layers": curve.layers}
    new = [place for place in range(len(thresholds)) if not place or (curve.left[place] != curve.left[place - 1]).any()]
    rows = [{name: float(values[place]) for name, values in columns.items()} for place in new]
    constant = ", ".join(f"{metric} {score:.6g}" for metric, score in record.constant_scores.items())
    return (f"A constant answer scores {constant}.\n\n" if form == "markdown" else "") + table(rows, form)


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
        lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
        return "\n".join(lines) + "\n"
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=".6g", intfmt=",") + "\n"
