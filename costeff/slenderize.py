"""Iterative pruning in width: importance, a smaller encoder, some training, and again."""

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
from costeff.width_budget import compete, layer_macs
from harness.data.dataset import Split, TaskData
from harness.files.typed_json import from_json, to_json
from harness.methods.stages import FreshFit, StageRun, seed_all
from harness.models.backbones import Backbone
from harness.models.batches import shuffled_batches
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.records import Training

IMPORTANCE = Targets(hidden=1.0, soft=0.9, hard=0.1)
"""The loss whose gradients say what matters (authors' code: the weights are written into it)."""
HIDDEN = Targets(hidden=1.0)
BOTH = Targets(hidden=1.0, soft=1.0)

Allocation = Literal["layer", "global"]
"""Whether each layer keeps its share of heads and neurons, or those of all layers compete for the MACs of that."""


@dataclass(frozen=True)
class Slenderize:
    """Prune a multi-exit model to a smaller shape, in rounds, with itself as it was as the teacher (COST-EFF, section 3.3).

    A round trains for a period with a fresh optimiser, on hidden states alone first, then on answers too; then it scores heads and neurons
    and builds a smaller encoder from the best. As in the authors' code training comes before each cut: a student that still equals its
    teacher has no gradient to be scored by. After the last cut recovery follows, in stages of its own. A killed stage goes on with the
    round it was in.

    Differs from the authors' code: each period's learning rate decays by itself (theirs: the first one's over all of pruning); for
    importance rows are drawn without replacement, and hidden losses are means over real tokens.
    """

    name: str
    shape: EncoderShape
    """At the end."""
    exits: Exits | None
    """Fresh exits put on the start's encoder; None: the start as it is."""
    rounds: int
    period: float
    """Passes over the training rows before each cut; may be a part of one."""
    hidden_share: float
    """Part of a period on hidden states alone."""
    taylor_share: float
    """Part of the training rows that importance is measured on, drawn anew each round."""
    growth: float
    """The learning rate is multiplied by this after each cut."""
    last_exit_only: bool
    """Importance from the answers of the last exit alone (hidden states stay), for ablation."""
    allocation: Allocation
    equilibrium: bool
    """In training, and in measuring importance within layers."""
    schedule: Schedule
    """Of one period; its epochs are not used."""
    at_once: bool = False
    """Everything is cut after the first period, for ablation; the later ones train all the same."""
    revision: ClassVar[int] = 1

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Parents: where it starts, and the teacher."""
        start, guide, _ = student_and_teacher(parents, self.exits, backbone)
        teacher = Teacher(guide, data.train, run, hiddens=True)
        rounds = finished_rounds(run.scratch)
        student = load_model(rounds[-1].folder) if rounds else start
        for number in range(len(rounds) + 1, self.rounds + 1):
            inner = replace(run, seed=seed_all(run.seed, f"round {number}"))
            with gradient_equilibrium(student) if self.equilibrium else nullcontext():
                training = self._train(student, teacher, data, inner, number)
            student = (
                student.to("cpu")
                if self.at_once and number > 1
                else self._cut(student, start, teacher, data, inner, number)
            )
            rounds.append(keep_round(run.scratch, number, student, training))
        seen = min(len(data.train), self.rounds * max(1, round(self.period * len(data.train))))
        return FreshFit(student, _summed([done.training for done in rounds], seen))

    def _cut(
        self,
        student: EncoderModel,
        start: EncoderModel,
        teacher: Teacher,
        data: TaskData,
        run: StageRun,
        number: int,
    ) -> EncoderModel:
        """The student with what matters, in the shape of the round.

        Where layers compete the gradients are not averaged, as this would multiply the scores of each by another number.
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
            model_class = type(student)
            shape = compete(scores, shape, layer_macs(shape, model_class), model_class)
        return pruned(student.to("cpu"), shape, scores)

    def _train(
        self, student: EncoderModel, teacher: Teacher, data: TaskData, run: StageRun, number: int
    ) -> Training:
        """A period of training, in place: whole passes where it holds several, so that an interruption costs one of them."""
        passes = max(1, int(self.period))
        rows = period_rows(data.train, self.period / passes, number)
        schedule = replace(
            self.schedule,
            epochs=passes,
            learning_rate=self.schedule.learning_rate * self.growth ** (number - 1),
        )
        first, then = (
            distillation(targets, teacher, data.task.scale) for targets in (HIDDEN, BOTH)
        )
        loss = one_after_another(
            first, then, round(self.hidden_share * passes * schedule.steps(len(rows)))
        )
        label = replace(run, stage=f"{self.name} {number}/{self.rounds}")
        return train(student, loss, rows, None, schedule, label, name=PERIOD.format(number))

    def _scores(
        self, student: EncoderModel, teacher: Teacher, data: TaskData, run: StageRun, number: int
    ) -> Importance:
        targets = replace(IMPORTANCE, last_exit_only=self.last_exit_only)
        batches = taylor_batches(data.train, self.taylor_share, self.schedule.batch_size, run.seed)
        loss = distillation(targets, teacher, data.task.scale)
        with run.compute.progress.track(
            f"{run.label}: importance {number}/{self.rounds}", len(batches)
        ) as advance:
            return taylor_importance(
                student, loss, data.train, batches, run.compute, self.schedule.accumulation, advance
            )


