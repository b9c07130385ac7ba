"""The command line as a function, and checks of its output."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from support.messages import figures, names_all, names_in_order

QUICK = ["--limit", "8", "--threads", "1", "--no-latency"]
QUICK += ["--results-dir", "results", "--cache-dir", "cache"]
"""Options of a small run in the working directory."""

RUN = [
    "run",
    "--methods",
    "bert",
    "--tasks",
    "demo-pair",
    "--limit",
    "8",
    "--threads",
    "1",
    "--no-latency",
]


class CliResult(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


RunCli = Callable[..., CliResult]

RUN_ID = re.compile(r"\b[0-9a-f]{8}\b")


class Planned(NamedTuple):
    """A line that --dry-run prints."""

    task: str
    method: str
    backbone: str
    seed: str
    rows: str
    """Number of training examples."""
    run: str
    stored: bool
    """Whether the run is stored, so that no minutes are estimated."""


def planned(out: str) -> list[Planned]:
    """Parse the cells that a dry run prints, by column position."""
    lines = [line.split() for line in out.splitlines()[2:]]
    return [
        Planned(*words[:6], words[-1] == "-")
        for words in lines
        if len(words) > 6 and RUN_ID.fullmatch(words[5])
    ]


def assert_one_line(result: CliResult, code: int, names: Sequence[object]) -> None:
    """Assert that the command fails with this code and one line that names all of these."""
    assert result.code == code, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert len(result.lines) == 1, result.err
    assert result.err.startswith("harness: ")
    assert_names(result.err.removeprefix("harness: "), *names)


def assert_names(line: str, *names: object) -> None:
    """Assert that the line contains each of these.

    A path is matched in full, a number by value, anything else as a whole word. The items of a
    tuple must occur in order, as the value that was given precedes what is allowed. Folders before
    a file name are ignored unless a path is expected.
    """
    without_folders = re.sub(r"(?<![\w.])/(?:[^\s/]+/)+", "", line)
    missing = [name for name in names if not _contains(name, line, without_folders)]
    assert not missing, f"{missing} not in: {line}"


def assert_suggests(line: str, near: str, known: Iterable[str]) -> None:
    """Assert that of the known names this one comes first in the line."""
    names, words = set(known), (word.strip(".") for word in re.findall(r"[\w.-]+", line))
    assert next((word for word in words if word in names), None) == near, line


def _contains(name: object, line: str, without_folders: str) -> bool:
    if isinstance(name, Path):
        return str(name) in line
    if isinstance(name, tuple):
        return names_in_order(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", without_folders), *name)
    if isinstance(name, int | float):
        return name in figures(without_folders)
    return names_all(without_folders, name)
