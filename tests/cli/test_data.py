"""Custom tasks, offline use, fetching and warnings on the command line."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import huggingface_hub.constants
import pytest
from support.command_line import (
    QUICK,
    RunCli,
    assert_names,
    assert_one_line,
    assert_suggests,
    planned,
)
from support.custom_tasks import reviews, write_csv, write_task
from support.glue_files import glue_rows, write_glue, write_parquet
from support.messages import figures, names_all
from support.readme import README
from support.stored_runs import record_in
from support.synthetic import everything_under

from harness.cli.data import OFFLINE_VARIABLES
from harness.data.custom_tasks import KEYS, read_task_file
from harness.data.hub_data import HubData
from harness.data.tasks import GROUPS, TASKS
from harness.files import hub
from harness.models.backbones import BACKBONES

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A task of 500 rows in its own folder."""
    path = write_task(
        tmp_path / "mine", {"dev": None, "dev_share": "0.1", "metrics": '["f1", "accuracy"]'}
    )
    write_csv(tmp_path / "mine" / "train.csv", reviews(500))
    return path


# --- custom tasks


@pytest.mark.slow
def test_custom_task_outlives_its_file(run_cli: RunCli, tmp_path: Path, task_file: Path) -> None:
    """A run on a custom task can be read without the task file."""
    result = run_cli("run", "--methods", "deebert", "--task-file", str(task_file), *QUICK)
    assert (result.code, len(result.out.splitlines())) == (0, 1), result
    assert_names(result.out, "[1/1]", "reviews", "deebert", 1, "f1", "accuracy")
    record = record_in(tmp_path / "results")
    assert record.own_task is not None
    assert record.own_task.labels == ("no", "yes")
    assert (
        str(tmp_path)
        not in (
            tmp_path / "results" / "reviews" / "deebert" / record.run_id / "record.json"
        ).read_text()
    )
    shutil.rmtree(task_file.parent)
    report = run_cli("report", "--tasks", "reviews", "--reference", "none")
    assert (report.code, report.err) == (0, "")
    assert names_all(report.out.splitlines()[0], "###", "reviews", "tiny")
    header = next(line for line in report.out.splitlines() if line.startswith("|"))
    assert names_all(header, "f1", "accuracy")
    assert run_cli("sweep", record.run_id).code == 0
    timing = run_cli(
        "time",
        record.run_id,
        "--threshold",
        "0.3",
        "--rounds",
        "3",
        "--limit",
        "2",
        "--reference",
        "none",
        "--cache-dir",
        "cache",
    )
    assert timing.code == 0, timing
    shutil.rmtree(tmp_path / "cache" / "rows")
    lost = run_cli(
        "time", record.run_id, "--threshold", "0.3", "--reference", "none", "--cache-dir", "cache"
    )
    assert_one_line(lost, 3, [record.short_id, "cache"])


def test_custom_and_built_in_tasks_combine(run_cli: RunCli, task_file: Path) -> None:
    result = run_cli(
        "run",
        "--tasks",
        "demo-pair,reviews",
        "--task-file",
        str(task_file),
        "--train-rows",
        "reviews=50",
        "--dry-run",
        *QUICK,
    )
    assert (result.code, result.err) == (0, "")
    assert [(cell.task, cell.rows) for cell in planned(result.out)] == [("demo-pair", "8")] * 3 + [
        ("reviews", "8")
    ] * 3


def test_report_suggests_custom_tasks(run_cli: RunCli, task_file: Path) -> None:
    """The suggestions for an unknown task include custom ones."""
    run_cli("run", "--methods", "bert", "--task-file", str(task_file), *QUICK)
    result = run_cli("report", "--tasks", "revews")
    assert_one_line(result, 2, ["revews", *TASKS])
    assert_suggests(result.err, "reviews", ["reviews", *TASKS])


def test_task_file_mistake_returns_2(run_cli: RunCli, tmp_path: Path, task_file: Path) -> None:
    """A mistake in a task file is reported in one line with code 2."""
    task_file.write_text(task_file.read_text().replace("label =", "lable ="))
    result = run_cli("run", "--task-file", str(task_file), *QUICK)
    assert_one_line(result, 2, [task_file, "lable", *KEYS])
    assert_suggests(result.err, "label", KEYS)
    assert everything_under(tmp_path / "results") == {}


