"""Pictures of stored runs, drawn by matplotlib from the figures of the report."""

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.comparison import Comparison, Row
from harness.analysis.conditions import condition_title
from harness.analysis.operating_points import BUDGETS
from harness.errors import HarnessError, IncompleteError, unknown
from harness.evaluation.statistics import Mean
from harness.files.atomic import atomic_write
from harness.methods.registry import known_methods

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png", ".pdf")
"""File endings of pictures."""

COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#8C8C8C")
"""Colours that colour-blind readers can tell apart (Okabe and Ito, 2008; the last is grey)."""

MARKERS, STYLES = "osD^vP*X", ("-", "--", ":", "-.")
"""Markers of the methods of one family, and line styles of the rows of one method."""

BASELINE_COLOUR = "#555555"

PANEL_INCHES, PANELS_PER_LINE = (4.0, 3.1), 3


@dataclass(frozen=True)
class Picture:
    """The content of a picture, which has a panel for each condition of the runs."""

    kind: str = "tradeoff"
    """A name in `KINDS`."""
    x: str = "macs"
    """Cost in a trade-off, a name in `COSTS`."""
    metric: str | None = None
    """Score on the vertical axis; None: the main metric of each task."""
    budget: str = "1/2"
    """Budget at which a histogram shows the exits, a name in `operating_points.BUDGETS`."""


class Cost(NamedTuple):
    """A horizontal axis."""

    label: str
    value: Callable[[Row], float | None]


COSTS = {
    "macs": Cost("million MACs per example", lambda row: row.macs.mean / 1e6),
    "latency": Cost(
        "latency ratio to the reference, batch size 1",
        lambda row: None if row.latency_ratio is None else row.latency_ratio.mean,
    ),
}


def draw(comparisons: Sequence[Comparison], picture: Picture) -> "Figure":
    """Draw a panel for each comparison.

    Raises: HarnessError if matplotlib is missing or a name of the picture is unknown;
        IncompleteError if the runs have nothing to show.
    """
    figure_class = _matplotlib_figure()
    metrics = {metric for one in comparisons for metric in one.metrics}
    for what, name, known in (
        ("kind", picture.kind, KINDS),
        ("cost", picture.x, COSTS),
        ("budget", picture.budget, BUDGETS),
        ("score", picture.metric, metrics),
    ):
        if name is not None and name not in known:
            raise unknown(what, name, known)
    kind = KINDS[picture.kind]
    panels = [
        one for one in comparisons if _metric(one, picture) and kind.has_content(one, picture)
    ]
    if not panels:
        raise IncompleteError(f"there is nothing to draw: {kind.needs}")
    columns = min(len(panels), PANELS_PER_LINE)
    lines = math.ceil(len(panels) / columns)
    width, height = PANEL_INCHES
    figure: Figure = figure_class(
        figsize=(width * columns, height * lines + 0.7), layout="constrained"
    )
    axes = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    conditions = [panel.condition for panel in panels]
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(condition_title(panel.condition, conditions), fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.5)
        kind.draw(axis, panel, picture)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    _add_legend(figure, axes[: len(panels)])
    return figure


def check_ending(path: Path) -> None:
    """Raise HarnessError unless the file's ending is one of `FORMATS`."""
    if path.suffix.lower() not in FORMATS:
        raise HarnessError(f"--out {path}: expected a file that ends in {', '.join(FORMATS)}")


def save(figure: "Figure", path: Path) -> None:
    """Write the picture in the format of the file's ending; equal runs give equal bytes."""
    import matplotlib

    check_ending(path)
    form = path.suffix[1:].lower()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with (
        atomic_write(path) as temporary,
        matplotlib.rc_context({"svg.hashsalt": "harness", "svg.fonttype": "none"}),
    ):
        figure.savefig(temporary, format=form, dpi=200, facecolor="white", metadata=dates[form])


