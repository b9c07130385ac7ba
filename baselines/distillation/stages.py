"""Distillation of a student from a teacher: losses, fresh exits and stages."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from baselines.distillation.students import initial_student
from baselines.distillation.teacher import Teacher
from baselines.encoders.encoder import Combine, EncoderModel, Head, ModelConfig
from baselines.encoders.weights import copy_encoder, pretrained
from baselines.training.equilibrium import gradient_equilibrium
from baselines.training.finetune import selection_scorer
from baselines.training.loop import Examples, Loss, train
from baselines.training.losses import exit_losses, hidden_loss, soft_losses
from baselines.training.recipe import Schedule
from baselines.training.steps import limit_steps
from harness.data.dataset import TaskData
from harness.methods.stages import FreshFit, StageRun
from harness.models.backbones import Backbone, Pooling
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.records import WeightsReport


@dataclass(frozen=True)
class Targets:
    """Weights of the distillation losses; losses of exits are summed over exits."""

    hidden: float = 0.0
    """Weight of the hidden states of the embedding and of every layer (`losses.hidden_loss`)."""
    soft: float = 0.0
    """Weight of the teacher's predictions.

    Each exit learns from the same exit of the teacher, or from its only exit.
    """
    hard: float = 0.0
    """Weight of the labels."""
    last_exit_only: bool = False
    """Whether only the last exit learns predictions and labels."""


def distillation(
    targets: Targets, teacher: Teacher | None, scale: float, temperature: float = 1.0
) -> Loss:
    """Return the loss of a student against a teacher.

    The teacher may be None if only the labels are learned.
    """

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        outputs = model(examples.batch)
        value = outputs.logits.new_zeros((), dtype=torch.float32)
        logits = outputs.logits[-1:] if targets.last_exit_only else outputs.logits
        if teacher is not None and (targets.hidden or targets.soft):
            expected = teacher(examples)
            if targets.hidden:
                value = value + targets.hidden * hidden_loss(
                    outputs.hiddens, expected.hiddens, examples.batch.mask
                )
            if targets.soft:
                soft = soft_losses(logits, expected.logits[-len(logits) :], scale, temperature)
                value = value + targets.soft * soft.sum()
        if targets.hard:
            value = value + targets.hard * exit_losses(logits, examples.labels, scale).sum()
        return value

    return loss


@dataclass(frozen=True)
class Exits:
    """Exits after every layer: pooling, tanh, dropout, linear (authors' code); no dense pooler."""

    pooling: Pooling | None
    """Pooling over tokens; None: the backbone's own."""
    last_states: int
    """Number of latest hidden states that an exit reads."""
    combine: Combine
    """How these states are combined."""

    def on(self, model: EncoderModel) -> EncoderModel:
        """Return a model with the same encoder and fresh exits after every layer."""
        fresh = EncoderModel(self.config(model.config))
        copy_encoder(model, fresh)
        return fresh

    def config(self, start: ModelConfig) -> ModelConfig:
        """Return the config of a model with these exits."""
        head: Head = "plain"
        exits = (head,) * start.shape.layers
        return replace(
            start,
            pooling=self.pooling or start.pooling,
            exits=exits,
            last_states=self.last_states,
            combine=self.combine,
        )


class StudentAndTeacher(NamedTuple):
    """The models with which a distillation stage starts."""

    student: EncoderModel
    teacher: MultiExitModel
    weights: WeightsReport | None
    """Report of the pretrained weights, if the student starts from them."""


def student_and_teacher(
    parents: tuple[MultiExitModel, ...], exits: Exits | None, backbone: Backbone
) -> StudentAndTeacher:
    """Return the student and the teacher from a stage's parents.

    The parents are an initial student and the teacher, or only the teacher; then the student starts
    from the backbone's pretrained weights. `exits`, if given, are added to the student as fresh
    exits; with pretrained weights they are required.
    """
    *start, teacher = parents
    if start:
        (student,) = start
        assert isinstance(student, EncoderModel)
        return StudentAndTeacher(student if exits is None else exits.on(student), teacher, None)
    assert isinstance(teacher, EncoderModel)
    assert exits is not None
    student, report = pretrained(backbone, exits.config(teacher.config))
    return StudentAndTeacher(student, teacher, report)


@dataclass(frozen=True)
class Distil:
    """Train a student on a teacher's hidden states and predictions and on the labels.

    The parents are the initial student and the teacher, or only the teacher; then the student
    starts from the backbone's pretrained weights. The epoch with the best mean score over exits on
    `selection` is kept, but the last one if only hidden states are learned (exits are untrained).
    """

    name: str
    targets: Targets
    exits: Exits | None
    """Fresh exits for the student; None: it keeps its own."""
    equilibrium: bool
    """Whether training uses gradient equilibrium."""
    schedule: Schedule
    revision: ClassVar[int] = 1

    def examples(self, rows: int) -> int:
        """Return the number of examples of all epochs."""
        return self.schedule.examples(rows)

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on the train split."""
        student, teacher, report = student_and_teacher(parents, self.exits, backbone)
        loss = distillation(
            self.targets,
            Teacher(teacher, data.train, run, hiddens=self.targets.hidden > 0),
            data.task.scale,
        )
        score = (
            selection_scorer(data, run, list(range(len(student.exit_layers))))
            if self.targets.soft or self.targets.hard
            else None
        )
        with gradient_equilibrium(student) if self.equilibrium else nullcontext():
            training = train(student, loss, data.train, score, self.schedule, run)
        return FreshFit(student, training, report)


@dataclass(frozen=True)
class PredictionDistillation:
    """Train a student with one fresh exit on its teacher's predictions and on the labels.

    The parents are the initial student and the teacher, or only the teacher; then the student's
    encoder has random weights.
    """

    name: str
    shape: EncoderShape
    head: Head
    soft: float
    """Weight of the teacher's predictions; the labels get 1 minus it."""
    temperature: float
    """Softmax temperature of the loss on the teacher's predictions."""
    steps: int | None
    """Number of optimiser steps; None: the schedule's epochs."""
    schedule: Schedule
    revision: ClassVar[int] = 1

    def examples(self, rows: int) -> int:
        """Return the number of examples of all steps."""
        return self.schedule.examples(rows, self.steps)

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on the train split and choose the epoch on `selection`."""
        student, report = initial_student(parents[:-1], self.shape, self.head, data.task, backbone)
        plan = limit_steps(data.train, self.schedule, self.steps)
        teacher = Teacher(parents[-1], plan.rows, run, hiddens=False) if self.soft else None
        loss = distillation(
            Targets(soft=self.soft, hard=1 - self.soft), teacher, data.task.scale, self.temperature
        )
        score = selection_scorer(data, run, [0])
        training = train(student, loss, plan.parts, score, plan.schedule, run)
        return FreshFit(student, training, report)
