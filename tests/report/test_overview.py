"""The report's tables say what the comparison found."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.messages import figures, names_all, names_in_order
from support.synthetic import (
    identified,
    make_exit,
    make_latency,
    make_record,
    make_timing,
    one_line,
    random_trace,
    save_bert_and_deebert,
    save_run,
    single,
    timed,
)

from harness.analysis.operating_points import BUDGETS
from harness.errors import ExitCode, IncompleteError
from harness.evaluation.statistics import Mean
from harness.records import STABLE_SPREAD, Quartiles
from harness.report.document import CONSTANT, number
from harness.report.overview import render
from harness.store.results import ResultsStore

Table = list[dict[str, str]]

MAIN = (
    "method", "point", "n", "score", "retained", "parameters", "macs", "flops", "mac_ratio", "layers",
    "ms", "reference_ms", "latency_ratio",
)  # fmt: skip
"""What the columns of the main table hold, by their place, for a task with one metric."""
UNTIMED, TWO_METRICS = MAIN[:-3], ("method", "point", "n", "score", "second", *MAIN[4:-3])
"""Of runs that were not timed; and with a second metric."""
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
    "method", "seed", "policy", "threshold", "batch", "rows", "rounds", "tokens", "device", "precision", "threads",
    "score", "layers", "ms", "reference", "its_ms", "ratio",
)  # fmt: skip
RATIOS = ("retained", "mac_ratio", "latency_ratio")


def tables(markdown: str) -> list[list[list[str]]]:
    """The rows of the tables of a markdown text, headers first; every row must have as many cells as there are headers."""
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
    """Each row below the headers, its cells by these names of the columns."""
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
    """All paragraphs but the tables and titles, in one line."""
    return " ".join(line for line in markdown.splitlines() if not line.startswith(("|", "#")))


@pytest.fixture
def store(store: ResultsStore) -> ResultsStore:
    """bert and deebert, two seeds each: the figures are worked out in test_compare.py."""
    save_bert_and_deebert(store)
    return store


@pytest.fixture
def markdown(store: ResultsStore) -> str:
    return render(store, store.records()[0], "bert", "markdown")


def test_first_row_is_majority_baseline(markdown: str) -> None:
    """The first row is the majority-class baseline."""
    row = columns(tables(markdown)[0], MAIN)[0]
    assert (row.pop("method"), row.pop("score")) == (CONSTANT, "52.7")
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
    """The three speed-ups of a point stand in three columns.

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
    assert [row["method"] for row in table] == [CONSTANT, "deebert", "deebert"]
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
        (CONSTANT, "-"),
        ("bert", "4"),
        ("deebert", "1"),
        ("deebert", "4"),
    ]
    assert table[0]["score"] == "52.7"
    row = table[2]
    assert row["score"] == "55.0 ± 7.1"
    assert (row["static_1"], row["path_1"]) == ("4.50 ± 2.12", "5.25 ± 2.47")
    assert (row["static_32"], row["path_32"]) == ("90.00 ± 42.43", "105.00 ± 49.50")


def test_caption_names_rows_and_conditions(tmp_path: Path) -> None:
    """The caption has the figures that the table rests on."""
    records = [timed(single("bert", seed), "bert", 1.25) for seed in (1, 2)]
    rows = {"train": 2000, "selection": 101, "calibration": 301, "dev": 277}
    records = [
        identified(replace(record, data=replace(record.data, rows=rows))) for record in records
    ]
    text = render(ResultsStore(tmp_path), records, "bert", "markdown")
    said = text.split("\n\n")[1]
    assert names_in_order(said, "dev", 277)
    assert names_in_order(said, "selection", 101)
    assert names_in_order(said, "calibration", 301)
    # repeated rows, tokens on average, seeds, training rows, tokens at most, rows cut, threads
    assert names_all(said, 7, 20.5, "1, 2", 2000, 128, 6, "float32", "A processor", 2, "bert")
    (one, thirty_two) = re.findall(
        r"(\d+) \D*(\d+) \D*(1|32)(?![.\d])", said.partition("A processor")[2]
    )
    assert (one, thirty_two) == (("20", "20", "1"), ("10", "10", "32"))  # fewest and most rounds
    assert "train-rows" not in said
    (title,) = titles_of(text)
    assert names_in_order(title, "rte", "tiny")


def test_regression_caption_has_patience_tolerances(tmp_path: Path, markdown: str) -> None:
    """The caption of a regression says what patience calls agreement."""
    exits = [
        make_exit(layer, {"pearson": 0.5, "spearman": 0.5}, 4e6 * layer, 4.0, 4.0)
        for layer in (2, 4)
    ]
    store, runs = (
        ResultsStore(tmp_path / "regression"),
        [make_record("bert", 1, exits[-1:], task="stsb")],
    )
    assert not names_all(prose_of(render(store, runs, "bert", "markdown")), 0.1)
    for tolerance in (0.25, 0.5):
        run = make_record("pabee", 1, exits, "patience", task="stsb")
        settings = {**run.spec.settings, "tolerance": tolerance}
        runs.append(
            identified(replace(run, tolerance=tolerance, spec=replace(run.spec, settings=settings)))
        )
    for run in runs:
        layers = [exit_.layer for exit_ in run.exits]
        save_run(
            store,
            run,
            {
                split: random_trace(1, layers, classes=1)
                for split in ("dev", "selection", "calibration")
            },
        )
    assert names_in_order(
        prose_of(render(store, store.records()[0], "bert", "markdown")), "bert", 0.25, 0.5
    )
    assert not names_all(prose_of(markdown), 0.1)  # no regression


