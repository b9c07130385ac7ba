"""Iterative width pruning: train, measure importance, build a smaller encoder, and repeat."""

import shutil
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.distillation.stages import Exits, Targets, distillation, student_and_teacher
from baselines.distillation.teacher import Teacher
from baselines.encoders.encoder import EncoderModel
from baselines.encoders.weights import load_model, save_model
from baselines.training.equilibrium import gradient_equilibrium
from baselines.training.loop import Loss, train
from baselines.training.recipe import Schedule
from costeff.importance import Importance, taylor_importance
from costeff.prune import pruned
from costeff.schedule import between
from costeff.width_budget import allocate_globally, layer_macs
from harness.data.dataset import Split, TaskData
from harness.files.digests import added_field
from harness.files.typed_json import from_json, to_json
from harness.methods.stages import FreshFit, StageRun, seed_all
from harness.models.backbones import Backbone
from harness.models.batches import shuffled_batches
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.records import Training

IMPORTANCE_TARGETS = Targets(hidden=1.0, soft=0.9, hard=0.1)
"""Loss whose gradients give the importance, with the weights hard-coded in the authors' code."""
HIDDEN_TARGETS = Targets(hidden=1.0)
RECOVERY_TARGETS = Targets(hidden=1.0, soft=1.0)

Allocation = Literal["layer", "global"]
"""Whether each layer keeps the same share of heads and neurons, or the units of all layers compete
for the same MACs."""


