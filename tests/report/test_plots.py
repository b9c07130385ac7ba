"""Pictures show the figures of the report."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from support.command_line import RunCli, assert_one_line
from support.synthetic import save_bert_and_deebert

from harness.analysis.comparison import Comparison, compare
from harness.errors import HarnessError, IncompleteError
from harness.methods.registry import known_methods
from harness.report.plots import FORMATS, Picture, _looks, draw, save
from harness.store.results import ResultsStore

MAGIC = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}


@pytest.fixture
def comparisons(store: ResultsStore) -> list[Comparison]:
    """bert and deebert, two seeds each; tests/analysis/test_comparison.py derives the figures."""
    save_bert_and_deebert(store)
    return compare(store, store.records()[0], "bert")


def lines_of(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each line and marker of the only panel, by its name in the legend."""
    (axis,) = figure.axes
    handles, labels = axis.get_legend_handles_labels()
    lines = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    return {
        label: list(zip(*map(list, line.get_data()), strict=True))
        for label, line in zip(labels, lines, strict=True)
    }


def test_tradeoff_shows_operating_points(comparisons: list[Comparison]) -> None:
    """A dynamic method is a line through its points, in the order of their MACs."""
    drawn = lines_of(draw(comparisons, Picture()))
    (comparison,) = comparisons
    (bert,) = [row for row in comparison.rows if row.method == "bert"]
    assert drawn["bert"] == [
        pytest.approx((bert.macs.mean / 1e6, 100 * bert.scores["accuracy"].mean))
    ]
    points = {
        (row.macs.mean / 1e6, 100 * row.scores["accuracy"].mean)
        for row in (*comparison.points, *comparison.rows)
        if row.method == "deebert"
    }
    assert drawn["deebert"] == sorted(points)
    assert len(points) > 2


def test_latency_axis_has_ratios(comparisons: list[Comparison]) -> None:
    drawn = lines_of(draw(comparisons, Picture(x="latency")))
    (bert,) = drawn["bert"]
    assert bert[0] == pytest.approx(1.01)


def test_exits_show_truncated_models(comparisons: list[Comparison]) -> None:
    drawn = lines_of(draw(comparisons, Picture(kind="exits")))
    assert drawn["deebert"] == [
        (row.layer, pytest.approx(100 * row.score.mean))
        for row in comparisons[0].exits
        if row.method == "deebert"
    ]


def test_histogram_shares_add_up(comparisons: list[Comparison]) -> None:
    """The bars of a method are the shares of its exits, which add up to 100 %."""
    figure = draw(comparisons, Picture(kind="histogram"))
    (axis,) = figure.axes
    (bars,) = [found for found in axis.containers if isinstance(found, BarContainer)]
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100)
    assert len(bars) == 2


def test_bands_show_deviations(comparisons: list[Comparison]) -> None:
    """The band around a method's line ends one standard deviation from its mean."""
    (axis,) = draw(comparisons, Picture(kind="exits")).axes
    (band,) = axis.collections[-1:]
    vertices = band.get_paths()[0].vertices
    rows = [row for row in comparisons[0].exits if row.method == "deebert"]
    for row in rows:
        ends = vertices[vertices[:, 0] == row.layer][:, 1]
        assert row.score.deviation
        assert ends.min() == pytest.approx(100 * (row.score.mean - row.score.deviation))
        assert ends.max() == pytest.approx(100 * (row.score.mean + row.score.deviation))


def test_methods_look_different(comparisons: list[Comparison]) -> None:
    """Every method has its own look, whichever others are drawn beside it."""
    looks = dict(_looks(known_methods()))
    assert len(set(looks.values())) == len(looks)
    assert dict(_looks(["pabee", "bert"])) == {name: looks[name] for name in ("pabee", "bert")}
    assert dict(_looks(["mine", "bert"]))["mine"] == dict(_looks(["mine"]))["mine"]
    variants = dict(_looks(["bert", "bert (epochs=1)"]))
    assert len(set(variants.values())) == 2
    assert len({look.colour for look in variants.values()}) == 1


@pytest.mark.parametrize("ending", FORMATS)
def test_equal_runs_give_equal_bytes(
    ending: str, comparisons: list[Comparison], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        save(draw(comparisons, Picture()), tmp_path / f"{name}{ending}")
    one, two = (tmp_path.joinpath(f"{name}{ending}").read_bytes() for name in ("one", "two"))
    assert one == two
    assert one.startswith(MAGIC[ending])


def test_distant_baseline_is_written(comparisons: list[Comparison], tmp_path: Path) -> None:
    """A baseline far below all scores is written down and not drawn."""
    (axis,) = draw(comparisons, Picture()).axes
    assert "majority class" in axis.get_legend_handles_labels()[1]
    (comparison,) = comparisons
    comparison.constant_scores["accuracy"] = -9.0
    (axis,) = draw([comparison], Picture()).axes
    assert [text.get_text() for text in axis.texts] == ["majority class: -900.0"]


def test_unusable_requests_are_refused(comparisons: list[Comparison]) -> None:
    with pytest.raises(HarnessError, match="accuracy"):
        draw(comparisons, Picture(metric="acuracy"))
    for wrong in (Picture(kind="bars"), Picture(x="flops"), Picture(budget="1/1000")):
        with pytest.raises(HarnessError, match=r"unknown (kind|cost|budget)"):
            draw(comparisons, wrong)
    with pytest.raises(IncompleteError, match="budget"):
        draw(comparisons, Picture(kind="histogram", budget="1/8"))
    untimed = compare_without_latency(comparisons)
    with pytest.raises(IncompleteError, match="latency"):
        draw(untimed, Picture(x="latency"))


def compare_without_latency(comparisons: list[Comparison]) -> list[Comparison]:
    return [
        replace(one, rows=tuple(replace(row, latency_ratio=None) for row in one.rows))
        for one in comparisons
    ]


def test_command_writes_the_picture(
    store: ResultsStore, comparisons: list[Comparison], tmp_path: Path, run_cli: RunCli
) -> None:
    out, results = tmp_path / "picture.svg", ("--results-dir", str(store.root))
    result = run_cli("plot", "--out", str(out), *results)
    assert (result.code, result.lines) == (0, [])
    assert re.search("deebert", out.read_text(encoding="utf-8"))
    assert_one_line(run_cli("plot", "--out", "picture.gif", *results), 2, ["picture.gif", ".svg"])


def test_missing_matplotlib_is_named(
    store: ResultsStore,
    comparisons: list[Comparison],
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run_cli("plot", "--out", "picture.svg", "--results-dir", str(store.root))
    assert_one_line(result, 2, ["matplotlib", "pip"])
