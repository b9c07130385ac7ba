"""GLUE's average as GLUE defines it, on figures that are worked out on paper."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.command_line import RunCli
from support.messages import names_all, names_in_order
from support.synthetic import (
    exit_1_or_4,
    identified,
    make_exit,
    make_record,
    random_trace,
    save_run,
    single,
)

from harness.analysis.comparison import compare
from harness.analysis.glue_average import AverageRow, GlueAverage, average, glue_averages
from harness.data.tasks import TASKS
from harness.evaluation.trace import Trace
from harness.records import RunRecord, SplitScores
from harness.report.average import average_section
from harness.report.document import MAJORITY_BASELINE
from harness.report.overview import render
from harness.store.results import ResultsStore


def save(store: ResultsStore, *records: RunRecord) -> None:
    for record in records:
        layers = [exit_.layer for exit_ in record.exits]
        classes = {"stsb": 1, "mnli": 3}.get(record.spec.task, 2)
        splits = ["dev", "selection", "calibration", *(["mismatched"] if record.mismatched else [])]
        save_run(
            store,
            record,
            {
                split: random_trace(seed, layers, classes=classes)
                for seed, split in enumerate(splits)
            },
        )


def averages(store: ResultsStore, wnli: bool = False) -> list[GlueAverage]:
    return glue_averages(compare(store, store.records()[0], "bert"), wnli)


def row_of(found: GlueAverage, method: str, point: str = "last exit") -> AverageRow:
    (row,) = [row for row in found.rows if (row.method, str(row.point)) == (method, point)]
    return row


def mnli(method: str, matched: float, mismatched: float) -> RunRecord:
    record = make_record(
        method, 1, [make_exit(4, {"accuracy": matched}, 8000.0, 4.0, 4.0)], task="mnli"
    )
    return on_two_splits(record, SplitScores({"accuracy": 0.25}, ({"accuracy": mismatched},)))


def on_two_splits(record: RunRecord, further: SplitScores) -> RunRecord:
    """Return a run on MNLI, with these scores on its second dev split."""
    return identified(
        replace(
            record,
            mismatched=further,
            data=replace(record.data, rows=record.data.rows | {"mismatched": 277}),
        )
    )


def test_task_score_averages_its_metrics(store: ResultsStore) -> None:
    """A task's score is the mean of its metrics, and MNLI's that of matched and mismatched.

    mrpc: (.8 + .4) / 2; stsb: (.6 + .3) / 2; rte over two seeds: (.5 + .7) / 2; mnli: (.8 + .6) /
    2; their mean is .5875."""
    save(
        store,
        single("bert", 1, 0.8, "mrpc"),
        single("bert", 1, 0.6, "stsb"),
        single("bert", 1, 0.5),
        single("bert", 2, 0.7),
    )
    save(store, mnli("bert", 0.8, 0.6))
    (found,) = averages(store)
    row = row_of(found, "bert")
    assert row.scores == pytest.approx({"mrpc": 0.6, "stsb": 0.45, "mnli": 0.7, "rte": 0.6})
    assert average(row.scores) == pytest.approx(0.5875)
    constants = {"mrpc": 0.527, "stsb": 0.527, "mnli": (0.527 + 0.25) / 2, "rte": 0.527}
    assert found.constant == pytest.approx(constants)
    assert average(found.constant) == pytest.approx(sum(constants.values()) / 4)


def test_average_counts_tasks_of_all_methods(store: ResultsStore) -> None:
    """Only tasks that all methods have count, and the others are named."""
    save(
        store,
        *(single(method, 1, 0.5, task) for method in ("bert", "pabee") for task in ("cola", "rte")),
        single("bert", 1, 0.9, "sst2"),
    )
    (found,) = averages(store)
    assert list(found.train_rows) == ["cola", "rte"]
    assert found.incomplete == {"sst2": ("pabee",)}
    assert average(row_of(found, "bert").scores) == pytest.approx(0.5)
    (part,) = average_section(found).parts
    assert names_in_order(part.text, 2, "cola", 2000, "rte", 2000, "sst2", "pabee")
    assert part.table is not None
    assert not [header for header in part.table.headers if "sst2" in header]
    assert part.table.rows == [
        [MAJORITY_BASELINE, "-", "52.7", "52.7", "52.7"],
        ["bert", "last exit", "50.0", "50.0", "50.0"],
        ["pabee", "last exit", "50.0", "50.0", "50.0"],
    ]  # fmt: skip


def test_json_holds_glue_average(store: ResultsStore) -> None:
    save(store, single("bert", 1, 0.5, "rte"), single("bert", 1, 0.3, "cola"))
    (found,) = json.loads(render(store, store.records()[0], "bert", "json"))["glue_averages"]
    (row,) = found["rows"]
    assert (row["method"], row["point"], row["average"]) == (
        "bert",
        "last exit",
        pytest.approx(0.4),
    )
    assert found["constant"]["average"] == pytest.approx(0.527)
    assert found["train_rows"] == {"cola": 2000, "rte": 2000}


def test_wnli_counts_on_request(store: ResultsStore) -> None:
    """WNLI counts only on request."""
    save(
        store,
        single("bert", 1, 0.5, "rte"),
        single("bert", 1, 0.3, "cola"),
        single("bert", 1, 0.7, "wnli"),
    )
    assert average(row_of(averages(store)[0], "bert").scores) == pytest.approx(0.4)
    assert average(row_of(averages(store, wnli=True)[0], "bert").scores) == pytest.approx(0.5)
    without, with_it = (
        average_section(averages(store, wnli)[0]).parts[0].text for wnli in (False, True)
    )
    assert names_all(without, "--wnli")
    assert "--wnli" not in with_it


def test_one_glue_task_has_no_average(store: ResultsStore) -> None:
    """One task, and tasks that are not GLUE's, have no average."""
    save(
        store,
        single("bert", 1, 0.5, "rte"),
        single("bert", 1, 0.5, "demo-pair"),
        single("bert", 1, 0.7, "wnli"),
    )
    assert averages(store) == []
    assert json.loads(render(store, store.records()[0], "bert", "json"))["glue_averages"] == []
    assert headings(render(store, store.records()[0], "bert", "markdown")) == 3


