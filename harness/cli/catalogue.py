"""Listings of methods, their settings, tasks and backbones."""

import textwrap
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args, get_origin, get_type_hints

from harness.data.tasks import known_tasks, task_groups
from harness.files.typed_json import field_docstrings
from harness.gate.baseline import Baseline
from harness.methods.registry import known_methods, load_method
from harness.models.backbones import listed_backbones
from harness.records import RunRecord, Timing, flat
from harness.report.listings import Rows, cell_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def methods(settings: bool = False) -> Rows:
    """Return name, description and source of each method.

    With `settings`, each row also has the fields that --set takes and their values (null means
    the backbone's default).
    """
    rows: Rows = [
        {"method": name, "about": entry.about, "source": entry.source}
        for name, entry in known_methods().items()
    ]
    return (
        [{**row, "settings": flat(asdict(load_method(str(row["method"]))))} for row in rows]
        if settings
        else rows
    )


def settings(method: str) -> Rows:
    """Return each setting of a method: --set name, value, any fixed choices, description.

    The value null means the backbone's default.

    Raises: HarnessError for an unknown method.
    """
    return _settings(load_method(method), f"{method}.")


def _settings(method: "DataclassInstance", prefix: str) -> Rows:
    hints, notes, rows = get_type_hints(type(method)), field_docstrings(type(method)), []
    for field in fields(method):
        value, name = getattr(method, field.name), prefix + field.name
        if is_dataclass(value):
            rows += _settings(cast("DataclassInstance", value), f"{name}.")
        # an optional dataclass that is None can only be set from Python
        elif not any(map(is_dataclass, get_args(hints[field.name]))):
            rows.append(
                {
                    "setting": name,
                    "value": value,
                    "choices": _choices(hints[field.name]),
                    "about": notes.get(field.name, ""),
                }
            )
    return rows


def _choices(kind: object) -> tuple[object, ...] | None:
    """Return the values of a Literal field, optional or not; None for other fields."""
    return next(
        (get_args(part) for part in (kind, *get_args(kind)) if get_origin(part) is Literal), None
    )


def settings_text(rows: Rows) -> str:
    """Return each setting with its value on one line, and its description below."""
    blocks = []
    for row in rows:
        value = (
            "none"
            if row["value"] is None
            else cell_text(row["value"]).lower()
            if isinstance(row["value"], bool)
            else cell_text(row["value"])
        )
        choices = (
            f"  ({', '.join(map(str, row['choices']))})"
            if isinstance(row["choices"], tuple)
            else ""
        )
        blocks.append(
            f"{row['setting']}={value}{choices}\n"
            + textwrap.indent(textwrap.fill(" ".join(str(row["about"]).split()), 100), "    ")
        )
    return "\n".join(blocks)


def tasks() -> Rows:
    """Return name, groups, labels, metrics and description of each task."""
    return [
        {
            "task": task.name,
            "groups": ", ".join(
                group for group, members in task_groups().items() if task.name in members
            ),
            "labels": ", ".join(task.labels) or f"0 to {task.scale:g}",
            "metrics": ", ".join(task.metrics),
            "about": task.about,
        }
        for task in known_tasks().values()
    ]


def backbones() -> Rows:
    """Return name, shape, pooling, source and licence of each backbone."""
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
        for backbone in listed_backbones().values()
    ]


SCHEMA_CLASSES: dict[str, type] = {"record": RunRecord, "timing": Timing, "baseline": Baseline}
"""Kind of file -> its class: record.json, timings/*.json and the --baseline file."""