def test_limited_runs_stand_apart(store: ResultsStore) -> None:
    """Quick looks and drawn rows are named so and stand apart."""
    records = store.records()[0]
    quick = identified(replace(records[0], spec=replace(records[0].spec, limit=64)))
    drawn = identified(replace(records[0], spec=replace(records[0].spec, train_rows=500)))
    text = render(store, [*records, quick, drawn], "bert", "markdown")
    titles = titles_of(text)
    assert len(set(titles)) == 3
    assert all(names_in_order(title, "rte", "tiny") for title in titles)
    assert [sum(names_all(title, rows) for title in titles) for rows in (64, 500)] == [1, 1]
    assert text.count("--train-rows 500") == 1
    mains = [columns(table, MAIN) for table in tables(text) if len(table[0]) == len(MAIN)]
    assert sorted(row["n"] for table in mains for row in table if row["method"] == "bert") == [
        "1",
        "1",
        "2",
    ]


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
    """Runs that were not timed have no latency columns, and no prose about a clock."""
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
    of_the_clock = set(re.findall(r"\w+", prose_of(clocked))) - set(
        re.findall(r"\w+", prose_of(untimed))
    )
    assert {"10", "32"} < of_the_clock  # rounds at a batch size
    assert "harness time" in prose_of(clocked)
    assert "harness time" not in prose_of(untimed)


def test_untimed_rows_show_dashes(tmp_path: Path) -> None:
    """Of runs of which some were timed the others have dashes."""
    first = identified(replace(single("bert", 1), latency=make_latency("bert", 4.0, [1.25])))
    other = single("pabee", 1)
    other = identified(
        replace(other, exits=(replace(other.exits[0], static_ms={}, path_ms={}),), latency=None)
    )
    main = columns(
        tables(render(ResultsStore(tmp_path), [first, other], "bert", "markdown"))[0], MAIN
    )
    assert [(row_of(main, method)["ms"], row_of(main, method)["latency_ratio"]) for method in ("bert", "pabee")] == [
        ("4.00", "1.25"), ("-", "-"),
    ]  # fmt: skip


