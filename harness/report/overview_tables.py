"""The tables of the main report: rows, curves and exits of one comparison."""

from harness.analysis.comparison import Comparison, Row
from harness.analysis.operating_points import BUDGETS
from harness.analysis.points import BudgetShare
from harness.records import STABLE_SPREAD
from harness.report.document import MAJORITY_BASELINE, Table, number

LATENCY_HEADERS = ["ms (batch 1)", "reference ms", "latency ratio"]
"""Columns of runs that were timed."""


def is_timed(comparison: Comparison) -> bool:
    """Return whether any run was timed."""
    return any(record.latency is not None for record in comparison.records)


def is_noisy(row: Row) -> bool:
    """Return whether the quartiles of a latency ratio are too far apart: other work was running."""
    return row.clock_spread is not None and row.clock_spread > STABLE_SPREAD


def is_composed(row: Row) -> bool:
    """Return whether the row's latency is composed of path latencies instead of measured."""
    return isinstance(row.point, BudgetShare)


def main_table(comparison: Comparison) -> Table:
    """Return the table with one row for each method and point."""
    headers = [
        "method",
        "point",
        "n",
        *(f"{metric} x100" for metric in comparison.metrics),
        "retained %",
    ]
    headers += ["params M", "MMACs", "MFLOPs", "MAC ratio", "layers"]
    timed = is_timed(comparison)
    headers += LATENCY_HEADERS if timed else []
    table = [
        [
            MAJORITY_BASELINE,
            "-",
            "-",
            *(_baseline(comparison, metric) for metric in comparison.metrics),
        ]
    ]
    table[0] += ["-"] * (len(headers) - len(table[0]))
    table += [
        [*_main_cells(row, comparison.metrics), *(_latency_cells(row) if timed else [])]
        for row in comparison.rows
    ]
    return Table(headers, table)


def _baseline(comparison: Comparison, metric: str) -> str:
    return f"{100 * comparison.constant_scores[metric]:.1f}"


def _main_cells(row: Row, metrics: tuple[str, ...]) -> list[str]:
    seeds = row.macs.count
    return [
        row.method,
        str(row.point),
        str(seeds),
        *(number(row.scores.get(metric), 1, 100) for metric in metrics),
        number(row.retained, 1, 100, seeds=seeds),
        f"{row.parameters / 1e6:.2f}",
        number(row.macs, 1, 1e-6),
        number(row.macs, 1, 2e-6),
        number(row.mac_ratio, 2, seeds=seeds),
        number(row.layers, 2),
    ]


def _latency_cells(row: Row) -> list[str]:
    composed = "~" if is_composed(row) else ""
    noisy = "? " if is_noisy(row) else ""
    return [
        number(row.latency_ms, 2, mark=noisy + composed),
        number(row.reference_ms, 2, mark=noisy),
        number(row.latency_ratio, 2, mark=noisy + composed),
    ]


def curve_table(comparison: Comparison) -> Table:
    """Return the table with score and MACs of dynamic methods at each budget."""
    metric = comparison.metrics[0]
    table = [
        [MAJORITY_BASELINE, "-", f"{metric} x100", *[_baseline(comparison, metric)] * len(BUDGETS)]
    ]
    for row in comparison.curves:
        table.append(
            [
                row.method,
                row.policy,
                f"{metric} x100",
                *(number(row.scores[budget], 1, 100) for budget in BUDGETS),
            ]
        )
        table.append(
            [
                row.method,
                row.policy,
                "MMACs",
                *(number(row.macs[budget], 1, 1e-6) for budget in BUDGETS),
            ]
        )
    return Table(["method", "policy", "on dev", *BUDGETS], table)


def exit_table(comparison: Comparison) -> Table:
    """Return the table with score, MACs and latency at each exit."""
    sizes = list(dict.fromkeys(size for row in comparison.exits for size in row.static_ms))
    headers = [
        "method",
        "exit",
        f"{comparison.metrics[0]} x100",
        "params M",
        "MMACs",
        "MMACs at 128",
    ]
    headers += [f"{kind} ms (batch {size})" for size in sizes for kind in ("static", "path")]
    table = [
        [
            MAJORITY_BASELINE,
            "-",
            _baseline(comparison, comparison.metrics[0]),
            *["-"] * (len(headers) - 3),
        ]
    ]
    for row in comparison.exits:
        times = [
            number(part.get(size), 2) for size in sizes for part in (row.static_ms, row.path_ms)
        ]
        cells = [
            row.method,
            str(row.layer),
            number(row.score, 1, 100),
            f"{row.parameters / 1e6:.2f}",
        ]
        table.append([*cells, number(row.macs, 1, 1e-6), f"{row.macs_128 / 1e6:.1f}", *times])
    return Table(headers, table)
