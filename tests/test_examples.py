"""Every example in --help and README works as it stands there, but for the folders, files and run ids that a reader puts in."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import Say
from synthetic import HEADERS, write_tsv

from harness.cli import cli
from harness.store import ResultsStore

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

RUN_QUICKLY = "--dry-run --limit 64"
MORE = {
    "run": RUN_QUICKLY,
    "time": "--rounds 3 --limit 4 --threads 1",
}
"""Command -> words that make its example quick."""

ELSEWHERE = {"fetch": 3}
"""Commands whose examples need a network -> their code without one."""


ON_A_REAL_TASK = ("harness export", "harness predict", "harness submit", "harness run --checkpoint")
"""How examples begin that want a run on GLUE or a checkpoint: README's are run in test_cli_checkpoint.py."""


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        yield f"{prefix}{name}", command


def lines_of(text: str) -> list[str]:
    """Lines that begin with the program's name, continued ones joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip().partition("  #")[0].strip() for line in joined.splitlines() if line.strip().startswith("harness ")]


def examples() -> list[str]:
    """Of all commands' help, and of README's blocks of code."""
    found = [line for _, command in [("", cli), *commands(cli)] for line in lines_of((command.help or "").partition("Example")[2])]
    blocks = re.findall(r"```[a-z]*\n(.*?)```", README, flags=re.DOTALL)
    return list(dict.fromkeys([*found, *(line for block in blocks for line in lines_of(block))]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small tasks in GLUE's layout, and what the first example made of a small demo."""
    folder = tmp_path_factory.mktemp("examples")
    for task in ("mrpc", "sst2", "rte"):
        rows = [((f"Text number {number}.",) * (1 if task == "sst2" else 2), "01"[number % 2]) for number in range(500)]
        named = [(texts, ["entailment", "not_entailment"][int(label)]) for texts, label in rows] if task == "rte" else rows
        unlike = [(tuple(f"{text} {place}" for place, text in enumerate(texts)), label) for texts, label in named]
        for split in ("train", "dev"):
            write_tsv(folder / "glue", task, split, unlike)
    assert set(HEADERS) >= {"mrpc", "sst2", "rte"}
    return folder


@pytest.fixture(scope="module")
def run_id(place: Path) -> str:
    """Of a dynamic run whose model is cached."""
    from harness.__main__ import main

    words = "run --methods bert,deebert --tasks demo-single --limit 32 --epochs 1 --threads 1 --precision fp32 --latency-seconds 0.01 -q"
    assert main([*words.split(), "--results-dir", str(place / "results"), "--cache-dir", str(place / "cache")]) == 0
    (found,) = [record.run_id for record in ResultsStore(place / "results").records()[0] if record.policy is not None]
    return found


@pytest.mark.parametrize("line", [line for line in examples() if not line.startswith(ON_A_REAL_TASK)])
def test_example_works(line: str, say: Say, place: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(place / "cache"))
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "xdg"))
    for name, value in {"3f2a": run_id, "RUN_ID": run_id, "GLUE_DIR": str(place / "glue"), "my-results": "results"}.items():
        line = re.sub(rf"\b{name}\b", value, line)
    line = line.replace("--train-rows sst2=10000", "--train-rows sst2=20").replace("--backbone minilm", "--backbone tiny")
    words = shlex.split(line)[1:]
    name = words[0] if words else ""
    if name == "run" and "--data-dir" not in words and "--tasks" in words:
        words += ["--data-dir", str(place / "glue")]
    answer = say(*words, *MORE.get(name, "").split())
    wanted = {ELSEWHERE.get(name, 0)}
    if name == "report":  # on other tasks than the example names there are no runs here
        wanted |= {3} if "--tasks" in words else set()
    assert answer.code in wanted, answer
    assert "Traceback" not in answer.err


def test_every_command_has_an_example_that_is_run() -> None:
    shown = examples()
    for name, command in commands(cli):
        if not isinstance(command, click.Group):
            assert any(line.startswith(f"harness {name}") for line in shown), name
