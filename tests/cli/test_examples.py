"""Every example in --help, README and docs works, given the reader's files and run ids."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from support.command_line import RunCli
from support.glue_files import HEADERS, write_tsv
from support.messages import figures
from support.readme import README

from harness.__main__ import main
from harness.cli.app import cli
from harness.store.results import ResultsStore

MORE = {
    "run": "--dry-run --limit 64",
    "time": "--rounds 3 --limit 4 --threads 1",
}
"""Command -> options that make its example quick."""

CODES = {
    "fetch": 3,  # tests have no network
    "submit": 3,  # the leaderboard requires more tasks
    "run --tasks glue": 3,  # the folder has only some of them
}
"""Beginning of an example -> its exit code if that is not 0."""

UNWRAPPED = "\b"
"""Mark before a paragraph that click must not wrap: in help, the examples."""

SEQUENCE = "harness run --checkpoint"
"""Beginning of README's block of dependent commands, which test_checkpoint.py runs."""


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        yield f"{prefix}{name}", command


def lines_of(text: str) -> list[str]:
    """Return the lines with commands, continued lines joined, comments removed."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [
        line.strip().partition("  #")[0].strip()
        for line in joined.splitlines()
        if line.strip().startswith("harness ")
    ]


def blocks() -> list[str]:
    """Return the blocks of code of README and docs, without directives such as {toctree}."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [block for language, block in found if not language.startswith("{")]


def examples() -> list[str]:
    """Return the examples of all commands' help and of README's blocks."""
    found = [
        line
        for _, command in [("", cli), *commands(cli)]
        for line in lines_of((command.help or "").partition(UNWRAPPED)[2])
    ]
    return list(
        dict.fromkeys(
            [
                *found,
                *(
                    line
                    for block in blocks()
                    if not block.startswith(SEQUENCE)
                    for line in lines_of(block)
                ),
            ]
        )
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small tasks in GLUE's layout."""
    folder = tmp_path_factory.mktemp("examples")
    for task in ("mrpc", "sst2", "rte"):
        rows = [
            ((f"Text number {number}.",) * (1 if task == "sst2" else 2), "01"[number % 2])
            for number in range(500)
        ]
        named = (
            [(texts, ["entailment", "not_entailment"][int(label)]) for texts, label in rows]
            if task == "rte"
            else rows
        )
        distinct = [
            (tuple(f"{text} {index}" for index, text in enumerate(texts)), label)
            for texts, label in named
        ]
        for split in ("train", "dev"):
            write_tsv(folder / "glue", task, split, distinct)
    assert set(HEADERS) >= {"mrpc", "sst2", "rte"}
    return folder


def small_grid() -> str:
    """Return README's grid.toml with the tiny backbone, few rows and one seed."""
    (grid,) = [block for block in blocks() if block.startswith("methods = ")]
    for old, new in {'"minilm"': '"tiny"', "[1, 2, 3]": "[1]", "sst2 = 10000": "sst2 = 20"}.items():
        assert old in grid
        grid = grid.replace(old, new)
    return grid


@pytest.fixture(scope="module")
def runs(workspace: Path) -> dict[str, str]:
    """Return run ids in the examples -> dynamic runs on SST-2 and RTE with cached models.

    A model is exported, and a baseline made, too."""
    words = "run --methods bert,deebert --tasks sst2,rte --limit 32 --epochs 1 -q"
    words += " --threads 1 --precision fp32 --latency-seconds 0.01"
    where = ["--results-dir", str(workspace / "results"), "--cache-dir", str(workspace / "cache")]
    assert main([*words.split(), *where, "--data-dir", str(workspace / "glue")]) == 0
    found = {
        run.spec.task: run.run_id
        for run in ResultsStore(workspace / "results").records()[0]
        if run.policy is not None
    }
    assert main(["export", found["sst2"], "--out", str(workspace / "my-model"), *where]) == 0
    baseline = ["--baseline", str(workspace / "baseline.json"), "--update"]
    assert main(["check", *baseline, *where[:2]]) == 0
    (workspace / "rows.tsv").write_text("a fine film\na dull one\n")
    (workspace / "grid.toml").write_text(small_grid())
    for task, header in (
        ("SST-2", "index\tsentence\n0\ta film\n"),
        ("RTE", "index\tsentence1\tsentence2\n0\ta film\ta film\n"),
    ):
        (workspace / "glue" / task / "test.tsv").write_text(header)
    return {"3f2a": found["sst2"], "RUN_ID": found["sst2"], "81bc": found["rte"]}


@pytest.mark.slow
@pytest.mark.parametrize("line", examples())
def test_every_example_works(
    line: str,
    run_cli: RunCli,
    workspace: Path,
    runs: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(workspace / "cache"))
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "xdg"))
    for name, value in {
        **runs,
        "GLUE_DIR": str(workspace / "glue"),
        "my-results": "results",
    }.items():
        line = re.sub(rf"\b{name}\b", value, line)
    line = line.replace("--train-rows sst2=10000", "--train-rows sst2=20").replace(
        "--backbone minilm", "--backbone tiny"
    )
    words = shlex.split(line)[1:]
    name = words[0] if words else ""
    if name == "run" and "--data-dir" not in words and words != ["run"]:
        words += ["--data-dir", str(workspace / "glue")]
    if "--out" in words and name in ("export", "submit"):  # another test covers existing output
        words += ["--force"]
    result = run_cli(*words, *MORE.get(name, "").split())
    expected = {
        next((code for begin, code in CODES.items() if " ".join(words).startswith(begin)), 0)
    }
    if name in ("report", "plot"):  # there are no runs on some tasks of the examples
        expected |= {3} if "--tasks" in words else set()
    assert result.code in expected, result
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_every_command_has_an_example() -> None:
    """Every command has an example, which `test_every_example_works` runs."""
    shown = examples()
    for name, command in commands(cli):
        if not isinstance(command, click.Group):
            assert any(line.startswith(f"harness {name}") for line in shown), name


@pytest.mark.slow
def test_python_block_of_readme_runs(
    workspace: Path, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    (block,) = [block for block in blocks() if "load_results" in block]
    exec(block.replace('"my-results"', '"results"'), {})
    assert Path("tradeoff.svg").is_file()


@pytest.mark.slow
def test_excluded_block_occurs_once() -> None:
    assert sum(block.startswith(SEQUENCE) for block in blocks()) == 1


@pytest.mark.slow
def test_workflow_recipe_runs(
    run_cli: RunCli, workspace: Path, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """README's workflow for a user's repository runs, except its set-up steps."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(workspace / "cache"))
    (block,) = [block for block in blocks() if block.startswith("- ")]
    steps = yaml.safe_load(block)
    lines = [step["run"] for step in steps if step.get("run", "").startswith("harness ")]
    assert [line.split()[1] for line in lines] == ["run", "check"]
    Path("grid.toml").write_text(small_grid())
    quick = ["--data-dir", "glue", "--limit", "24", "--threads", "1", "--no-latency", "-q"]
    assert run_cli(*shlex.split(lines[0])[1:], *quick).code == 0
    assert (
        run_cli("check", "--baseline", "baseline.json", "--results-dir", "fresh", "--update").code
        == 0
    )
    result = run_cli(*shlex.split(lines[1])[1:])
    assert result.code == 0
    (line,) = result.out.splitlines()
    assert line.startswith("::notice title=harness check::")
    assert 4 in figures(line)