def _matplotlib_figure() -> "type[Figure]":
    """Return matplotlib's class of figures, which needs no display."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise HarnessError(
            "pictures need matplotlib: pip install 'cost-eff-harness[plots]'"
        ) from None
    return Figure


def _metric(panel: Comparison, picture: Picture) -> str | None:
    """Return the metric of a panel, or None if the task lacks the requested one."""
    metric = picture.metric or panel.metrics[0]
    return metric if metric in panel.metrics else None


def _add_baseline(axis: "Axes", panel: Comparison, metric: str) -> None:
    """Label the vertical axis and draw the majority-class baseline.

    A baseline that would leave the scores less than half of the panel is only written down.
    """
    axis.set_ylabel(f"{metric} x100", fontsize=9)
    baseline = 100 * panel.constant_scores[metric]
    low, high = axis.get_ylim()
    if min(abs(baseline - low), abs(baseline - high)) <= high - low or low <= baseline <= high:
        axis.axhline(
            baseline, color=BASELINE_COLOUR, linestyle=":", linewidth=1.3, label="majority class"
        )
    else:
        axis.annotate(
            f"majority class: {baseline:.1f}",
            (0.02, 0.03),
            xycoords="axes fraction",
            fontsize=8,
            color=BASELINE_COLOUR,
        )


def _tradeoff(axis: "Axes", panel: Comparison, picture: Picture) -> None:
    """Draw a line through the operating points of each method, and a marker for a single exit."""
    metric, cost = _metric(panel, picture) or "", COSTS[picture.x]
    axis.set_xlabel(cost.label, fontsize=9)
    for name, look in _looks(row.method for row in panel.rows):
        rows = [row for row in (*panel.points, *panel.rows) if row.method == name]
        points = {
            (value, row.scores[metric].mean): row.scores[metric]
            for row in rows
            if metric in row.scores and (value := cost.value(row)) is not None
        }
        if points:
            ordered = sorted(points)
            _line(axis, name, look, [x for x, _ in ordered], [points[point] for point in ordered])
    _add_baseline(axis, panel, metric)


def _exits(axis: "Axes", panel: Comparison, picture: Picture) -> None:
    """Draw the score of the model truncated after each exit."""
    axis.set_xlabel("layers of the truncated model", fontsize=9)
    axis.set_xticks(sorted({row.layer for row in panel.exits}))
    for name, look in _looks(row.method for row in panel.exits):
        rows = [row for row in panel.exits if row.method == name]
        _line(axis, name, look, [row.layer for row in rows], [row.score for row in rows])
    _add_baseline(axis, panel, panel.metrics[0])


def _histogram(axis: "Axes", panel: Comparison, picture: Picture) -> None:
    """Draw the share of the dev examples that take each exit."""
    rows = [row for row in panel.points if str(row.point) == _budget_label(picture)]
    axis.set_xlabel(f"exit taken where {_budget_label(picture)} of the reference's", fontsize=9)
    axis.set_ylabel("% of the dev examples", fontsize=9)
    axis.set_xticks(sorted({layer for row in rows for layer in row.exit_shares or {}}))
    width = 0.8 / len(rows)
    for index, ((name, look), row) in enumerate(
        zip(_looks(row.method for row in rows), rows, strict=True)
    ):
        shares = row.exit_shares or {}
        shift = (index - (len(rows) - 1) / 2) * width
        axis.bar(
            [layer + shift for layer in shares],
            [100 * share for share in shares.values()],
            width,
            color=look.colour,
            hatch="" if (look.marker, look.style) == (MARKERS[0], STYLES[0]) else "//",
            edgecolor="white",
            label=name,
        )


def _budget_label(picture: Picture) -> str:
    return f"MACs <= {picture.budget}"


class _Kind(NamedTuple):
    """A kind of picture."""

    draw: Callable[["Axes", Comparison, Picture], None]
    has_content: Callable[[Comparison, Picture], bool]
    needs: str
    """The reason why runs without content cannot be drawn."""


KINDS = {
    "tradeoff": _Kind(
        _tradeoff,
        lambda panel, picture: any(COSTS[picture.x].value(row) is not None for row in panel.rows),
        "latency ratios need timed runs of the methods and of the reference",
    ),
    "exits": _Kind(
        _exits,
        lambda panel, picture: picture.metric in (None, panel.metrics[0]) and bool(panel.exits),
        "exits have the main metric of their task",
    ),
    "histogram": _Kind(
        _histogram,
        lambda panel, picture: any(
            str(row.point) == _budget_label(picture) for row in panel.points
        ),
        "no method has several exits and a threshold within this budget",
    ),
}
"""Kinds of pictures: score against cost, score of each exit, and how many examples take it."""


class _Look(NamedTuple):
    """How the row of a table is drawn, the same in every panel and picture."""

    colour: str
    marker: str
    style: str


def _looks(rows: Iterable[str]) -> list[tuple[str, _Look]]:
    """Return the names of rows, each once, with their looks.

    Methods of a family (`tinybert`, `tinybert-6l`) share a colour and differ in their markers, rows
    of a method in their line styles.
    """
    families = list(dict.fromkeys(_family(name) for name in known_methods()))
    looks: dict[str, _Look] = {}
    for row in dict.fromkeys(rows):
        method = row.partition(" (")[0]
        family = _family(method)
        members = [name for name in known_methods() if _family(name) == family]
        known = method in members
        colour = families.index(family) if known else zlib.crc32(family.encode())
        marker = members.index(method) if known else zlib.crc32(method.encode())
        before = sum(other.partition(" (")[0] == method for other in looks)
        looks[row] = _Look(
            COLOURS[colour % len(COLOURS)],
            MARKERS[marker % len(MARKERS)],
            STYLES[before % len(STYLES)],
        )
    return list(looks.items())


def _family(method: str) -> str:
    return method.partition("-")[0]


def _line(
    axis: "Axes", name: str, look: _Look, positions: Sequence[float], scores: Sequence[Mean]
) -> None:
    """Draw a line through scores and a band of one standard deviation, or a marker with a bar."""
    means = [100 * score.mean for score in scores]
    deviations = [100 * (score.deviation or 0) for score in scores]
    if len(positions) == 1:
        axis.errorbar(
            positions,
            means,
            yerr=deviations if any(deviations) else None,
            color=look.colour,
            marker=look.marker,
            linestyle="",
            markersize=6,
            capsize=2,
            label=name,
        )
        return
    axis.plot(
        positions,
        means,
        color=look.colour,
        linestyle=look.style,
        marker=look.marker,
        markersize=3.5,
        linewidth=1.4,
        label=name,
    )
    if any(deviations):
        low = [mean - deviation for mean, deviation in zip(means, deviations, strict=True)]
        high = [mean + deviation for mean, deviation in zip(means, deviations, strict=True)]
        axis.fill_between(positions, low, high, color=look.colour, alpha=0.15, linewidth=0)


def _add_legend(figure: "Figure", axes: Sequence["Axes"]) -> None:
    """Put one legend below all panels, with each row's name once."""
    entries = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=min(len(entries), 2 * round(figure.get_figwidth() / PANEL_INCHES[0]) + 1),
        fontsize=8,
        frameon=False,
    )
