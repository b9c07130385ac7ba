"""The main workflow on the command line: run, resume, time, sweep, report."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from support.command_line import assert_names, planned
from support.messages import figures, names_all
from support.synthetic import single
from support.trainings import watched_steps

from harness.__main__ import main
from harness.errors import ExitCode, HarnessError
from harness.evaluation.curves import sweep
from harness.evaluation.policies import Rule, make_policy
from harness.records import RunRecord
from harness.report.document import MAJORITY_BASELINE
from harness.runs import grid
from harness.runs.cell import Cell
from harness.store.results import TRACES, ResultsStore

QUICK = (
    *("run", "--tasks", "demo-pair", "--threads", "1", "--precision", "fp32", "--epochs", "1"),
    *("--limit", "64", "--batch-size", "4", "--latency-seconds", "0.01", "-q"),
)
"""64 rows of demo-pair, latency measured in the fewest rounds."""


def harness(folder: Path, *arguments: str) -> int:
    """Run a command with the results and cache folders of this test."""
    return main([*arguments, *folders(folder, arguments[0])])


def folders(folder: Path, command: str) -> list[str]:
    cache = ["--cache-dir", str(folder / "cache")] if command in ("run", "time") else []
    return ["--results-dir", str(folder / "results"), *cache]


def records(folder: Path) -> dict[str, RunRecord]:
    found, problems = ResultsStore(folder / "results").records()
    assert not problems
    return {record.spec.method: record for record in found}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs of three methods on 64 rows of demo-pair.

    Latency is measured in the fewest rounds.
    """
    folder = tmp_path_factory.mktemp("done")
    assert harness(folder, *QUICK) == 0
    return folder


def test_every_cell_has_record_and_traces(done: Path) -> None:
    """Every cell has a record and its traces."""
    found = records(done)
    assert set(found) == {"bert", "deebert", "pabee"}
    for record in found.values():
        folder = ResultsStore(done / "results").folder(
            "demo-pair", record.spec.method, record.run_id
        )
        names = {path.name for path in folder.iterdir()}
        assert names == {"record.json", *TRACES.values()}


def test_records_are_small_and_anonymous(done: Path) -> None:
    """Records are small and contain no path, host or user name."""
    for path in (done / "results").rglob("record.json"):
        text = path.read_text(encoding="utf-8")
        assert len(text) <= 10_240
        for private in (str(done), str(Path.home()), socket.gethostname(), getpass.getuser()):
            assert f"/{private.strip('/')}" not in text
            assert f'"{private}"' not in text


def test_latency_reaches_every_exit(done: Path) -> None:
    """Latency is measured for every exit at both batch sizes."""
    for record in records(done).values():
        assert record.latency is not None
        assert record.latency.reference == "bert"
        for measured in record.exits:
            assert set(measured.static_ms) == set(measured.path_ms) == {"1", "4"}
            assert all(q.q1 <= q.median <= q.q3 and q.q1 > 0 for q in measured.static_ms.values())
        assert [len(ratios) for ratios in record.latency.reference_ratio.values()] == [
            len(record.exits)
        ] * 2


def test_last_deebert_exit_is_bert(done: Path) -> None:
    """The last exit of deebert predicts exactly as the bert run."""
    found, store = records(done), ResultsStore(done / "results")
    for split in TRACES:
        bert, deebert = (store.trace(found[method], split) for method in ("bert", "deebert"))
        assert np.array_equal(bert.logits[-1], deebert.logits[-1])
    assert found["bert"].exits[-1].scores == found["deebert"].exits[-1].scores