def test_missing_common_tasks_are_named(store: ResultsStore) -> None:
    """For methods without two tasks in common, the methods that each task lacks are named."""
    save(store, single("bert", 1, 0.5, "rte"), single("pabee", 1, 0.5, "cola"))
    (part,) = average_section(averages(store)[0]).parts
    assert names_in_order(part.text, "cola", "bert", "rte", "pabee", "--methods")
    assert part.table is None


def test_backbones_and_limits_average_apart(store: ResultsStore) -> None:
    """Backbones and limited runs are averaged separately."""
    default = [single("bert", 1, 0.5, task) for task in ("rte", "cola")]
    other = [
        identified(
            replace(r, spec=replace(r.spec, backbone="other"), data=replace(r.data, backbone="f1"))
        )
        for r in default
    ]
    limited = [identified(replace(r, spec=replace(r.spec, limit=50))) for r in default]
    save(store, *default, *other, *limited)
    found = {
        (one.condition.backbone, one.condition.limit): average_section(one).title
        for one in averages(store)
    }
    assert set(found) == {("other", None), ("tiny", None), ("tiny", 50)}
    assert len(set(found.values())) == 3
    assert all(names_all(title, backbone) for (backbone, _), title in found.items())
    assert names_all(found["tiny", 50], 50)


def test_glue_average_prefers_complete_comparison(store: ResultsStore) -> None:
    """A task counts by its comparison with all methods, or else by the one on all rows."""

    def drawn(method: str, score: float, rows: int) -> RunRecord:
        record = single(method, 1, score, "rte")
        return identified(
            replace(
                record,
                spec=replace(record.spec, train_rows=rows),
                data=replace(record.data, rows=record.data.rows | {"train": rows}),
            )
        )

    save(
        store,
        single("bert", 1, 0.5, "cola"),
        single("bert", 1, 0.4),
        drawn("bert", 0.8, 100),
        drawn("bert", 0.9, 500),
    )
    assert row_of(averages(store)[0], "bert").scores["rte"] == pytest.approx(0.4)
    save(store, single("pabee", 1, 0.5, "cola"), drawn("pabee", 0.7, 100))
    assert row_of(averages(store)[0], "bert").scores["rte"] == pytest.approx(0.8)


