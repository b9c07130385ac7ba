"""Progress of long tasks: bars on a terminal, lines elsewhere. Nothing here affects results."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

LINE_EVERY_S = 30.0
"""Seconds between two progress lines of one task."""
BAR_FROM_COLUMNS = 80
"""Width of a terminal from which there is room for a bar beside the words."""


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
            wide = self.console.width >= BAR_FROM_COLUMNS
            columns = (
                TextColumn(
                    "{task.description}",
                    markup=False,
                    table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
                ),
                *([BarColumn(bar_width=self.console.width // 5)] if wide else []),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                _TimeLeft(table_column=Column(no_wrap=True)),
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
                total = (
                    ""
                    if steps is None
                    else f"/{steps}, {duration((steps - state['done']) * step_s)} left"
                )
                self.info(f"{label}: {state['done']:.0f}{total} {note}".rstrip())

        return advance


class _TimeLeft(ProgressColumn):
    """The time left, as `12 min left`."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return the estimate, or nothing before there is one."""
        seconds = task.time_remaining
        return Text("" if seconds is None or task.finished else f"{duration(seconds)} left")


def duration(seconds: float) -> str:
    """Return a duration as text: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
