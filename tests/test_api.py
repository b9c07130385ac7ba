"""The Python interface: `import harness`, and the names that it offers."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.analysis.frames import LEVELS
from harness.evaluation.metrics import METRICS
from harness.records import RunRecord

ROOT = Path(__file__).parents[1]
IMPORT_MS = 30
"""Longest time of `import harness`."""

SETTINGS = {"all.epochs": 1, "all.learning_rates": (1e-4,), "all.head": "plain"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def records(folder: Path) -> list[RunRecord]:
    """Two runs on a demo task."""
    return run(folder, "bert", "deebert")


def run(folder: Path, *methods: str) -> list[RunRecord]:
    return harness.run(
        methods,
        ["demo-single"],
        "tiny",
        settings=SETTINGS,
        limit=32,
        latency_seconds=0,
        threads=1,
        results_dir=folder / "results",
        cache_dir=folder / "cache",
        verbosity=-1,
    )


@pytest.fixture(scope="module")
def results() -> harness.Results:
    """The committed runs of bert, deebert and pabee on RTE."""
    return harness.load_results(ROOT / "results", tasks=["rte"])


def test_import_is_fast_and_light() -> None:
    """Importing harness loads neither torch nor any other library."""
    program = (
        "import sys, time; before = set(sys.modules); start = time.perf_counter(); import harness; "
        "print(1e3 * (time.perf_counter() - start)); "
        "print(*sorted(name.partition('.')[0] for name in set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    milliseconds, modules = output.splitlines()
    assert float(milliseconds) < IMPORT_MS
    assert set(modules.split()) == {"harness"}


def test_public_names_resolve_and_are_documented() -> None:
    for name in harness.__all__:
        found = getattr(harness, name)
        assert found.__doc__ and "Raises:" not in found.__doc__.splitlines()[0], name
    assert set(harness.__all__) <= set(dir(harness))
    with pytest.raises(AttributeError, match="lod_results"):
        _ = harness.lod_results


def test_type_stub_has_the_same_names() -> None:
    """Type checkers know the names that are loaded on first use."""
    stub = ast.parse((ROOT / "harness" / "__init__.pyi").read_text(encoding="utf-8"))
    modules = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert modules == harness._MODULES


def test_run_stores_records(records: list[RunRecord], folder: Path) -> None:
    """Settings reach the methods, and stored runs are read instead of fitted again."""
    assert [record.spec.method for record in records] == ["bert", "deebert"]
    assert records[0].spec.settings["learning_rates"] == (1e-4,)
    again = run(folder, "bert")
    assert again[0].created == records[0].created


def test_run_refuses_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(harness.HarnessError, match="bert"):
        harness.run(["brt"], results_dir=tmp_path)
    with pytest.raises(harness.HarnessError, match="epochs"):
        harness.run(["bert"], settings={"all.epoch": 1}, results_dir=tmp_path)


def test_results_are_selected(results: harness.Results, tmp_path: Path) -> None:
    assert len(results) == 3
    assert [one.spec.method for one in results.select(methods=["bert"]).records] == ["bert"]
    with pytest.raises(harness.HarnessError, match="costeff"):
        results.select(methods=["costeff"])
    with pytest.raises(harness.HarnessError, match="nowhere"):
        harness.load_results(tmp_path / "nowhere")


@pytest.mark.parametrize("level", LEVELS)
def test_frames_are_tidy(level: str, results: harness.Results) -> None:
    """A frame has a row for each thing of its level, and no two rows are the same thing."""
    frame = results.to_frame(level)
    keys = {
        "run": ["run_id"],
        "exit": ["run_id", "layer"],
        "point": ["run_id", "budget_share"],
        "example": ["run_id", "layer", "example_id"],
    }[level]
    assert not frame.duplicated(keys).any()
    dev = results.records[0].data.rows["dev"]
    exits = sum(len(record.exits) for record in results.records)
    rows = {"run": 3, "exit": exits, "example": exits * dev}
    assert len(frame) == rows.get(level, len(frame)) > 0
    numbers = frame.select_dtypes("number").columns
    units = ("_ms_", "ratio", "score", "rows", "share", "macs", "majority", "seconds", "steps")
    plain = {"seed", "threads", "exits", "parameters", "layer", "threshold", "layers_mean"}
    plain |= {"max_tokens", "tokens", "label", "prediction", "example_id"}
    assert [name for name in numbers if not any(unit in name for unit in units)] == [
        name for name in numbers if name in plain
    ]


def test_frames_hold_the_records_figures(results: harness.Results) -> None:
    exits = results.to_frame("exit")
    for record in results.records:
        own = exits[exits.run_id == record.run_id]
        assert own.score_accuracy.tolist() == [one.scores["accuracy"] for one in record.exits]
        assert own.macs_per_example.tolist() == [one.macs for one in record.exits]
        assert own.static_ms_batch_1.tolist() == [one.static_ms["1"].median for one in record.exits]


def test_examples_give_the_score(results: harness.Results) -> None:
    """The score follows from the labels and predictions of the examples."""
    examples = results.to_frame("example")
    record = results.records[-1]
    for exit_ in record.exits:
        own = examples[(examples.run_id == record.run_id) & (examples.layer == exit_.layer)]
        score = METRICS["accuracy"](own.prediction.to_numpy()[None], own.label.to_numpy())
        assert np.isclose(score, exit_.scores["accuracy"])
        assert (own.label_name == "not_entailment").equals(own.label == 1)


def test_unknown_level_is_named(results: harness.Results) -> None:
    with pytest.raises(harness.HarnessError, match="point"):
        results.to_frame("points")


def test_compare_has_the_reports_rows(results: harness.Results) -> None:
    table = harness.compare(results)
    assert table.method.tolist()[:2] == ["(majority class)", "bert"]
    assert table.loc[table.method == "bert", "mac_ratio.mean"].tolist() == [1.0]


def test_plot_writes_a_picture(results: harness.Results, tmp_path: Path) -> None:
    path = harness.plot(results, tmp_path / "exits.png", kind="exits")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_notebook_shows_the_report(results: harness.Results) -> None:
    assert results._repr_markdown_() == results.report()
    assert "| bert" in results.report()