def of_three_classes(trace: Trace) -> Trace:
    """Return the trace with a third class that no exit predicts."""
    return replace(
        trace, logits=np.pad(trace.logits, ((0, 0), (0, 0), (0, 1)), constant_values=-30.0)
    )


def save_mnli_curve(store: ResultsStore) -> None:
    """Save deebert on mnli, whose layer 1 is right on all rows of dev and on half of mismatched."""
    gaps, right, wrong = (0.7, 1.5, 3.0, 5.0), [True] * 4, [False] * 4
    record = make_record(
        "deebert",
        1,
        [make_exit(layer, {"accuracy": 1.0}, 2000.0 * layer, 1.0, 1.0) for layer in (1, 4)],
        "entropy",
        "mnli",
    )
    record = on_two_splits(
        record, SplitScores({"accuracy": 0.5}, ({"accuracy": 0.5}, {"accuracy": 0.0}))
    )
    all_right = of_three_classes(exit_1_or_4(gaps, right, right, 20))
    half_right = of_three_classes(exit_1_or_4(gaps, [True, False, True, False], wrong, 20))
    traces = dict.fromkeys(("dev", "selection", "calibration"), all_right)
    save_run(store, record, traces | {"mismatched": half_right})


def test_curve_points_score_mismatched(store: ResultsStore) -> None:
    """Points of a curve are scored on mismatched at the threshold that calibration chose."""
    save_mnli_curve(store)
    (comparison,) = compare(store, store.records()[0], None)
    assert comparison.metrics == ("accuracy", "mismatched accuracy")
    assert comparison.constant_scores == {"accuracy": 1.0 * 0.527, "mismatched accuracy": 0.5}
    scores = {
        str(row.point): {name: value.mean for name, value in row.scores.items()}
        for row in comparison.rows
    }
    assert scores["exit 4"] == {"accuracy": 1.0, "mismatched accuracy": 0.0}
    assert scores["MACs <= 1/4"] == {"accuracy": 1.0, "mismatched accuracy": 0.5}


def test_missing_mismatched_trace_is_problem(store: ResultsStore) -> None:
    """A run whose mismatched trace is missing is a problem."""
    save_mnli_curve(store)
    (record,), _ = store.records()
    (store.folder("mnli", "deebert", record.run_id) / "trace.mismatched.npz").unlink()
    assert [problem.folder for problem in store.intact([record])[1]] == [
        f"mnli/deebert/{record.run_id}"
    ]


def headings(markdown: str) -> int:
    return sum(line.startswith("### ") for line in markdown.splitlines())


def average_columns(section: str) -> list[str]:
    """Return the tasks that have a column."""
    header = next(line for line in section.splitlines() if line.startswith("|"))
    return [task for task in TASKS if names_all(header, task)]


@pytest.mark.usefixtures("own_folders")
def test_report_shows_mismatched_and_average(run_cli: RunCli, store: ResultsStore) -> None:
    save_mnli_curve(store)
    save(store, single("deebert", 1, 0.5), single("deebert", 1, 0.7, "wnli"))
    words = ("report", "--reference", "none", "--results-dir", str(store.root))
    out, with_wnli = run_cli(*words).out, run_cli(*words, "--wnli").out
    assert headings(out) == 4  # mnli, rte, wnli, and the average
    *_, average = out.split("\n### ")
    assert average_columns(average) == ["mnli", "rte"]
    *_, average = with_wnli.split("\n### ")
    assert average_columns(average) == ["mnli", "rte", "wnli"]
    header, _, _, last_exit = [
        line.split("|") for line in out.split("\n### ")[0].splitlines() if line.startswith("|")
    ][:4]
    mismatched = next(index for index, name in enumerate(header) if "mismatched" in name)
    assert (last_exit[1].strip(), last_exit[mismatched].strip()) == ("deebert", "0.0")
    header, *lines = run_cli(
        "report", "--format", "csv", "--reference", "none", "--results-dir", str(store.root)
    ).out.splitlines()
    parts = ("mean", "deviation", "count")
    assert header.endswith(",".join(f"scores.mismatched accuracy.{part}" for part in parts))
    assert any(line.startswith("mnli") and line.endswith(",0.5,,1") for line in lines)
