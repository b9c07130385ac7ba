"""Initial students: some of the teacher's layers, a published student, or random weights."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from baselines.encoders.encoder import EncoderModel, Head
from baselines.encoders.weights import pretrained
from baselines.training.finetune import model_config, model_with_exits, single_exit
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError, unknown
from harness.methods.stages import FreshFit, StageRun
from harness.models.backbones import Backbone, find_backbone, known_backbones, listed_backbones
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.records import Training, WeightsReport


def every_other(layers: int, share: float) -> tuple[int, ...]:
    """Return the indices, from 0, of a share of the layers, evenly spread from first to last.

    Half of 12 layers are 0, 2, 4, 7, 9, 11, as in the authors' code.
    """
    count = max(round(share * layers), 1)
    return tuple(int(index) for index in np.linspace(0, layers - 1, count).round())


def shape_of(teacher: EncoderShape, kept: tuple[int, ...]) -> EncoderShape:
    """Return the shape of a student with these layers and without token types."""
    heads, ffn = (tuple(widths[layer] for layer in kept) for widths in (teacher.heads, teacher.ffn))
    return replace(teacher, heads=heads, ffn=ffn, token_types=0)


def take_layers(teacher: EncoderModel, kept: tuple[int, ...]) -> EncoderModel:
    """Return a model of these layers with a fresh last exit.

    It has the teacher's masked-LM head if there is one.
    """
    shape = shape_of(teacher.config.shape, kept)
    student = EncoderModel(replace(teacher.config, shape=shape, exits=single_exit(shape, "plain")))
    states = teacher.embedding.state_dict()
    if teacher.config.shape.token_types:
        states["position.weight"] = states["position.weight"] + states.pop("token_type.weight")[0]
    student.embedding.load_state_dict(states)
    for layer, source in zip(student.layers, kept, strict=True):
        layer.load_state_dict(teacher.layers[source].state_dict())
    if student.masked_lm is not None and teacher.masked_lm is not None:
        student.masked_lm.load_state_dict(teacher.masked_lm.state_dict())
    return student


RANDOM = WeightsReport(0, (), ("all: a student with random weights",))


def initial_student(
    parents: tuple[MultiExitModel, ...],
    shape: EncoderShape,
    head: Head,
    task: Task,
    backbone: Backbone,
) -> tuple[EncoderModel, WeightsReport | None]:
    """Return a student with a fresh last exit on the parent's encoder.

    Without a parent the weights are random, and the report says so.
    """
    exits = single_exit(shape, head)
    if parents:
        return model_with_exits(parents, exits, task, backbone)
    return EncoderModel(model_config(backbone, task, exits, shape)), RANDOM


@dataclass(frozen=True)
class Start:
    """Stage that loads layers of the pretrained backbone, or a published student, untrained."""

    name: str
    kept: tuple[int, ...] = ()
    """Indices of the backbone's layers, from 0; empty for a published student."""
    checkpoint: str | None = None
    """Name of the published student."""
    fingerprint: str | None = None
    """Fingerprint of the published student."""
    revision: ClassVar[int] = 1

    def examples(self, rows: int) -> int:
        """Return the number of examples of all trainings: none."""
        return 0

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Load the weights."""
        source = backbone if self.checkpoint is None else find_backbone(self.checkpoint)
        model, report = pretrained(
            source,
            model_config(backbone, data.task, single_exit(source.shape, "plain"), source.shape),
        )
        student = model if self.checkpoint is not None else take_layers(model, self.kept)
        return FreshFit(student, Training(0, 0, 0.0, 0.0, (), 0), report)


def check_published(name: str | None) -> None:
    """Check that a published student is a known backbone, because a record holds no path.

    Raises: ValueError for an unknown name.
    """
    if name is not None and name not in known_backbones():
        raise ValueError(str(unknown("checkpoint", name, listed_backbones())))


def published_student(name: str, backbone: Backbone) -> Start:
    """Return the stage that loads a published student.

    Raises: HarnessError if its weights are unavailable or its vocabulary is not the backbone's.
    """
    student = find_backbone(name)
    if student.vocabulary_fingerprint != backbone.vocabulary_fingerprint:
        raise HarnessError(
            f"{name} and backbone {backbone.name} have different vocabularies: "
            "give a student with the backbone's vocabulary"
        )
    return Start("start", checkpoint=name, fingerprint=student.fingerprint)
