"""Runs that are exported, and the exported models."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkpoints import LABELS, write_checkpoint
from support.command_line import RunCli
from support.stored_runs import record_of

QUICK = "run --tasks demo-pair --threads 1 --precision fp32 --epochs 2 --limit 64 --no-latency -q"


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store runs of two methods on 64 rows of demo-pair, and of a checkpoint."""
    from harness.__main__ import main

    folder = tmp_path_factory.mktemp("done")
    folders = ["--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    assert main([*QUICK.split(), "--methods", "bert,deebert", *folders]) == 0
    write_checkpoint(folder / "mine", "electra", LABELS)
    words = "--tasks demo-single --max-length 24 --limit 16 --threads 1 --no-latency -q"
    checkpoint = ["--checkpoint", str(folder / "mine")]
    assert main(["run", *checkpoint, *words.split(), *folders]) == 0
    return folder


@pytest.fixture
def export(run_cli: RunCli, done: Path, tmp_path: Path) -> Callable[..., Path]:
    """Export a method's run and return the folder."""

    def call(method: str, *words: str) -> Path:
        out = tmp_path / f"my-{method}"
        folders = ["--results-dir", str(done / "results"), "--cache-dir", str(done / "cache")]
        result = run_cli(
            "export",
            record_of(done / "results", method).run_id,
            "--out",
            str(out),
            *folders,
            *words,
        )
        assert result.code == 0, result
        return out

    return call
