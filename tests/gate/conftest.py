"""Fixtures of the gate's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import RunCli
from support.gate_runs import Judge, Outcome, outcome, save

from harness.evaluation.trace import Trace
from harness.records import RunRecord


@pytest.fixture
def judge(tmp_path: Path, baseline: str, run_cli: RunCli) -> Judge:
    """Check the runs in the folder `new` against the baseline, after saving a run there if one is
    given."""

    def call(run: RunRecord | None = None, dev: Trace | None = None, *words: str) -> Outcome:
        if run is not None and dev is not None:
            save(tmp_path / "new", run, dev)
        folder = ("--results-dir", str(tmp_path / "new"))
        result = run_cli("check", "--baseline", baseline, *folder, "--format", "json", *words)
        assert result.err == ""
        return outcome(result)

    return call


@pytest.fixture
def pin_and_check(tmp_path: Path, run_cli: RunCli) -> Callable[[], Outcome]:
    """Make a baseline of the runs in the folder `old`, then check those in `new` against it."""

    def call() -> Outcome:
        check = ("check", "--baseline", str(tmp_path / "b.json"), "--results-dir")
        assert run_cli(*check, str(tmp_path / "old"), "--update").code == 0
        return outcome(run_cli(*check, str(tmp_path / "new"), "--format", "json"))

    return call
