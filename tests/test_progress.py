"""Progress lines of long tasks, under a fake clock."""

import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from support.command_line import RunCli
from support.messages import figures, names_in_order

from harness import progress
from harness.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A fake clock whose `now` is in seconds."""
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: found.now))
    yield found


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Progress, "info", lambda self, line: lines.append(line))
    return lines


def test_lines_come_every_twenty_seconds(clock: SimpleNamespace, shown: list[str]) -> None:
    """Lines appear every twenty seconds, with steps and time left.

    A step takes 5 s, and 40 of 100 were done before: after 4 more the other 56 take 280 s."""
    with Progress().track("mrpc bert seed 1: fine-tune", 100, done=40) as advance:
        for number in range(8):
            clock.now += 5
            advance(f"loss {number}")
    first, second = shown
    assert names_in_order(first, "mrpc bert seed 1: fine-tune", 44, 100, "5 min", "loss 3")
    assert names_in_order(second, "mrpc bert seed 1: fine-tune", 48, 100, "4 min", "loss 7")


def test_unknown_length_counts_steps(clock: SimpleNamespace, shown: list[str]) -> None:
    """A task of unknown length shows the steps done."""
    with Progress().track("reading", None) as advance:
        clock.now += 30
        advance()
    (line,) = shown
    assert names_in_order(line, "reading", 1)
    assert figures(line) == [1]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5400, "1.5 h"),
        (100_000, "27.8 h"),
    ],
)
def test_durations_have_suitable_units(seconds: float, expected: str) -> None:
    """Durations are written in seconds, minutes or hours."""
    assert duration(seconds) == expected


def test_grid_estimates_remaining_time(run_cli: RunCli, own_folders: None) -> None:
    """A grid estimates how long the other cells will take."""
    arguments = (
        "run",
        "--methods",
        "bert",
        "--tasks",
        "demo-pair",
        "--limit",
        "8",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--no-latency",
    )
    arguments += ("--results-dir", "r", "--cache-dir", "c", "--seeds")
    result = run_cli(*arguments, "1,2")
    assert result.code == 0
    lines = [line for line in result.lines if "warning" not in line]  # too few rows to learn
    estimate, summary = lines
    assert re.search(r"\b1\b.*\b\d+ s\b", estimate)  # cells and seconds
    assert run_cli(*arguments, "1,2").lines[-1] == summary
