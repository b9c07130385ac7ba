"""Own tasks, offline, fetching and warnings on the command line."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
from support.command_line import Say
from support.custom_tasks import reviews, write_csv, write_task
from support.glue_files import glue_rows, write_glue, write_parquet
from support.readme import README
from support.stored_runs import record_in
from support.synthetic import everything_under

from harness.cli.data import LIBRARIES_OFFLINE
from harness.models.backbones import BACKBONES

pytestmark = pytest.mark.usefixtures("own_folders")

QUICK = ["--limit", "8", "--threads", "1", "--no-latency", "--results-dir", "results", "--cache-dir", "cache"]


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A task of 450 rows in a folder of its own."""
    path = write_task(tmp_path / "mine", {"dev": None, "dev_share": "0.1", "metrics": '["f1", "accuracy"]'})
    write_csv(tmp_path / "mine" / "train.csv", reviews(500))
    return path


# --- own tasks


def test_own_task_is_run_and_read_again_without_its_file(say: Say, tmp_path: Path, task_file: Path) -> None:
    answer = say("run", "--methods", "deebert", "--task-file", str(task_file), *QUICK)
    assert (answer.code, len(answer.out.splitlines())) == (0, 1), answer
    assert "[1/1] reviews deebert seed 1: f1" in answer.out
    record = record_in(tmp_path / "results")
    assert record.own_task is not None
    assert record.own_task.labels == ("no", "yes")
    assert str(tmp_path) not in (tmp_path / "results" / "reviews" / "deebert" / record.run_id / "record.json").read_text()
    shutil.rmtree(task_file.parent)
    report = say("report", "--tasks", "reviews", "--reference", "none")
    assert (report.code, report.err) == (0, "")
    assert "### reviews on tiny" in report.out
    assert "accuracy x100" in report.out
    assert say("sweep", record.run_id).code == 0
    timing = say(
        "time", record.run_id, "--threshold", "0.3", "--rounds", "3", "--limit", "2", "--reference", "none", "--cache-dir", "cache"
    )
    assert timing.code == 0, timing
    shutil.rmtree(tmp_path / "cache" / "rows")
    lost = say("time", record.run_id, "--threshold", "0.3", "--reference", "none", "--cache-dir", "cache")
    assert (lost.code, len(lost.lines)) == (3, 1)
    assert all(word in lost.err for word in ("dev rows", record.run_id, "task file"))


def test_own_tasks_stand_beside_built_in_ones(say: Say, task_file: Path) -> None:
    answer = say("run", "--tasks", "demo-pair,reviews", "--task-file", str(task_file), "--train-rows", "reviews=50", "--dry-run", *QUICK)
    assert (answer.code, answer.err) == (0, "")
    assert [line.split()[0] for line in answer.out.splitlines()[2:]] == ["demo-pair"] * 3 + ["reviews"] * 3


def test_unknown_task_of_a_report_gets_the_names_of_own_ones(say: Say, task_file: Path) -> None:
    say("run", "--methods", "bert", "--task-file", str(task_file), *QUICK)
    answer = say("report", "--tasks", "revews")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "did you mean reviews" in answer.err


def test_mistake_in_a_task_file_is_one_line_with_code_2(say: Say, tmp_path: Path, task_file: Path) -> None:
    task_file.write_text(task_file.read_text().replace("label =", "lable ="))
    answer = say("run", "--task-file", str(task_file), *QUICK)
    assert (answer.code, answer.out, len(answer.lines)) == (2, "", 1)
    assert all(word in answer.err for word in ("mytask.toml", "unknown key 'lable'", "did you mean label"))
    assert everything_under(tmp_path / "results") == {}


EVALUATE = """
from pathlib import Path

class Metric:
    features = {"predictions": "int64"}

    def compute(self, predictions, references):
        return FOUND

def load(place):
    Path("loaded.txt").write_text(place)
    return Metric()
"""


