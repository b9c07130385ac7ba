"""Iterative pruning in width: importance, a smaller encoder, some training, and again."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from baselines.encoder import EncoderModel, gradient_equilibrium
from baselines.teacher import Teacher
from baselines.training import Examples, Loss, Schedule, train
from baselines.weights import load_model, save_model
from costeff.budget import compete, layer_macs
from costeff.distill import Exits, Targets, distillation, student_and_teacher
from costeff.importance import taylor_importance
from costeff.prune import pruned
from costeff.schedule import between
from harness.backbones import Backbone, EncoderShape
from harness.batches import shuffled_batches
from harness.model import MultiExitModel
from harness.records import Training
from harness.stages import FreshFit, StageRun, seed_all
from harness.tasks import Split, TaskData

IMPORTANCE = Targets(hidden=1.0, soft=0.9, hard=0.1)
"""The loss whose gradients say what matters (authors' code: the weights are written into it)."""
HIDDEN = Targets(hidden=1.0)
BOTH = Targets(hidden=1.0, soft=1.0)

Allocation = Literal["layer", "global"]
"""Whether each layer keeps its share of heads and neurons, or those of all layers compete for the MACs of that."""


@dataclass(frozen=True)
class Slenderize:
    """Prune a multi-exit model to a smaller shape, in rounds, with itself as it was as the teacher (COST-EFF, section 3.3).

    A round scores heads and neurons, builds a smaller encoder, and trains it for a period with a fresh optimiser: on hidden states alone
    first, then on answers too. A killed stage goes on with the round it was in.
    """

    name: str
    shape: EncoderShape
    """At the end."""
    exits: Exits | None
    """Fresh exits put on the start's encoder; None: the start as it is."""
    rounds: int
    period: float
    """Passes over the training rows after each round; may be a part of one."""
    hidden_share: float
    """Part of a period on hidden states alone."""
    taylor_share: float
    """Part of the training rows that importance is measured on, drawn anew each round."""
    growth: float
    """The learning rate is multiplied by this from round to round."""
    last_exit_only: bool
    """Importance from the last exit's answers alone, for ablation."""
    allocation: Allocation
    equilibrium: bool
    schedule: Schedule
    """Of one period; its epochs are not used."""
    revision: ClassVar[int] = 1

    def fit(self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun) -> FreshFit:
        """Parents: where it starts, and the teacher."""
        start, teacher = student_and_teacher(parents, self.exits, data.train, run, hiddens=True)
        student, trainings = start, []
        for number in range(1, self.rounds + 1):
            seed = seed_all(run.seed, f"round {number}")
            student = self._smaller(student, start, teacher, data, replace(run, seed=seed), number)
            trainings.append(self._recover(student, teacher, data, replace(run, seed=seed), number))
        return FreshFit(student, _summed(trainings))

    def _smaller(
        self, student: EncoderModel, start: EncoderModel, teacher: Teacher, data: TaskData, run: StageRun, number: int
    ) -> EncoderModel:
        """The encoder of this round before it is trained: found by importance, or what an interrupted run had found."""
        kept = run.scratch / f"round-{number}"
        if (kept / "done").is_file():
            return load_model(kept)
        targets = replace(IMPORTANCE, last_exit_only=self.last_exit_only)
        batches = taylor_batches(data.train, self.taylor_share, self.schedule.batch_size, run.seed)
        loss = distillation(targets, teacher, data.task.scale)
        with run.compute.progress.work(f"{run.label}: importance {number}/{self.rounds}", len(batches)) as advance:
            scores = taylor_importance(student, loss, data.train, batches, run.compute, advance)
        shape = between(start.config.shape, self.shape, number, self.rounds)
        if self.allocation == "global":
            shape = compete(scores, shape, layer_macs(shape))
        small = pruned(student.to("cpu"), shape, scores)
        _keep(small, kept)
        return small

    def _recover(self, student: EncoderModel, teacher: Teacher, data: TaskData, run: StageRun, number: int) -> Training:
        """A period of training, in place."""
        rows = period_rows(data.train, self.period, number)
        schedule = replace(self.schedule, epochs=1, learning_rate=self.schedule.learning_rate * self.growth ** (number - 1))
        first, then = (distillation(targets, teacher, data.task.scale) for targets in (HIDDEN, BOTH))
        calls = schedule.accumulation * round(self.hidden_share * schedule.steps(len(rows)))
        loss = one_after_another(first, then, calls)
        label = replace(run, stage=f"{self.name} {number}/{self.rounds}")
        with gradient_equilibrium(student) if self.equilibrium else nullcontext():
            return train(student, loss, rows, None, schedule, label, name=f"period-{number}")


def taylor_batches(rows: Split, share: float, batch_size: int, seed: int) -> list[NDArray[np.int64]]:
    """Random batches of similar length over about this share of the rows, at least one batch."""
    batches = shuffled_batches(rows.tokens.lengths, batch_size, np.random.default_rng(seed))
    return batches[: max(1, round(share * len(batches)))]


def period_rows(rows: Split, period: float, number: int) -> Split:
    """The rows of one period: the next `period` passes of a stream of shuffled passes, the same for every seed."""
    size = max(1, round(period * len(rows)))
    first, last = (number - 1) * size, number * size
    passes = range(first // len(rows), -(-last // len(rows)))
    stream = np.concatenate([np.random.default_rng([7, number_]).permutation(len(rows)) for number_ in passes])
    offset = first - passes.start * len(rows)
    return rows.rows(stream[offset : offset + size])


def one_after_another(first: Loss, then: Loss, calls: int) -> Loss:
    """A loss that is the first for so many calls, then the other."""
    counted = count(1)

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        return (first if next(counted) <= calls else then)(model, examples)

    return loss


def _keep(model: EncoderModel, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_model(model, folder)
    (folder / "done").touch()


def _summed(trainings: list[Training]) -> Training:
    last = trainings[-1]
    return replace(
        last,
        steps=sum(training.steps for training in trainings),
        seconds=round(sum(training.seconds for training in trainings), 1),
        best_epoch=len(trainings),
    )
