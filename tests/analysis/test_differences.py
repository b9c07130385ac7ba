"""Paired differences, on runs whose errors a test can count."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from support.command_line import RunCli, assert_one_line
from support.messages import names_all, names_in_order
from support.synthetic import (
    gap_trace,
    identified,
    make_exit,
    make_record,
    one_line,
    save_bert_and_deebert,
    save_run,
)

from harness.analysis.differences import DEFAULT_ROW, Difference, differences
from harness.analysis.points import AllExits
from harness.data.tasks import TASKS
from harness.errors import ExitCode, HarnessError, IncompleteError
from harness.evaluation.metrics import METRICS
from harness.evaluation.statistics import bootstrap
from harness.evaluation.trace import Trace
from harness.methods.registry import load_method
from harness.store.results import ResultsStore

ROWS = 200
LABELS = np.arange(ROWS) % 2


def predictions(errors: int, start: int = 0) -> NDArray[np.int64]:
    """Return the labels with this number of errors from row `start` on."""
    predicted = LABELS.copy()
    predicted[start : start + errors] = 1 - predicted[start : start + errors]
    return predicted


def trace_of(exits: Sequence[NDArray[np.int64]]) -> Trace:
    layers = (4,) if len(exits) == 1 else (1, 4)
    return gap_trace(
        layers,
        [one.tolist() for one in exits],
        np.linspace(1, 5, ROWS).tolist(),
        LABELS.tolist(),
        20,
    )


def save(
    store: ResultsStore,
    method: str,
    seed: int,
    settings: dict[str, object],
    *predicted: NDArray[np.int64],
    task: str = "rte",
    changed: dict[str, object] | None = None,
) -> None:
    """Save a run with these predictions at its exits.

    `changed`: the settings that differ from the method's own; None if there are none."""
    layers, metrics = (4,) if len(predicted) == 1 else (1, 4), TASKS[task].metrics
    exits = [
        make_exit(
            layer,
            {metric: float(METRICS[metric](one.astype(float), LABELS)) for metric in metrics},
            2000.0 * layer,
            1.0,
            1.0,
        )
        for layer, one in zip(layers, predicted, strict=True)
    ]
    record = make_record(method, seed, exits, "entropy" if len(predicted) > 1 else None, task)
    record = identified(
        replace(record, spec=replace(record.spec, settings=settings), changed=changed or {})
    )
    save_run(store, record, dict.fromkeys(("dev", "selection", "calibration"), trace_of(predicted)))


def found(
    store: ResultsStore, against: str, methods: Sequence[str] | None = None
) -> dict[tuple[str, str], Difference]:
    (one,) = differences(store, store.records()[0], against, "bert", methods)
    assert one.metric == "accuracy"
    return {(row.method, str(row.point)): row for row in one.rows}


def test_difference_pairs_seeds_and_rows(store: ResultsStore) -> None:
    """A difference is paired by seed and by row.

    Seed 1 loses rows 0 to 19, seed 2 wins rows 20 to 29; only one method has seed 3, which does not
    count."""
    save(store, "bert", 1, {}, predictions(0))
    save(store, "bert", 2, {}, predictions(10, start=20))
    save(store, "tinybert", 1, {}, predictions(20))
    save(store, "tinybert", 2, {}, predictions(0))
    save(store, "tinybert", 3, {}, predictions(100))
    rows = found(store, "bert")
    assert rows["bert", "last exit"].gain is None
    row = rows["tinybert", "last exit"]
    assert row.against == "bert"
    assert (row.score.mean, row.score.count) == (pytest.approx((0.9 + 1.0 + 0.5) / 3), 3)
    assert row.gain is not None
    assert (row.gain.mean, row.gain.count) == (pytest.approx((-0.1 + 0.05) / 2), 2)
    assert row.gain.deviation == pytest.approx(np.std([-0.1, 0.05], ddof=1))
    change = np.zeros(ROWS)
    change[:20], change[20:30] = -0.5, 0.5
    error = change.std() / np.sqrt(ROWS)
    assert row.interval == pytest.approx(
        (change.mean() - 1.96 * error, change.mean() + 1.96 * error), abs=0.005
    )


def test_bootstrap_resamples_pairs_together() -> None:
    """Several pairs are resampled together.

    What one pair wins on a row and the other loses there does not widen the interval."""
    right, wrong, labels = np.ones(50), np.r_[np.zeros(25), np.ones(25)], np.ones(50)
    assert bootstrap("accuracy", [(right, wrong), (wrong, right)], labels, 100) == (0, 0)
    low, high = bootstrap("accuracy", [(wrong, right)], labels, 1000)
    assert 0.3 < low < 0.5 < high < 0.7