EVALUATE = """
from pathlib import Path

class Metric:
    features = {"predictions": "int64"}

    def compute(self, predictions, references):
        return FOUND

def load(path):
    Path("loaded.txt").write_text(path)
    return Metric()
"""


def install_evaluate(folder: Path, monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    """Install a stand-in for the `evaluate` library."""
    (folder / "library").mkdir()
    (folder / "library" / "evaluate.py").write_text(EVALUATE.replace("FOUND", found))
    monkeypatch.syspath_prepend(str(folder / "library"))
    monkeypatch.delitem(sys.modules, "evaluate", raising=False)


@pytest.fixture
def code_task(task_file: Path) -> Path:
    """A task whose only metric is a script beside its file."""
    (task_file.parent / "counts.py").write_text("")
    task_file.write_text(
        task_file.read_text().replace('["f1", "accuracy"]', '"evaluate:./counts.py"')
    )
    return task_file


def test_metric_code_needs_permission(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_task: Path
) -> None:
    """An external metric runs only with --allow-metric-code."""
    install_evaluate(tmp_path, monkeypatch, "{'counts': len(predictions) + 0.5}")
    words = ("run", "--methods", "deebert", "--task-file", str(code_task), *QUICK)
    assert_one_line(run_cli(*words), 2, ["evaluate:./counts.py", "--allow-metric-code"])
    assert not (tmp_path / "loaded.txt").exists()
    assert run_cli(*words, "--allow-metric-code").code == 0
    assert (tmp_path / "loaded.txt").read_text() == str(code_task.parent / "counts.py")
    (tmp_path / "loaded.txt").unlink()
    record = record_in(tmp_path / "results")
    assert [list(exit_.scores) for exit_ in record.exits] == [
        ["accuracy", "evaluate:./counts.py"]
    ] * 4
    assert {exit_.scores["evaluate:./counts.py"] for exit_ in record.exits} == {8.5}
    report = run_cli("report", "--reference", "none").out
    header = next(line for line in report.splitlines() if line.startswith("|"))
    assert names_all(header, "evaluate:./counts.py")
    assert (
        "scores.evaluate:./counts.py.mean"
        in run_cli("report", "--reference", "none", "--format", "csv").out
    )
    assert run_cli("sweep", record.run_id).code == 0
    assert not (tmp_path / "loaded.txt").exists()  # reading records runs no external code


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ("{'a': 1, 'b': 2}", ["a", "b"]),
        ("{'counts': 'plenty'}", ["counts", "plenty"]),
        ("1 / 0", ["division by zero"]),
    ],
)
def test_metric_code_must_return_number(
    run_cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code_task: Path,
    found: str,
    names: list[str],
) -> None:
    """A metric that returns no number is reported in one line."""
    install_evaluate(tmp_path, monkeypatch, found)
    result = run_cli(
        "run", "--methods", "bert", "--task-file", str(code_task), "--allow-metric-code", *QUICK
    )
    assert result.code == 2
    assert_names(result.lines[1], "evaluate:./counts.py", *names)


def test_missing_metric_library_or_script_fails(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_task: Path
) -> None:
    """A missing library and a missing script are reported in one line."""
    words = (
        "run",
        "--methods",
        "bert",
        "--task-file",
        str(code_task),
        "--allow-metric-code",
        *QUICK,
    )
    with monkeypatch.context() as missing:
        missing.setattr(
            "harness.evaluation.external_metrics.importlib.util.find_spec", lambda name: None
        )
        assert_one_line(run_cli(*words), 2, ["evaluate:./counts.py", "pip install evaluate"])
    install_evaluate(tmp_path, monkeypatch, "{}")
    (code_task.parent / "counts.py").unlink()
    assert_one_line(
        run_cli(*words), 2, [code_task, "evaluate:./counts.py", code_task.parent / "counts.py"]
    )


