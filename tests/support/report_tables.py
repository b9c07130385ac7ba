"""The tables, titles and prose of a report in markdown."""

import re
from collections.abc import Sequence

from harness.analysis.operating_points import BUDGETS

Table = list[dict[str, str]]

MAIN = (
    "method", "point", "n", "score", "retained", "parameters", "macs", "flops", "mac_ratio",
    "layers", "ms", "reference_ms", "latency_ratio",
)  # fmt: skip
"""Names for the columns of the main table, in order, for a task with one metric."""
UNTIMED, TWO_METRICS = MAIN[:-3], ("method", "point", "n", "score", "second", *MAIN[4:-3])
"""The same for runs that were not timed; and for untimed runs on a task with two metrics."""
CURVE = ("method", "policy", "figure", *BUDGETS)
EXITS = (
    "method",
    "exit",
    "score",
    "parameters",
    "macs",
    "macs_128",
    "static_1",
    "path_1",
    "static_32",
    "path_32",
)
LIVE = (
    "method", "seed", "policy", "threshold", "batch", "rows", "rounds", "tokens", "device",
    "precision", "threads", "score", "layers", "ms", "reference", "reference_ms", "ratio",
)  # fmt: skip
RATIOS = ("retained", "mac_ratio", "latency_ratio")


def tables(markdown: str) -> list[list[list[str]]]:
    """Return the rows of each table in a markdown text, headers first.

    Every row must have as many cells as there are headers."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", markdown, re.MULTILINE):
        header, rule, *rows = [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in block.strip().splitlines()
        ]
        assert all(re.fullmatch(r":?-+:?", cell) for cell in rule)
        assert {len(row) for row in rows} == {len(header)}
        found.append([header, *rows])
    return found


def columns(table: list[list[str]], names: Sequence[str]) -> Table:
    """Return each row below the headers as column name -> cell."""
    return [dict(zip(names, row, strict=True)) for row in table[1:]]


def row_of(table: Table, method: str, **cells: str) -> dict[str, str]:
    (row,) = [
        row
        for row in table
        if row["method"] == method and all(row[name] == value for name, value in cells.items())
    ]
    return row


def titles_of(markdown: str) -> list[str]:
    return [line.removeprefix("### ") for line in markdown.splitlines() if line.startswith("###")]


def prose_of(markdown: str) -> str:
    """Return all paragraphs but the tables and titles, in one line."""
    return " ".join(line for line in markdown.splitlines() if not line.startswith(("|", "#")))