@pytest.mark.parametrize("others", [1, 2])
def test_default_row_has_own_settings(store: ResultsStore, others: int) -> None:
    """The default row is the one whose settings are the method's own."""
    settings = asdict(load_method("tinybert"))
    default: dict[str, object] = {name: settings[name] for name in ("general", "augmentation")}
    save(store, "bert", 1, {}, predictions(0))
    save(store, "tinybert", 1, default, predictions(10))
    for changed in [{"general": False}, {"augmentation": 0}][:others]:
        save(store, "tinybert", 1, default | changed, predictions(30), changed=changed)
    rows = found(store, DEFAULT_ROW)
    assert rows["tinybert", "last exit"].gain is None
    gains = {row.method: row.gain.mean for row in rows.values() if row.gain is not None}
    assert gains == {
        name: pytest.approx(-0.1)
        for name in ["tinybert (general=False)", "tinybert (augmentation=0)"][:others]
    }
    assert not any(name == "bert" for name, _ in rows)


def test_shared_changes_are_ignored(store: ResultsStore) -> None:
    """Changes that all rows of a method share do not matter.

    The default row is the one without other changes, which is named only by the method."""
    shared: dict[str, object] = {"effort": 0.3}
    for changed, errors in (
        (shared, 10),
        (shared | {"equilibrium": False}, 20),
        (shared | {"rounds": "one"}, 30),
    ):
        save(
            store,
            "costeff",
            1,
            {"equilibrium": True, "rounds": "iterative"} | changed,
            predictions(errors),
            changed=changed,
        )
    rows = found(store, DEFAULT_ROW)
    assert {row.against for row in rows.values()} == {"costeff", None}
    assert rows["costeff", "last exit"].score.mean == pytest.approx(0.95)


def test_former_spelling_of_default_is_accepted(store: ResultsStore) -> None:
    save(store, "tinybert", 1, {}, predictions(10))
    save(store, "tinybert", 1, {"general": False}, predictions(30), changed={"general": False})
    assert DEFAULT_ROW == "default"
    assert found(store, "plain") == found(store, "default")


def test_missing_default_row_is_incomplete(store: ResultsStore) -> None:
    for changed in ({"equilibrium": False}, {"rounds": "one"}):
        save(store, "costeff", 1, changed, predictions(10), changed=changed)
    with pytest.raises(IncompleteError):
        found(store, DEFAULT_ROW)


def test_old_records_have_no_default_row(store: ResultsStore) -> None:
    """A record without `changed` does not say whether its settings are the defaults."""
    save(store, "tinybert", 1, {"general": True}, predictions(10))
    save(store, "tinybert", 1, {"general": False}, predictions(30))
    records = [replace(record, changed=None) for record in store.records()[0]]
    with pytest.raises(IncompleteError) as caught:
        differences(store, records, DEFAULT_ROW, "bert")
    assert names_all(one_line(caught), "harness report", DEFAULT_ROW)


def test_every_metric_has_differences(run_cli: RunCli, store: ResultsStore) -> None:
    """Every metric of a task has differences of its own, beside the score of a majority-class
    baseline.

    Every other of 200 rows has label 1; one run predicts 1 for 20 of the others, so that 100 of 120
    are right: F1 is 200 / 220."""
    predicted = LABELS.copy()
    predicted[:40:2] = 1
    save(store, "bert", 1, {}, predictions(0), task="mrpc")
    save(store, "tinybert", 1, {}, predicted, task="mrpc")
    by_metric = {one.metric: one for one in differences(store, store.records()[0], "bert", "bert")}
    assert list(by_metric) == ["f1", "accuracy"]
    gains = {
        metric: [row.gain.mean for row in one.rows if row.gain is not None]
        for metric, one in by_metric.items()
    }
    assert gains == {"f1": [pytest.approx(200 / 220 - 1)], "accuracy": [pytest.approx(-0.1)]}
    assert {one.constant for one in by_metric.values()} == {0.527}
    text = run_cli("report", "--differences-from", "bert", "--results-dir", str(store.root)).out
    _, *sections = re.split("^### ", text, flags=re.MULTILINE)
    for section, metric, gain in zip(sections, ("f1", "accuracy"), ("-9.1", "-10.0"), strict=True):
        title, prose, (_, *rows) = (
            section.splitlines()[0],
            section.partition("|")[0],
            cells_of(section),
        )
        assert names_all(title, "mrpc", "tiny", metric)
        assert names_all(prose, "52.7")
        assert [(row[0], row[5]) for row in rows] == [("bert", "-"), ("tinybert", gain)]