def test_second_run_reuses_stored_records(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "results").rglob("*.*")}
    assert harness(done, *[word for word in QUICK if word != "-q"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for record in records(done).values():
        (line,) = [line for line in lines if names_all(line, record.short_id)]
        assert_names(line, "demo-pair", record.spec.method, "accuracy")
    assert {path: path.stat().st_mtime_ns for path in (done / "results").rglob("*.*")} == before


def test_cached_stages_take_no_step(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with cached stages but without results takes no optimiser step."""

    def no_training(*_: object) -> None:
        raise AssertionError("a cached stage was trained again")

    shutil.copytree(done / "cache", tmp_path / "cache")
    monkeypatch.setattr("baselines.training.finetune.train", no_training)
    assert harness(tmp_path, *QUICK, "--no-latency") == 0
    assert all(use.reused for record in records(tmp_path).values() for use in record.stages)
    for method, record in records(tmp_path).items():
        first, again = (
            ResultsStore(folder / "results").trace(records(folder)[method])
            for folder in (done, tmp_path)
        )
        assert np.array_equal(first.logits, again.logits)
        assert record.exits[-1].scores == records(done)[method].exits[-1].scores


def test_dry_run_marks_stored_cells(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run distinguishes stored cells from new ones and fits nothing."""
    assert harness(done, *QUICK, "--seeds", "1,2", "--dry-run") == 0
    cells = planned(capsys.readouterr().out)
    assert {(cell.method, cell.seed, cell.stored) for cell in cells} == {
        (method, seed, seed == "1")
        for method in ("bert", "deebert", "pabee")
        for seed in ("1", "2")
    }
    assert {cell.run for cell in cells if cell.stored} == {
        record.short_id for record in records(done).values()
    }
    assert len(records(done)) == 3


@pytest.mark.parametrize(
    "change",
    [
        ("--seeds", "2"),
        ("--epochs", "2"),
        ("--set", "all.head=plain"),
        ("--max-length", "16"),
        ("--limit", "63"),
        ("--train-rows", "demo-pair=32"),
        ("--precision", "bf16"),
        ("--threads", "2"),
        ("--batch-size", "8"),
        ("--reference", "pabee"),
        ("--set", "bert.learning_rates=1e-3"),
    ],
)
def test_result_changes_change_the_run(
    done: Path, change: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option that changes a result gives a new run."""
    assert harness(done, *QUICK, "--methods", "bert", *change, "--dry-run") == 0
    assert [cell.stored for cell in planned(capsys.readouterr().out)] == [False]


@pytest.mark.parametrize(
    "same", [("--set", "bert.epochs=1"), ("--set", "bert.batch_size=16"), ("--reference", "bert")]
)
def test_equal_settings_keep_the_run(
    done: Path, same: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings equal to the defaults give the stored run, also those of pabee's reference."""
    assert harness(done, *QUICK, *same, "--dry-run") == 0
    assert [cell.stored for cell in planned(capsys.readouterr().out)] == [True] * 3
    assert harness(done, *QUICK, "--methods", "pabee", "--dry-run") == 0
    assert [cell.stored for cell in planned(capsys.readouterr().out)] == [True]


def test_failing_cell_does_not_stop_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failing cell does not stop the grid."""
    arguments = [word if word != "demo-pair" else "cola,demo-pair" for word in QUICK]
    assert harness(tmp_path, *arguments, "--methods", "bert", "--no-latency") == 3
    assert set(records(tmp_path)) == {"bert"}
    output = capsys.readouterr()
    failed, last = output.err.splitlines()
    assert_names(failed, "cola", "--data-dir")
    assert figures(last) == [1, 2]
    assert_names(output.out, "[1/1]", "demo-pair", "bert", 1, "accuracy")


def test_cell_without_plan_does_not_stop_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell whose stages cannot be planned fails by itself."""
    words = [*QUICK, "--no-latency", "--methods"]
    assert harness(tmp_path, *words, "bert") == 0
    (stage,) = (tmp_path / "cache").rglob("stage.json")
    stage.write_bytes(b"\xff\xfe")
    shutil.rmtree(tmp_path / "results")
    capsys.readouterr()
    assert harness(tmp_path, *words, "bert,pabee") == ExitCode.BUG
    assert set(records(tmp_path)) == {"pabee"}
    failed, _ = capsys.readouterr().err.splitlines()
    assert_names(failed, "demo-pair", "bert")


@pytest.mark.parametrize(("failing", "code"), [({"bert"}, 3), ({"bert", "pabee"}, 2)])
def test_codes_of_failing_cells(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failing: set[str],
    code: int,
) -> None:
    """An error that stops some cells exits as incomplete, one that stops all as a user error."""

    def cell(cell_: Cell, *arguments: object) -> tuple[RunRecord, bool]:
        if cell_.spec.method in failing:
            raise HarnessError("an incompatible setting")
        return single(cell_.spec.method, 1), True

    monkeypatch.setattr(grid, "run_cell", cell)
    assert harness(tmp_path, *QUICK, "--methods", "bert,pabee", "--no-latency") == code
    *lines, last = capsys.readouterr().err.splitlines()
    assert all(line.endswith("an incompatible setting") for line in lines)
    assert figures(last) == [len(failing), 2]


def test_live_predictions_score_as_trace(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Live predictions have the score of the trace."""
    store, record = ResultsStore(done / "results"), records(done)["pabee"]
    arguments = (
        *("--policy", "patience", "--threshold", "1", "--batch-size", "8"),
        *("--rounds", "3", "--threads", "1"),
    )
    assert harness(done, "time", record.run_id, *arguments) == 0
    (timing,) = store.timings(record)
    curve = sweep(
        make_policy(Rule("patience"), 2),
        store.trace(record),
        record.costs,
        ("accuracy",),
        np.array([1.0]),
    )
    assert timing.scores["accuracy"] == pytest.approx(curve.scores["accuracy"][0])
    assert timing.mean_layers == pytest.approx(curve.layers[0], abs=1e-4)
    assert timing.rows == 64
    assert timing.ratio.q1 > 0
    caption = capsys.readouterr().out.splitlines()[0]
    assert_names(caption, "accuracy", round(100 * record.constant_scores["accuracy"], 1))


def test_live_timing_reads_cached_rows(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Live timing reads the rows that the run left in the cache.

    The task's files are read only if the rows are no longer cached."""

    def no_files(*_: object) -> NoReturn:
        raise HarnessError("the files were asked for")

    record = records(done)["deebert"]
    arguments = (
        *("time", record.run_id, "--threshold", "0.3", "--rounds", "3"),
        *("--limit", "5", "--threads", "1", "--precision", "bf16"),
    )
    monkeypatch.setattr("harness.measure.live.load_data", no_files)
    assert harness(done, *arguments) == 0
    (timing,) = ResultsStore(done / "results").timings(record)
    assert (timing.rows, timing.rounds, timing.precision, timing.reference) == (
        5,
        3,
        "bfloat16",
        "bert",
    )
    shutil.move(done / "cache" / "rows", done / "cache" / "away")
    assert harness(done, *arguments) == 2
    shutil.move(done / "cache" / "away", done / "cache" / "rows")
    assert "the files were asked for" in capsys.readouterr().err


def test_timing_need_not_be_stored(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A timing can be shown without being stored.

    By default it uses the run's number of threads."""
    record, store = records(done)["deebert"], ResultsStore(done / "results")
    before = store.timings(record)
    options = ("--threshold", "0.2", "--rounds", "3", "--limit", "5", "--no-store")
    assert harness(done, "time", record.run_id, *options) == 0
    _, _, row = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    rows, threads = cells[5], cells[10]
    assert (figures(rows), threads) == ([5, 64], "1")
    assert store.timings(record) == before


def test_sweep_needs_no_torch(done: Path) -> None:
    """A sweep needs neither torch nor the model nor the data."""
    script = f"""
import sys
from harness.__main__ import main
assert main(["sweep", {records(done)["deebert"].run_id!r}, "--policy", "entropy",
             "--format", "json", "--results-dir", {str(done / "results")!r}]) == 0
assert not {{"torch", "transformers", "datasets"}} & set(sys.modules)
"""
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    curve = json.loads(child.stdout)
    assert curve[0]["layers"] < curve[-1]["layers"] == 4.0


def test_sweep_caption_has_baseline_score(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The caption of a curve gives the majority-class baseline's score."""
    record = records(done)["deebert"]
    assert harness(done, "sweep", record.run_id) == 0
    caption, blank, table, *_ = capsys.readouterr().out.splitlines()
    assert_names(caption, "accuracy", float(f"{record.constant_scores['accuracy']:.6g}"))
    assert (blank, table[0]) == ("", "|")
    assert harness(done, "sweep", record.run_id, "--format", "csv") == 0
    assert capsys.readouterr().out.startswith("entropy (nats),accuracy,")


def test_report_shows_methods_and_baseline(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report shows all methods and the majority-class baseline."""
    assert harness(done, "report") == 0
    text = capsys.readouterr().out
    assert all(f"| {name}" in text for name in (MAJORITY_BASELINE, "bert", "deebert", "pabee"))
    heading = next(line for line in text.splitlines() if line.startswith("### "))
    assert_names(heading, "demo-pair", "tiny", 64)


def start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness", *arguments, *folders(folder, "run")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def epochs_finished(cache: Path) -> int:
    """Return the number of epochs in the reports and saved states of stages."""
    reports = [
        json.loads(path.read_text(encoding="utf-8"))["report"]
        for path in cache.glob("stages/*/stage.json")
    ]
    unfinished = [
        path
        for path in cache.glob("stages/*.scratch/train.pt")
        if not path.parent.with_suffix("").is_dir()
    ]
    states = [torch.load(path, weights_only=True) for path in unfinished]
    return sum(len(report["selection"]) for report in reports) + sum(
        len(state["losses"]) for state in states
    )


@pytest.mark.slow
def test_killed_run_resumes_with_equal_traces(tmp_path: Path) -> None:
    """A killed run resumes where it stopped and ends with equal traces.

    100 rows make 7 steps of 16 rows per epoch. Finished epochs are not trained again."""
    stages, epochs, steps = 2, 3, 7
    options = ["--epochs", str(epochs), "--limit", "100", "--methods", "deebert", "--no-latency"]
    arguments = [*QUICK, *options]
    killed, uninterrupted = tmp_path / "killed", tmp_path / "uninterrupted"
    process = start(killed, arguments)
    deadline = time.monotonic() + 120
    while not list((killed / "cache").glob("stages/*.scratch/train.pt")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((killed / "results").rglob("record.json"))
    finished = epochs_finished(killed / "cache")
    with watched_steps() as resumed:
        assert harness(killed, *arguments) == 0
    with watched_steps() as complete:
        assert harness(uninterrupted, *arguments) == 0
    assert finished >= 1
    assert len(complete.rates) == stages * epochs * steps
    assert len(resumed.rates) == len(complete.rates) - finished * steps
    for split in TRACES:
        first, second = (
            ResultsStore(folder / "results").trace(records(folder)["deebert"], split)
            for folder in (killed, uninterrupted)
        )
        assert np.array_equal(first.logits, second.logits)
    assert not list((killed / "cache").glob("stages/*.scratch"))
