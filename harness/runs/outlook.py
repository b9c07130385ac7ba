"""Estimate the time left of a grid and of its current cell while they run."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.methods.planning import PlannedStage
from harness.progress import duration

MEASURING_START_S = 5.0
"""Seconds of measuring a cell besides timing, until a first cell has been measured."""


class CellPlan(NamedTuple):
    """What is left to do for a cell when the grid starts."""

    stages: Sequence[PlannedStage] | None
    """The stages to fit, without those that earlier cells fit; None if they are not known."""
    timing_s: float
    """Seconds for which its latency will be measured."""


@dataclass
class Outlook:
    """The progress of a grid, cell by cell.

    A stage is assumed to take as long for each token as the stages of the same name before it, or
    else as all stages before it. A cell's measuring is assumed to take as long beyond its timing as
    that of the cells before it.
    """

    cells: Mapping[int, CellPlan]
    """Number of each cell that has to run, from 1 -> its plan."""
    total: int
    """Number of cells of the grid, with those that are stored."""
    clock: Callable[[], float] = time.monotonic
    number: int = 0
    """Number of the current cell."""
    _fitted: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Name of a stage -> tokens and seconds of each fit."""
    _measured: list[float] = field(default_factory=list)
    """Seconds of measuring beyond the timing, of each cell."""
    _waiting: dict[str, PlannedStage] = field(default_factory=dict)
    """Stages of the current cell that have not been fitted yet, by key."""
    _trainings: int = 0
    """Number of trainings of the current cell so far."""
    _current: tuple[PlannedStage, float] | None = None
    """The stage that is being fitted, and when it began."""
    _measuring_since: float | None = None

    @property
    def position(self) -> str:
        """The current cell as text, such as `cell 3 of 12`."""
        return f"cell {self.number} of {self.total}"

    def start_cell(self, number: int) -> None:
        """Make this cell the current one."""
        self.number, self._trainings, self._measuring_since = number, 0, None
        plan = self.cells.get(number)
        stages = plan.stages if plan is not None and plan.stages is not None else ()
        self._waiting = {stage.key: stage for stage in stages}

    @contextmanager
    def fitting(self, key: str) -> Iterator[str]:
        """Time the fit of a stage, and yield the label of its progress.

        The label is `cell 3 of 12, training 2 of 6`, or without the training if there is none.
        """
        stage = self._waiting.pop(key, None) or self._replaced()
        label = self.position
        if stage is not None and stage.tokens:
            self._trainings += 1
            left = sum(bool(other.tokens) for other in self._waiting.values())
            label += f", training {self._trainings} of {self._trainings + left}"
        started = self.clock()
        self._current = None if stage is None else (stage, started)
        try:
            yield label
        finally:
            self._current = None
        if stage is not None and stage.tokens:
            times = self._fitted.setdefault(stage.name, [])
            times.append((stage.tokens, self.clock() - started))

    def _replaced(self) -> PlannedStage | None:
        """Return the next stage of the plan, in whose place another one is fitted.

        The stages that follow a search have other keys than in the plan. None if no stage is left.
        """
        return self._waiting.pop(next(iter(self._waiting))) if self._waiting else None

    def start_measuring(self) -> None:
        """Note that all stages of the current cell are fitted."""
        self._waiting, self._measuring_since = {}, self.clock()

    def end_cell(self) -> None:
        """Note that the current cell is finished."""
        if self._measuring_since is not None:
            timing = self.cells[self.number].timing_s
            self._measured.append(self.clock() - self._measuring_since - timing)

    def text(self, task_s: float | None) -> str:
        """Return the time left as text: `40 s left` of a single cell, else of cell and grid.

        `task_s` is the time left of the task whose progress is shown, None if it is not known.
        Without an estimate the text is empty.
        """
        cell_s = self.cell_s(task_s)
        if cell_s is None:
            return ""
        if len(self.cells) == 1:
            return f"{duration(cell_s)} left"
        rest_s = self.rest_s(task_s)
        grid = "" if rest_s is None else f", grid {duration(cell_s + rest_s)}"
        return f"cell {duration(cell_s)}{grid} left"

    def cell_s(self, task_s: float | None = None) -> float | None:
        """Return the seconds left of the current cell, or None without an estimate."""
        plan = self.cells.get(self.number)
        if plan is None or plan.stages is None:
            return None
        if self._measuring_since is not None:
            spent = self.clock() - self._measuring_since
            return max(self._measuring_s(plan) - spent, task_s or 0.0)
        rates = self._rates(task_s)
        seconds = [self._stage_s(stage, rates) for stage in self._waiting.values()]
        if self._current is not None:
            stage, started = self._current
            expected = self._stage_s(stage, rates)
            left = None if expected is None else expected - (self.clock() - started)
            seconds.append(task_s if left is None else max(left, task_s or 0.0))
        known = [one for one in seconds if one is not None]
        return None if len(known) < len(seconds) else sum(known) + self._measuring_s(plan)

    def rest_s(self, task_s: float | None = None) -> float | None:
        """Return the seconds of all cells after the current one, or None without an estimate."""
        rates, total = self._rates(task_s), 0.0
        for plan in [plan for number, plan in self.cells.items() if number > self.number]:
            if plan.stages is None:
                return None
            seconds = [self._stage_s(stage, rates) for stage in plan.stages]
            known = [one for one in seconds if one is not None]
            if len(known) < len(seconds):
                return None
            total += sum(known) + self._measuring_s(plan)
        return total

    def _measuring_s(self, plan: CellPlan) -> float:
        extra = sum(self._measured) / len(self._measured) if self._measured else MEASURING_START_S
        return plan.timing_s + extra

    def _rates(self, task_s: float | None) -> dict[str, float]:
        """Return the seconds per token of each stage that was fitted; "" is that of all stages.

        Before the first fit ends, its own speed so far is the rate of all stages.
        """
        rates = {
            name: sum(seconds for _, seconds in fits) / sum(tokens for tokens, _ in fits)
            for name, fits in self._fitted.items()
        }
        every = [fit for fits in self._fitted.values() for fit in fits]
        if every:
            rates[""] = sum(seconds for _, seconds in every) / sum(tokens for tokens, _ in every)
        elif self._current is not None and task_s is not None and self._current[0].tokens:
            stage, started = self._current
            rates[""] = (self.clock() - started + task_s) / stage.tokens
        return rates

    def _stage_s(self, stage: PlannedStage, rates: Mapping[str, float]) -> float | None:
        if not stage.tokens:
            return 0.0
        rate = rates.get(stage.name, rates.get(""))
        return None if rate is None else rate * stage.tokens
