"""What goes wrong, the user's mistakes and all else: one line that says it, the exit code, and nothing half written."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from support.command_line import RUN, Say, assert_one_line
from support.stored_runs import DYNAMIC, SINGLE, store_run
from support.synthetic import everything_under

from harness.cli import catalogue
from harness.runs import grid
from harness.store.stage_cache import MODEL, stage_folder

pytestmark = pytest.mark.usefixtures("own_folders")

# --- mistakes of the user


RUN_MISTAKES = [
    (["--methods", "brt"], ["unknown method 'brt'", "did you mean bert"]),
    (["--methods", ","], ["--methods", "names nothing"]),
    (["--tasks", "demo-pear"], ["unknown task 'demo-pear'", "did you mean demo-pair"]),
    (["--tasks", ""], ["--tasks", "names nothing"]),
    (["--backbone", "tyni"], ["unknown backbone 'tyni'", "did you mean tiny", "folder"]),
    (["--set", "bert.epoch=3"], ["--set bert.epoch=3", "did you mean epochs"]),
    (["--set", "bert.epochs=many"], ["--set bert.epochs=many", "'many'", "whole number"]),
    (["--set", "bert.epochs=0"], ["--set bert.epochs=0", "1 or more"]),
    (["--set", "pabee.epochs=3"], ["--set pabee.epochs=3", "bert", "all"]),
    (["--set", "epochs=3"], ["--set epochs=3", "METHOD.FIELD=VALUE"]),
    (["--seeds", "1,two"], ["--seeds", "'two'", "whole number"]),
    (["--seeds", "-1"], ["--seeds", "'-1'"]),
    (["--seeds", "1.5"], ["--seeds", "'1.5'"]),
    (["--train-rows", "demo-pair"], ["--train-rows demo-pair", "TASK=N"]),
    (["--train-rows", "demo-pair=many"], ["--train-rows demo-pair", "'many'", "whole number"]),
    (["--train-rows", "demo-pear=5"], ["'demo-pear'", "did you mean demo-pair"]),
    (["--train-rows", "rte=5"], ["'rte'", "demo-pair"]),
    (["--train-rows", "demo-pair=999999"], ["--train-rows demo-pair=999999", "rows"]),
    (["--train-rows", "demo-pair=0"], ["--train-rows demo-pair=0"]),
    (["--max-length", "129"], ["--max-length 129", "tiny", "4 to 128"]),
    (["--max-length", "3"], ["--max-length", "3"]),
    (["--tasks", "mrpc"], ["mrpc", "--data-dir", "MRPC/"]),
    (["--tasks", "mrpc", "--data-dir", "nowhere"], ["mrpc", "nowhere/MRPC/train.tsv", "--data-dir"]),
    (["--epochs", "0"], ["--epochs", "0"]),
    (["--threads", "0"], ["--threads", "0"]),
    (["--limit", "0"], ["--limit", "0"]),
    (["--device", "tpu"], ["--device", "'tpu'", "cuda"]),
    (["--precision", "fp8"], ["--precision", "'fp8'", "bf16"]),
    (["--reference", "brt"], ["unknown method 'brt'", "did you mean bert"]),
    (["--tracker", "tensorbord"], ["--tracker", "tensorbord", "tensorboard"]),
    (["--sedes", "1"], ["--sedes", "--seeds"]),
    (["extra"], ["extra"]),
    # said once, whether all cells share a mistake or no task's data are there
    (["--methods", "bert,deebert", "--max-length", "129"], ["--max-length 129"]),
    (["--tasks", "rte,mrpc", "--data-dir", "nowhere"], ["nowhere/RTE/train.tsv", "nowhere/MRPC/train.tsv"]),
]


@pytest.mark.parametrize(("words", "said"), RUN_MISTAKES, ids=[" ".join(words) for words, _ in RUN_MISTAKES])
def test_mistake_in_run_is_one_line_with_code_2_and_writes_nothing(say: Say, tmp_path: Path, words: list[str], said: list[str]) -> None:
    answer = say(*RUN, "--results-dir", "results", "--cache-dir", "cache", *words)
    assert_one_line(answer, 2, said)
    assert everything_under(tmp_path / "results") == {}


def test_cuda_without_a_device_is_one_line(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_one_line(say(*RUN, "--results-dir", "results", "--device", "cuda"), 2, ["--device cuda", "cpu"])
    assert everything_under(tmp_path / "results") == {}


@pytest.mark.parametrize("option", ["--results-dir", "--cache-dir"])
@pytest.mark.parametrize("below", ["", "/below"])
def test_folder_that_is_a_file_is_one_line_that_names_it(say: Say, tmp_path: Path, option: str, below: str) -> None:
    (tmp_path / "occupied").write_text("here")
    answer = say(
        *RUN,
        *(word for other in ("--results-dir", "--cache-dir") if other != option for word in (other, "free")),
        option,
        "occupied" + below,
    )
    assert_one_line(answer, 2, ["occupied" + below])
    if below:
        assert ("cache" in answer.err) == (option == "--cache-dir")
        assert ("results" in answer.err) == (option == "--results-dir")
    assert (tmp_path / "occupied").read_text() == "here"
    assert everything_under(tmp_path / "free") == {}


STORED_MISTAKES = [
    (["sweep", "abcd"], ["run id abcd", "harness list runs"]),
    (["sweep", "ab"], ["run id 'ab'", "4 to 16"]),
    (["sweep", "../../etc"], ["run id", "4 to 16"]),
    (["sweep"], ["RUN_ID"]),
    (["sweep", SINGLE.run_id], [SINGLE.run_id, "bert", "single exit"]),
    (["sweep", "4e90", "--policy", "entropy"], ["entropy", "regression", "patience"]),
    (["sweep", "4e90", "--policy", "confidence"], ["confidence", "regression", "patience"]),
    (["sweep", "d1e0", "--policy", "entropie"], ["--policy", "entropie", "entropy"]),
    (["sweep", "4e90", "--tolerance", "0"], ["--tolerance", "0"]),
    (["sweep", "d1e0", "--tolerance", "0.2"], ["--tolerance", "regression", "entropy on rte"]),
    (["sweep", "d1e0", "--points", "1"], ["--points", "1"]),
    (["time", "abcd", "--threshold", "0.3"], ["run id abcd"]),
    (["time", "51e0", "--threshold", "0.3"], [SINGLE.run_id, "single exit"]),
    (["time", "d1e0"], ["--threshold"]),
    (["time", "d1e0", "--threshold", "-0.3"], ["entropy", "-0.3"]),
    (["time", "d1e0", "--threshold", "0.3", "--policy", "patience"], ["patience", "0.3", "whole number"]),
    (["time", "d1e0", "--threshold", "1.5", "--policy", "confidence"], ["confidence", "1.5", "probability"]),
    (["time", "d1e0", "--threshold", "nan"], ["nan"]),
    (["report", "--tasks", "rte,mprc"], ["unknown task 'mprc'", "did you mean mrpc"]),
    (["report", "--methods", "brt"], ["'brt'", "bert"]),
    (["report", "--reference", "brt"], ["unknown method 'brt'", "did you mean bert"]),
    (["report", "--format", "html"], ["--format", "html", "markdown"]),
    (["report", "--tasks", "rte", "--into", "missing.md"], ["missing.md"]),
    (["report", "--into", "missing.md", "--format", "csv"], ["--into", "--format csv"]),
    (["list", "methodes"], ["methodes", "methods"]),
]


@pytest.mark.parametrize(("words", "said"), STORED_MISTAKES, ids=[" ".join(words) for words, _ in STORED_MISTAKES])
def test_mistake_about_stored_runs_is_one_line_with_code_2_and_writes_nothing(
    say: Say, stored: str, words: list[str], said: list[str]
) -> None:
    before = everything_under(Path(stored))
    assert_one_line(say(*words, "--results-dir", stored), 2, said)
    assert everything_under(Path(stored)) == before


OTHER_MISTAKES = [
    (["flops", "brt"], ["unknown method 'brt'", "did you mean bert"]),
    (["flops", "bert", "--task", "rtee"], ["unknown task 'rtee'", "did you mean rte"]),
    (["flops", "bert", "--task", "glue"], ["--task", "glue"]),
    (["flops", "bert", "--backbone", "tyni"], ["unknown backbone", "did you mean tiny"]),
    (["flops", "bert", "--length", "513"], ["--length 513", "bert-base-uncased", "512"]),
    (["flops", "bert", "--length", "0"], ["--length", "0"]),
    (["flops", "bert", "--set", "bert.heads=3"], ["--set bert.heads=3", "head"]),
    (["flops"], ["METHOD"]),
    (["rnu"], ["rnu", "run"]),
    (["--sedes"], ["--sedes"]),
]


@pytest.mark.parametrize(("words", "said"), OTHER_MISTAKES, ids=[" ".join(words) for words, _ in OTHER_MISTAKES])
def test_other_mistakes_are_one_line_with_code_2(say: Say, words: list[str], said: list[str]) -> None:
    assert_one_line(say(*words), 2, said)


def test_file_without_markers_takes_no_report(say: Say, stored: str, tmp_path: Path) -> None:
    (tmp_path / "plain.md").write_text("# Title\n")
    assert_one_line(say("report", "--tasks", "rte", "--into", "plain.md", "--results-dir", stored), 2, ["plain.md", "report: begin"])
    assert (tmp_path / "plain.md").read_text() == "# Title\n"


def test_prefix_of_several_runs_is_an_error_that_lists_them(say: Say, tmp_path: Path) -> None:
    ids = ["abcd" + "0" * 12, "abcd" + "1" * 12]
    for run_id in ids:
        store_run(tmp_path / "results", replace(DYNAMIC, run_id=run_id))
    assert_one_line(say("sweep", "abcd"), 2, ["2 runs", *ids])
    assert say("sweep", "abcd0").code == 0


def test_data_folder_of_the_environment_is_used(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", "from-the-environment")
    assert "from-the-environment/RTE/train.tsv" in say(*RUN, "--tasks", "rte", "--results-dir", "r", "--cache-dir", "c").err


# --- other exit codes


def fail(error: BaseException) -> Callable[..., NoReturn]:
    def failing(*_: object, **__: object) -> NoReturn:
        raise error

    return failing


def test_report_without_runs_is_incomplete(say: Say) -> None:
    assert_one_line(say("report", "--results-dir", "empty"), 3, ["no runs", "empty", "harness run"])


def test_run_with_a_damaged_trace_is_named_and_the_report_shows_the_others(say: Say, stored: str) -> None:
    folder = Path("rte") / "deebert" / DYNAMIC.run_id
    (Path(stored) / folder / "trace.calibration.npz").write_bytes(b"PK")
    answer = say("report", "--format", "json", "--results-dir", stored)
    assert answer.code == 3
    assert len(answer.lines) == 1
    assert str(folder) in answer.err
    assert DYNAMIC.run_id not in answer.out
    assert SINGLE.run_id in answer.out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "CUDA out of memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "can't allocate"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_cell_without_memory_says_what_to_do(say: Say, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str) -> None:
    monkeypatch.setattr("harness.runs.grid.run_cell", fail(error))
    answer = say("run", "--methods", "bert", "--tasks", "demo-pair", "--results-dir", "r", "--cache-dir", "c")
    assert (answer.code, answer.out, len(answer.lines)) == (3, "", 2)
    assert all(part in answer.lines[0] for part in ("demo-pair bert seed 1: out of memory", said, "--batch-size", "accumulation"))
    assert "1 of 1 cells" in answer.lines[1]


@pytest.mark.parametrize("command", [["list", "runs"], ["report", "--format", "json"]])
def test_corrupt_record_is_named_and_the_others_are_shown(say: Say, stored: str, command: list[str]) -> None:
    folder = Path("rte") / "bert" / ("bad0" + "0" * 12)
    (Path(stored) / folder).mkdir()
    (Path(stored) / folder / "record.json").write_text('{"schema": 1')
    answer = say(*command, "--results-dir", stored)
    assert answer.code == 3
    assert len(answer.lines) == 1
    assert str(folder) in answer.err
    assert DYNAMIC.run_id in answer.out


def test_timing_a_run_on_other_data_is_not_comparable(say: Say, tmp_path: Path) -> None:
    record = replace(DYNAMIC, spec=replace(DYNAMIC.spec, task="demo-pair"))
    store_run(tmp_path / "results", record)
    words = ("time", record.run_id, "--threshold", "0.3", "--threads", "1", "--cache-dir", "cache")
    assert_one_line(say(*words), 3, ["model", record.run_id, "harness run"])
    (stage_folder(tmp_path / "cache", record.stages[-1].report.key) / MODEL).mkdir(parents=True)
    assert_one_line(say(*words), 4, ["data", record.run_id, "d0"])


@pytest.mark.parametrize(("words", "missing"), [(["--tasks", "rte,cola"], "cola"), (["--methods", "bert,costeff"], "costeff")])
def test_what_a_report_was_asked_for_and_has_no_runs_is_named(say: Say, stored: str, words: list[str], missing: str) -> None:
    answer = say("report", *words, "--results-dir", stored)
    assert (answer.code, answer.lines) == (3, [f"harness: no runs of {missing} in {stored}"])
    assert "### rte on tiny" in answer.out
    assert say("report", "--tasks", "glue", "--results-dir", stored).code == 0


def test_a_report_without_any_row_says_so_once(say: Say, stored: str) -> None:
    assert_one_line(say("report", "--methods", "costeff", "--results-dir", stored), 3, ["no runs of costeff", "harness list runs"])


def test_a_reader_that_closes_the_pipe_is_no_error() -> None:
    program = "import os, sys; os.close(1); r, w = os.pipe(); os.close(r); os.dup2(w, 1); from harness.__main__ import entry; entry()"
    child = subprocess.run([sys.executable, "-c", program, "list", "tasks"], stderr=subprocess.PIPE, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")


def test_bug_of_ours_is_one_line_with_code_70(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "methods", fail(RuntimeError("boom\nand more")))
    assert_one_line(say("list", "methods"), 70, ["internal error", "RuntimeError", "boom", "-v"])


def test_verbose_shows_where_a_bug_is(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "methods", fail(ZeroDivisionError("boom")))
    answer = say("list", "methods", "-v")
    assert answer.code == 70
    assert "Traceback" in answer.err
    assert answer.lines[-1].startswith("harness: internal error: ZeroDivisionError: boom")


def test_bug_in_one_cell_is_said_once_and_returns_70(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "run_cell", fail(ZeroDivisionError("boom")))
    answer = say(*RUN, "--results-dir", "r", "--cache-dir", "c")
    assert (answer.code, answer.out, len(answer.lines)) == (70, "", 2)
    assert all(part in answer.lines[0] for part in ("demo-pair bert seed 1", "internal error", "boom"))


@pytest.mark.parametrize("words", [["list", "methods"], [*RUN, "--results-dir", "r", "--cache-dir", "c"]])
def test_interruption_is_one_line_with_code_130(say: Say, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(catalogue, "methods", fail(KeyboardInterrupt()))
    monkeypatch.setattr(grid, "run_cell", fail(KeyboardInterrupt()))
    answer = say(*words)
    assert_one_line(answer._replace(err=answer.err.lstrip("\n")), 130, ["interrupted", "same command"])  # the empty line ends "^C"


@pytest.mark.parametrize(("number", "code"), [(28, 3), (13, 2)])
def test_full_disk_is_incomplete_and_another_refusal_is_the_users(
    say: Say, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    monkeypatch.setattr(catalogue, "methods", fail(OSError(number, os.strerror(number), "some-file")))
    assert_one_line(say("list", "methods"), code, ["some-file", os.strerror(number)])