PERIOD, ROUND, TRAINING = "period-{}", "round-{}", "training.json"
"""In a stage's scratch folder: the state of a period's training; the model that a round ended with, and what its training told."""


class Round(NamedTuple):
    """A finished round."""

    folder: Path
    training: Training


def finished_rounds(scratch: Path) -> list[Round]:
    """In their order; the model is there of the last alone."""
    found: list[Round] = []
    while (folder := scratch / ROUND.format(len(found) + 1)).joinpath(TRAINING).is_file():
        text = (folder / TRAINING).read_text(encoding="utf-8")
        found.append(Round(folder, from_json(Training, text, str(folder / TRAINING))))
    return found


def keep_round(scratch: Path, number: int, model: EncoderModel, training: Training) -> Round:
    """Keep what a round ended with; what led to it, and the model before, make room."""
    folder, unfinished = scratch / ROUND.format(number), scratch / "round.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    save_model(model, unfinished)
    (unfinished / TRAINING).write_text(to_json(training), encoding="utf-8")
    unfinished.replace(folder)
    (scratch / f"{PERIOD.format(number)}.pt").unlink(missing_ok=True)
    before = scratch / ROUND.format(number - 1)
    for file in before.iterdir() if before.is_dir() else ():
        if file.name != TRAINING:
            file.unlink()
    return Round(folder, training)


def taylor_batches(
    rows: Split, share: float, batch_size: int, seed: int
) -> list[NDArray[np.int64]]:
    """Random batches of similar length over about this share of the rows, at least one batch."""
    batches = shuffled_batches(rows.tokens.lengths, batch_size, np.random.default_rng(seed))
    return batches[: max(1, round(share * len(batches)))]


def period_rows(rows: Split, period: float, number: int) -> Split:
    """The rows of one period: the next `period` passes of a stream of shuffled passes, the same for every seed."""
    size = max(1, round(period * len(rows)))
    first, last = (number - 1) * size, number * size
    passes = range(first // len(rows), -(-last // len(rows)))
    stream = np.concatenate(
        [np.random.default_rng([7, number_]).permutation(len(rows)) for number_ in passes]
    )
    offset = first - passes.start * len(rows)
    return rows.rows(stream[offset : offset + size])


def one_after_another(first: Loss, then: Loss, steps: int) -> Loss:
    """A loss that is the first for so many optimiser steps, then the other."""
    return lambda model, examples: (first if examples.step < steps else then)(model, examples)


def _summed(trainings: list[Training], seen: int) -> Training:
    """Of all periods together: rows that were seen, and the number of rounds in the place of the best epoch."""
    return replace(
        trainings[-1],
        rows=seen,
        steps=sum(training.steps for training in trainings),
        seconds=round(sum(training.seconds for training in trainings), 1),
        best_epoch=len(trainings),
    )
