"""What is said of long work, by a clock of the test's own."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from support.command_line import Say

from harness import progress
from harness.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Its `now` is in seconds."""
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: found.now))
    yield found


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, line: lines.append(line))
    return lines


def test_lines_come_every_twenty_seconds_with_steps_and_time_left(clock: SimpleNamespace, said: list[str]) -> None:
    """A step takes 5 s, and 40 of 100 were done before: after 4 more the other 56 take 280 s."""
    with Progress().work("mrpc bert seed 1: fine-tune", 100, done=40) as advance:
        for number in range(8):
            clock.now += 5
            advance(f"loss {number}")
    assert said == [
        "mrpc bert seed 1: fine-tune: 44/100, 5 min left loss 3",
        "mrpc bert seed 1: fine-tune: 48/100, 4 min left loss 7",
    ]


def test_work_of_unknown_length_says_what_is_done(clock: SimpleNamespace, said: list[str]) -> None:
    with Progress().work("reading", None) as advance:
        clock.now += 30
        advance()
    assert said == ["reading: 1"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1.5 h"), (100_000, "27.8 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_grid_says_how_long_the_other_cells_will_take(say: Say, own_folders: None) -> None:
    words = ("run", "--methods", "bert", "--tasks", "demo-pair", "--limit", "8", "--epochs", "1", "--threads", "1", "--no-latency")
    words += ("--results-dir", "r", "--cache-dir", "c", "--seeds")
    answer = say(*words, "1,2")
    assert answer.code == 0
    (line,) = [line for line in answer.lines if "cells left" in line]
    assert line.startswith("harness: cells left: 1, about ")
    assert line.endswith(" s at the pace of those that ran")
    assert not any("cells left" in line for line in say(*words, "1,2").lines)