def task_files_of_readme() -> list[str]:
    """Return README's task files: one with files of the user, one with a data set on the hub."""
    return re.findall(r"```toml\n(name = .*?)```", README, re.DOTALL)


def test_hub_example_of_readme_is_valid(tmp_path: Path) -> None:
    _, example = task_files_of_readme()
    (tmp_path / "mytask.toml").write_text(example)
    source = read_task_file(tmp_path / "mytask.toml").source
    assert isinstance(source, HubData)
    assert (source.repository, source.splits["dev"]) == ("fancyzhx/ag_news", "test")


def test_readme_example_runs(run_cli: RunCli, tmp_path: Path) -> None:
    example, _ = task_files_of_readme()
    (tmp_path / "mytask.toml").write_text(example)
    rows = [
        (f"ticket {number}", f"body {number}", ("billing", "fault", "other")[number % 3])
        for number in range(500)
    ]
    (tmp_path / "tickets.jsonl").write_text(
        "".join(
            json.dumps(dict(zip(("title", "body", "team"), row, strict=True))) + "\n"
            for row in rows
        )
    )
    result = run_cli("run", "--methods", "bert", "--task-file", "mytask.toml", *QUICK)
    assert result.code == 0, result
    assert_names(result.out, "[1/1]", "tickets", "bert", 1, "accuracy")


# --- the hub


