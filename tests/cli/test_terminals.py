"""Commands in environments that lack letters, a home folder or tolerance of warnings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.synthetic import save_bert_and_deebert

from harness.errors import ExitCode, HarnessError
from harness.store.results import ResultsStore
from harness.store.stage_cache import cache_folder


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        env=os.environ | variables,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["iso8859-2", "koi8-r", "cp1252", "utf-8"])
def test_letters_that_terminals_lack_are_replaced(tmp_path: Path, encoding: str) -> None:
    """A report with a plus-minus sign is printed in any encoding."""
    save_bert_and_deebert(ResultsStore(tmp_path))
    result = run("report", "--results-dir", str(tmp_path), PYTHONIOENCODING=encoding)
    assert (result.returncode, result.stderr) == (ExitCode.OK, b"")
    sign = "\u00b1".encode(encoding, errors="replace")
    assert b"mean " + sign + b" sd" in result.stdout


def test_error_with_foreign_letters_is_one_line(tmp_path: Path) -> None:
    result = run("sweep", "\u4e2d\u6587", "--results-dir", str(tmp_path), PYTHONIOENCODING="ascii")
    assert result.returncode == ExitCode.USER
    assert result.stderr.startswith(b"harness: ") and result.stderr.count(b"\n") == 1


def test_no_home_folder_needs_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(HarnessError, match="--cache-dir"):
        cache_folder(None)
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "harness"


@pytest.mark.slow
def test_warnings_as_errors_end_no_command(tmp_path: Path) -> None:
    words = ["--methods", "deebert", "--tasks", "demo-single", "--limit", "16", "--epochs", "1"]
    words += ["--backbone", "tiny", "--latency-seconds", "0.1"]
    folders = ["--results-dir", str(tmp_path / "r"), "--cache-dir", str(tmp_path / "c")]
    result = run("run", *words, *folders, PYTHONWARNINGS="error")
    assert result.returncode == ExitCode.OK, result.stderr.decode()
