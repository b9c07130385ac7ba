"""The tables of the report show what the comparison found."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.messages import figures, names_all, names_in_order
from support.report_tables import (
    CURVE,
    EXITS,
    LIVE,
    MAIN,
    RATIOS,
    TWO_METRICS,
    UNTIMED,
    columns,
    prose_of,
    row_of,
    tables,
    titles_of,
)
from support.synthetic import (
    identified,
    make_latency,
    make_timing,
    one_line,
    save_bert_and_deebert,
    single,
)

from harness.analysis.operating_points import BUDGETS
from harness.errors import ExitCode, IncompleteError
from harness.evaluation.statistics import Mean
from harness.records import Quartiles
from harness.report.document import MAJORITY_BASELINE, number
from harness.report.overview import render
from harness.store.results import ResultsStore


@pytest.fixture
def store(store: ResultsStore) -> ResultsStore:
    """bert and deebert, two seeds each; tests/analysis/test_comparison.py derives the figures."""
    save_bert_and_deebert(store)
    return store


@pytest.fixture
def markdown(store: ResultsStore) -> str:
    return render(store, store.records()[0], "bert", "markdown")


def test_first_row_is_majority_baseline(markdown: str) -> None:
    """The first row is the majority-class baseline."""
    row = columns(tables(markdown)[0], MAIN)[0]
    assert (row.pop("method"), row.pop("score")) == (MAJORITY_BASELINE, "52.7")
    assert set(row.values()) == {"-"}


def test_main_table_averages_over_seeds(markdown: str) -> None:
    """The main table shows means and deviations over seeds. Deviations: |a - b| / sqrt 2."""
    row = row_of(columns(tables(markdown)[0], MAIN), "deebert", point="exit 4")
    assert row == {
        "method": "deebert",
        "point": "exit 4",
        "n": "2",
        "score": "76.5 ± 0.7",
        "retained": "102.5 ± 10.6",
        "parameters": "2.00",
        "macs": "0.0",
        "flops": "0.0",
        "mac_ratio": "0.95",
        "layers": "4.00",
        "ms": "13.50 ± 6.36",
        "reference_ms": "13.50 ± 6.36",
        "latency_ratio": "0.93 ± 0.01",
    }


def test_three_speedups_have_own_columns(markdown: str) -> None:
    """The three speed-ups of a point have a column each.

    MACs 8000/5000 and 8000/3500, layers 2.5 and 1.75, latency 9/6.75 and 18/10.25."""
    row = row_of(columns(tables(markdown)[0], MAIN), "deebert", point="MACs <= 3/4")
    assert row["mac_ratio"] == "1.94 ± 0.48"
    assert row["layers"] == "2.12 ± 0.53"
    assert row["latency_ratio"] == "~1.24 ± 0.24"


def test_megaflops_are_twice_megamacs(tmp_path: Path) -> None:
    (table, _) = tables(
        render(ResultsStore(tmp_path), [single("bert", 1, macs=8e6)], "bert", "markdown")
    )
    row = row_of(columns(table, UNTIMED), "bert")
    assert (row["macs"], row["flops"]) == ("8.0", "16.0")


def test_curve_table_has_budget_columns(markdown: str) -> None:
    """The curve table has a column for each budget."""
    assert tables(markdown)[1][0][3:] == list(BUDGETS)
    table = columns(tables(markdown)[1], CURVE)
    assert [row["method"] for row in table] == [MAJORITY_BASELINE, "deebert", "deebert"]
    scored, *_, charged = [row.pop("figure") for row in table]
    assert names_all(scored, "accuracy")
    assert scored != charged
    assert {value for name, value in table[0].items() if name in BUDGETS} == {"52.7"}
    assert table[1] == {
        "method": "deebert",
        "policy": "entropy",
        "1": "62.5 ± 17.7",
        "3/4": "62.5 ± 17.7",
        "1/2": "87.5 ± 17.7",
        "3/8": "100.0",
        "1/4": "100.0",
        "1/8": "-",
    }
    assert (table[2]["3/4"], table[2]["1/8"]) == ("0.0", "-")


def test_exit_table_has_both_latencies(markdown: str) -> None:
    """The exit table has static and path latency at each batch size."""
    table = columns(tables(markdown)[2], EXITS)
    assert [(row["method"], row["exit"]) for row in table] == [
        (MAJORITY_BASELINE, "-"),
        ("bert", "4"),
        ("deebert", "1"),
        ("deebert", "4"),
    ]
    assert table[0]["score"] == "52.7"
    row = table[2]
    assert row["score"] == "55.0 ± 7.1"
    assert (row["static_1"], row["path_1"]) == ("4.50 ± 2.12", "5.25 ± 2.47")
    assert (row["static_32"], row["path_32"]) == ("90.00 ± 42.43", "105.00 ± 49.50")


@pytest.mark.parametrize("reference", [None, "bert"])
def test_ratios_without_reference_are_dashes(reference: str | None, store: ResultsStore) -> None:
    """Without the reference every ratio is a dash."""
    records = [record for record in store.records()[0] if record.spec.method == "deebert"]
    text = render(store, records, reference, "markdown")
    main = columns(tables(text)[0], MAIN)
    assert [row["point"] for row in main[1:]] == [
        "exit 4",
        "MACs <= 3/4",
        "MACs <= 1/2",
        "MACs <= 1/4",
    ]
    for row in main:
        assert [row[name] for name in RATIOS] == ["-", "-", "-"], row["point"]
    assert main[1]["score"] == "76.5 ± 0.7"
    assert not names_all(prose_of(text), "bert")


def test_untimed_report_omits_latency(tmp_path: Path) -> None:
    """Runs that were not timed have no latency columns, and no text about latency."""
    with_latency = replace(single("bert", 1), latency=make_latency("bert", 4.0, [1.25]))
    record = replace(
        with_latency,
        exits=(replace(with_latency.exits[0], static_ms={}, path_ms={}),),
        latency=None,
    )
    untimed, clocked = (
        render(ResultsStore(tmp_path), [identified(one)], "bert", "markdown")
        for one in (record, with_latency)
    )
    assert [len(table[0]) for table in tables(untimed)] == [len(UNTIMED), len(EXITS) - 4]
    assert [len(table[0]) for table in tables(clocked)] == [len(MAIN), len(EXITS)]
    about_latency = set(re.findall(r"\w+", prose_of(clocked))) - set(
        re.findall(r"\w+", prose_of(untimed))
    )
    assert {"10", "32"} < about_latency  # rounds at a batch size
    assert "harness time" in prose_of(clocked)
    assert "harness time" not in prose_of(untimed)


def test_untimed_rows_show_dashes(tmp_path: Path) -> None:
    """If only some runs were timed, the others have dashes."""
    first = identified(replace(single("bert", 1), latency=make_latency("bert", 4.0, [1.25])))
    other = single("pabee", 1)
    other = identified(
        replace(other, exits=(replace(other.exits[0], static_ms={}, path_ms={}),), latency=None)
    )
    main = columns(
        tables(render(ResultsStore(tmp_path), [first, other], "bert", "markdown"))[0], MAIN
    )
    rows = [row_of(main, method) for method in ("bert", "pabee")]
    assert [(row["ms"], row["latency_ratio"]) for row in rows] == [("4.00", "1.25"), ("-", "-")]


def test_every_metric_has_its_column(tmp_path: Path) -> None:
    """Every metric of a task has its column."""
    main, exits = tables(
        render(ResultsStore(tmp_path), [single("bert", 1, task="mrpc")], "bert", "markdown")
    )
    row = row_of(columns(main, TWO_METRICS), "bert")
    assert (row["score"], row["second"]) == ("50.0", "25.0")
    assert [
        names_all(main[0][index], metric) for index, metric in ((3, "f1"), (4, "accuracy"))
    ] == [True, True]
    assert exits[2][2] == "50.0"
    assert names_all(exits[0][2], "f1")


def test_variants_have_own_rows(tmp_path: Path) -> None:
    records = [single("bert", 1), single("bert", 1)]
    records[1] = identified(
        replace(
            records[1],
            spec=replace(records[1].spec, settings={**records[1].spec.settings, "epochs": 5}),
        )
    )
    (table, _) = tables(render(ResultsStore(tmp_path), records, "bert", "markdown"))
    assert [row["method"] for row in columns(table, UNTIMED)[1:]] == [
        "bert (epochs=3)",
        "bert (epochs=5)",
    ]


def test_live_timings_are_listed(store: ResultsStore, markdown: str) -> None:
    """Live timings are listed with the conditions of their measurement."""
    assert len(tables(markdown)) == 3
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    store.add_timing(record, make_timing(record.run_id, 0.25))
    text = render(store, store.records()[0], "bert", "markdown")
    row = row_of(columns(tables(text)[3], LIVE), "deebert")
    assert (row["seed"], row["policy"], row["threshold"], row["batch"]) == (
        str(record.spec.seed),
        "entropy",
        "0.25",
        "8",
    )
    assert (row["precision"], row["threads"], row["layers"]) == ("float32", "2", "2.75")
    assert (row["rows"], row["rounds"], row["tokens"], row["score"]) == (
        "4",
        "5",
        "22.5",
        "accuracy=62.5",
    )
    assert (row["ms"], row["reference"], row["reference_ms"], row["ratio"]) == (
        "4.00",
        "bert",
        "8.00",
        "2.25 [1.75, 2.50]",
    )
    assert names_in_order(prose_of(text), "harness time", "accuracy", 52.7)


def test_newest_equal_timing_is_listed(store: ResultsStore) -> None:
    """The newest of several timings under equal conditions is listed, and one of fewer rows shows
    their share."""
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    timing = make_timing(record.run_id, 0.25)
    newer = replace(timing, created="2026-02-01T00:00:00+00:00", early_ms=Quartiles(1.0, 2.0, 3.0))
    for one in (newer, timing, replace(timing, rows=3), replace(timing, threads=1)):
        store.add_timing(record, one)
    rows = columns(tables(render(store, store.records()[0], "bert", "markdown"))[3], LIVE)
    assert sorted((figures(row["rows"]), row["threads"], row["ms"]) for row in rows) == [
        ([3, 4], "2", "4.00"), ([4], "1", "4.00"), ([4], "2", "2.00"),
    ]  # fmt: skip


def test_no_runs_are_incomplete(store: ResultsStore) -> None:
    with pytest.raises(IncompleteError) as caught:
        render(store, [], "bert", "markdown")
    assert caught.value.exit_code == ExitCode.INCOMPLETE
    assert names_all(one_line(caught), store.root, "harness run")


def test_missing_trace_is_incomplete(store: ResultsStore) -> None:
    """A run whose trace is missing is incomplete."""
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    (store.folder("rte", "deebert", record.run_id) / "trace.calibration.npz").unlink()
    with pytest.raises(IncompleteError) as caught:
        render(store, store.records()[0], "bert", "markdown")
    assert names_all(one_line(caught), record.run_id, "trace.calibration.npz")


def test_damaged_runs_are_not_intact(store: ResultsStore) -> None:
    """A run whose trace or timing is damaged is not intact."""
    records = store.records()[0]
    damaged, damaged_timing, *rest = records
    (store.folder("rte", damaged.spec.method, damaged.run_id) / "trace.selection.npz").write_bytes(
        b"PK torn"
    )
    store.add_timing(damaged_timing, make_timing(damaged_timing.run_id, 0.25)).write_text("{")
    intact, problems = store.intact(records)
    assert intact == rest
    assert [(problem.folder, "trace.selection.npz" in problem.reason) for problem in problems] == [
        (f"rte/{damaged.spec.method}/{damaged.run_id}", True),
        (f"rte/{damaged_timing.spec.method}/{damaged_timing.run_id}", False),
    ]


def test_every_form_is_deterministic(store: ResultsStore) -> None:
    """No format depends on the order of the runs."""
    for form in ("markdown", "csv", "json"):
        records = store.records()[0]
        assert render(store, records, "bert", form) == render(store, records[::-1], "bert", form)


@pytest.mark.parametrize(
    ("value", "digits", "times", "expected"),
    [
        (None, 1, 1.0, "-"),
        (Mean(0.5, 0.0, 1), 1, 100, "50.0"),
        (Mean(0.5, None, 1), 1, 100, "50.0"),
        (Mean(0.5, 0.0123, 3), 1, 100, "50.0 ± 1.2"),
        (Mean(0.5, 0.0004, 3), 1, 100, "50.0"),
        (Mean(1234567.0, 500000.0, 2), 1, 1e-6, "1.2 ± 0.5"),
        (Mean(2.345678, 0.0, 2), 2, 1.0, "2.35"),
    ],
)
def test_figure_shows_deviation_over_seeds(
    value: Mean | None, digits: int, times: float, expected: str
) -> None:
    """A figure shows its deviation if there are several seeds."""
    assert number(value, digits, times) == expected


def test_partial_ratio_gives_its_seeds(tmp_path: Path) -> None:
    """A ratio over fewer seeds than its row gives their number."""
    runs = [single("bert", 1), single("pabee", 1), single("pabee", 2)]
    (main, _) = tables(render(ResultsStore(tmp_path), runs, "bert", "markdown"))
    row = row_of(columns(main, UNTIMED), "pabee")
    assert (row["n"], row["retained"], row["mac_ratio"]) == ("2", "100.0 (n=1)", "1.00 (n=1)")


def test_tasks_without_methods_are_omitted(store: ResultsStore) -> None:
    """Tasks without a row of the methods are left out."""
    text = render(
        store,
        [*store.records()[0], single("bert", 1, task="mrpc")],
        "bert",
        "markdown",
        ["deebert"],
    )
    (title,) = titles_of(text)
    assert names_in_order(title, "rte", "tiny")
    assert "mrpc" not in text
