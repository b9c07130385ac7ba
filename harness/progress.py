"""Progress of long tasks: bars on a terminal, lines elsewhere. Nothing here affects results."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

LINE_EVERY_S = 30.0
"""Seconds between two progress lines of one task."""
WORDS_FROM_COLUMNS, BAR_FROM_COLUMNS = 80, 100
"""Widths of a terminal from which there is room for `3 of 12` in the place of `3/12`, and for a bar
beside the words."""

TimeLeft = Callable[[float | None], str]
"""A function that turns the seconds left of a task, None if unknown, into text."""


class Advance(Protocol):
    """A function that reports one more completed step, with an optional note."""

    def __call__(self, note: str = "") -> None: ...


class Progress:
    """Show progress on standard error, so that standard output holds only results."""

    def __init__(self, verbosity: int = 0, label: str = "") -> None:
        """Set the verbosity: below 0 shows nothing, 0 progress, and above 0 details as well.

        The label precedes those of all tasks.
        """
        self.verbosity = verbosity
        self.label = label
        self.time_left: TimeLeft = task_time_left
        self.console = Console(stderr=True, highlight=False)
        self.bars = self.console.is_terminal and verbosity >= 0

    def labelled(self, label: str) -> "Progress":
        """Return a progress whose tasks have this label before their own."""
        found = copy(self)
        found.label = label
        return found

    def info(self, line: str) -> None:
        """Show a line about the task."""
        if self.verbosity >= 0:
            self.console.print(line, markup=False, soft_wrap=True)

    def debug(self, line: str) -> None:
        """Show a line only with -v."""
        if self.verbosity > 0:
            self.info(line)

    @contextmanager
    def track(self, label: str, steps: int | None, done: int = 0) -> Iterator[Advance]:
        """Yield a function to call after each step of a task.

        `steps` is their number (None if unknown), of which `done` are already completed.
        """
        label = f"{self.label}: {label}" if self.label else label
        if self.bars:
            width = self.console.width
            if width < WORDS_FROM_COLUMNS:
                label = re.sub(r"(\d+) of (\d+)", r"\1/\2", label)
            columns = (
                TextColumn(
                    "{task.description}",
                    markup=False,
                    table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
                ),
                *([BarColumn(bar_width=width // 8)] if width >= BAR_FROM_COLUMNS else []),
                _Count(table_column=Column(no_wrap=True)),
                _TimeLeft(self.time_left),
            )
            with Bars(*columns, console=self.console, transient=True, expand=True) as bars:
                task = bars.add_task(label, total=steps, completed=done)
                yield lambda note="": bars.update(
                    task, advance=1, description=f"{label} {note}".strip()
                )
        else:
            yield self._lines(label, steps, done)

    def _lines(self, label: str, steps: int | None, done: int) -> Advance:
        start = time.monotonic()
        state = {"done": done, "shown": start}

        def advance(note: str = "") -> None:
            state["done"] += 1
            now = time.monotonic()
            if now - state["shown"] >= LINE_EVERY_S:
                state["shown"] = now
                step_s = (now - start) / (state["done"] - done)
                total = "" if steps is None else f"/{steps}"
                left = self.time_left(None if steps is None else (steps - state["done"]) * step_s)
                count = f"{state['done']:.0f}{total}"
                self.info(f"{label}: {', '.join(filter(None, (count, left, note)))}")

        return advance


class _Count(ProgressColumn):
    """The number of completed steps, as `44/120`, or as `44` if their total is not known."""

    def render(self, task: Task) -> Text:
        """Return the number."""
        return Text(f"{task.completed:.0f}" + ("" if task.total is None else f"/{task.total:.0f}"))


class _TimeLeft(ProgressColumn):
    """The time left, as `12 min left`."""

    max_refresh = 0.5

    def __init__(self, text: TimeLeft) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.text = text

    def render(self, task: Task) -> Text:
        """Return the estimate, or nothing before there is one."""
        return Text("" if task.finished else self.text(task.time_remaining))


def task_time_left(seconds: float | None) -> str:
    """Return the time left of a single task, as `12 min left`; empty if it is not known."""
    return "" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Return a duration as text: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
