"""What a multi-exit student learns from a teacher, and the stage that trains it."""

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
from baselines.training.finetune import selection_of
from baselines.training.loop import Examples, Loss, train
from baselines.training.losses import exit_losses, hidden_loss, soft_losses
from baselines.training.recipe import Schedule
from baselines.training.steps import bounded
from harness.data.dataset import TaskData
from harness.methods.stages import FreshFit, StageRun
from harness.models.backbones import Backbone, Pooling
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.records import WeightsReport


@dataclass(frozen=True)
class Targets:
    """Weights of what a student learns; an exit's losses are summed over exits."""

    hidden: float = 0.0
    """Hidden states of the embedding and of every layer (`losses.hidden_loss`)."""
    soft: float = 0.0
    """The teacher's answers: each exit those of the same exit, or all exits those of a teacher with one exit."""
    hard: float = 0.0
    """The labels."""
    last_exit_only: bool = False
    """Answers of the last exit alone."""


def distillation(
    targets: Targets, teacher: Teacher | None, scale: float, temperature: float = 1.0
) -> Loss:
    """The loss of a student against a teacher, which may be None where the labels alone are learned."""

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        own = model(examples.batch)
        value = own.logits.new_zeros((), dtype=torch.float32)
        logits = own.logits[-1:] if targets.last_exit_only else own.logits
        if teacher is not None and (targets.hidden or targets.soft):
            given = teacher(examples)
            if targets.hidden:
                value = value + targets.hidden * hidden_loss(
                    own.hiddens, given.hiddens, examples.batch.mask
                )
            if targets.soft:
                value = (
                    value
                    + targets.soft
                    * soft_losses(logits, given.logits[-len(logits) :], scale, temperature).sum()
                )
        if targets.hard:
            value = value + targets.hard * exit_losses(logits, examples.labels, scale).sum()
        return value

    return loss


@dataclass(frozen=True)
class Exits:
    """Exits after every layer: pooled -> tanh -> drop-out -> linear, no dense pooler (authors' code)."""

    pooling: Pooling | None
    """None: the backbone's own."""
    last_states: int
    combine: Combine

    def on(self, model: EncoderModel) -> EncoderModel:
        """A model with the same encoder and fresh exits after every layer."""
        config = self.config(model.config)
        made = EncoderModel(config)
        copy_encoder(model, made)
        return made

    def config(self, start: ModelConfig) -> ModelConfig:
        """The config of that model."""
        head: Head = "plain"
        exits = (head,) * start.shape.layers
        return replace(
            start,
            pooling=self.pooling or start.pooling,
            exits=exits,
            last_states=self.last_states,
            combine=self.combine,
        )


class Pupils(NamedTuple):
    """What a distilling stage begins with."""

    student: EncoderModel
    teacher: MultiExitModel
    weights: WeightsReport | None
    """Of the pretrained checkpoint, where the student starts there."""


def student_and_teacher(
    parents: tuple[MultiExitModel, ...], exits: Exits | None, backbone: Backbone
) -> Pupils:
    """From a stage's parents, a start and a teacher, or a teacher alone, whose student starts at the backbone's pretrained weights.

    The student has fresh exits where there are some to put on; at pretrained weights there must be.
    """
    *start, teacher = parents
    if start:
        (student,) = start
        assert isinstance(student, EncoderModel)
        return Pupils(student if exits is None else exits.on(student), teacher, None)
    assert isinstance(teacher, EncoderModel)
    assert exits is not None
    student, report = pretrained(backbone, exits.config(teacher.config))
    return Pupils(student, teacher, report)


@dataclass(frozen=True)
class Distil:
    """Train a student on a teacher's hidden states and answers and on the labels: parents are where it starts, and the teacher; with the
    teacher alone it starts at the backbone's pretrained weights.

    Training on hidden states alone keeps the last epoch (exits say nothing yet), any other the best mean over exits on `selection`.
    """

    name: str
    targets: Targets
    exits: Exits | None
    """Fresh exits on the start's encoder; None: the start as it is."""
    equilibrium: bool
    schedule: Schedule
    revision: ClassVar[int] = 1

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on train."""
        student, guide, report = student_and_teacher(parents, self.exits, backbone)
        loss = distillation(
            self.targets,
            Teacher(guide, data.train, run, hiddens=self.targets.hidden > 0),
            data.task.scale,
        )
        score = (
            selection_of(data, run, list(range(len(student.exit_layers))))
            if self.targets.soft or self.targets.hard
            else None
        )
        with gradient_equilibrium(student) if self.equilibrium else nullcontext():
            training = train(student, loss, data.train, score, self.schedule, run)
        return FreshFit(student, training, report)


@dataclass(frozen=True)
class PredictionDistillation:
    """Train a student with one fresh exit on its teacher's answers and on the labels. Parents: where its encoder begins, and the teacher;
    with the teacher alone the encoder is random."""

    name: str
    shape: EncoderShape
    head: Head
    soft: float
    """Weight of the teacher's answers; the labels have the rest to 1."""
    temperature: float
    steps: int | None
    """Bound on optimiser steps; None: the schedule's epochs."""
    schedule: Schedule
    revision: ClassVar[int] = 1

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on train, choose the epoch on selection."""
        student, report = initial_student(parents[:-1], self.shape, self.head, data.task, backbone)
        learned = bounded(data.train, self.schedule, self.steps)
        teacher = Teacher(parents[-1], learned.rows, run, hiddens=False) if self.soft else None
        loss = distillation(
            Targets(soft=self.soft, hard=1 - self.soft), teacher, data.task.scale, self.temperature
        )
        return FreshFit(
            student,
            train(
                student, loss, learned.parts, selection_of(data, run, [0]), learned.schedule, run
            ),
            report,
        )
