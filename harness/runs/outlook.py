"""Estimate the time left of a grid and of its current cell while they run."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.methods.planning import PlannedStage
from harness.methods.stages import FitObserver
from harness.progress import duration, task_time_left

MEASURING_START_S = 5.0
"""Seconds of measuring a cell besides timing, until a first cell has been measured."""

LEAST_S = 2.0
"""Seconds left of a cell whose measuring takes longer than expected."""


class CellPlan(NamedTuple):
    """The work that a cell needs when the grid starts."""

    stages: Sequence[PlannedStage] | None
    """The stages to fit, without those that earlier cells fit; None if they are not known."""
    timing_s: float
    """Seconds for which its latency will be measured."""


class _CurrentFit(NamedTuple):
    """A stage that is being fitted."""

    stage: PlannedStage
    since: float
    """When the fit began, in the clock's seconds."""
    resumed: bool

    @property
    def tells_speed(self) -> bool:
        """Whether its own progress gives the seconds per token of training."""
        return self.stage.tokens > 0 and not self.resumed


@dataclass
class Outlook(FitObserver):
    """The progress of a grid, cell by cell.

    A stage is assumed to take as long for each token as the stages of the same name before it, or
    else as all stages before it. A cell's measuring is assumed to take as long as that of the cells
    before it.
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
    """Seconds of measuring of each cell, with the timing."""
    _waiting: dict[str, PlannedStage] = field(default_factory=dict)
    """Stages of the current cell that have not been fitted yet, by key."""
    _trainings: int = 0
    """Number of trainings of the current cell so far."""
    _current: _CurrentFit | None = None
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
    def fitting(self, key: str, resumed: bool) -> Iterator[str]:
        """Time the fit of a stage, and yield the label of its progress.

        The label is `cell 3 of 12, training 2 of 6`, or without the training if there is none. A
        resumed fit tells nothing about the speed of others.
        """
        stage = self._waiting.pop(key, None) or self._replaced()
        label = self.position
        if stage is not None and stage.tokens:
            self._trainings += 1
            left = sum(bool(other.tokens) for other in self._waiting.values())
            label += f", training {self._trainings} of {self._trainings + left}"
        started = self.clock()
        self._current = None if stage is None else _CurrentFit(stage, started, resumed)
        try:
            yield label
        finally:
            self._current = None
        if stage is not None and stage.tokens and not resumed:
            times = self._fitted.setdefault(stage.name, [])
            times.append((stage.tokens, self.clock() - started))

    def found(self, key: str) -> None:
        """Note that another process has fitted a stage."""
        self._waiting.pop(key, None)

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
            self._measured.append(self.clock() - self._measuring_since)

    def text(self, task_s: float | None) -> str:
        """Return the time left as text: `40 s left` of a single cell, else of cell and grid.

        `task_s` is the time left of the task whose progress is shown, None if it is not known. It
        is all that is shown without an estimate of the cell.
        """
        cell_s = self.cell_s(task_s)
        if cell_s is None:
            return task_time_left(task_s)
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
            return max(self._measuring_s(plan) - spent, task_s or 0.0, LEAST_S)
        current_s = self._current_s(task_s)
        waiting_s = self._stages_s(self._waiting.values(), self._rates(task_s))
        if current_s is None or waiting_s is None:
            return None
        return current_s + waiting_s + self._measuring_s(plan)

    def _current_s(self, task_s: float | None) -> float | None:
        """Return the seconds left of the stage that is being fitted, 0 if there is none."""
        if self._current is None:
            return 0.0
        expected = self._stages_s([self._current.stage], self._rates(task_s))
        if expected is None or self._current.resumed:
            return task_s
        return max(expected - (self.clock() - self._current.since), task_s or 0.0)

    def rest_s(self, task_s: float | None = None) -> float | None:
        """Return the seconds of all cells after the current one, or None without an estimate."""
        rates, total = self._rates(task_s), 0.0
        for plan in [plan for number, plan in self.cells.items() if number > self.number]:
            if plan.stages is None:
                return None
            fitting_s = self._stages_s(plan.stages, rates)
            if fitting_s is None:
                return None
            total += fitting_s + self._measuring_s(plan)
        return total

    def _measuring_s(self, plan: CellPlan) -> float:
        if self._measured:
            return sum(self._measured) / len(self._measured)
        return plan.timing_s + MEASURING_START_S

    def _rates(self, task_s: float | None) -> dict[str, float]:
        """Return the seconds per token of each stage that was fitted; "" is that of all stages.

        Before the first fit ends, its own speed so far is the rate of all stages, unless it was
        resumed.
        """
        rates = {
            name: sum(seconds for _, seconds in fits) / sum(tokens for tokens, _ in fits)
            for name, fits in self._fitted.items()
        }
        every = [fit for fits in self._fitted.values() for fit in fits]
        if every:
            rates[""] = sum(seconds for _, seconds in every) / sum(tokens for tokens, _ in every)
        elif self._current is not None and task_s is not None and self._current.tells_speed:
            rates[""] = (self.clock() - self._current.since + task_s) / self._current.stage.tokens
        return rates

    def _stages_s(self, stages: Iterable[PlannedStage], rates: Mapping[str, float]) -> float | None:
        """Return the seconds that stages take, or None if a training has no rate."""
        trainings = [stage for stage in stages if stage.tokens]
        if trainings and "" not in rates:
            return None
        return sum(rates.get(one.name, rates[""]) * one.tokens for one in trainings)
