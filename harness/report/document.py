"""The parts of a report: sections, tables, and figures as text."""

from dataclasses import dataclass

from tabulate import tabulate

from harness.evaluation.statistics import Mean

MAJORITY_BASELINE = "(majority class)"
"""Row label of the majority-class baseline, which always predicts the majority label of the
training part (for a regression, its mean value)."""

MACS_NOTE = (
    "MACs are multiply-adds of matrix products at each example's real length, without padding; "
    "1 MAC is 2 FLOPs."
)


@dataclass(frozen=True)
class Table:
    """A table whose cells are text."""

    headers: list[str]
    rows: list[list[str]]

    def as_text(self, form: str) -> str:
        """Format the table in one of tabulate's formats."""
        return tabulate(self.rows, self.headers, tablefmt=form, disable_numparse=True)


@dataclass(frozen=True)
class Part:
    """A table and the text before it."""

    text: str
    table: Table | None


@dataclass(frozen=True)
class Section:
    """The parts under one heading."""

    title: str
    parts: tuple[Part, ...]


def number(
    value: Mean | None,
    digits: int,
    times: float = 1.0,
    mark: str = "",
    seeds: int | None = None,
    signed: bool = False,
) -> str:
    """Format a mark and the mean, with ± the standard deviation unless it rounds to 0.

    `seeds`: number of seeds of the row; a figure over fewer seeds gives its own number. `signed`:
    write the plus sign too.
    """
    if value is None:
        return "-"
    spread = f"{times * (value.deviation or 0):.{digits}f}"
    fewer = f" (n={value.count})" if seeds is not None and value.count != seeds else ""
    return (
        f"{mark}{times * value.mean:{'+' if signed else ''}.{digits}f}"
        + (f" ± {spread}" if float(spread) else "")
        + fewer
    )
