"""A classifier that others have fine-tuned: nothing is trained, it is measured as it is."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from baselines.encoders.encoder import EncoderModel, ExitActivation, ModelConfig
from baselines.encoders.weights import fine_tuned
from baselines.training.finetune import last_only
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.methods.protocol import ExternalInputs
from harness.methods.stages import FitContext, Fitted, FreshFit, StageRun
from harness.models.backbones import Backbone
from harness.models.label_names import class_names, label_positions
from harness.models.multi_exit import MultiExitModel
from harness.records import Training

ACTIVATION: dict[str, ExitActivation] = {"distilbert": "relu", "electra": "gelu"}
"""What stands in front of a family's classifier where it is not tanh."""


def checkpoint_config(backbone: Backbone, task: Task) -> ModelConfig:
    """The library's sequence classifier of the backbone's family; a regression answers in units of the label."""
    exits = last_only(backbone.shape, "dense")
    return ModelConfig(
        backbone.shape,
        "cls",
        task.classes,
        1.0,
        exits,
        exit_activation=ACTIVATION.get(backbone.family, "tanh"),
    )


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the library's sequence classifiers, which is its own backbone (`--checkpoint`).

    Equal to the library's logits to 1e-5 in every family (tests), in the task's order of classes.
    """

    labels: tuple[str, ...] | None = None
    """Its classes in the order of its outputs (`--labels`); None: the names in its config.json."""
    fingerprint: str | None = None
    """Of its shape, weights and vocabulary; None: it is found out."""
    tolerance: float = 0.1
    """Not used: there is one exit."""
    family: ClassVar[str] = "checkpoint"
    policy: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Raises: ValueError for a value outside its range."""
        if not 0 < self.tolerance < float("inf"):
            raise ValueError(f"tolerance {self.tolerance}: wanted a positive number")

    def revisions(self) -> dict[str, int]:
        """The one stage, which trains nothing."""
        return {"read": Read.revision}

    def external_inputs(self) -> ExternalInputs:
        """Nothing beside the backbone, which is the checkpoint."""
        return ExternalInputs()

    def resolved(self, backbone: Backbone) -> Self:
        """With the checkpoint's own class names, and its fingerprint.

        Raises: HarnessError for a backbone without weights.
        """
        if backbone.folder is None:
            raise HarnessError(
                f"backbone {backbone.name} is random: give a fine-tuned classifier as --checkpoint FOLDER or OWNER/NAME"
            )
        labels = class_names(backbone.folder) if self.labels is None else self.labels
        return replace(self, labels=labels, fingerprint=backbone.fingerprint)

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """The checkpoint's shape.

        Raises: HarnessError when the classes that it is known to have are not the task's.
        """
        if self.labels is not None:
            label_positions(self.labels, task)
        return EncoderModel(checkpoint_config(backbone, task))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Read it.

        Raises: HarnessError when its classes are not the task's, or its weights not a classifier's.
        """
        labels = self.resolved(backbone).labels
        assert labels is not None
        return Fitted(
            context.fitted(Read("read", label_positions(labels, data.task)), data, backbone)
        )


@dataclass(frozen=True)
class Read:
    """The checkpoint as a model of ours."""

    name: str
    places: tuple[int, ...]
    """Where each of the task's labels stands among the checkpoint's classes."""
    revision: ClassVar[int] = 1

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Read the weights; the report says that no row was trained on."""
        model, report = fine_tuned(backbone, checkpoint_config(backbone, data.task), self.places)
        return FreshFit(model, Training(0, 0, 0.0, 0.0, (), 0), report)


CHECKPOINT = Checkpoint()
