"""The wording of the reports: complete texts for a small set of runs, in one snapshot file.

`pytest tests/report/test_snapshots.py --snapshot-update` writes the file again. The other tests in
this folder and those in `tests/analysis` check the figures.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.synthetic import (
    identified,
    make_exit,
    make_record,
    make_timing,
    random_trace,
    save_bert_and_deebert,
    save_run,
    single,
    timed,
)
from syrupy.assertion import SnapshotAssertion

from harness.analysis.differences import DEFAULT_ROW
from harness.analysis.ranking import parse_budget
from harness.evaluation.trace import Trace
from harness.records import RunRecord, SplitScores
from harness.report.differences import render_differences
from harness.report.overview import render
from harness.report.ranking import render_budget
from harness.store.results import ResultsStore

SPLITS = ("dev", "selection", "calibration")
FORMS = ("markdown", "csv", "latex")


@pytest.fixture
def store(store: ResultsStore) -> ResultsStore:
    """Runs that bring out every sentence of the reports."""
    save_bert_and_deebert(store)
    deebert = next(record for record in store.records()[0] if record.spec.method == "deebert")
    store.add_timing(deebert, make_timing(deebert.run_id, 0.25))
    save_trained(store, *limited(), *variants(), noisy(), *remarked(), on_mnli())
    save_trained(store, single("bert", 1, 0.5, "cola"))
    save_regression(store)
    save_swapped(store)
    return store


def save_trained(store: ResultsStore, *records: RunRecord) -> None:
    """Save runs that have the same labels on dev and different predictions."""
    for seed, record in enumerate(records, start=1):
        classes = 3 if record.mismatched else 2
        trace = random_trace(1, (4,), classes=classes)
        trace = replace(trace, logits=random_trace(seed, (4,), classes=classes).logits)
        splits = [*SPLITS, *(["mismatched"] if record.mismatched else [])]
        save_run(store, record, dict.fromkeys(splits, trace))


def limited() -> list[RunRecord]:
    """A run on few rows, and a run on drawn rows with another maximum length."""
    quick, drawn = single("bert", 1, 0.6), single("bert", 2, 0.7)
    return [
        identified(replace(quick, spec=replace(quick.spec, limit=64))),
        identified(replace(drawn, spec=replace(drawn.spec, train_rows=500, max_length=64))),
    ]


def variants() -> list[RunRecord]:
    """Variants of one method, one of them on another processor."""
    default, other = single("tinybert", 1, 0.6), single("tinybert", 1, 0.65)
    changes = [{"epochs": 7}, {"epochs": 7, "general": False}]
    default, other = (
        identified(
            replace(
                record,
                spec=replace(record.spec, settings={"general": True} | change),
                changed=change,
            )
        )
        for record, change in zip((default, other), changes, strict=True)
    )
    elsewhere = replace(default.environment, device="Another", threads=1)
    return [default, other, identified(replace(default, environment=elsewhere))]


def noisy() -> RunRecord:
    """A run that was timed while other work was running."""
    record = timed(single("pabee", 1, 0.7), "bert", 1.25)
    assert record.latency is not None
    ratio = tuple(replace(one, q1=1.0, q3=1.5) for one in record.latency.reference_ratio["1"])
    ratios = record.latency.reference_ratio | {"1": ratio}
    return identified(replace(record, latency=replace(record.latency, reference_ratio=ratios)))


def remarked() -> list[RunRecord]:
    remark = ("a remark of the method",)
    return [
        identified(replace(single(name, 1, 0.4, "mrpc"), remarks=remark))
        for name in ("bert", "tinybert")
    ]


def on_mnli() -> RunRecord:
    record = make_record(
        "bert", 1, [make_exit(4, {"accuracy": 0.8}, 8000.0, 4.0, 4.0)], task="mnli"
    )
    rows = record.data.rows | {"mismatched": 40}
    scores = SplitScores({"accuracy": 0.25}, ({"accuracy": 0.6},))
    return identified(replace(record, mismatched=scores, data=replace(record.data, rows=rows)))


def save_regression(store: ResultsStore) -> None:
    exits = [
        make_exit(layer, {"pearson": 0.5, "spearman": 0.5}, 2000.0 * layer, 4.0, 4.0)
        for layer in (2, 4)
    ]
    record = replace(make_record("pabee", 1, exits, "patience", task="stsb"), tolerance=0.25)
    traces = {split: random_trace(seed, (2, 4), classes=1) for seed, split in enumerate(SPLITS)}
    save_run(store, identified(record), traces)


def save_swapped(store: ResultsStore) -> None:
    """Save a model that was not trained here and whose labels are swapped."""
    record = make_record(
        "bert", 1, [make_exit(4, {"accuracy": 0.1}, 8000.0, 4.0, 4.0)], task="sst2"
    )
    use = replace(record.stages[0], report=replace(record.stages[0].report, steps=0))
    labels = np.array([0, 1, 1, 0, 1, 0, 1, 1, 0, 1])
    predictions = np.where(np.arange(10) < 9, 1 - labels, labels)
    logits = np.eye(2)[predictions][None].astype(np.float32)
    trace = Trace(np.arange(10), logits, labels.astype(np.float64), np.full(10, 9), np.array([4]))
    save_run(store, replace(record, stages=(use,), run_id="d0" * 8), dict.fromkeys(SPLITS, trace))


def shortened(text: str) -> str:
    """Shorten long numbers to six digits: the last bits depend on the processor."""
    return re.sub(r"-?\d+\.\d{6,}(?:e-?\d+)?", lambda found: f"{float(found[0]):.6g}", text)


def on_tasks(store: ResultsStore, *tasks: str) -> list[RunRecord]:
    """Return the runs on all rows of these tasks."""
    return [
        record
        for record in store.records()[0]
        if record.spec.task in tasks and record.spec.limit is None
    ]


def test_overview_matches_snapshot(store: ResultsStore, snapshot: SnapshotAssertion) -> None:
    assert render(store, store.records()[0], "bert", "markdown") == snapshot


@pytest.mark.parametrize("form", FORMS)
def test_glue_average_matches_snapshot(
    form: str, store: ResultsStore, snapshot: SnapshotAssertion
) -> None:
    """The report of one method on two tasks, with the average over them."""
    text = render(store, on_tasks(store, "cola", "mnli"), "bert", form, ["bert"])
    assert shortened(text) == snapshot


@pytest.mark.parametrize(
    ("budget", "form"), [*(("2.5KMAC", form) for form in FORMS), ("7ms", "markdown")]
)
def test_budget_report_matches_snapshot(
    budget: str, form: str, store: ResultsStore, snapshot: SnapshotAssertion
) -> None:
    text = render_budget(store, on_tasks(store, "rte"), parse_budget(budget), form)
    assert shortened(text) == snapshot


@pytest.mark.parametrize(
    ("against", "form"), [*(("bert", form) for form in FORMS), (DEFAULT_ROW, "markdown")]
)
def test_differences_match_snapshot(
    against: str, form: str, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    store = ResultsStore(tmp_path / "few")
    save_trained(store, single("bert", 1), *variants()[:2])
    text = render_differences(store, store.records()[0], against, "bert", form)
    assert shortened(text) == snapshot
