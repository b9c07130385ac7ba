"""Every example in --help and README works as it stands there, but for the folders, files and run ids that a reader puts in."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from support.command_line import Say
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
"""Command -> words that make its example quick."""

CODES = {
    "fetch": 3,  # there is no network here
    "submit": 3,  # the leaderboard wants more tasks
    "run --tasks glue": 3,  # the folder has some of them
}
"""How an example begins -> its code where that is not 0."""

UNWRAPPED = "\b"
"""Click leaves the lines of the paragraph that begins with it as they are: in help it holds the examples."""

IN_A_ROW = "harness run --checkpoint"
"""How README's block begins whose lines stand on one another: test_checkpoint.py runs it."""


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        yield f"{prefix}{name}", command


def lines_of(text: str) -> list[str]:
    """Lines that begin with the program's name, continued ones joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [
        line.strip().partition("  #")[0].strip()
        for line in joined.splitlines()
        if line.strip().startswith("harness ")
    ]


def blocks() -> list[str]:
    """README's blocks of code."""
    return re.findall(r"```[a-z]*\n(.*?)```", README, flags=re.DOTALL)


def examples() -> list[str]:
    """Of all commands' help, and of README's blocks."""
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
                    if not block.startswith(IN_A_ROW)
                    for line in lines_of(block)
                ),
            ]
        )
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small tasks in GLUE's layout, and what the first example made of a small demo."""
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
        unlike = [
            (tuple(f"{text} {place}" for place, text in enumerate(texts)), label)
            for texts, label in named
        ]
        for split in ("train", "dev"):
            write_tsv(folder / "glue", task, split, unlike)
    assert set(HEADERS) >= {"mrpc", "sst2", "rte"}
    return folder


def small_grid() -> str:
    """README's grid.toml, on the tiny backbone and few rows, with one seed."""
    (grid,) = [block for block in blocks() if block.startswith("methods = ")]
    for old, new in {'"minilm"': '"tiny"', "[1, 2, 3]": "[1]", "sst2 = 10000": "sst2 = 20"}.items():
        assert old in grid
        grid = grid.replace(old, new)
    return grid


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, str]:
    """Names in the examples -> dynamic runs on SST-2 and RTE, whose models are cached, and an exported model."""
    words = "run --methods bert,deebert --tasks sst2,rte --limit 32 --epochs 1 --threads 1 --precision fp32 --latency-seconds 0.01 -q"
    where = ["--results-dir", str(place / "results"), "--cache-dir", str(place / "cache")]
    assert main([*words.split(), *where, "--data-dir", str(place / "glue")]) == 0
    found = {
        run.spec.task: run.run_id
        for run in ResultsStore(place / "results").records()[0]
        if run.policy is not None
    }
    assert main(["export", found["sst2"], "--out", str(place / "my-model"), *where]) == 0
    (place / "rows.tsv").write_text("a fine film\na dull one\n")
    (place / "grid.toml").write_text(small_grid())
    for task, header in (
        ("SST-2", "index\tsentence\n0\ta film\n"),
        ("RTE", "index\tsentence1\tsentence2\n0\ta film\ta film\n"),
    ):
        (place / "glue" / task / "test.tsv").write_text(header)
    return {"3f2a": found["sst2"], "RUN_ID": found["sst2"], "81bc": found["rte"]}


@pytest.mark.slow
@pytest.mark.parametrize("line", examples())
def test_every_example_works(
    line: str, say: Say, place: Path, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(place / "cache"))
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "xdg"))
    for name, value in {**runs, "GLUE_DIR": str(place / "glue"), "my-results": "results"}.items():
        line = re.sub(rf"\b{name}\b", value, line)
    line = line.replace("--train-rows sst2=10000", "--train-rows sst2=20").replace(
        "--backbone minilm", "--backbone tiny"
    )
    words = shlex.split(line)[1:]
    name = words[0] if words else ""
    if name == "run" and "--data-dir" not in words and words != ["run"]:
        words += ["--data-dir", str(place / "glue")]
    if (
        "--out" in words
    ):  # that a folder or file of this name is there already is another test's matter
        words += ["--force"]
    result = say(*words, *MORE.get(name, "").split())
    wanted = {next((code for begin, code in CODES.items() if " ".join(words).startswith(begin)), 0)}
    if name == "report":  # on other tasks than the example names there are no runs here
        wanted |= {3} if "--tasks" in words else set()
    assert result.code in wanted, result
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_every_command_has_an_example() -> None:
    """Every command has an example, which `test_every_example_works` runs."""
    shown = examples()
    for name, command in commands(cli):
        if not isinstance(command, click.Group):
            assert any(line.startswith(f"harness {name}") for line in shown), name


@pytest.mark.slow
def test_one_block_is_run_elsewhere() -> None:
    assert sum(block.startswith(IN_A_ROW) for block in blocks()) == 1


@pytest.mark.slow
def test_workflow_recipe_runs(
    say: Say, place: Path, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe for one's own repository runs.

    README's steps of a workflow, whose commands are harness's own but for the set-up."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(place / "cache"))
    (block,) = [block for block in blocks() if block.startswith("- ")]
    steps = yaml.safe_load(block)
    lines = [step["run"] for step in steps if step.get("run", "").startswith("harness ")]
    assert [line.split()[1] for line in lines] == ["run", "check"]
    Path("grid.toml").write_text(small_grid())
    quick = ["--data-dir", "glue", "--limit", "24", "--threads", "1", "--no-latency", "-q"]
    assert say(*shlex.split(lines[0])[1:], *quick).code == 0
    assert (
        say("check", "--baseline", "baseline.json", "--results-dir", "fresh", "--update").code == 0
    )
    result = say(*shlex.split(lines[1])[1:])
    assert result.code == 0
    (line,) = result.out.splitlines()
    assert line.startswith("::notice title=harness check::")
    assert 4 in figures(line)
