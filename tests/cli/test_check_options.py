"""`harness check` and `harness report` on a part of the committed results."""

import pytest
from support.command_line import RunCli
from support.committed import ROOT

RESULTS = ("--results-dir", str(ROOT / "results"))


@pytest.mark.parametrize(
    "words", ["--tasks glue --methods pabee --backbone minilm", "--tasks cola"]
)
def test_check_is_narrowed(run_cli: RunCli, words: str) -> None:
    """Only the named cells of the baseline are compared."""
    everything = run_cli("check", *RESULTS)
    some = run_cli("check", *words.split(), *RESULTS)
    assert (everything.code, some.code) == (0, 0)
    counts = [int(result.out.split("passed: ")[1].split()[0]) for result in (everything, some)]
    assert 0 < counts[1] < counts[0]


@pytest.mark.parametrize(
    ("words", "name"), [("--tasks qqp", "qqp"), ("--backbone tiny", "tiny"), ("--methods x", "x")]
)
def test_names_outside_the_baseline_are_refused(run_cli: RunCli, words: str, name: str) -> None:
    result = run_cli("check", *words.split(), *RESULTS)
    assert result.code == 2
    assert any(name in line for line in result.lines)


def test_update_takes_all_runs(run_cli: RunCli) -> None:
    result = run_cli("check", "--update", "--tasks", "cola", *RESULTS)
    assert result.code == 2
    assert any("--update" in line for line in result.lines)


def test_report_is_narrowed_by_backbone(run_cli: RunCli) -> None:
    words = ("report", "--tasks", "cola", "--methods", "bert", *RESULTS)
    assert run_cli(*words, "--backbone", "minilm").code == 0
    assert run_cli(*words, "--backbone", "tiny").code == 2
