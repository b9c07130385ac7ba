"""The four formats of a report: markdown, LaTeX, csv and json."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from tabulate import LATEX_ESCAPE_RULES

from harness.analysis.points import Point
from harness.report.document import Section

if TYPE_CHECKING:
    import pandas
    from _typeshed import DataclassInstance

INTEGER_COLUMNS = ("train_rows", "limit", "parameters", "threads", "seeds")
"""Columns of csv that hold integers, besides those that end in .count."""


def json_ready(value: "DataclassInstance") -> dict[str, object]:
    """Return the fields of a dataclass as `dataclasses.asdict` does, but with points as text."""
    return {field.name: _ready(getattr(value, field.name)) for field in fields(value)}


def _ready(value: object) -> object:
    if isinstance(value, Point):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return json_ready(value)
    if isinstance(value, dict):
        return {name: _ready(item) for name, item in value.items()}
    return [_ready(item) for item in value] if isinstance(value, tuple | list) else value


def as_markdown(sections: Sequence[Section], closing: str) -> str:
    """Return the sections as markdown, with `closing` as the last paragraph."""
    texts = []
    for section in sections:
        pieces = [f"### {section.title}"]
        for part in section.parts:
            pieces += [part.text] + (
                [part.table.as_text("github")] if part.table is not None else []
            )
        texts.append("\n\n".join(pieces) + "\n")
    return "\n".join([*texts, closing]) + "\n"


def flat_frame(
    rows: Sequence[dict[str, object]], columns: Sequence[str] | None = None
) -> "pandas.DataFrame":
    """Return rows as a frame, with nested keys flattened as `scores.f1.mean`.

    With `columns`, it has exactly these columns, whether or not the rows have them."""
    import pandas

    frame = pandas.json_normalize(list(rows))
    frame = frame if columns is None else frame.reindex(columns=list(columns))
    integers = [name for name in frame if name.endswith(".count") or name in INTEGER_COLUMNS]
    return frame.astype(dict.fromkeys(integers, "Int64"))


def csv_text(frame: "pandas.DataFrame") -> str:
    """Return a frame as csv, without its index."""
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def parquet_bytes(frame: "pandas.DataFrame") -> bytes:
    """Return a frame as a Parquet file, without its index."""
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def rendered(
    form: str,
    json_value: object,
    rows: Sequence[dict[str, object]],
    sections: Sequence[Section],
    closing: str,
) -> str:
    """Return the same figures in one of four formats.

    `json_value` is written as json, `rows` as csv, and `sections` as markdown or LaTeX."""
    if form == "json":
        return json.dumps(json_value, indent=1) + "\n"
    if form == "csv":
        return csv_text(flat_frame(rows))
    return DOCUMENTS[form](sections, closing)


def as_latex(sections: Sequence[Section], closing: str) -> str:
    """Return a floating LaTeX table for each table, with the text before it as the caption."""
    texts = ["% Needs \\usepackage{booktabs}."]
    for section in sections:
        for part in section.parts:
            if part.table is None:
                texts.append(f"\\paragraph{{{_escaped(section.title)}}} {_escaped(part.text)}")
                continue
            caption = f"\\textbf{{{_escaped(section.title)}.}} {_escaped(part.text.rstrip(':'))}"
            lines = [
                "\\begin{table*}",
                "\\centering",
                "\\scriptsize",
                f"\\caption{{{caption}}}",
                part.table.as_text("latex_booktabs"),
                "\\end{table*}",
            ]
            texts.append("\n".join(lines))
    text = "\n\n".join([*texts, _escaped(closing)])
    return text.replace("±", "$\\pm$").replace(f"{LATEX_ESCAPE_RULES['<']}=", "$\\le$") + "\n"


def _escaped(text: str) -> str:
    """Escape text for LaTeX, with `code` in typewriter."""
    plain = "".join(LATEX_ESCAPE_RULES.get(letter, letter) for letter in text)
    return re.sub(r"`([^`]*)`", r"\\texttt{\1}", plain)


DOCUMENTS: dict[str, Callable[[Sequence[Section], str], str]] = {
    "markdown": as_markdown,
    "latex": as_latex,
}
"""Format -> function that writes sections and a closing paragraph in it.

A new format of sections is a function, a row here, and a choice of `report_format_option`. One of
rows or values, as csv and json are, is a branch in `rendered` and in `overview.render` instead of a
row here.
"""