@dataclass(frozen=True)
class Slenderize:
    """Prune a multi-exit model to a smaller shape, in rounds (COST-EFF, section 3.3).

    The teacher is the unpruned model. A round trains for a period with a fresh optimiser, first on
    hidden states alone, then on predictions too; then it scores heads and neurons and builds a
    smaller encoder from the best ones. As in the authors' code, training precedes each pruning
    step, because a student equal to its teacher has no gradient to compute importance from.
    Recovery after the last round has its own stages. A killed stage resumes in its current round.

    Differs from the authors' code: the learning rate decays within each period (theirs decays once
    over all of pruning); the examples for importance are drawn without replacement; and hidden
    losses are means over real tokens.
    """

    name: str
    shape: EncoderShape
    """Shape after the last round."""
    exits: Exits | None
    """Fresh exits to put on the initial encoder; None keeps the initial model's exits."""
    rounds: int
    period: float
    """Epochs before each pruning step; may be a fraction."""
    hidden_share: float
    """Share of a period that trains on hidden states alone."""
    taylor_share: float
    """Share of the training rows used to measure importance, drawn anew in each round."""
    growth: float
    """Factor applied to the learning rate after each pruning step."""
    last_exit_only: bool
    """Whether importance uses only the last exit's predictions, for ablation; hidden states are
    used either way."""
    allocation: Allocation
    equilibrium: bool
    """Whether gradient equilibrium is used in training, and in importance within layers."""
    schedule: Schedule
    """Schedule of one period; its epochs are not used."""
    at_once: bool = added_field(False)
    """Whether to prune everything after the first period, for ablation; all periods still train."""
    revision: ClassVar[int] = 1

    def examples(self, rows: int) -> int:
        """Return the number of examples of all periods and measurements of importance."""
        return round(self.rounds * (self.period + self.taylor_share) * rows)

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Prune the first parent with the second as its teacher."""
        start, teacher_model, _ = student_and_teacher(parents, self.exits, backbone)
        teacher = Teacher(teacher_model, data.train, run, hiddens=True)
        rounds = finished_rounds(run.scratch)
        student = load_model(rounds[-1].folder) if rounds else start
        for number in range(len(rounds) + 1, self.rounds + 1):
            inner = replace(run, seed=seed_all(run.seed, f"round {number}"))
            with gradient_equilibrium(student) if self.equilibrium else nullcontext():
                training = self._train(student, teacher, data, inner, number)
            student = (
                student.to("cpu")
                if self.at_once and number > 1
                else self._prune(student, start, teacher, data, inner, number)
            )
            rounds.append(save_round(run.scratch, number, student, training))
        seen = min(len(data.train), self.rounds * max(1, round(self.period * len(data.train))))
        return FreshFit(student, _total([finished.training for finished in rounds], seen))

    def _prune(
        self,
        student: EncoderModel,
        start: EncoderModel,
        teacher: Teacher,
        data: TaskData,
        run: StageRun,
        number: int,
    ) -> EncoderModel:
        """Return the student pruned to the shape of the round.

        With global allocation gradients are not averaged, as averaging would scale the scores of
        each layer differently.
        """
        averaged = self.equilibrium and self.allocation == "layer"
        with gradient_equilibrium(student) if averaged else nullcontext():
            scores = self._scores(student, teacher, data, run, number)
        shape = (
            self.shape
            if self.at_once
            else between(start.config.shape, self.shape, number, self.rounds)
        )
        if self.allocation == "global":
            budget = layer_macs(shape)
            shape = allocate_globally(scores, shape, budget)
        return pruned(student.to("cpu"), shape, scores)

    def _train(
        self, student: EncoderModel, teacher: Teacher, data: TaskData, run: StageRun, number: int
    ) -> Training:
        """Train in place for a period, in whole epochs if it has several.

        An interruption then costs at most one epoch.
        """
        passes = max(1, int(self.period))
        rows = period_rows(data.train, self.period / passes, number)
        schedule = replace(
            self.schedule,
            epochs=passes,
            learning_rate=self.schedule.learning_rate * self.growth ** (number - 1),
        )
        first, second = (
            distillation(targets, teacher, data.task.scale)
            for targets in (HIDDEN_TARGETS, RECOVERY_TARGETS)
        )
        hidden_steps = round(self.hidden_share * passes * schedule.steps(len(rows)))
        loss = switch_loss(first, second, hidden_steps)
        labelled = replace(run, stage=f"{self.name} {number}/{self.rounds}")
        return train(student, loss, rows, None, schedule, labelled, name=PERIOD.format(number))

    def _scores(
        self, student: EncoderModel, teacher: Teacher, data: TaskData, run: StageRun, number: int
    ) -> Importance:
        targets = replace(IMPORTANCE_TARGETS, last_exit_only=self.last_exit_only)
        batches = taylor_batches(data.train, self.taylor_share, self.schedule.batch_size, run.seed)
        loss = distillation(targets, teacher, data.task.scale)
        with run.compute.progress.track(
            f"{run.label}: importance {number}/{self.rounds}", len(batches)
        ) as advance:
            return taylor_importance(
                student, loss, data.train, batches, run.compute, self.schedule.accumulation, advance
            )


PERIOD, ROUND, TRAINING = "period-{}", "round-{}", "training.json"
"""Names in a stage's scratch folder: a period's training state, the folder with a round's final
model, and the training report in it."""


class Round(NamedTuple):
    """A finished round."""

    folder: Path
    training: Training


def finished_rounds(scratch: Path) -> list[Round]:
    """Return the finished rounds in order; only the last folder still holds a model."""
    found: list[Round] = []
    while (folder := scratch / ROUND.format(len(found) + 1)).joinpath(TRAINING).is_file():
        text = (folder / TRAINING).read_text(encoding="utf-8")
        found.append(Round(folder, from_json(Training, text, str(folder / TRAINING))))
    return found


def save_round(scratch: Path, number: int, model: EncoderModel, training: Training) -> Round:
    """Save a round's final model; delete its training state and the previous round's model."""
    folder, unfinished = scratch / ROUND.format(number), scratch / "round.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    save_model(model, unfinished)
    (unfinished / TRAINING).write_text(to_json(training), encoding="utf-8")
    unfinished.replace(folder)
    (scratch / f"{PERIOD.format(number)}.pt").unlink(missing_ok=True)
    previous = scratch / ROUND.format(number - 1)
    for file in previous.iterdir() if previous.is_dir() else ():
        if file.name != TRAINING:
            file.unlink()
    return Round(folder, training)


def taylor_batches(
    rows: Split, share: float, batch_size: int, seed: int
) -> list[NDArray[np.int64]]:
    """Return random batches of similar length with about this share of the rows, at least one."""
    batches = shuffled_batches(rows.tokens.lengths, batch_size, np.random.default_rng(seed))
    return batches[: max(1, round(share * len(batches)))]


def period_rows(rows: Split, period: float, number: int) -> Split:
    """Return the rows of one period, which continue where those of the previous period ended.

    Every pass over the rows has its own shuffled order, the same for every seed.
    """
    size = max(1, round(period * len(rows)))
    first, last = (number - 1) * size, number * size
    passes = range(first // len(rows), -(-last // len(rows)))
    stream = np.concatenate(
        [np.random.default_rng([7, index]).permutation(len(rows)) for index in passes]
    )
    offset = first - passes.start * len(rows)
    return rows.rows(stream[offset : offset + size])


def switch_loss(first: Loss, second: Loss, steps: int) -> Loss:
    """Return a loss that is `first` for this many optimiser steps and `second` afterwards."""
    return lambda model, examples: (first if examples.step < steps else second)(model, examples)


def _total(trainings: list[Training], seen: int) -> Training:
    """Sum the reports of all periods.

    `rows` is the number of distinct rows seen, and `best_epoch` the number of rounds.
    """
    return replace(
        trainings[-1],
        rows=seen,
        steps=sum(training.steps for training in trainings),
        seconds=round(sum(training.seconds for training in trainings), 1),
        best_epoch=len(trainings),
    )
