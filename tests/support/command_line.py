"""The command line as a function, and what it says."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from support.messages import figures, names_all, names_in_order

# --- the command line


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


class Answer(NamedTuple):
    """What a command returns and says."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Say = Callable[..., Answer]

RUN_ID = re.compile("[0-9a-f]{16}")


class Planned(NamedTuple):
    """A line of what --dry-run shows."""

    task: str
    method: str
    backbone: str
    seed: str
    rows: str
    """Examples to train on."""
    run: str
    stored: bool
    """There is nothing to fit, and so no number of minutes."""


def planned(out: str) -> list[Planned]:
    """The cells of a dry run, read by the places of the columns."""
    lines = [line.split() for line in out.splitlines()[2:]]
    return [
        Planned(*words[:6], words[-1] == "-")
        for words in lines
        if len(words) > 6 and RUN_ID.fullmatch(words[5])
    ]


def assert_one_line(answer: Answer, code: int, names: Sequence[object]) -> None:
    """The command fails with this code and one line that names all of these."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert len(answer.lines) == 1, answer.err
    assert answer.err.startswith("harness: ")
    assert_names(answer.err.removeprefix("harness: "), *names)


def assert_names(line: str, *names: object) -> None:
    """Each of these stands in the line: a path in full, a number as a number, anything else as a word
    of its own; those of a tuple in its order, as what was got stands before what is allowed. Folders
    in front of a file's name do not count, but where the path is asked for."""
    said = re.sub(r"(?<![\w.])/(?:[^\s/]+/)+", "", line)
    missing = [name for name in names if not _stands(name, line, said)]
    assert not missing, f"{missing} not in: {line}"


def assert_suggests(line: str, near: str, known: Iterable[str]) -> None:
    """Of the known names this one stands first in the line."""
    names, words = set(known), (word.strip(".") for word in re.findall(r"[\w.-]+", line))
    assert next((word for word in words if word in names), None) == near, line


def _stands(name: object, line: str, said: str) -> bool:
    if isinstance(name, Path):
        return str(name) in line
    if isinstance(name, tuple):
        return names_in_order(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", said), *name)
    return name in figures(said) if isinstance(name, int | float) else names_all(said, name)