def cells_of(markdown: str) -> list[list[str]]:
    """The header and the rows of the table in a text."""
    header, _, *rows = [
        line.strip("| ").split("|") for line in markdown.splitlines() if line.startswith("|")
    ]
    return [[cell.strip() for cell in row] for row in (header, *rows)]


def test_points_need_every_seed(store: ResultsStore) -> None:
    """A point that only some seeds have is left out.

    Seed 2 has late exits alone: no threshold keeps its MACs within a quarter of the full model's.
    """
    save(store, "bert", 1, {}, predictions(10))
    save(store, "deebert", 1, {}, predictions(5), predictions(5))
    assert ("deebert", "MACs <= 1/4") in found(store, "bert")
    record = make_record(
        "deebert",
        2,
        [
            make_exit(3, {"accuracy": 1.0}, 6000.0, 1, 1),
            make_exit(4, {"accuracy": 1.0}, 8000.0, 1, 1),
        ],
        "entropy",
    )
    trace = replace(trace_of([predictions(5), predictions(5)]), exit_layers=np.array([3, 4]))
    save_run(
        store,
        identified(replace(record, spec=replace(record.spec, settings={}))),
        dict.fromkeys(("dev", "selection", "calibration"), trace),
    )
    assert ("deebert", "MACs <= 1/4") not in found(store, "bert")
    assert ("deebert", "MACs <= 3/4") in found(store, "bert")


def test_curve_is_compared_with_single_exit(store: ResultsStore) -> None:
    """Exits are compared with exits, and a curve with a single exit."""
    save(store, "bert", 1, {}, predictions(10))
    save(store, "deebert", 1, {}, predictions(60), predictions(20))
    save(store, "pabee", 1, {}, predictions(40), predictions(0))
    rows = found(store, "deebert")
    assert rows["pabee", str(AllExits())].gain is not None
    assert rows["pabee", str(AllExits())].gain.mean == pytest.approx(0.1)
    assert rows["pabee", str(AllExits())].macs.mean == pytest.approx((2000 + 8000) / 2)
    rows = found(store, "bert")
    assert rows["deebert", str(AllExits())].gain is None
    half = rows["deebert", "MACs <= 1/2"]
    assert half.gain is not None
    assert half.gain.mean == pytest.approx(half.score.mean - 0.95)


def test_methods_option_keeps_compared_row(store: ResultsStore) -> None:
    """The row that the requested methods are compared with is kept beside them."""
    for method in ("bert", "deebert", "pabee"):
        save(store, method, 1, {}, predictions(0), predictions(0))
    assert {method for method, _ in found(store, "bert", ["deebert"])} == {"bert", "deebert"}


def test_absent_rows_are_refused(store: ResultsStore) -> None:
    """An unknown row is refused."""
    save_bert_and_deebert(store)
    with pytest.raises(HarnessError) as caught:
        found(store, "debert")
    assert caught.value.exit_code == ExitCode.USER
    assert names_in_order(one_line(caught), "debert", "deebert", "bert", DEFAULT_ROW)
    with pytest.raises(IncompleteError) as missing:
        found(store, DEFAULT_ROW)
    assert names_all(one_line(missing), store.root, DEFAULT_ROW)


def test_report_shows_differences_in_every_form(run_cli: RunCli, store: ResultsStore) -> None:
    save(store, "bert", 1, {}, predictions(10))
    save(store, "tinybert", 1, {}, predictions(20))
    words = ("report", "--results-dir", str(store.root), "--differences-from", "bert")
    _, *rows = cells_of(run_cli(*words).out)
    assert [row[:6] for row in rows] == [
        ["bert", "last exit", "95.0", "0.0", "1", "-"],
        ["tinybert", "last exit", "90.0", "0.0", "1", "-5.0"],
    ]  # fmt: skip
    assert re.fullmatch(r"-\d+\.\d .* [+-]\d+\.\d", rows[1][6])
    (loaded,) = json.loads(run_cli(*words, "--format", "json").out)
    assert loaded["rows"][1]["gain"]["mean"] == pytest.approx(-0.05)
    table = list(csv.DictReader(io.StringIO(run_cli(*words, "--format", "csv").out)))
    assert [(row["method"], row["against"], row["seeds"]) for row in table] == [
        ("bert", "", ""),
        ("tinybert", "bert", "1"),
    ]
    latex = run_cli(*words, "--format", "latex").out
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 1
    refused = run_cli(*words, "--budget", "10ms")
    assert_one_line(refused, ExitCode.USER, ("--differences-from", "--budget"))