def test_unreachable_glue_is_one_line(run_cli: RunCli, online: Path) -> None:
    """Unreachable GLUE tasks are reported in one short line."""
    result = run_cli("run", "--methods", "bert", "--tasks", "glue", *QUICK)
    assert_one_line(result, 2, [*GROUPS["glue"], "nyu-mll/glue", "--data-dir"])
    assert result.err.count("nyu-mll/glue") == 1, "the reason is given once"


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_reaches_all_libraries(
    run_cli: RunCli, online: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Offline mode reaches all libraries, and cached data are used."""
    for split in ("train", "validation"):
        write_parquet(online, "rte", split, glue_rows("rte", 0, 450))
    if how == "environment":
        monkeypatch.setenv("HARNESS_OFFLINE", "1")
    words = (
        "run",
        "--methods",
        "bert",
        "--tasks",
        "rte,cola",
        *(["--offline"] if how == "option" else []),
        "--dry-run",
        *QUICK,
    )
    result = run_cli(*words)
    assert result.code == 3
    assert [(cell.task, cell.stored) for cell in planned(result.out)] == [("rte", False)]
    (line,) = [line for line in result.lines if names_all(line, "cola")]
    assert_names(line, "nyu-mll/glue", "--data-dir")
    assert "tests have no network" not in line
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert {os.environ[name] for name in OFFLINE_VARIABLES} == {"1"}


def test_quiet_silences_row_number_warnings(run_cli: RunCli, tmp_path: Path) -> None:
    """Row numbers that differ from GLUE's cause a warning that --quiet silences."""
    for name in ("train", "dev"):
        write_glue(tmp_path / "glue", "rte", name, glue_rows("rte", 0, 450))
    words = (
        "run",
        "--methods",
        "bert",
        "--tasks",
        "rte",
        "--data-dir",
        str(tmp_path / "glue"),
        "--dry-run",
        *QUICK,
    )
    result = run_cli(*words)
    assert result.code == 0
    for line, names in zip(
        result.lines, (("rte", "train", 450, 2_490), ("rte", "dev", 450, 277)), strict=True
    ):
        assert_names(line, names)
    assert run_cli(*words, "-q").err == ""


def test_missing_task_stops_no_other(run_cli: RunCli, tmp_path: Path) -> None:
    """Available tasks are run, and missing ones are named."""
    for name in ("train", "dev"):
        write_glue(tmp_path / "glue", "rte", name, glue_rows("rte", 0, 450))
    result = run_cli(
        "run",
        "--methods",
        "bert",
        "--tasks",
        "rte,qqp",
        "--data-dir",
        str(tmp_path / "glue"),
        "-q",
        *QUICK,
    )
    assert result.code == 3
    assert_names(result.out, "rte", "bert", 1)
    assert any(names_all(line, "qqp", "QQP", "RTE") for line in result.lines)


def test_mnli_keeps_its_mismatched_trace(run_cli: RunCli, tmp_path: Path) -> None:
    """A run on MNLI keeps the mismatched trace and its scores."""
    for name in ("train", "dev_matched", "dev_mismatched"):
        write_glue(
            tmp_path / "glue",
            "mnli",
            name,
            glue_rows("mnli", 0 if name == "train" else 1_000, 450 if name == "train" else 30),
        )
    result = run_cli(
        "run",
        "--methods",
        "deebert",
        "--tasks",
        "mnli",
        "--data-dir",
        str(tmp_path / "glue"),
        "-q",
        *QUICK,
    )
    assert result.code == 0, result
    record = record_in(tmp_path / "results")
    assert record.mismatched is not None
    assert len(record.mismatched.exits) == len(record.exits) == 4
    assert record.data.rows["mismatched"] == 8
    names = {
        path.name for path in (tmp_path / "results" / "mnli" / "deebert" / record.run_id).iterdir()
    }
    assert {
        "trace.npz",
        "trace.mismatched.npz",
        "trace.selection.npz",
        "trace.calibration.npz",
    } < names
    # both splits hold the same eight examples here
    assert [exit_.scores for exit_ in record.exits] == list(record.mismatched.exits)
    assert record.mismatched.constant == record.constant_scores
    assert any(
        names_all(line, "mismatched") and 8 in figures(line)
        for line in run_cli("report", "--reference", "none").out.splitlines()
    )


# --- fetching


def test_fetch_names_what_was_cached(run_cli: RunCli, online: Path) -> None:
    """Fetch names what was cached and what needs no download."""
    for split in ("train", "validation", "test"):
        write_parquet(online, "rte", split, glue_rows("rte", 0, 450))
    result = run_cli("fetch", "--tasks", "rte,demo-pair", "--backbone", "tiny")
    assert (result.code, result.err) == (0, "")
    cached, generated, random = result.out.splitlines()
    assert_names(cached, "rte", "train", "validation", "test")
    assert figures(cached) == [450] * 3
    assert_names(generated, "demo-pair")
    assert_names(random, "tiny")


def test_unreachable_fetch_is_one_line(run_cli: RunCli, online: Path) -> None:
    """Failed downloads are reported in one line after the successful ones."""
    result = run_cli("fetch", "--tasks", "glue,demo-pair", "--backbone", "bert-base-uncased")
    assert (result.code, len(result.lines)) == (3, 1)
    (generated,) = result.out.splitlines()
    assert_names(generated, "demo-pair")
    assert_names(result.err, *GROUPS["glue"], "nyu-mll/glue", "--data-dir", "bert-base-uncased")


def test_fetch_needs_known_names(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch rejects missing and unknown names."""
    monkeypatch.delenv("HARNESS_BACKBONE")
    assert_one_line(run_cli("fetch"), 2, ["--tasks", "--backbone"])
    assert_one_line(run_cli("fetch", "--tasks", "gleu"), 2, ["gleu", *GROUPS])
    assert_one_line(run_cli("fetch", "--backbone", "tyni"), 2, ["tyni", "tiny"])


def test_cached_weights_ask_no_network(
    run_cli: RunCli, online: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cached weights are found without a request to the hub."""
    from models.test_checkpoint_files import write_snapshot

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the network was used for a cached file")

    revision = BACKBONES["bert-base-uncased"].revision
    assert revision is not None
    for name in ("folder", "tokenizer"):
        monkeypatch.delitem(BACKBONES["bert-base-uncased"].__dict__, name, raising=False)
    write_snapshot(online, revision)
    monkeypatch.setattr(hub, "probe_hub", refuse)
    result = run_cli("fetch", "--backbone", "bert-base-uncased")
    assert (result.code, result.err) == (0, ""), result
    assert_names(result.out, "bert-base-uncased")
    for name in ("folder", "tokenizer"):  # this test's cached properties must not reach others
        BACKBONES["bert-base-uncased"].__dict__.pop(name, None)
