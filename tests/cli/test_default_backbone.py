"""The backbone of commands that name none."""

from pathlib import Path

import pytest
from support.command_line import QUICK, RunCli, assert_names, assert_one_line, planned
from support.glue_files import glue_rows, write_glue
from support.messages import names_all

from harness.cli.measure import flops_command
from harness.data.tasks import GROUPS
from harness.models import backbones
from harness.models.backbones import DEFAULT_BACKBONE, DEMO_BACKBONE

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_BACKBONE")


@pytest.fixture
def glue(tmp_path: Path) -> str:
    """A folder with the files of RTE."""
    for split, first, count in (("train", 0, 450), ("dev", 1000, 30)):
        write_glue(tmp_path / "glue", "rte", split, glue_rows("rte", first, count))
    return str(tmp_path / "glue")


@pytest.mark.parametrize("installed", [True, False], ids=["installed", "not installed"])
@pytest.mark.parametrize("words", ["--methods costeff,pabee --tasks glue", "--tasks rte --dry-run"])
def test_missing_default_names_local_ones(
    run_cli: RunCli,
    hub_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    installed: bool,
) -> None:
    """Where bert-base-uncased is not at hand, one line names minilm or its installation."""
    monkeypatch.setattr(backbones, "is_installed", lambda path: installed)
    result = run_cli("run", *words.split(), "--results-dir", "r", "--cache-dir", "c")
    local = ["minilm"] if installed else ["minilm", "pip install"]
    assert_one_line(result, 2, [DEFAULT_BACKBONE, *local])
    assert not names_all(result.err, *GROUPS["glue"])


@pytest.mark.parametrize("tasks", ["glue,demo", "demo-pair,rte"])
def test_mixed_tasks_need_a_backbone(
    run_cli: RunCli, glue: str, monkeypatch: pytest.MonkeyPatch, tasks: str
) -> None:
    words = ("run", "--tasks", tasks, "--dry-run", "--data-dir", glue, "--methods", "bert", *QUICK)
    assert_one_line(run_cli(*words), 2, [DEFAULT_BACKBONE, DEMO_BACKBONE, "--backbone"])
    assert run_cli(*words, "--backbone", "tiny", "--tasks", "demo-pair,rte").code == 0


def test_flops_has_the_same_default() -> None:
    (option,) = [one for one in flops_command.params if one.name == "backbone"]
    assert option.default == DEFAULT_BACKBONE


def test_demo_tasks_need_no_name(run_cli: RunCli) -> None:
    result = run_cli("run", "--methods", "bert", "--dry-run", *QUICK)
    assert {cell.backbone for cell in planned(result.out)} == {DEMO_BACKBONE}


@pytest.mark.parametrize(
    ("shared", "own", "expected"),
    [("tiny", None, "tiny"), ("nowhere", "tiny", "tiny"), ("tiny", "nowhere", "nowhere")],
)
@pytest.mark.parametrize("command", ["run", "flops", "fetch"])
def test_variable_is_shared(
    run_cli: RunCli,
    glue: str,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    shared: str,
    own: str | None,
    expected: str,
) -> None:
    """run, flops and fetch share HARNESS_BACKBONE; a command's own variable goes first."""
    monkeypatch.setenv("HARNESS_BACKBONE", shared)
    if own is not None:
        monkeypatch.setenv(f"HARNESS_{command.upper()}_BACKBONE", own)
    words = {
        "run": ["--tasks", "rte", "--data-dir", glue, "--methods", "bert", "--dry-run", *QUICK],
        "flops": ["bert", "--length", "129"],
        "fetch": [],
    }[command]
    result = run_cli(command, *words)
    assert names_all(result.out + result.err, expected)
    assert ("nowhere" in result.err) == (expected == "nowhere")


def test_random_backbone_on_real_task_is_said_once(run_cli: RunCli, glue: str) -> None:
    """The warning precedes the first cell and is not repeated."""
    words = ("run", "--methods", "bert,deebert", "--tasks", "rte", "--data-dir", glue, *QUICK)
    result = run_cli(*words, "--epochs", "1", "--backbone", "tiny")
    assert result.code == 0
    random = [number for number, line in enumerate(result.lines) if "random weights" in line]
    told = [number for number, line in enumerate(result.lines) if "1 cell left" in line]
    assert len(random) == len(told) == 1
    assert random < told
    assert_names(result.lines[random[0]], "tiny")
    report = run_cli("report", "--results-dir", "results")
    assert report.out.count("has random weights") == 1
