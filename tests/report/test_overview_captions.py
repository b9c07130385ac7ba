"""The titles, captions and remarks of the report."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.messages import figures, names_all, names_in_order
from support.report_tables import (
    MAIN,
    columns,
    prose_of,
    row_of,
    tables,
    titles_of,
)
from support.synthetic import (
    identified,
    make_exit,
    make_latency,
    make_record,
    random_trace,
    save_bert_and_deebert,
    save_run,
    single,
    timed,
)

from harness.records import STABLE_SPREAD
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


def test_caption_names_rows_and_conditions(tmp_path: Path) -> None:
    """The caption gives the conditions under which the figures were obtained."""
    records = [timed(single("bert", seed), "bert", 1.25) for seed in (1, 2)]
    rows = {"train": 2000, "selection": 101, "calibration": 301, "dev": 277}
    records = [
        identified(replace(record, data=replace(record.data, rows=rows))) for record in records
    ]
    text = render(ResultsStore(tmp_path), records, "bert", "markdown")
    caption = text.split("\n\n")[1]
    assert names_in_order(caption, "dev", 277)
    assert names_in_order(caption, "selection", 101)
    assert names_in_order(caption, "calibration", 301)
    # repeated rows, mean tokens, seeds, training rows, maximum length, truncated rows, threads
    assert names_all(caption, 7, 20.5, "1, 2", 2000, 128, 6, "float32", "A processor", 2, "bert")
    (one, thirty_two) = re.findall(
        r"(\d+) \D*(\d+) \D*(1|32)(?![.\d])", caption.partition("A processor")[2]
    )
    assert (one, thirty_two) == (("20", "20", "1"), ("10", "10", "32"))  # fewest and most rounds
    assert "train-rows" not in caption
    (title,) = titles_of(text)
    assert names_in_order(title, "rte", "tiny")


def test_regression_caption_has_patience_tolerances(tmp_path: Path, markdown: str) -> None:
    """The caption of a regression gives the tolerances of patience."""
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


def test_limited_runs_have_own_tables(store: ResultsStore) -> None:
    """Limited runs and runs on drawn rows have tables of their own, with titles that say so."""
    records = store.records()[0]
    quick = identified(replace(records[0], spec=replace(records[0].spec, limit=64)))
    drawn = identified(replace(records[0], spec=replace(records[0].spec, train_rows=500)))
    text = render(store, [*records, quick, drawn], "bert", "markdown")
    titles = titles_of(text)
    assert len(set(titles)) == 3
    assert all(names_in_order(title, "rte", "tiny") for title in titles)
    assert [sum(names_all(title, rows) for title in titles) for rows in (64, 500)] == [1, 1]
    assert text.count("--train-rows 500") == 1
    main_tables = [columns(table, MAIN) for table in tables(text) if len(table[0]) == len(MAIN)]
    assert sorted(
        row["n"] for table in main_tables for row in table if row["method"] == "bert"
    ) == [
        "1",
        "1",
        "2",
    ]


def test_caption_gives_timing_spread(tmp_path: Path) -> None:
    """The caption says how stable the timing was.

    Quartiles 2 and 3 of one ratio are 1.5 times apart."""
    latency = make_latency("bert", 4.0, [1.25])
    noisy = {
        size: tuple(replace(ratio, q1=2.0, q3=3.0) for ratio in ratios)
        for size, ratios in latency.path_ratio.items()
    }
    record = identified(replace(single("bert", 1), latency=replace(latency, path_ratio=noisy)))
    text = render(ResultsStore(tmp_path), [record], "bert", "markdown")
    assert names_in_order(prose_of(text), 20, 20, 1, "1.50", 10, 10, 32, "1.50")
    assert not names_all(prose_of(text), STABLE_SPREAD)
    assert "?" not in text  # the row's own ratio is the static exit's, which is stable
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


def test_caption_names_unusual_timing(tmp_path: Path) -> None:
    """The caption names batch sizes at which one batch was timed, and a waiting policy."""
    latency = make_latency("bert", 4.0, [1.25])
    usual = identified(replace(single("bert", 1), latency=latency))
    caption = prose_of(render(ResultsStore(tmp_path), [usual], "bert", "markdown"))
    assert not names_all(caption, "median")
    unusual = replace(
        latency, tokens={"1": (10, 20, 30), "32": (24,)}, wait_policy="OMP_WAIT_POLICY=ACTIVE"
    )
    record = identified(replace(single("bert", 2), latency=unusual))
    caption = prose_of(render(ResultsStore(tmp_path), [usual, record], "bert", "markdown"))
    assert names_in_order(caption, "median", 32, "bert", "OMP_WAIT_POLICY=ACTIVE", "bert")


def test_titles_distinguish_tables(tmp_path: Path) -> None:
    """The titles of several tables of one task name what differs."""
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


def test_caption_names_each_processor(tmp_path: Path) -> None:
    """A caption says which rows ran on which processor."""
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
    elsewhere = ("Another", 1, "pabee (device=Another, threads=1)")
    assert names_in_order(
        text.split("\n\n")[1], "A processor", 2, "bert, pabee", *elsewhere, "bert"
    )


def test_remarks_are_merged_over_methods(tmp_path: Path) -> None:
    """A remark of several methods is given once, with their names."""
    unremarked, remarked = (
        single("bert", 1),
        [
            replace(single(name, 1), remarks=("words are few",))
            for name in ("tinybert", "distilbert")
        ],
    )
    records = [unremarked, *(identified(record) for record in remarked)]
    text = render(ResultsStore(tmp_path), records, "bert", "markdown")
    (paragraph,) = [paragraph for paragraph in text.split("\n\n") if "words are few" in paragraph]
    assert names_in_order(paragraph, "distilbert", "tinybert", "words are few")
    assert text.count("words are few") == 1
    (comparison,) = json.loads(render(ResultsStore(tmp_path), records, "bert", "json"))[
        "comparisons"
    ]
    assert len(comparison["remarks"]) == 1
