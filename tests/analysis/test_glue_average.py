"""GLUE's average as GLUE defines it, on figures that are worked out on paper."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.command_line import Say
from support.synthetic import exit_1_or_4, identified, make_exit, make_record, random_trace, save_run, single

from harness.analysis.comparison import compare
from harness.analysis.glue_average import AverageRow, GlueAverage, glue_averages
from harness.evaluation.trace import Trace
from harness.records import RunRecord, SplitScores
from harness.report.average import average_section
from harness.report.formats import as_markdown
from harness.report.overview import render
from harness.store.results import ResultsStore


def save(store: ResultsStore, *records: RunRecord) -> None:
    for record in records:
        layers = [exit_.layer for exit_ in record.exits]
        classes = {"stsb": 1, "mnli": 3}.get(record.spec.task, 2)
        splits = ["dev", "selection", "calibration", *(["mismatched"] if record.mismatched else [])]
        save_run(store, record, {split: random_trace(seed, layers, classes=classes) for seed, split in enumerate(splits)})


def averages(store: ResultsStore, wnli: bool = False) -> list[GlueAverage]:
    return glue_averages(compare(store, store.records()[0], "bert"), wnli)


def row_of(found: GlueAverage, method: str, point: str = "last exit") -> AverageRow:
    (row,) = [row for row in found.rows if (row.method, row.point) == (method, point)]
    return row


def mnli(method: str, matched: float, mismatched: float) -> RunRecord:
    record = make_record(method, 1, [make_exit(4, {"accuracy": matched}, 8000.0, 4.0, 4.0)], task="mnli")
    return on_two_splits(record, SplitScores({"accuracy": 0.25}, ({"accuracy": mismatched},)))


def on_two_splits(record: RunRecord, further: SplitScores) -> RunRecord:
    """A run on MNLI."""
    return identified(replace(record, mismatched=further, data=replace(record.data, rows=record.data.rows | {"mismatched": 277})))


def test_a_task_is_the_mean_of_its_metrics_and_mnli_of_matched_and_mismatched(store: ResultsStore) -> None:
    """mrpc: (.8 + .4) / 2; stsb: (.6 + .3) / 2; rte over two seeds: (.5 + .7) / 2; mnli: (.8 + .6) / 2; their mean is .5875."""
    save(store, single("bert", 1, 0.8, "mrpc"), single("bert", 1, 0.6, "stsb"), single("bert", 1, 0.5), single("bert", 2, 0.7))
    save(store, mnli("bert", 0.8, 0.6))
    (found,) = averages(store)
    row = row_of(found, "bert")
    assert row.scores == pytest.approx({"mrpc": 0.6, "stsb": 0.45, "mnli": 0.7, "rte": 0.6})
    assert row.average == pytest.approx(0.5875)
    constants = {"mrpc": 0.527, "stsb": 0.527, "mnli": (0.527 + 0.25) / 2, "rte": 0.527}
    assert found.constant.scores == pytest.approx(constants)
    assert found.constant.average == pytest.approx(sum(constants.values()) / 4)


def test_only_tasks_that_all_methods_have_count_and_the_others_are_named(store: ResultsStore) -> None:
    save(store, *(single(method, 1, 0.5, task) for method in ("bert", "pabee") for task in ("cola", "rte")), single("bert", 1, 0.9, "sst2"))
    (found,) = averages(store)
    assert list(found.train_rows) == ["cola", "rte"]
    assert found.incomplete == {"sst2": ("pabee",)}
    assert row_of(found, "bert").average == pytest.approx(0.5)
    said = as_markdown([average_section(found)], "")
    assert (
        "Over the 2 of GLUE's tasks that all methods have: cola (2000 training rows), rte (2000 training rows); sst2 lacks pabee." in said
    )
    assert "| sst2" not in said


def test_json_holds_the_average_too(store: ResultsStore) -> None:
    save(store, single("bert", 1, 0.5, "rte"), single("bert", 1, 0.3, "cola"))
    (found,) = json.loads(render(store, store.records()[0], "bert", "json"))["glue_averages"]
    (row,) = found["rows"]
    assert (row["method"], row["point"], row["average"]) == ("bert", "last exit", pytest.approx(0.4))
    assert found["constant"]["average"] == pytest.approx(0.527)
    assert found["train_rows"] == {"cola": 2000, "rte": 2000}


def test_wnli_counts_for_those_who_ask(store: ResultsStore) -> None:
    save(store, single("bert", 1, 0.5, "rte"), single("bert", 1, 0.3, "cola"), single("bert", 1, 0.7, "wnli"))
    assert row_of(averages(store)[0], "bert").average == pytest.approx(0.4)
    assert row_of(averages(store, wnli=True)[0], "bert").average == pytest.approx(0.5)
    assert "Without WNLI (--wnli)" in as_markdown([average_section(averages(store)[0])], "")
    assert "WNLI" not in as_markdown([average_section(averages(store, wnli=True)[0])], "")


def test_one_task_and_tasks_that_are_not_glues_have_no_average(store: ResultsStore) -> None:
    save(store, single("bert", 1, 0.5, "rte"), single("bert", 1, 0.5, "demo-pair"), single("bert", 1, 0.7, "wnli"))
    assert averages(store) == []
    assert "average on" not in render(store, store.records()[0], "bert", "markdown")


def test_methods_without_two_tasks_in_common_are_told_so(store: ResultsStore) -> None:
    save(store, single("bert", 1, 0.5, "rte"), single("pabee", 1, 0.5, "cola"))
    said = as_markdown([average_section(averages(store)[0])], "")
    assert "No two tasks have all methods: cola lacks bert; rte lacks pabee." in said


def test_backbones_and_quick_looks_are_averaged_apart(store: ResultsStore) -> None:
    plain = [single("bert", 1, 0.5, task) for task in ("rte", "cola")]
    other = [identified(replace(r, spec=replace(r.spec, backbone="other"), data=replace(r.data, backbone="f1"))) for r in plain]
    quick = [identified(replace(r, spec=replace(r.spec, limit=50))) for r in plain]
    save(store, *plain, *other, *quick)
    sections = [as_markdown([average_section(found)], "") for found in averages(store)]
    titles = sorted(section.splitlines()[0] for section in sections)
    assert titles == ["### GLUE average on other", "### GLUE average on tiny", "### GLUE average on tiny, quick look at 50 rows"]


def test_of_two_comparisons_of_a_task_the_one_with_all_methods_counts_then_the_one_on_all_rows(store: ResultsStore) -> None:
    def drawn(method: str, score: float, rows: int) -> RunRecord:
        record = single(method, 1, score, "rte")
        return identified(
            replace(record, spec=replace(record.spec, train_rows=rows), data=replace(record.data, rows=record.data.rows | {"train": rows}))
        )

    save(store, single("bert", 1, 0.5, "cola"), single("bert", 1, 0.4), drawn("bert", 0.8, 100), drawn("bert", 0.9, 500))
    assert row_of(averages(store)[0], "bert").scores["rte"] == pytest.approx(0.4)
    save(store, single("pabee", 1, 0.5, "cola"), drawn("pabee", 0.7, 100))
    assert row_of(averages(store)[0], "bert").scores["rte"] == pytest.approx(0.8)


def of_three_classes(trace: Trace) -> Trace:
    """With a third class that no exit believes in."""
    return replace(trace, logits=np.pad(trace.logits, ((0, 0), (0, 0), (0, 1)), constant_values=-30.0))


def save_mnli_curve(store: ResultsStore) -> None:
    """deebert on mnli: at a threshold that lets all rows leave, layer 1 is right on all rows of dev, on half of mismatched."""
    gaps, right, wrong = (0.7, 1.5, 3.0, 5.0), [True] * 4, [False] * 4
    record = make_record(
        "deebert", 1, [make_exit(layer, {"accuracy": 1.0}, 2000.0 * layer, 1.0, 1.0) for layer in (1, 4)], "entropy", "mnli"
    )
    record = on_two_splits(record, SplitScores({"accuracy": 0.5}, ({"accuracy": 0.5}, {"accuracy": 0.0})))
    whole = of_three_classes(exit_1_or_4(gaps, right, right, 20))
    half = of_three_classes(exit_1_or_4(gaps, [True, False, True, False], wrong, 20))
    save_run(store, record, {"dev": whole, "selection": whole, "calibration": whole, "mismatched": half})


def test_points_of_a_curve_are_scored_on_mismatched_at_the_threshold_of_calibration(store: ResultsStore) -> None:
    save_mnli_curve(store)
    (comparison,) = compare(store, store.records()[0], None)
    assert comparison.metrics == ("accuracy", "mismatched accuracy")
    assert comparison.constant_scores == {"accuracy": 1.0 * 0.527, "mismatched accuracy": 0.5}
    scores = {row.point: {name: value.mean for name, value in row.scores.items()} for row in comparison.rows}
    assert scores["exit 4"] == {"accuracy": 1.0, "mismatched accuracy": 0.0}
    assert scores["MACs <= 1/4"] == {"accuracy": 1.0, "mismatched accuracy": 0.5}


def test_a_run_whose_mismatched_trace_is_gone_is_a_problem(store: ResultsStore) -> None:
    save_mnli_curve(store)
    (record,), _ = store.records()
    (store.folder("mnli", "deebert", record.run_id) / "trace.mismatched.npz").unlink()
    assert [problem.folder for problem in store.sound([record])[1]] == [f"mnli/deebert/{record.run_id}"]


@pytest.mark.usefixtures("own_folders")
def test_report_shows_mismatched_and_the_average(say: Say, store: ResultsStore) -> None:
    save_mnli_curve(store)
    save(store, single("deebert", 1, 0.5), single("deebert", 1, 0.7, "wnli"))
    out = say("report", "--reference", "none", "--results-dir", str(store.root)).out
    assert "mismatched accuracy x100" in out
    assert "### GLUE average on tiny" in out
    assert "| wnli x100" not in out
    assert "| wnli x100" in say("report", "--wnli", "--reference", "none", "--results-dir", str(store.root)).out
    header, *lines = say("report", "--format", "csv", "--reference", "none", "--results-dir", str(store.root)).out.splitlines()
    assert header.endswith("scores.mismatched accuracy.mean,scores.mismatched accuracy.deviation,scores.mismatched accuracy.count")
    assert any(line.startswith("mnli") and line.endswith(",0.5,,1") for line in lines)
