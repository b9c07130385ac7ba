"""What the tests of the gate share."""

from pathlib import Path

import pytest
from support.command_line import Say
from support.gate_runs import Judge, Outcome, outcome, save

from harness.evaluation.trace import Trace
from harness.records import RunRecord


@pytest.fixture
def judge(tmp_path: Path, baseline: str, say: Say) -> Judge:
    """Checks the runs in the folder `new`, and first puts one there if it is given, against the baseline."""

    def call(run: RunRecord | None = None, dev: Trace | None = None, *words: str) -> Outcome:
        if run is not None and dev is not None:
            save(tmp_path / "new", run, dev)
        command = (
            "check",
            "--baseline",
            baseline,
            "--results-dir",
            str(tmp_path / "new"),
            "--format",
            "json",
        )
        answer = say(*command, *words)
        assert answer.err == ""
        return outcome(answer)

    return call
