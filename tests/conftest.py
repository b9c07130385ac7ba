"""Shared fixtures: a very small backbone, a few demo examples, no network, the command line."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import datasets
import huggingface_hub.constants
import pytest
import torch
from support import gate_runs
from support.command_line import CliResult, RunCli
from support.drawing import Drawing
from support.stored_runs import DYNAMIC, REGRESSION, SINGLE, store_run

from harness.__main__ import main
from harness.data import demo
from harness.data.dataset import TaskData
from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.evaluation.trace import Trace
from harness.files import hub
from harness.methods.compute import Compute
from harness.methods.registry import model_format
from harness.methods.stages import FitContext
from harness.models.backbones import Backbone
from harness.models.shapes import bert_shape
from harness.records import RunRecord
from harness.store.results import ResultsStore

torch.set_num_threads(1)
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # subprocesses test this tree, too
os.environ["HARNESS_BACKBONE"] = "tiny"  # the backbone of commands that name none


@pytest.fixture(autouse=True)
def no_calls() -> None:
    Drawing.calls.clear()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a test fail if it connects to another machine."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("tests have no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Reset Accelerate, which otherwise keeps its first precision for the whole process."""
    yield
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def micro() -> Backbone:
    """A random backbone: 3 layers x 32, 4 heads, FFN 64, the demo's vocabulary."""
    return Backbone(
        "micro",
        bert_shape(3, 32, 4, 64, vocabulary=len(demo.demo_vocabulary()), positions=64),
        pooling="mean",
        source="random",
        licence="none needed",
        learning_rates=(1e-3,),
        epochs=1,
    )


@pytest.fixture(scope="session")
def few_rows(micro: Backbone) -> TaskData:
    """48 encoded examples per split of demo-pair."""
    return load_data(TASKS["demo-pair"], None, limit=48).encoded(micro.encode, 32)


@pytest.fixture
def context(tmp_path: Path) -> FitContext:
    """A context with float32 on one CPU thread, seed 1 and an empty cache."""
    compute = Compute(torch.device("cpu"), "float32", threads=1)
    return FitContext(1, compute, tmp_path / "cache", model_format())


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate the test from the folders and variables of the user's machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HARNESS_DATA_DIR", "HARNESS_CACHE_DIR", "HARNESS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache for the hub's client and for `datasets`."""
    folder = tmp_path / "hub"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    hub.forget_probes()
    yield folder
    hub.forget_probes()


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> RunCli:
    """Run the command line in this process, and capture its output."""

    def call(*words: str) -> CliResult:
        code = main(list(words))
        out, err = capsys.readouterr()
        return CliResult(code, out, err)

    return call


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    """A results folder without runs."""
    return ResultsStore(tmp_path / "results")


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """A results folder with a single-exit run, a dynamic one and a regression."""
    folder = tmp_path / "stored"
    for record, classes in ((SINGLE, 2), (DYNAMIC, 2), (REGRESSION, 1)):
        store_run(folder, record, classes)
    return str(folder)


@pytest.fixture
def baseline(tmp_path: Path, run_cli: RunCli) -> str:
    """A baseline of one run."""
    gate_runs.save(tmp_path / "old", gate_runs.record(), gate_runs.trace())
    path = str(tmp_path / "baseline.json")
    assert (
        run_cli(
            "check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")
        ).code
        == 0
    )
    return path


@pytest.fixture
def check(tmp_path: Path, baseline: str, run_cli: RunCli) -> gate_runs.Check:
    """Check another run against the baseline; return the exit code and the output."""

    def call(run: RunRecord, dev: Trace, *words: str) -> tuple[int, str]:
        gate_runs.save(tmp_path / "new", run, dev)
        result = run_cli(
            "check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"), *words
        )
        assert result.err == ""
        return result.code, result.out

    return call
