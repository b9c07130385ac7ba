"""Progress lines of long tasks, under a fake clock."""

import io
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from rich.console import Console
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


def test_lines_come_every_thirty_seconds(clock: SimpleNamespace, shown: list[str]) -> None:
    """Lines appear every thirty seconds, with steps and time left.

    A step takes 5 s, and 40 of 100 were done before: after 6 more the other 54 take 270 s."""
    with Progress().track("mrpc bert seed 1: fine-tune", 100, done=40) as advance:
        for number in range(12):
            clock.now += 5
            advance(f"loss {number}")
    first, second = shown
    assert names_in_order(first, "mrpc bert seed 1: fine-tune", 46, 100, "4 min", "loss 5")
    assert names_in_order(second, "mrpc bert seed 1: fine-tune", 52, 100, "4 min", "loss 11")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_narrow_terminal_keeps_count_and_time_left(width: int) -> None:
    """In a terminal of this width, the words are shortened, but neither count nor time left."""
    screen = io.StringIO()
    display = Progress()
    display.console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    display.bars = True
    label = "cell 3 of 12, training 2 of 6: sst2 costeff seed 1: assistant-hidden, rate [5e-05]"
    display.time_left = lambda seconds: "cell 40 s, grid 12 min left"
    with display.track(label, 1234) as advance:
        for _ in range(3):
            advance("epoch 1/3 loss 0.693")
            time.sleep(0.05)
    frames = [
        frame for frame in re.split(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\n]", screen.getvalue()) if frame
    ]
    assert all(len(frame) <= width for frame in frames)
    last = [frame for frame in frames if "/1234" in frame][-1]
    assert names_in_order(last, "3/1234", "cell 40 s, grid 12 min left")
    position = "cell 3/12, training" if width == 60 else "cell 3 of 12, training 2 of 6"
    assert last.startswith(position)


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
    count, estimate, summary = lines
    assert figures(count) == [2]
    assert re.search(r"\b1\b.*\b\d+ s\b", estimate)  # cells and seconds
    assert run_cli(*arguments, "1,2").lines[-1] == summary
