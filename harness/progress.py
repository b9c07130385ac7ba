"""Progress of long tasks: bars on a terminal, lines elsewhere. Nothing here affects results."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 20.0
"""Seconds between two progress lines of one task."""


class Advance(Protocol):
    """A function that reports one more completed step, with an optional note."""

    def __call__(self, note: str = "") -> None: ...


class Progress:
    """Show progress on standard error, so that standard output holds only results."""

    def __init__(self, verbosity: int = 0) -> None:
        """Set the verbosity: below 0 shows nothing, 0 progress, and above 0 details as well."""
        self.verbosity = verbosity
        self.console = Console(stderr=True, highlight=False)
        self.bars = self.console.is_terminal and verbosity >= 0

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
        if self.bars:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            with Bars(*columns, console=self.console, transient=True) as bars:
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


def duration(seconds: float) -> str:
    """Return a duration as text: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
