"""Sections with tables, as markdown and as LaTeX; rows as csv."""

from dataclasses import dataclass

from tabulate import tabulate

from harness.evaluation.statistics import Mean

CONSTANT = "(constant answer)"
"""The row of a model that always gives the training part's majority label, or mean value."""

MACS_SAID = "MACs are multiply-adds of matrix products, at each row's real length, padding is not charged; FLOPs are 2 per MAC."


@dataclass(frozen=True)
class Table:
    """Cells as text."""

    headers: list[str]
    rows: list[list[str]]

    def as_text(self, form: str) -> str:
        """In one of tabulate's forms."""
        return tabulate(self.rows, self.headers, tablefmt=form, disable_numparse=True)


@dataclass(frozen=True)
class Part:
    """A table and what is said before it."""

    text: str
    table: Table | None


@dataclass(frozen=True)
class Section:
    """What stands under one heading."""

    title: str
    parts: tuple[Part, ...]


def number(
    value: Mean | None,
    digits: int,
    times: float = 1.0,
    mark: str = "",
    of: int | None = None,
    signed: bool = False,
) -> str:
    """A mark and the mean, with ± standard deviation when there are several seeds and it does not round to 0.

    `of`: the row's number of seeds; a figure over fewer says so. `signed`: with a plus too.
    """
    if value is None:
        return "-"
    spread = f"{times * (value.deviation or 0):.{digits}f}"
    fewer = f" (n={value.count})" if of is not None and value.count != of else ""
    return (
        f"{mark}{times * value.mean:{'+' if signed else ''}.{digits}f}"
        + (f" ± {spread}" if float(spread) else "")
        + fewer
    )
