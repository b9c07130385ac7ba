"""The stage that bert, deebert and pabee are made of: exits on an encoder, trained on labels."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from baselines.encoders.weights import copy_encoder, exit_heads, pretrained
from baselines.training.loop import Examples, Score, selection_score, train
from baselines.training.losses import exit_losses, weighted
from baselines.training.recipe import Schedule
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.methods.stages import FreshFit, StageRun
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.records import Training, WeightsReport


def model_config(
    backbone: Backbone,
    task: Task,
    exits: tuple[Head | None, ...],
    shape: EncoderShape | None = None,
) -> ModelConfig:
    """The config of a model of the backbone's own shape, or of a student's."""
    return ModelConfig(shape or backbone.shape, backbone.pooling, task.classes, task.scale, exits)


def last_only(shape: EncoderShape, head: Head) -> tuple[Head | None, ...]:
    """One exit, after the last layer."""
    return (None,) * (shape.layers - 1) + (head,)


def added_exits(layers: int, head: Head, last: Head | None) -> tuple[Head | None, ...]:
    """New exits before a last one that stays as it is: the pooler that it shared with nobody does not become the new ones'."""
    return (head,) * (layers - 1) + ("dense" if last == "shared" else last,)


@dataclass(frozen=True)
class FineTune:
    """Train exits and encoder together on the labels: sum of weight times loss over exits. The encoder starts at the backbone's
    pretrained weights, or at the parent's where there is one; exits are fresh."""

    name: str
    exits: tuple[Head | None, ...]
    weights: tuple[float, ...]
    """Of each exit's loss, first exit to last; the best epoch is chosen by the mean over exits."""
    schedule: Schedule
    revision: ClassVar[int] = 2

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on train, choose the epoch on selection."""
        model, report = with_exits(parents, self.exits, data.task, backbone)
        training = _train_exits(model, self.weights, data, self.schedule, run)
        return FreshFit(model, training, report)


def with_exits(
    parents: tuple[MultiExitModel, ...],
    exits: tuple[Head | None, ...],
    task: Task,
    backbone: Backbone,
) -> tuple[EncoderModel, WeightsReport | None]:
    """A model with fresh exits on the encoder of the parent, or without one on the backbone's pretrained weights, and their report."""
    if not parents:
        return pretrained(backbone, model_config(backbone, task, exits))
    (parent,) = parents
    assert isinstance(parent, EncoderModel)
    model = EncoderModel(model_config(backbone, task, exits, parent.config.shape))
    copy_encoder(parent, model)
    return model, None


@dataclass(frozen=True)
class AddExits:
    """Put exits on a fine-tuned single-exit model and train them alone: encoder and last exit stay frozen."""

    name: str
    head: Head
    schedule: Schedule
    revision: ClassVar[int] = 2

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on train the sum of the new exits' losses, choose the epoch on selection by the mean over the new exits.

        The new exits' dense poolers start from the last exit's, as in the authors' code (`init_highway_pooler`).
        """
        (parent,) = parents
        assert isinstance(parent, EncoderModel)
        (last,) = exit_heads(parent)
        layers = backbone.shape.layers
        model = EncoderModel(
            model_config(
                backbone, data.task, added_exits(layers, self.head, parent.config.exits[-1])
            )
        )
        copy_encoder(parent, model)
        *new, main = exit_heads(model)
        main.load_state_dict(last.state_dict())
        for head in new:
            if head.pooler is not None and last.pooler is not None:
                head.pooler.load_state_dict(last.pooler.state_dict())
        model.requires_grad_(False)
        nn.ModuleList(new).requires_grad_(True)
        training = _train_exits(model, (1.0,) * (layers - 1) + (0.0,), data, self.schedule, run)
        return FreshFit(model, training)


def _train_exits(
    model: EncoderModel,
    weights: tuple[float, ...],
    data: TaskData,
    schedule: Schedule,
    run: StageRun,
) -> Training:
    trained = [index for index, weight in enumerate(weights) if weight > 0]

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        return weighted(
            exit_losses(model(examples.batch).logits, examples.labels, data.task.scale), weights
        )

    return train(model, loss, data.train, selection_of(data, run, trained), schedule, run)


def selection_of(data: TaskData, run: StageRun, exits: list[int]) -> Score:
    """The mean over these exits (from 0) of the main metric on `selection`."""
    return lambda model: selection_score(
        model, data.selection, data.task, exits, run.compute.device
    )
