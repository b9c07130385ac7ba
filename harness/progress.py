"""Progress of long work: bars on a terminal, plain lines elsewhere; and waiting for other processes. Nothing here touches results."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 20.0
"""Seconds between plain lines of one piece of work."""


class Advance(Protocol):
    """Says that one more step of a piece of work is done."""

    def __call__(self, note: str = "") -> None: ...


class Progress:
    """Shows what is being done on standard error, so that standard output holds results alone."""

    def __init__(self, verbosity: int = 0) -> None:
        """`verbosity`: below 0 shows nothing, 0 the work, above 0 details too."""
        self.verbosity = verbosity
        self.console = Console(stderr=True, highlight=False)
        self.bars = self.console.is_terminal and verbosity >= 0

    def info(self, line: str) -> None:
        """A line about the work."""
        if self.verbosity >= 0:
            self.console.print(line, markup=False, soft_wrap=True)

    def debug(self, line: str) -> None:
        """A line for those who asked for more (-v)."""
        if self.verbosity > 0:
            self.info(line)

    @contextmanager
    def track(self, label: str, steps: int | None, done: int = 0) -> Iterator[Advance]:
        """A piece of work of so many steps, None when nobody knows; call what is yielded after each."""
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
        began = time.monotonic()
        state = {"done": done, "said": began}

        def advance(note: str = "") -> None:
            state["done"] += 1
            now = time.monotonic()
            if now - state["said"] >= LINE_EVERY_S:
                state["said"] = now
                pace = (now - began) / (state["done"] - done)
                of = (
                    ""
                    if steps is None
                    else f"/{steps}, {duration((steps - state['done']) * pace)} left"
                )
                self.info(f"{label}: {state['done']:.0f}{of} {note}".rstrip())

        return advance


def duration(seconds: float) -> str:
    """In words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
