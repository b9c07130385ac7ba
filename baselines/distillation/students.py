"""Where students begin: some of the teacher's layers, or a student that others have published."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from baselines.encoders.encoder import EncoderModel, Head
from baselines.encoders.weights import pretrained
from baselines.training.finetune import last_only, model_config, with_exits
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError, unknown
from harness.methods.stages import FreshFit, StageRun
from harness.models.backbones import Backbone, find_backbone, known_backbones, listed_backbones
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.records import Training, WeightsReport


def every_other(layers: int, share: float) -> tuple[int, ...]:
    """Places, from 0, of the layers that stay: the first, the last and the rest evenly between (of 12: 0, 2, 4, 7, 9, 11, the authors')."""
    return tuple(
        int(place) for place in np.linspace(0, layers - 1, max(round(share * layers), 1)).round()
    )


def shape_of(teacher: EncoderShape, kept: tuple[int, ...]) -> EncoderShape:
    """The student's: these layers, no token types."""
    heads, ffn = (tuple(widths[place] for place in kept) for widths in (teacher.heads, teacher.ffn))
    return replace(teacher, heads=heads, ffn=ffn, token_types=0)


def take_layers(teacher: EncoderModel, kept: tuple[int, ...]) -> EncoderModel:
    """A model of these layers with a fresh last exit, and with the masked-LM head where the teacher has one."""
    shape = shape_of(teacher.config.shape, kept)
    student = EncoderModel(replace(teacher.config, shape=shape, exits=last_only(shape, "plain")))
    states = teacher.embedding.state_dict()
    if teacher.config.shape.token_types:
        states["position.weight"] = states["position.weight"] + states.pop("token_type.weight")[0]
    student.embedding.load_state_dict(states)
    for own, place in zip(student.layers, kept, strict=True):
        own.load_state_dict(teacher.layers[place].state_dict())
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
    """A student with a fresh last exit on the encoder of the parent; without one it is random, which its report says."""
    exits = last_only(shape, head)
    if parents:
        return with_exits(parents, exits, task, backbone)
    return EncoderModel(model_config(backbone, task, exits, shape)), RANDOM


@dataclass(frozen=True)
class Start:
    """A student that is not trained yet: layers of the backbone's pretrained weights, or a published student."""

    name: str
    kept: tuple[int, ...] = ()
    """Layers of the backbone, from 0; none: the published student."""
    checkpoint: str | None = None
    fingerprint: str | None = None
    """Of the published student."""
    revision: ClassVar[int] = 1

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Read them."""
        source = backbone if self.checkpoint is None else find_backbone(self.checkpoint)
        whole, report = pretrained(
            source,
            model_config(backbone, data.task, last_only(source.shape, "plain"), source.shape),
        )
        student = whole if self.checkpoint is not None else take_layers(whole, self.kept)
        return FreshFit(student, Training(0, 0, 0.0, 0.0, (), 0), report)


def check_published(name: str | None) -> None:
    """Raises: ValueError for a name that is not in the table: a record holds no path."""
    if name is not None and name not in known_backbones():
        raise ValueError(str(unknown("checkpoint", name, listed_backbones())))


def published(name: str, backbone: Backbone) -> Start:
    """The stage of a published student.

    Raises: HarnessError when its weights are not to be had, or its vocabulary is not the backbone's.
    """
    student = find_backbone(name)
    if student.vocabulary_fingerprint != backbone.vocabulary_fingerprint:
        raise HarnessError(
            f"{name} has another vocabulary than backbone {backbone.name}: a student and its teacher must share theirs"
        )
    return Start("start", checkpoint=name, fingerprint=student.fingerprint)
