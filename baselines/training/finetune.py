"""The stages of bert, deebert and pabee: exits on an encoder, trained on labels."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from baselines.encoders.weights import copy_encoder, exit_heads, pretrained
from baselines.training.loop import Examples, Score, selection_score, train
from baselines.training.losses import exit_losses, weighted_sum
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
    """Return the config of a model of the backbone's shape, or of the given one."""
    return ModelConfig(shape or backbone.shape, backbone.pooling, task.classes, task.scale, exits)


def single_exit(shape: EncoderShape, head: Head) -> tuple[Head | None, ...]:
    """Return the exits of a model whose only exit follows the last layer."""
    return (None,) * (shape.layers - 1) + (head,)


def exits_before_last(layers: int, head: Head, last: Head | None) -> tuple[Head | None, ...]:
    """Return the exits of a model with new ones before an unchanged last exit.

    A last exit with a shared pooler gets one of its own, so that the new exits do not share it.
    """
    return (head,) * (layers - 1) + ("dense" if last == "shared" else last,)


@dataclass(frozen=True)
class FineTune:
    """Train exits and encoder together on the labels, with a weighted sum of the exits' losses.

    The encoder starts from the parent's weights if there is one, else from the backbone's
    pretrained weights. The exits are fresh.
    """

    name: str
    exits: tuple[Head | None, ...]
    weights: tuple[float, ...]
    """Weight of each exit's loss, from the first exit to the last.
    The best epoch is chosen by the mean score over the exits with a positive weight."""
    schedule: Schedule
    revision: ClassVar[int] = 2

    def examples(self, rows: int) -> int:
        """Return the number of examples of all epochs."""
        return self.schedule.examples(rows)

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on `train` and choose the epoch on `selection`."""
        model, report = model_with_exits(parents, self.exits, data.task, backbone)
        training = _train_exits(model, self.weights, data, self.schedule, run)
        return FreshFit(model, training, report)


def model_with_exits(
    parents: tuple[MultiExitModel, ...],
    exits: tuple[Head | None, ...],
    task: Task,
    backbone: Backbone,
) -> tuple[EncoderModel, WeightsReport | None]:
    """Return a model with fresh exits and the report of its pretrained weights.

    The encoder is the parent's, with None as the report, or without a parent the backbone's.
    """
    if not parents:
        return pretrained(backbone, model_config(backbone, task, exits))
    (parent,) = parents
    assert isinstance(parent, EncoderModel)
    model = EncoderModel(model_config(backbone, task, exits, parent.config.shape))
    copy_encoder(parent, model)
    return model, None


@dataclass(frozen=True)
class AddExits:
    """Add exits to a fine-tuned single-exit model and train them; all else stays frozen."""

    name: str
    head: Head
    schedule: Schedule
    revision: ClassVar[int] = 2

    def examples(self, rows: int) -> int:
        """Return the number of examples of all epochs."""
        return self.schedule.examples(rows)

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit the sum of the new exits' losses on `train` and choose the epoch on `selection`.

        The epoch is chosen by the mean score over the new exits. Their dense poolers start from
        the last exit's, as in the authors' code (`init_highway_pooler`).
        """
        (parent,) = parents
        assert isinstance(parent, EncoderModel)
        (last,) = exit_heads(parent)
        layers = backbone.shape.layers
        model = EncoderModel(
            model_config(
                backbone, data.task, exits_before_last(layers, self.head, parent.config.exits[-1])
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
        return weighted_sum(
            exit_losses(model(examples.batch).logits, examples.labels, data.task.scale), weights
        )

    return train(model, loss, data.train, selection_scorer(data, run, trained), schedule, run)


def selection_scorer(data: TaskData, run: StageRun, exits: list[int]) -> Score:
    """Return the score of an epoch: the main metric on `selection`, averaged over these exits."""
    return lambda model: selection_score(
        model, data.selection, data.task, exits, run.compute.device
    )