def test_every_metric_has_its_column(tmp_path: Path) -> None:
    """Every metric of a task has its column."""
    main, exits = tables(
        render(ResultsStore(tmp_path), [single("bert", 1, task="mrpc")], "bert", "markdown")
    )
    row = row_of(columns(main, TWO_METRICS), "bert")
    assert (row["score"], row["second"]) == ("50.0", "25.0")
    assert [
        names_all(main[0][place], metric) for place, metric in ((3, "f1"), (4, "accuracy"))
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
    """Live timings are listed with their conditions."""
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
    assert (row["ms"], row["reference"], row["its_ms"], row["ratio"]) == (
        "4.00",
        "bert",
        "8.00",
        "2.25 [1.75, 2.50]",
    )
    assert names_in_order(prose_of(text), "harness time", "accuracy", 52.7)


def test_newest_equal_timing_is_listed(store: ResultsStore) -> None:
    """Of timings under equal conditions the newest is listed, and a quick look shows its share of
    the rows."""
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    timing = make_timing(record.run_id, 0.25)
    newer = replace(timing, created="2026-02-01T00:00:00+00:00", early_ms=Quartiles(1.0, 2.0, 3.0))
    for one in (newer, timing, replace(timing, rows=3), replace(timing, threads=1)):
        store.add_timing(record, one)
    rows = columns(tables(render(store, store.records()[0], "bert", "markdown"))[3], LIVE)
    assert sorted((figures(row["rows"]), row["threads"], row["ms"]) for row in rows) == [
        ([3, 4], "2", "4.00"), ([4], "1", "4.00"), ([4], "2", "2.00"),
    ]  # fmt: skip


def test_caption_gives_clock_spread(tmp_path: Path) -> None:
    """The caption says how steady the clock was.

    Quartiles 2 and 3 of one ratio are 1.5 times apart."""
    latency = make_latency("bert", 4.0, [1.25])
    unsteady = {
        size: tuple(replace(ratio, q1=2.0, q3=3.0) for ratio in ratios)
        for size, ratios in latency.path_ratio.items()
    }
    record = identified(replace(single("bert", 1), latency=replace(latency, path_ratio=unsteady)))
    text = render(ResultsStore(tmp_path), [record], "bert", "markdown")
    assert names_in_order(prose_of(text), 20, 20, 1, "1.50", 10, 10, 32, "1.50")
    assert not names_all(prose_of(text), STABLE_SPREAD)
    assert "?" not in text  # the row's own ratio is the static exit's, which was steady
    static = {"1": tuple(replace(ratio, q1=1.0, q3=1.4) for ratio in latency.reference_ratio["1"])}
    record = identified(
        replace(
            record, latency=replace(latency, reference_ratio={**latency.reference_ratio, **static})
        )
    )
    text = render(ResultsStore(tmp_path), [record], "bert", "markdown")
    (table, *_) = tables(text)
    assert row_of(columns(table, MAIN), "bert")["latency_ratio"] == "? 1.25"
    assert names_in_order(prose_of(text).replace("?", " QUESTION "), "QUESTION", STABLE_SPREAD)


def test_titles_tell_tables_apart(tmp_path: Path) -> None:
    """Tables of one task are told apart by what differs."""
    record = single("bert", 1)
    other = identified(
        replace(
            record,
            environment=replace(record.environment, precision="bf"),
            spec=replace(record.spec, max_length=64),
        )
    )
    text = render(
        ResultsStore(tmp_path), [record, other, single("bert", 1, task="mrpc")], "bert", "markdown"
    )
    *titles, average = titles_of(text)
    assert names_in_order(average, "GLUE", "tiny")  # of rte at 128 tokens and mrpc
    mrpc, long, short = sorted(titles, key=lambda title: (title.split()[0], names_all(title, 64)))
    assert all(
        names_in_order(title, task, "tiny")
        for title, task in ((mrpc, "mrpc"), (long, "rte"), (short, "rte"))
    )
    assert figures(mrpc) == []
    assert names_all(long, 128, "float32")
    assert names_all(short, 64, "bf")


def test_caption_places_rows_by_processor(tmp_path: Path) -> None:
    """A caption says which rows ran where."""
    record, pabee = single("bert", 1), single("pabee", 1)
    alone = render(ResultsStore(tmp_path), [record, pabee], "bert", "markdown").split("\n\n")[1]
    assert names_in_order(alone, "float32", "A processor", 2, "bert")
    assert "pabee" not in alone
    other = identified(
        replace(pabee, environment=replace(pabee.environment, device="Another", threads=1))
    )
    text = render(
        ResultsStore(tmp_path), [record, other, pabee, single("pabee", 2)], "bert", "markdown"
    )
    there = ("Another", 1, "pabee (device=Another, threads=1)")
    assert names_in_order(text.split("\n\n")[1], "A processor", 2, "bert, pabee", *there, "bert")


def test_remarks_are_merged_over_methods(tmp_path: Path) -> None:
    """What methods could not do stands there once, with their names."""
    plain, lacking = (
        single("bert", 1),
        [
            replace(single(name, 1), remarks=("words are few",))
            for name in ("tinybert", "distilbert")
        ],
    )
    records = [plain, *(identified(record) for record in lacking)]
    text = render(ResultsStore(tmp_path), records, "bert", "markdown")
    (paragraph,) = [paragraph for paragraph in text.split("\n\n") if "words are few" in paragraph]
    assert names_in_order(paragraph, "distilbert", "tinybert", "words are few")
    assert text.count("words are few") == 1
    (comparison,) = json.loads(render(ResultsStore(tmp_path), records, "bert", "json"))[
        "comparisons"
    ]
    assert len(comparison["remarks"]) == 1


def test_no_runs_are_incomplete(store: ResultsStore) -> None:
    with pytest.raises(IncompleteError) as caught:
        render(store, [], "bert", "markdown")
    assert caught.value.exit_code == ExitCode.INCOMPLETE
    assert names_all(one_line(caught), store.root, "harness run")


def test_missing_trace_is_incomplete(store: ResultsStore) -> None:
    """A run whose trace is gone is incomplete."""
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    (store.folder("rte", "deebert", record.run_id) / "trace.calibration.npz").unlink()
    with pytest.raises(IncompleteError) as caught:
        render(store, store.records()[0], "bert", "markdown")
    assert names_all(one_line(caught), record.run_id, "trace.calibration.npz")


def test_damaged_runs_are_not_sound(store: ResultsStore) -> None:
    """A run whose trace or timing is damaged is not sound."""
    records = store.records()[0]
    torn, mistimed, *rest = records
    (store.folder("rte", torn.spec.method, torn.run_id) / "trace.selection.npz").write_bytes(
        b"PK torn"
    )
    store.add_timing(mistimed, make_timing(mistimed.run_id, 0.25)).write_text("{")
    sound, problems = store.sound(records)
    assert sound == rest
    assert [(problem.folder, "trace.selection.npz" in problem.reason) for problem in problems] == [
        (f"rte/{torn.spec.method}/{torn.run_id}", True),
        (f"rte/{mistimed.spec.method}/{mistimed.run_id}", False),
    ]


def test_every_form_is_deterministic(store: ResultsStore) -> None:
    """Every form is the same whatever the order of the runs."""
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
def test_figure_shows_deviation_over_seeds(
    value: Mean | None, digits: int, times: float, shown: str
) -> None:
    """A figure shows its deviation when there are several seeds."""
    assert number(value, digits, times) == shown


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
