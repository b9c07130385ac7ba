"""What a multi-exit student learns from a teacher, and the stage that trains it."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from baselines.encoder import Combine, EncoderModel, Head, ModelConfig, gradient_equilibrium
from baselines.finetune import selection_of
from baselines.losses import exit_losses, hidden_loss, soft_losses
from baselines.teacher import Teacher
from baselines.training import Examples, Loss, Schedule, train
from baselines.weights import copy_encoder
from harness.backbones import Backbone, Pooling
from harness.model import MultiExitModel
from harness.stages import FreshFit, StageRun
from harness.tasks import Split, TaskData


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


def distillation(targets: Targets, teacher: Teacher, scale: float) -> Loss:
    """The loss of a student against a teacher."""

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        own = model(examples.batch)
        value = own.logits.new_zeros((), dtype=torch.float32)
        logits = own.logits[-1:] if targets.last_exit_only else own.logits
        if targets.hidden or targets.soft:
            given = teacher(examples)
            if targets.hidden:
                value = value + targets.hidden * hidden_loss(own.hiddens, given.hiddens, examples.batch.mask)
            if targets.soft:
                value = value + targets.soft * soft_losses(logits, given.logits[-len(logits) :], scale).sum()
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
        return replace(start, pooling=self.pooling or start.pooling, exits=exits, last_states=self.last_states, combine=self.combine)


def student_and_teacher(
    parents: tuple[MultiExitModel, ...], exits: Exits | None, rows: Split, run: StageRun, hiddens: bool
) -> tuple[EncoderModel, Teacher]:
    """A stage's two parents, ready: where the student starts, with fresh exits where there are some to put on; the teacher, frozen."""
    start, teacher = parents
    assert isinstance(start, EncoderModel)
    return start if exits is None else exits.on(start), Teacher(teacher, rows, run, hiddens)


@dataclass(frozen=True)
class Distil:
    """Train a student on a teacher's hidden states and answers and on the labels: parents are where it starts, and the teacher.

    Training on hidden states alone keeps the last epoch (exits say nothing yet), any other the best mean over exits on `selection`.
    """

    name: str
    targets: Targets
    exits: Exits | None
    """Fresh exits on the start's encoder; None: the start as it is."""
    equilibrium: bool
    schedule: Schedule
    revision: ClassVar[int] = 1

    def fit(self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun) -> FreshFit:
        """Fit on train."""
        student, teacher = student_and_teacher(parents, self.exits, data.train, run, hiddens=self.targets.hidden > 0)
        loss = distillation(self.targets, teacher, data.task.scale)
        score = selection_of(data, run, list(range(len(student.exit_layers)))) if self.targets.soft or self.targets.hard else None
        with gradient_equilibrium(student) if self.equilibrium else nullcontext():
            training = train(student, loss, data.train, score, self.schedule, run)
        return FreshFit(student, training)
