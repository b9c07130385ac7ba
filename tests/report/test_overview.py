"""The report's tables say what the comparison found."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.synthetic import (
    identified,
    make_exit,
    make_latency,
    make_record,
    make_timing,
    random_trace,
    save_bert_and_deebert,
    save_run,
    single,
)

from harness.errors import ExitCode, IncompleteError
from harness.evaluation.statistics import Mean
from harness.records import Quartiles
from harness.report.document import number
from harness.report.overview import render
from harness.store.results import ResultsStore

Table = list[dict[str, str]]

RATIOS = ("retained %", "MAC ratio", "latency ratio")


def tables(markdown: str) -> list[Table]:
    """The tables of a markdown text, each row by its headers; every row must have as many cells as there are headers."""
    found: list[Table] = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", markdown, re.MULTILINE):
        header, rule, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.strip().splitlines()]
        assert all(re.fullmatch(r":?-+:?", cell) for cell in rule)
        found.append([dict(zip(header, row, strict=True)) for row in rows])
    return found


def row_of(table: Table, method: str, **cells: str) -> dict[str, str]:
    (row,) = [row for row in table if row["method"] == method and all(row[name] == value for name, value in cells.items())]
    return row


@pytest.fixture
def store(store: ResultsStore) -> ResultsStore:
    """bert and deebert, two seeds each: the figures are worked out in test_compare.py."""
    save_bert_and_deebert(store)
    return store


@pytest.fixture
def markdown(store: ResultsStore) -> str:
    return render(store, store.records()[0], "bert", "markdown")


def test_the_first_row_is_the_constant_answer(markdown: str) -> None:
    row = tables(markdown)[0][0]
    assert row["method"] == "(constant answer)"
    assert row["accuracy x100"] == "52.7"
    assert {value for name, value in row.items() if name not in ("method", "accuracy x100")} == {"-"}


def test_the_main_table_shows_means_and_deviations_over_seeds(markdown: str) -> None:
    """Deviations: |a - b| / sqrt 2."""
    row = row_of(tables(markdown)[0], "deebert", point="exit 4")
    assert row == {
        "method": "deebert",
        "point": "exit 4",
        "n": "2",
        "accuracy x100": "76.5 ± 0.7",
        "retained %": "102.5 ± 10.6",
        "params M": "2.00",
        "MMACs": "0.0",
        "MFLOPs": "0.0",
        "MAC ratio": "0.95",
        "layers": "4.00",
        "ms (batch 1)": "13.50 ± 6.36",
        "reference ms": "13.50 ± 6.36",
        "latency ratio": "0.93 ± 0.01",
    }


def test_three_speed_ups_of_a_point_stand_in_three_columns(markdown: str) -> None:
    """MACs 8000/5000 and 8000/3500, layers 2.5 and 1.75, latency 9/6.75 and 18/10.25."""
    row = row_of(tables(markdown)[0], "deebert", point="MACs <= 3/4")
    assert row["MAC ratio"] == "1.94 ± 0.48"
    assert row["layers"] == "2.12 ± 0.53"
    assert row["latency ratio"] == "~1.24 ± 0.24"
    assert "never mixed" in markdown


def test_megamacs_and_megaflops_differ_by_a_factor_of_two(tmp_path: Path) -> None:
    (table, _) = tables(render(ResultsStore(tmp_path), [single("bert", 1, macs=8e6)], "bert", "markdown"))
    row = row_of(table, "bert")
    assert (row["MMACs"], row["MFLOPs"]) == ("8.0", "16.0")


def test_the_curve_table_has_a_column_per_budget(markdown: str) -> None:
    table = tables(markdown)[1]
    assert [(row["method"], row["on dev"]) for row in table] == [
        ("(constant answer)", "accuracy x100"), ("deebert", "accuracy x100"), ("deebert", "MMACs"),
    ]  # fmt: skip
    assert {value for name, value in table[0].items() if "/" in name} == {"52.7"}
    assert table[1] == {
        "method": "deebert",
        "policy": "entropy",
        "on dev": "accuracy x100",
        "1": "62.5 ± 17.7",
        "3/4": "62.5 ± 17.7",
        "1/2": "87.5 ± 17.7",
        "3/8": "100.0",
        "1/4": "100.0",
        "1/8": "-",
    }
    assert (table[2]["3/4"], table[2]["1/8"]) == ("0.0", "-")


def test_the_exit_table_has_static_and_path_latency_per_batch_size(markdown: str) -> None:
    table = tables(markdown)[2]
    assert [(row["method"], row["exit"]) for row in table] == [
        ("(constant answer)", "-"),
        ("bert", "4"),
        ("deebert", "1"),
        ("deebert", "4"),
    ]
    assert table[0]["accuracy x100"] == "52.7"
    row = table[2]
    assert row["accuracy x100"] == "55.0 ± 7.1"
    assert (row["static ms (batch 1)"], row["path ms (batch 1)"]) == ("4.50 ± 2.12", "5.25 ± 2.47")
    assert (row["static ms (batch 32)"], row["path ms (batch 32)"]) == ("90.00 ± 42.43", "105.00 ± 49.50")


def test_the_caption_says_what_the_figures_rest_on(markdown: str) -> None:
    caption = next(line for line in markdown.splitlines() if line.startswith("Scores on dev"))
    said = ("40 rows", "20.5 tokens", "1, 2", "2000 rows", "selection (40)", "calibration (40)", "128 tokens", "6 rows were longer")
    for part in (*said, "float32", "2 CPU thread", "A processor", "20 to 20 at batch size 1", "Reference: bert"):
        assert part in caption
    assert "train-rows" not in caption
    assert "### rte on tiny\n" in markdown


def test_the_caption_of_a_regression_says_what_patience_calls_agreement(tmp_path: Path, markdown: str) -> None:
    exits = [make_exit(layer, {"pearson": 0.5, "spearman": 0.5}, 4e6 * layer, 4.0, 4.0) for layer in (2, 4)]
    store, runs = ResultsStore(tmp_path / "regression"), [make_record("bert", 1, exits[-1:], task="stsb")]
    assert "agree" not in render(store, runs, "bert", "markdown")
    for tolerance in (0.25, 0.5):
        run = make_record("pabee", 1, exits, "patience", task="stsb")
        settings = {**run.spec.settings, "tolerance": tolerance}
        runs.append(identified(replace(run, tolerance=tolerance, spec=replace(run.spec, settings=settings))))
    for run in runs:
        layers = [exit_.layer for exit_ in run.exits]
        save_run(store, run, {split: random_trace(1, layers, classes=1) for split in ("dev", "selection", "calibration")})
    assert "differ by less than 0.25, 0.5 label units." in render(store, store.records()[0], "bert", "markdown")
    assert "label units" not in markdown


def test_quick_looks_and_drawn_rows_are_said_so_and_stand_apart(store: ResultsStore) -> None:
    records = store.records()[0]
    quick = identified(replace(records[0], spec=replace(records[0].spec, limit=64)))
    drawn = identified(replace(records[0], spec=replace(records[0].spec, train_rows=500)))
    text = render(store, [*records, quick, drawn], "bert", "markdown")
    titles = [line for line in text.splitlines() if line.startswith("###")]
    assert sorted(titles) == [
        "### rte on tiny, 500 training rows", "### rte on tiny, all training rows", "### rte on tiny, quick look at 64 rows",
    ]  # fmt: skip
    assert text.count("(drawn by --train-rows 500)") == 1
    mains = [table for table in tables(text) if "MAC ratio" in table[0]]
    assert sorted(row["n"] for table in mains for row in table if row["method"] == "bert") == ["1", "1", "2"]


@pytest.mark.parametrize("reference", [None, "bert"])
def test_without_the_reference_every_ratio_is_a_dash(reference: str | None, store: ResultsStore) -> None:
    records = [record for record in store.records()[0] if record.spec.method == "deebert"]
    text = render(store, records, reference, "markdown")
    main = tables(text)[0]
    assert [row["point"] for row in main[1:]] == ["exit 4", "MACs <= 3/4", "MACs <= 1/2", "MACs <= 1/4"]
    for row in main:
        assert [row[name] for name in RATIOS] == ["-", "-", "-"], row["point"]
    assert main[1]["accuracy x100"] == "76.5 ± 0.7"
    assert "as a share of the own full model's" in text
    assert "Reference: none." in text


def test_runs_that_were_not_timed_have_no_latency_columns_and_nothing_is_said_of_a_clock(tmp_path: Path) -> None:
    timed = replace(single("bert", 1), latency=make_latency("bert", 4.0, [1.25]))
    record = replace(timed, exits=(replace(timed.exits[0], static_ms={}, path_ms={}),), latency=None)
    text = render(ResultsStore(tmp_path), [identified(record)], "bert", "markdown")
    assert not [name for table in tables(text) for name in table[0] if "ms" in name.split() or "latency" in name]
    for word in ("timed", "Milliseconds", "clock"):
        assert word not in text
        assert word in render(ResultsStore(tmp_path), [identified(timed)], "bert", "markdown")


def test_of_runs_of_which_some_were_timed_the_others_have_dashes(tmp_path: Path) -> None:
    timed = identified(replace(single("bert", 1), latency=make_latency("bert", 4.0, [1.25])))
    other = single("pabee", 1)
    other = identified(replace(other, exits=(replace(other.exits[0], static_ms={}, path_ms={}),), latency=None))
    main = tables(render(ResultsStore(tmp_path), [timed, other], "bert", "markdown"))[0]
    row = row_of(main, "pabee")
    assert (row["ms (batch 1)"], row["latency ratio"]) == ("-", "-")


def test_every_metric_of_a_task_has_its_column(tmp_path: Path) -> None:
    main, exits = tables(render(ResultsStore(tmp_path), [single("bert", 1, task="mrpc")], "bert", "markdown"))
    row = row_of(main, "bert")
    assert (row["f1 x100"], row["accuracy x100"]) == ("50.0", "25.0")
    assert exits[1]["f1 x100"] == "50.0"


def test_variants_have_rows_of_their_own(tmp_path: Path) -> None:
    records = [single("bert", 1), single("bert", 1)]
    records[1] = identified(replace(records[1], spec=replace(records[1].spec, settings={**records[1].spec.settings, "epochs": 5})))
    (table, _) = tables(render(ResultsStore(tmp_path), records, "bert", "markdown"))
    assert [row["method"] for row in table[1:]] == ["bert", "bert (epochs=5)"]


def test_live_timings_are_listed_with_their_conditions(store: ResultsStore, markdown: str) -> None:
    assert "Live early exit" not in markdown
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    store.add_timing(record, make_timing(record.run_id, 0.25))
    text = render(store, store.records()[0], "bert", "markdown")
    row = row_of(tables(text)[3], "deebert")
    assert (row["seed"], row["policy"], row["threshold"], row["batch"]) == (str(record.spec.seed), "entropy", "0.25", "8")
    assert (row["precision"], row["threads"], row["layers"]) == ("float32", "2", "2.75")
    assert (row["rows"], row["rounds"], row["tokens"], row["score x100"]) == ("4", "5", "22.5", "accuracy=62.5")
    assert (row["ms"], row["reference"], row["its ms"], row["ratio"]) == ("4.00", "bert", "8.00", "2.25 [1.75, 2.50]")
    assert "a constant answer scores accuracy=52.7" in text


def test_of_timings_under_equal_conditions_the_newest_is_listed_and_quick_looks_are_said_so(store: ResultsStore) -> None:
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    timing = make_timing(record.run_id, 0.25)
    newer = replace(timing, created="2026-02-01T00:00:00+00:00", early_ms=Quartiles(1.0, 2.0, 3.0))
    for one in (newer, timing, replace(timing, rows=3), replace(timing, threads=1)):
        store.add_timing(record, one)
    rows = tables(render(store, store.records()[0], "bert", "markdown"))[3]
    assert sorted((row["rows"], row["threads"], row["ms"]) for row in rows) == [
        ("3 of 4", "2", "4.00"), ("4", "1", "4.00"), ("4", "2", "2.00"),
    ]  # fmt: skip


def test_the_caption_says_how_steady_the_clock_was(tmp_path: Path) -> None:
    """Quartiles 2 and 3 of one ratio are 1.5 times apart."""
    latency = make_latency("bert", 4.0, [1.25])
    unsteady = {size: tuple(replace(ratio, q1=2.0, q3=3.0) for ratio in ratios) for size, ratios in latency.path_ratio.items()}
    record = identified(replace(single("bert", 1), latency=replace(latency, path_ratio=unsteady)))
    text = render(ResultsStore(tmp_path), [record], "bert", "markdown")
    assert "at batch size 1 (quartiles of a ratio at most 1.50 times apart)" in text
    assert "?" not in text  # the row's own ratio is the static exit's, which was steady
    static = {"1": tuple(replace(ratio, q1=1.0, q3=1.4) for ratio in latency.reference_ratio["1"])}
    record = identified(replace(record, latency=replace(latency, reference_ratio={**latency.reference_ratio, **static})))
    text = render(ResultsStore(tmp_path), [record], "bert", "markdown")
    (table, *_) = tables(text)
    assert row_of(table, "bert")["latency ratio"] == "? 1.25"
    assert "Latency with ? was taken while something else ran: quartiles of the ratio lie more than 1.3 times apart" in text


def test_tables_of_one_task_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    record = single("bert", 1)
    other = identified(replace(record, environment=replace(record.environment, precision="bf"), spec=replace(record.spec, max_length=64)))
    text = render(ResultsStore(tmp_path), [record, other, single("bert", 1, task="mrpc")], "bert", "markdown")
    titles = [line for line in text.splitlines() if line.startswith("###")]
    assert titles.pop() == "### GLUE average on tiny"  # of rte at 128 tokens and mrpc
    assert sorted(titles) == [
        "### mrpc on tiny", "### rte on tiny, cut at 128 tokens, trained in float32", "### rte on tiny, cut at 64 tokens, trained in bf",
    ]  # fmt: skip


def test_a_caption_says_which_rows_ran_where(tmp_path: Path) -> None:
    record, pabee = single("bert", 1), single("pabee", 1)
    assert "scored in float32 on A processor, 2 CPU thread(s). Reference: bert." in render(
        ResultsStore(tmp_path), [record, pabee], "bert", "markdown"
    )
    other = identified(replace(pabee, environment=replace(pabee.environment, device="Another", threads=1)))
    text = render(ResultsStore(tmp_path), [record, other, pabee, single("pabee", 2)], "bert", "markdown")
    there = "Another, 1 CPU thread(s) (pabee (device=Another, threads=1))"
    assert f"A processor, 2 CPU thread(s) (bert, pabee); {there}. Reference: bert." in text


def test_what_methods_could_not_do_is_said_once_with_their_names(tmp_path: Path) -> None:
    plain, lacking = single("bert", 1), [replace(single(name, 1), remarks=("words are few",)) for name in ("tinybert", "distilbert")]
    records = [plain, *(identified(record) for record in lacking)]
    text = render(ResultsStore(tmp_path), records, "bert", "markdown")
    assert "\n\ndistilbert, tinybert: words are few.\n\n" in text
    assert text.count("words are few") == 1
    (comparison,) = json.loads(render(ResultsStore(tmp_path), records, "bert", "json"))["comparisons"]
    assert len(comparison["remarks"]) == 1


def test_no_runs_are_incomplete(store: ResultsStore) -> None:
    with pytest.raises(IncompleteError, match="harness run") as caught:
        render(store, [], "bert", "markdown")
    assert caught.value.exit_code == ExitCode.INCOMPLETE


def test_a_run_whose_trace_is_gone_is_incomplete(store: ResultsStore) -> None:
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    (store.folder("rte", "deebert", record.run_id) / "trace.calibration.npz").unlink()
    with pytest.raises(IncompleteError, match=r"trace\.calibration\.npz"):
        render(store, store.records()[0], "bert", "markdown")


def test_a_run_whose_trace_or_timing_is_damaged_is_not_sound(store: ResultsStore) -> None:
    records = store.records()[0]
    torn, mistimed, *rest = records
    (store.folder("rte", torn.spec.method, torn.run_id) / "trace.selection.npz").write_bytes(b"PK torn")
    store.add_timing(mistimed, make_timing(mistimed.run_id, 0.25)).write_text("{")
    sound, problems = store.sound(records)
    assert sound == rest
    assert [(problem.folder, "trace.selection.npz" in problem.reason) for problem in problems] == [
        (f"rte/{torn.spec.method}/{torn.run_id}", True),
        (f"rte/{mistimed.spec.method}/{mistimed.run_id}", False),
    ]


def test_every_form_is_the_same_twice(store: ResultsStore) -> None:
    for form in ("markdown", "csv", "json"):
        records = store.records()[0]
        assert render(store, records, "bert", form) == render(store, records[::-1], "bert", form)


@pytest.mark.parametrize(
    ("value", "digits", "times", "shown"),
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
def test_a_figure_shows_its_deviation_when_there_are_several_seeds(value: Mean | None, digits: int, times: float, shown: str) -> None:
    assert number(value, digits, times) == shown


def test_a_ratio_over_fewer_seeds_than_its_row_says_so(tmp_path: Path) -> None:
    runs = [single("bert", 1), single("pabee", 1), single("pabee", 2)]
    (main, _) = tables(render(ResultsStore(tmp_path), runs, "bert", "markdown"))
    row = row_of(main, "pabee")
    assert (row["n"], row["retained %"], row["MAC ratio"]) == ("2", "100.0 (n=1)", "1.00 (n=1)")


def test_tasks_without_a_row_of_the_methods_are_left_out(store: ResultsStore) -> None:
    text = render(store, [*store.records()[0], single("bert", 1, task="mrpc")], "bert", "markdown", ["deebert"])
    assert "### rte on tiny" in text
    assert "mrpc" not in text