def install_evaluate(folder: Path, monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    """A library of that name, which is not installed here."""
    (folder / "library").mkdir()
    (folder / "library" / "evaluate.py").write_text(EVALUATE.replace("FOUND", found))
    monkeypatch.syspath_prepend(str(folder / "library"))
    monkeypatch.delitem(sys.modules, "evaluate", raising=False)


@pytest.fixture
def code_task(task_file: Path) -> Path:
    """A task of which a script beside its file makes a score, and nothing else."""
    (task_file.parent / "counts.py").write_text("")
    task_file.write_text(task_file.read_text().replace('["f1", "accuracy"]', '"evaluate:./counts.py"'))
    return task_file


def test_code_of_others_runs_only_for_those_who_allow_it(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_task: Path
) -> None:
    install_evaluate(tmp_path, monkeypatch, "{'counts': len(predictions) + 0.5}")
    words = ("run", "--methods", "deebert", "--task-file", str(code_task), *QUICK)
    refused = say(*words)
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "--allow-metric-code" in refused.err
    assert not (tmp_path / "loaded.txt").exists()
    assert say(*words, "--allow-metric-code").code == 0
    assert (tmp_path / "loaded.txt").read_text() == str(code_task.parent / "counts.py")
    (tmp_path / "loaded.txt").unlink()
    record = record_in(tmp_path / "results")
    assert [list(exit_.scores) for exit_ in record.exits] == [["accuracy", "evaluate:./counts.py"]] * 4
    assert {exit_.scores["evaluate:./counts.py"] for exit_ in record.exits} == {8.5}
    report = say("report", "--reference", "none").out
    assert "evaluate:./counts.py x100" in report
    assert "scores.evaluate:./counts.py.mean" in say("report", "--reference", "none", "--format", "csv").out
    assert say("sweep", record.run_id).code == 0
    assert not (tmp_path / "loaded.txt").exists()  # reading records runs nobody's code


@pytest.mark.parametrize(
    ("found", "said"),
    [("{'a': 1, 'b': 2}", "wanted one finite number"), ("{'counts': 'many'}", "wanted one finite"), ("1 / 0", "division")],
)
def test_code_that_returns_no_number_is_one_line(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_task: Path, found: str, said: str
) -> None:
    install_evaluate(tmp_path, monkeypatch, found)
    answer = say("run", "--methods", "bert", "--task-file", str(code_task), "--allow-metric-code", *QUICK)
    assert answer.code == 2
    assert said in answer.lines[0]


def test_missing_library_and_missing_script_are_one_line(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_task: Path
) -> None:
    words = ("run", "--methods", "bert", "--task-file", str(code_task), "--allow-metric-code", *QUICK)
    with monkeypatch.context() as missing:
        missing.setattr("harness.evaluation.external_metrics.importlib.util.find_spec", lambda name: None)
        said = "harness: metric evaluate:./counts.py needs the evaluate library, which is not installed: pip install evaluate"
        assert say(*words).lines == [said]
    install_evaluate(tmp_path, monkeypatch, "{}")
    (code_task.parent / "counts.py").unlink()
    answer = say(*words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert all(word in answer.err for word in ("mytask.toml", "evaluate:./counts.py", "no file"))


def test_example_in_the_readme_runs(say: Say, tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(name = .*?)```", README, re.DOTALL)
    (tmp_path / "mytask.toml").write_text(example)
    rows = [(f"ticket {number}", f"body {number}", ("billing", "fault", "other")[number % 3]) for number in range(500)]
    (tmp_path / "tickets.jsonl").write_text(
        "".join(json.dumps(dict(zip(("title", "body", "team"), row, strict=True))) + "\n" for row in rows)
    )
    answer = say("run", "--methods", "bert", "--task-file", "mytask.toml", *QUICK)
    assert answer.code == 0, answer
    assert "[1/1] tickets bert seed 1: accuracy" in answer.out


# --- the hub


def test_all_of_glue_out_of_reach_is_one_short_line(say: Say, online: Path) -> None:
    answer = say("run", "--methods", "bert", "--tasks", "glue", *QUICK)
    assert (answer.code, answer.out, len(answer.lines)) == (2, "", 1)
    assert answer.err.startswith("harness: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli: GLUE comes from the hub")
    assert answer.err.count("give --data-dir") == 1


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_is_told_to_all_libraries_and_cached_data_serve(say: Say, online: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    for split in ("train", "validation"):
        write_parquet(online, "rte", split, glue_rows("rte", 0, 450))
    if how == "environment":
        monkeypatch.setenv("HARNESS_OFFLINE", "1")
    words = ("run", "--methods", "bert", "--tasks", "rte,cola", *(["--offline"] if how == "option" else []), "--dry-run", *QUICK)
    answer = say(*words)
    assert answer.code == 3
    assert "rte " in answer.out
    assert "to run" in answer.out
    (line,) = [line for line in answer.lines if "cola" in line]
    assert "this is offline" in line
    assert "--data-dir" in line
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert {os.environ[name] for name in LIBRARIES_OFFLINE} == {"1"}


def test_other_numbers_of_rows_than_glues_are_a_warning_that_quiet_silences(say: Say, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        write_glue(tmp_path / "glue", "rte", name, glue_rows("rte", 0, 450))
    words = ("run", "--methods", "bert", "--tasks", "rte", "--data-dir", str(tmp_path / "glue"), "--dry-run", *QUICK)
    answer = say(*words)
    assert answer.code == 0
    assert answer.lines[0].startswith("harness: warning: rte: train has 450 rows, officially 2,490")
    assert answer.lines[1].startswith("harness: warning: rte: dev has 450 rows, officially 277")
    assert say(*words, "-q").err == ""


def test_what_is_there_is_run_and_what_is_missing_is_named(say: Say, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        write_glue(tmp_path / "glue", "rte", name, glue_rows("rte", 0, 450))
    answer = say("run", "--methods", "bert", "--tasks", "rte,qqp", "--data-dir", str(tmp_path / "glue"), "-q", *QUICK)
    assert answer.code == 3
    assert "rte bert seed 1" in answer.out
    assert any("qqp" in line and "QQP/train.tsv" in line for line in answer.lines)


def test_run_on_mnli_keeps_the_mismatched_trace_and_its_scores(say: Say, tmp_path: Path) -> None:
    for name in ("train", "dev_matched", "dev_mismatched"):
        write_glue(tmp_path / "glue", "mnli", name, glue_rows("mnli", 0 if name == "train" else 1_000, 450 if name == "train" else 30))
    answer = say("run", "--methods", "deebert", "--tasks", "mnli", "--data-dir", str(tmp_path / "glue"), "-q", *QUICK)
    assert answer.code == 0, answer
    record = record_in(tmp_path / "results")
    assert record.mismatched is not None
    assert len(record.mismatched.exits) == len(record.exits) == 4
    assert record.data.rows["mismatched"] == 8
    names = {path.name for path in (tmp_path / "results" / "mnli" / "deebert" / record.run_id).iterdir()}
    assert {"trace.npz", "trace.mismatched.npz", "trace.selection.npz", "trace.calibration.npz"} < names
    # the same eight rows stand in both splits here
    assert [exit_.scores for exit_ in record.exits] == list(record.mismatched.exits)
    assert record.mismatched.constant == record.constant_scores
    assert "and on mismatched (8 rows)" in say("report", "--reference", "none").out


# --- fetching


def test_fetch_says_what_was_there_and_where_nothing_was_needed(say: Say, online: Path) -> None:
    for split in ("train", "validation", "test"):
        write_parquet(online, "rte", split, glue_rows("rte", 0, 450))
    answer = say("fetch", "--tasks", "rte,demo-pair", "--backbone", "tiny")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        "task rte: in the cache already (rows: train 450, validation 450, test 450)",
        "task demo-pair: made in code, nothing to fetch",
        "backbone tiny: random weights, nothing to fetch",
    ]


def test_fetch_out_of_reach_is_one_line_after_what_was_to_be_had(say: Say, online: Path) -> None:
    answer = say("fetch", "--tasks", "glue,demo-pair", "--backbone", "bert-base-uncased")
    assert (answer.code, len(answer.lines)) == (3, 1)
    assert answer.out == "task demo-pair: made in code, nothing to fetch\n"
    assert all(word in answer.err for word in ("task mnli", "nyu-mll/glue", "--data-dir", "backbone bert-base-uncased"))


def test_fetch_of_nothing_and_of_unknown_names_are_mistakes(say: Say) -> None:
    assert [say("fetch").code, say("fetch", "--tasks", "gleu").code, say("fetch", "--backbone", "tyni").code] == [2, 2, 2]
    assert "--tasks" in say("fetch").err


def test_fetched_weights_are_told_from_cached_ones(say: Say, online: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.test_checkpoint_files import write_snapshot

    revision = BACKBONES["bert-base-uncased"].revision
    assert revision is not None
    for name in ("folder", "tokenizer"):
        monkeypatch.delitem(BACKBONES["bert-base-uncased"].__dict__, name, raising=False)
    write_snapshot(online, revision)
    answer = say("fetch", "--backbone", "bert-base-uncased")
    assert (answer.code, answer.out) == (0, "backbone bert-base-uncased: in the cache already\n"), answer
    for name in ("folder", "tokenizer"):
        monkeypatch.delitem(BACKBONES["bert-base-uncased"].__dict__, name, raising=False)
