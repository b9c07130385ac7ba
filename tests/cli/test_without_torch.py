"""Commands that only read records run without torch, transformers, datasets and accelerate."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.committed import RECORDS, ROOT

PROGRAM = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "datasets", "accelerate"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
from harness.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
RESULTS = ("--results-dir", str(ROOT / "results"))
SWEPT = next(record.run_id for record in RECORDS if record.policy is not None)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("report", "--tasks", "rte", *RESULTS),
        ("report", "--tasks", "cola", "--differences-from", "bert", *RESULTS),
        ("report", "--tasks", "cola", "--budget", "100MMAC", "--format", "csv", *RESULTS),
        ("check", "--baseline", str(ROOT / "results" / "baseline.json"), *RESULTS),
        ("sweep", SWEPT, *RESULTS),
        ("list", "runs", *RESULTS),
        ("list", "methods"),
        ("list", "tasks"),
        ("list", "backbones"),
        ("schema", "record"),
        ("plot", "--out", "picture.svg", *RESULTS),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_command_runs_without_torch(words: tuple[str, ...], tmp_path: Path) -> None:
    result = run(tmp_path, *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


@pytest.mark.slow
def test_torch_import_is_refused(tmp_path: Path) -> None:
    """A command that needs torch returns code 70."""
    assert run(tmp_path, "flops", "bert").returncode == 70
