"""Classifiers fine-tuned elsewhere, measured as they are, without training."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from baselines.encoders.encoder import EncoderModel, ExitActivation, ModelConfig
from baselines.encoders.weights import fine_tuned
from baselines.training.finetune import single_exit
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.methods.protocol import ExternalInputs
from harness.methods.stages import FitContext, Fitted, FreshFit, StageRun
from harness.models.backbones import Backbone
from harness.models.label_names import class_names, label_positions
from harness.models.multi_exit import MultiExitModel
from harness.records import Training

EXIT_ACTIVATIONS: dict[str, ExitActivation] = {"distilbert": "relu", "electra": "gelu"}
"""Activation before the classifier, for families where it is not tanh."""


def checkpoint_config(backbone: Backbone, task: Task) -> ModelConfig:
    """Return the config of a transformers sequence classifier of the backbone's family.

    A regression predicts in label units.
    """
    exits = single_exit(backbone.shape, "dense")
    return ModelConfig(
        backbone.shape,
        "cls",
        task.classes,
        1.0,
        exits,
        exit_activation=EXIT_ACTIVATIONS.get(backbone.family, "tanh"),
    )


@dataclass(frozen=True)
class Checkpoint:
    """A sequence classifier saved by transformers, which is its own backbone (`--checkpoint`).

    Logits are in the task's order of classes and equal those of transformers to 1e-5 in every
    family (tested).
    """

    labels: tuple[str, ...] | None = None
    """Class names in the order of the outputs (`--labels`); None: those of its config.json."""
    fingerprint: str | None = None
    """Fingerprint of its shape, weights and vocabulary; None: computed from the checkpoint."""
    tolerance: float = 0.1
    """Unused, since there is one exit."""
    family: ClassVar[str] = "checkpoint"
    policy: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Raise ValueError for a value outside its range."""
        if not 0 < self.tolerance < float("inf"):
            raise ValueError(f"tolerance {self.tolerance}: expected a positive number")

    def revisions(self) -> dict[str, int]:
        """Return the revision of the only stage, which trains nothing."""
        return {"read": ReadCheckpoint.revision}

    def external_inputs(self) -> ExternalInputs:
        """Return no external inputs: the backbone is the checkpoint."""
        return ExternalInputs()

    def resolved(self, backbone: Backbone) -> Self:
        """Return a copy with the checkpoint's class names and fingerprint.

        Raises: HarnessError for a backbone without weights.
        """
        if backbone.folder is None:
            raise HarnessError(
                f"backbone {backbone.name} has random weights: "
                "give a fine-tuned classifier as --checkpoint FOLDER or OWNER/NAME"
            )
        labels = class_names(backbone.folder) if self.labels is None else self.labels
        return replace(self, labels=labels, fingerprint=backbone.fingerprint)

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """Build a model of the checkpoint's shape.

        Raises: HarnessError if its class names are known and are not the task's labels.
        """
        if self.labels is not None:
            label_positions(self.labels, task)
        return EncoderModel(checkpoint_config(backbone, task))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Load the checkpoint.

        Raises: HarnessError if its classes are not the task's, or if its weights lack a classifier.
        """
        labels = self.resolved(backbone).labels
        assert labels is not None
        return Fitted(
            context.fitted(
                ReadCheckpoint("read", label_positions(labels, data.task)), data, backbone
            )
        )


@dataclass(frozen=True)
class ReadCheckpoint:
    """Stage that loads a checkpoint and trains nothing."""

    name: str
    places: tuple[int, ...]
    """Position of each of the task's labels among the checkpoint's classes."""
    revision: ClassVar[int] = 1

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Load the weights and report 0 training examples."""
        model, report = fine_tuned(backbone, checkpoint_config(backbone, data.task), self.places)
        return FreshFit(model, Training(0, 0, 0.0, 0.0, (), 0), report)


CHECKPOINT = Checkpoint()
