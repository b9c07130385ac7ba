"""The commands show and rerun."""

import json
import shlex
from pathlib import Path

import pytest
from support.command_line import RunCli, assert_names, assert_one_line
from support.custom_tasks import reviews, write_csv, write_task
from support.stored_runs import record_in

from harness.errors import ExitCode

RUN = shlex.split(
    "run --methods deebert --tasks demo-pair --backbone tiny --limit 16 --epochs 1 --threads 1 "
    "--precision fp32 --batch-size 8 --set deebert.head=plain --results-dir first "
    "--cache-dir cache -q"
)
NEW = ("--results-dir", "first", "--out-dir", "second", "--cache-dir", "new", "-q")


@pytest.mark.parametrize(
    "timing",
    [
        pytest.param(("--no-latency",), id="untimed"),
        pytest.param(("--latency-seconds", "0.02"), id="timed", marks=pytest.mark.slow),
    ],
)
def test_rerun_has_the_same_id(
    run_cli: RunCli, own_folders: None, tmp_path: Path, timing: tuple[str, ...]
) -> None:
    """A run is fitted again with its settings, in another folder, and gets the same run id."""
    assert run_cli(*RUN, *timing).code == 0
    record = record_in(tmp_path / "first")
    assert run_cli("rerun", record.short_id, *NEW).code == 0
    again = record_in(tmp_path / "second")
    assert again.run_id == record.run_id
    assert not any(use.reused for use in again.stages)
    assert [one.scores for one in again.exits] == [one.scores for one in record.exits]


def test_shown_command_makes_the_same_run(
    run_cli: RunCli, own_folders: None, tmp_path: Path
) -> None:
    """The command that `show` prints stores a run with the same id."""
    assert run_cli(*RUN, "--no-latency").code == 0
    record = record_in(tmp_path / "first")
    shown = run_cli("show", record.short_id, "--results-dir", "first").out
    (command,) = [line.strip() for line in shown.splitlines() if "harness run" in line]
    words = shlex.split(command)[1:]
    assert run_cli(*words, "--results-dir", "second", "--cache-dir", "cache", "-q").code == 0
    assert record_in(tmp_path / "second").run_id == record.run_id


def test_show_names_settings_and_stages(run_cli: RunCli, own_folders: None, tmp_path: Path) -> None:
    assert run_cli(*RUN, "--no-latency").code == 0
    record = record_in(tmp_path / "first")
    shown = run_cli("show", record.run_id, "--results-dir", "first").out
    assert_names(shown, record.run_id, "head", "plain", "fine-tune", "deebert-exits", "entropy")
    for measured in record.exits:
        assert_names(shown, f"{100 * measured.scores['accuracy']:.1f}")


def test_other_data_are_named(run_cli: RunCli, own_folders: None, tmp_path: Path) -> None:
    """A custom task needs its file, and changed rows are said before anything is fitted."""
    write_csv(tmp_path / "train.csv", reviews(500))
    write_csv(tmp_path / "dev.csv", reviews(20, 900))
    task = str(write_task(tmp_path))
    words = [word for word in RUN if word not in ("--tasks", "demo-pair")]
    assert run_cli(*words, "--no-latency", "--task-file", task).code == 0
    run_id = record_in(tmp_path / "first").run_id
    assert_one_line(run_cli("rerun", run_id, *NEW), 2, ["reviews", "--task-file"])
    write_csv(tmp_path / "dev.csv", reviews(20, 950))
    changed = run_cli("rerun", run_id, "--task-file", task, *NEW)
    assert_one_line(changed, ExitCode.NOT_COMPARABLE, [run_id[:8], "data"])
    assert not (tmp_path / "second").exists()


def test_older_record_is_refused(run_cli: RunCli, own_folders: None, tmp_path: Path) -> None:
    """A record without its changed settings cannot be fitted again."""
    assert run_cli(*RUN, "--no-latency").code == 0
    (path,) = tmp_path.glob("first/*/*/*/record.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["changed"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert_one_line(run_cli("rerun", content["run_id"], *NEW), 2, [content["run_id"][:8]])
