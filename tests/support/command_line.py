"""The command line as a function, and what it says."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

# --- the command line


RUN = ["run", "--methods", "bert", "--tasks", "demo-pair", "--limit", "8", "--threads", "1", "--no-latency"]


class Answer(NamedTuple):
    """What a command returns and says."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Say = Callable[..., Answer]


def assert_one_line(answer: Answer, code: int, words: Sequence[str]) -> None:
    assert answer.code == code, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert len(answer.lines) == 1, answer.err
    assert answer.err.startswith("harness: ")
    assert all(word in answer.err for word in words), answer.err
