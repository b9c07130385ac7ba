"""Errors of users and others: one line, the exit code, and nothing half written."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from support.command_line import RUN, RunCli, assert_names, assert_one_line, assert_suggests
from support.messages import figures, names_all
from support.stored_runs import DYNAMIC, SINGLE, store_run
from support.synthetic import everything_under

from harness.cli import catalogue
from harness.data.tasks import GROUPS, TASKS
from harness.methods.registry import METHODS
from harness.models.backbones import BACKBONES
from harness.report.overview import BEGIN, END
from harness.runs import grid
from harness.store.stage_cache import MODEL, stage_folder

pytestmark = pytest.mark.usefixtures("own_folders")

# --- mistakes of the user

SETTINGS = (
    "accumulation",
    "batch_size",
    "clip",
    "epochs",
    "head",
    "learning_rates",
    "tolerance",
    "warmup",
    "weight_decay",
)
"""Settings of `bert`."""

RUN_MISTAKES: list[tuple[list[str], list[object]]] = [
    (["--methods", "brt"], ["brt", *METHODS]),
    (["--methods", ","], ["--methods"]),
    (["--tasks", "demo-pear"], ["demo-pear", *TASKS]),
    (["--tasks", ""], ["--tasks"]),
    (["--backbone", "tyni"], ["tyni", "tiny"]),
    (["--set", "bert.epoch=3"], ["--set bert.epoch=3", "epochs", "warmup"]),
    (["--set", "bert.epochs=plenty"], ["--set bert.epochs=plenty"]),
    (["--set", "bert.epochs=0"], [("--set bert.epochs=0", 0, 1)]),
    (["--set", "pabee.epochs=3"], ["--set pabee.epochs=3", "bert", "all"]),
    (["--set", "epochs=3"], ["--set epochs=3", "METHOD.FIELD=VALUE"]),
    (["--seeds", "1,two"], [("--seeds", "two", 0)]),
    (["--seeds", "-1"], [("--seeds", "-1", 0)]),
    (["--seeds", "1.5"], [("--seeds", 1.5, 0)]),
    (["--train-rows", "demo-pair"], ["--train-rows demo-pair", "TASK=N"]),
    (["--train-rows", "demo-pair=plenty"], ["--train-rows demo-pair", "plenty"]),
    (["--train-rows", "demo-pear=5"], ["demo-pear", "demo-pair"]),
    (["--train-rows", "rte=5"], ["rte", "demo-pair"]),
    (["--train-rows", "demo-pair=999999"], [("--train-rows demo-pair=999999", 1, 2363)]),
    (["--train-rows", "demo-pair=0"], [("--train-rows demo-pair=0", 1, 2363)]),
    (["--max-length", "129"], [("--max-length 129", "tiny", 4, 128)]),
    (["--max-length", "3"], [("--max-length", 3, 4)]),
    (["--tasks", "mrpc"], ["mrpc", "--data-dir", "MRPC/"]),
    (
        ["--tasks", "mrpc", "--data-dir", "nowhere"],
        ["mrpc", "nowhere", "--data-dir"],
    ),
    (["--epochs", "0"], [("--epochs", 0, 1)]),
    (["--threads", "0"], [("--threads", 0, 1)]),
    (["--limit", "0"], [("--limit", 0, 1)]),
    (["--device", "tpu"], [("--device", "tpu", "cuda")]),
    (["--precision", "fp8"], [("--precision", "fp8", "bf16")]),
    (["--reference", "brt"], ["brt", *METHODS]),
    (["--tracker", "tensorbord"], ["--tracker", "tensorbord", "tensorboard"]),
    (["--sedes", "1"], ["--sedes", "--seeds"]),
    (["surplus"], ["surplus"]),
    # reported once, whether all cells share a mistake or the data of all tasks are missing
    (["--methods", "bert,deebert", "--max-length", "129"], ["--max-length 129"]),
    (
        ["--tasks", "rte,mrpc", "--data-dir", "nowhere"],
        ["rte", "mrpc", "--data-dir", "nowhere"],
    ),
]


@pytest.mark.parametrize(
    ("words", "names"), RUN_MISTAKES, ids=[" ".join(words) for words, _ in RUN_MISTAKES]
)
def test_mistake_in_run_writes_nothing(
    run_cli: RunCli, tmp_path: Path, words: list[str], names: list[object]
) -> None:
    """A mistake in run is reported in one line with code 2, and nothing is written."""
    result = run_cli(*RUN, "--results-dir", "results", "--cache-dir", "cache", *words)
    assert_one_line(result, 2, names)
    assert everything_under(tmp_path / "results") == {}


NEAREST = [
    (["run", "--methods", "brt"], "bert", METHODS),
    (["run", "--tasks", "demo-pear"], "demo-pair", TASKS),
    (["run", "--methods", "bert", "--set", "bert.warmpu=1"], "warmup", SETTINGS),
    (["run", "--reference", "brt"], "bert", METHODS),
    (["run", "--tasks", "demo-pair", "--train-rows", "demo-pear=5"], "demo-pair", TASKS),
    (["report", "--tasks", "rte,mprc"], "mrpc", TASKS),
    (["report", "--reference", "brt"], "bert", METHODS),
    (["flops", "brt"], "bert", METHODS),
    (["flops", "bert", "--task", "rtee"], "rte", TASKS),
]


@pytest.mark.parametrize(
    ("words", "near", "known"), NEAREST, ids=[" ".join(words) for words, *_ in NEAREST]
)
def test_unknown_name_suggests_the_nearest(
    run_cli: RunCli, words: list[str], near: str, known: Iterable[str]
) -> None:
    """The nearest known name precedes all others."""
    result = run_cli(*words)
    assert result.code == 2
    assert_suggests(result.err, near, known)


def test_cuda_without_device_is_one_line(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_one_line(
        run_cli(*RUN, "--results-dir", "results", "--device", "cuda"), 2, ["--device cuda", "cpu"]
    )
    assert everything_under(tmp_path / "results") == {}


@pytest.mark.parametrize("option", ["--results-dir", "--cache-dir"])
@pytest.mark.parametrize("below", ["", "/below"])
def test_file_instead_of_folder_is_named(
    run_cli: RunCli, tmp_path: Path, option: str, below: str
) -> None:
    """A file in place of a folder is named in one line."""
    (tmp_path / "occupied").write_text("here")
    result = run_cli(
        *RUN,
        *(
            word
            for other in ("--results-dir", "--cache-dir")
            if other != option
            for word in (other, "free")
        ),
        option,
        "occupied" + below,
    )
    assert_one_line(result, 2, ["occupied" + below])
    if below:
        assert names_all(result.err, "cache") == (option == "--cache-dir")
        assert names_all(result.err, "results") == (option == "--results-dir")
    assert (tmp_path / "occupied").read_text() == "here"
    assert everything_under(tmp_path / "free") == {}


STORED_MISTAKES: list[tuple[list[str], list[object]]] = [
    (["sweep", "abcd"], ["abcd", "harness list runs"]),
    (["sweep", "ab"], [("ab", 4, 16)]),
    (["sweep", "../../etc"], [("../../etc", 4, 16)]),
    (["sweep"], ["RUN_ID"]),
    (["sweep", SINGLE.run_id], [SINGLE.short_id, "bert"]),
    (["sweep", "4e90", "--policy", "entropy"], [("entropy", "patience")]),
    (["sweep", "4e90", "--policy", "confidence"], [("confidence", "patience")]),
    (["sweep", "d1e0", "--policy", "entropie"], ["--policy", "entropie", "entropy"]),
    (["sweep", "4e90", "--tolerance", "0"], ["--tolerance", 0]),
    (["sweep", "d1e0", "--tolerance", "0.2"], ["--tolerance", "patience", "entropy", "rte"]),
    (["sweep", "d1e0", "--points", "1"], [("--points", 1, 2)]),
    (["time", "abcd", "--threshold", "0.3"], ["abcd", "harness list runs"]),
    (["time", "51e0", "--threshold", "0.3"], [SINGLE.short_id, "bert"]),
    (["time", "d1e0"], ["--threshold"]),
    (["time", "d1e0", "--threshold", "-0.3"], [("entropy", "-0.3", 0)]),
    (["time", "d1e0", "--threshold", "0.3", "--policy", "patience"], [("patience", 0.3, 1)]),
    (["time", "d1e0", "--threshold", "1.5", "--policy", "confidence"], [("confidence", 1.5, 0, 1)]),
    (["time", "d1e0", "--threshold", "nan"], ["nan"]),
    (["report", "--tasks", "rte,mprc"], ["mprc", *TASKS]),
    (["report", "--methods", "brt"], ["brt", *METHODS]),
    (["report", "--reference", "brt"], ["brt", *METHODS]),
    (["report", "--format", "html"], ["--format", "html", "markdown"]),
    (["report", "--tasks", "rte", "--into", "missing.md"], ["missing.md"]),
    (["report", "--into", "missing.md", "--format", "csv"], ["--into", "--format csv"]),
    (["list", "methodes"], ["methodes", "methods"]),
]


@pytest.mark.parametrize(
    ("words", "names"), STORED_MISTAKES, ids=[" ".join(words) for words, _ in STORED_MISTAKES]
)
def test_mistake_about_runs_writes_nothing(
    run_cli: RunCli, stored: str, words: list[str], names: list[object]
) -> None:
    """A mistake about stored runs is reported in one line with code 2; nothing is written."""
    before = everything_under(Path(stored))
    assert_one_line(run_cli(*words, "--results-dir", stored), 2, names)
    assert everything_under(Path(stored)) == before


OTHER_MISTAKES: list[tuple[list[str], list[object]]] = [
    (["flops", "brt"], ["brt", *METHODS]),
    (["flops", "bert", "--task", "rtee"], ["rtee", *TASKS]),
    (["flops", "bert", "--task", "glue"], ["--task", "glue", *GROUPS["glue"]]),
    (["flops", "bert", "--backbone", "xyzw"], ["xyzw", *BACKBONES]),
    (["flops", "bert", "--length", "129"], [("--length 129", "tiny", 128)]),
    (["flops", "bert", "--length", "0"], [("--length", 0, 1)]),
    (["flops", "bert", "--set", "bert.heads=3"], ["--set bert.heads=3", "head"]),
    (["flops"], ["METHOD"]),
    (["rnu"], ["rnu", "run"]),
    (["--sedes"], ["--sedes"]),
]


@pytest.mark.parametrize(
    ("words", "names"), OTHER_MISTAKES, ids=[" ".join(words) for words, _ in OTHER_MISTAKES]
)
def test_other_mistakes_are_one_line(
    run_cli: RunCli, words: list[str], names: list[object]
) -> None:
    assert_one_line(run_cli(*words), 2, names)


def test_file_without_markers_takes_no_report(run_cli: RunCli, stored: str, tmp_path: Path) -> None:
    (tmp_path / "plain.md").write_text("# Title\n")
    assert_one_line(
        run_cli("report", "--tasks", "rte", "--into", "plain.md", "--results-dir", stored),
        2,
        ["plain.md", BEGIN, END],
    )
    assert (tmp_path / "plain.md").read_text() == "# Title\n"


def test_ambiguous_prefix_lists_the_runs(run_cli: RunCli, tmp_path: Path) -> None:
    """An ambiguous prefix is an error that lists the runs."""
    ids = ["abcd" + "0" * 12, "abcd" + "1" * 12]
    for run_id in ids:
        store_run(tmp_path / "results", replace(DYNAMIC, run_id=run_id))
    assert_one_line(run_cli("sweep", "abcd"), 2, [("abcd", 2, *ids)])
    assert run_cli("sweep", "abcd0").code == 0


def test_data_folder_of_environment_is_used(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", "from-the-environment")
    assert (
        "from-the-environment"
        in run_cli(*RUN, "--tasks", "rte", "--results-dir", "r", "--cache-dir", "c").err
    )


# --- other exit codes


def fail(error: BaseException) -> Callable[..., NoReturn]:
    def failing(*_: object, **__: object) -> NoReturn:
        raise error

    return failing


def test_report_without_runs_is_incomplete(run_cli: RunCli) -> None:
    assert_one_line(run_cli("report", "--results-dir", "empty"), 3, ["empty", "harness run"])


def test_damaged_run_hides_no_other(run_cli: RunCli, stored: str) -> None:
    """A run with a damaged trace is named, and the others are reported."""
    folder = Path("rte") / "deebert" / DYNAMIC.run_id
    (Path(stored) / folder / "trace.calibration.npz").write_bytes(b"PK")
    result = run_cli("report", "--format", "json", "--results-dir", stored)
    assert result.code == 3
    assert len(result.lines) == 1
    assert str(folder) in result.err
    assert DYNAMIC.short_id not in result.out
    assert SINGLE.short_id in result.out


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "CUDA out of memory",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
            ),
            "can't allocate",
        ),
        (MemoryError(), "MemoryError"),
    ],
)
def test_cell_without_memory_names_remedies(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    """A cell that runs out of memory names remedies."""
    monkeypatch.setattr("harness.runs.grid.run_cell", fail(error))
    result = run_cli(
        "run", "--methods", "bert", "--tasks", "demo-pair", "--results-dir", "r", "--cache-dir", "c"
    )
    assert (result.code, result.out, len(result.lines)) == (3, "", 2)
    assert_names(result.lines[0], "demo-pair", "bert", 1, reason, "--batch-size", "accumulation")
    assert figures(result.lines[1]) == [1, 1]


@pytest.mark.parametrize("command", [["list", "runs"], ["report", "--format", "json"]])
def test_corrupt_record_hides_no_other(run_cli: RunCli, stored: str, command: list[str]) -> None:
    """A corrupt record is named, and the others are shown."""
    folder = Path("rte") / "bert" / ("bad0" + "0" * 12)
    (Path(stored) / folder).mkdir()
    (Path(stored) / folder / "record.json").write_text('{"schema": 1')
    result = run_cli(*command, "--results-dir", stored)
    assert result.code == 3
    assert len(result.lines) == 1
    assert str(folder) in result.err
    assert DYNAMIC.short_id in result.out


def test_timing_other_data_is_not_comparable(run_cli: RunCli, tmp_path: Path) -> None:
    record = replace(DYNAMIC, spec=replace(DYNAMIC.spec, task="demo-pair"))
    store_run(tmp_path / "results", record)
    words = ("time", record.run_id, "--threshold", "0.3", "--threads", "1", "--cache-dir", "cache")
    assert_one_line(run_cli(*words), 3, [record.short_id, "cache", "harness run"])
    (stage_folder(tmp_path / "cache", record.stages[-1].report.key) / MODEL).mkdir(parents=True)
    assert_one_line(run_cli(*words), 4, [record.short_id, "d0"])


@pytest.mark.parametrize(
    ("words", "missing"),
    [(["--tasks", "rte,cola"], "cola"), (["--methods", "bert,costeff"], "costeff")],
)
def test_report_names_what_has_no_runs(
    run_cli: RunCli, stored: str, words: list[str], missing: str
) -> None:
    """Requested tasks and methods without runs are named."""
    result = run_cli("report", *words, "--results-dir", stored)
    assert (result.code, len(result.lines)) == (3, 1)
    assert_names(result.err, missing, Path(stored))
    assert names_all(result.out.splitlines()[0], "###", "rte", "tiny")
    assert run_cli("report", "--tasks", "glue", "--results-dir", stored).code == 0


def test_report_without_rows_is_one_line(run_cli: RunCli, stored: str) -> None:
    """A report without rows is reported in one line."""
    assert_one_line(
        run_cli("report", "--methods", "costeff", "--results-dir", stored),
        3,
        ["costeff", Path(stored), "harness list runs"],
    )


def test_closed_pipe_is_no_error() -> None:
    """A reader that closes the pipe is no error."""
    program = (
        "import os, sys; os.close(1); r, w = os.pipe(); os.close(r); os.dup2(w, 1); "
        "from harness.__main__ import entry; entry()"
    )
    child = subprocess.run(
        [sys.executable, "-c", program, "list", "tasks"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (child.returncode, child.stderr) == (0, "")


def test_bug_returns_70_in_one_line(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "methods", fail(RuntimeError("boom\nand more")))
    assert_one_line(run_cli("list", "methods"), 70, ["RuntimeError", "boom", "-v"])


def test_verbose_shows_where_bug_is(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "methods", fail(ZeroDivisionError("boom")))
    result = run_cli("list", "methods", "-v")
    assert result.code == 70
    assert "Traceback" in result.err
    assert result.lines[-1].startswith("harness: ")
    assert_names(result.lines[-1], "ZeroDivisionError", "boom")


def test_bug_in_cell_returns_70(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in one cell is reported once and returns 70."""
    monkeypatch.setattr(grid, "run_cell", fail(ZeroDivisionError("boom")))
    result = run_cli(*RUN, "--results-dir", "r", "--cache-dir", "c")
    assert (result.code, result.out, len(result.lines)) == (70, "", 2)
    assert_names(result.lines[0], "demo-pair", "bert", 1, "ZeroDivisionError", "boom")


@pytest.mark.parametrize(
    "words", [["list", "methods"], [*RUN, "--results-dir", "r", "--cache-dir", "c"]]
)
def test_interruption_returns_130_in_one_line(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(catalogue, "methods", fail(KeyboardInterrupt()))
    monkeypatch.setattr(grid, "run_cell", fail(KeyboardInterrupt()))
    result = run_cli(*words)
    # the empty line ends "^C"
    assert_one_line(result._replace(err=result.err.lstrip("\n")), 130, [])


@pytest.mark.parametrize(("number", "code"), [(28, 3), (13, 2)])
def test_full_disk_is_incomplete(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """A full disk returns 3; another error of the system returns 2."""
    monkeypatch.setattr(
        catalogue, "methods", fail(OSError(number, os.strerror(number), "some-file"))
    )
    assert_one_line(run_cli("list", "methods"), code, ["some-file", os.strerror(number)])
