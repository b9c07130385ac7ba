"""The report for a terminal: a table for each task, with the best values marked."""

from collections.abc import Sequence
from io import StringIO
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.analysis.comparison import Comparison, Row
from harness.analysis.conditions import condition_title
from harness.errors import counted
from harness.evaluation.statistics import Mean
from harness.report.document import MAJORITY_BASELINE, number
from harness.report.overview_tables import is_composed, is_noisy, is_timed


class _Layout(NamedTuple):
    """The columns and figures of a table; narrower layouts have fewer."""

    score_deviations: bool = True
    ratio_deviations: bool = True
    parameters: bool = True
    further_metrics: bool = True
    long_names: bool = True


LAYOUTS = (
    _Layout(),
    _Layout(ratio_deviations=False),
    _Layout(ratio_deviations=False, score_deviations=False),
    _Layout(ratio_deviations=False, score_deviations=False, parameters=False),
    _Layout(False, False, False, False),
    _Layout(False, False, False, False, False),
)
"""Layouts, the widest first; the first that fits the terminal is used."""


class _Cell(NamedTuple):
    """A figure of a row."""

    text: str
    value: float | None
    """Figure by which the best row is found; higher is better."""


def terminal_report(
    comparisons: Sequence[Comparison], warnings: Sequence[Sequence[str]], width: int, colour: bool
) -> str:
    """Return the main tables as text for a terminal of this width, in colour or without.

    `warnings` has the warnings about each comparison.
    """
    screen = StringIO()
    console = Console(
        file=screen,
        width=width,
        highlight=False,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    conditions = [comparison.condition for comparison in comparisons]
    for comparison, own in zip(comparisons, warnings, strict=True):
        title = condition_title(comparison.condition, conditions)
        tables = [_table(comparison, title, layout) for layout in LAYOUTS]
        natural = [Measurement.get(console, console.options, table).maximum for table in tables]
        fitting = [table for table, size in zip(tables, natural, strict=True) if size < width]
        console.print((fitting or tables[-1:])[0])
        for warning in own:
            console.print(Text(warning.replace("**", ""), style="yellow"))
        console.print()
    notes = ["Best values are bold." if colour else "", "All figures: --format markdown."]
    if any(is_timed(comparison) for comparison in comparisons):
        notes.insert(0, "Ratios: the reference's cost / the row's. ~ is composed, ? is noisy.")
    console.print(Text(" ".join(filter(None, notes)), style="dim"))
    return screen.getvalue()


def _table(comparison: Comparison, title: str, layout: _Layout) -> Table:
    metrics = comparison.metrics if layout.further_metrics else comparison.metrics[:1]
    rows = [_cells(comparison, row, metrics, layout) for row in comparison.rows]
    table = Table(
        title=title, caption=_caption(comparison), box=box.SIMPLE_HEAD, title_style="bold"
    )
    table.add_column("method", no_wrap=True)
    table.add_column("point", no_wrap=True)
    for name in rows[0]:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    baseline = [f"{100 * comparison.constant_scores[metric]:.1f}" for metric in metrics]
    majority = MAJORITY_BASELINE if layout.long_names else "(majority)"
    table.add_row(majority, "", *baseline, style="dim")
    best = {
        name: max((value for cells in rows if (value := cells[name].value) is not None), default=0)
        for name in rows[0]
    }
    previous = ""
    for row, cells in zip(comparison.rows, rows, strict=True):
        texts = [
            Text(cell.text, style="bold green" if cell.value == best[name] else "")
            for name, cell in cells.items()
        ]
        point = str(row.point) if layout.long_names else str(row.point).removeprefix("MACs ")
        table.add_row("" if row.method == previous else row.method, point, *texts)
        previous = row.method
    return table


def _cells(
    comparison: Comparison, row: Row, metrics: Sequence[str], layout: _Layout
) -> dict[str, _Cell]:
    """Return the cells of a row by the titles of their columns."""
    cells = {
        f"{metric} x100": _cell(row.scores.get(metric), 1, 100, layout.score_deviations)
        for metric in metrics
    }
    cells["MAC ratio"] = _cell(row.mac_ratio, 2, 1, layout.ratio_deviations)
    if is_timed(comparison):
        mark = ("? " if is_noisy(row) else "") + ("~" if is_composed(row) else "")
        cells["latency ratio"] = _cell(row.latency_ratio, 2, 1, layout.ratio_deviations, mark)
    if layout.parameters:
        cells["params M"] = _Cell(f"{row.parameters / 1e6:.2f}", -row.parameters)
    return cells


def _cell(value: Mean | None, digits: int, times: float, deviation: bool, mark: str = "") -> _Cell:
    if value is None:
        return _Cell("-", None)
    shown = value if deviation else Mean(value.mean, None, value.count)
    return _Cell(number(shown, digits, times, mark), value.mean)


def _caption(comparison: Comparison) -> str:
    rows = comparison.records[0].data.rows
    seeds = sorted({record.spec.seed for record in comparison.records})
    return (
        f"{counted(rows['dev'], 'dev example')}; {counted(len(seeds), 'seed')}"
        f"{' (mean ± sd)' if len(seeds) > 1 else ''}; reference: {comparison.reference or 'none'}"
    )
