"""Classifiers fine-tuned elsewhere, measured as they are, without training."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from baselines.encoders.encoder import EncoderModel, ExitActivation, ModelConfig, Output
from baselines.encoders.weights import fine_tuned
from baselines.training.finetune import single_exit
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.files.digests import added_field
from harness.methods.protocol import ExternalInputs
from harness.methods.stages import FitContext, Fitted, FreshFit, StageRun
from harness.models.backbones import Backbone
from harness.models.checkpoint_files import CONFIG, read_json
from harness.models.label_names import class_names, label_positions
from harness.models.multi_exit import MultiExitModel
from harness.records import Training

EXIT_ACTIVATIONS: dict[str, ExitActivation] = {"distilbert": "relu", "electra": "gelu"}
"""Activation before the classifier, for families where it is not tanh."""


OUTPUTS: dict[str, Output] = {"Sigmoid": "sigmoid", "Identity": "linear"}
"""Outputs by the names of torch's modules, which cross-encoders of sentence-transformers have."""


def output_function(folder: Path) -> Output:
    """Return the function that a cross-encoder's config.json names for its output, else linear.

    Raises: HarnessError for a function that is not supported.
    """
    config: dict[str, object] = {**read_json(folder / CONFIG)}
    section = config.get("sentence_transformers")
    name = section.get("activation_fn") if isinstance(section, dict) else None
    name = name or config.get("sbert_ce_default_activation_function") or "Identity"
    kind = str(name).rpartition(".")[2]
    if kind not in OUTPUTS:
        raise HarnessError(
            f"{folder / CONFIG}: the output's function is {name}, expected {' or '.join(OUTPUTS)}"
        )
    return OUTPUTS[kind]


def checkpoint_config(backbone: Backbone, task: Task, output: Output = "linear") -> ModelConfig:
    """Return the config of a transformers sequence classifier of the backbone's family.

    A regression predicts in label units: a sigmoid's range from 0 to 1 becomes the labels' range.
    """
    low, high = task.label_range if output == "sigmoid" else (0.0, 1.0)
    exits = single_exit(backbone.shape, "dense")
    return ModelConfig(
        backbone.shape,
        "cls",
        task.classes,
        high - low,
        exits,
        exit_activation=EXIT_ACTIVATIONS.get(backbone.family, "tanh"),
        output=output,
        offset=low,
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
    output: Output = added_field("linear")
    """Function of a regression's output, from its config.json."""
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
        """Return a copy with the checkpoint's class names, fingerprint and output.

        A classifier's output stays linear: its largest logit is its prediction.

        Raises: HarnessError for a backbone without weights, and for an unsupported output.
        """
        if backbone.folder is None:
            raise HarnessError(
                f"backbone {backbone.name} has random weights: "
                "give a fine-tuned classifier as --checkpoint FOLDER or OWNER/NAME"
            )
        labels = class_names(backbone.folder) if self.labels is None else self.labels
        output = output_function(backbone.folder) if len(labels) == 1 else "linear"
        return replace(self, labels=labels, fingerprint=backbone.fingerprint, output=output)

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """Build a model of the checkpoint's shape.

        Raises: HarnessError if its class names are known and are not the task's labels.
        """
        if self.labels is not None:
            label_positions(self.labels, task)
        return EncoderModel(checkpoint_config(backbone, task, self.output))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Load the checkpoint.

        Raises: HarnessError if its classes are not the task's, or if its weights lack a classifier.
        """
        known = self.resolved(backbone)
        assert known.labels is not None
        places = label_positions(known.labels, data.task)
        return Fitted(context.fitted(ReadCheckpoint("read", places, known.output), data, backbone))


@dataclass(frozen=True)
class ReadCheckpoint:
    """Stage that loads a checkpoint and trains nothing."""

    name: str
    places: tuple[int, ...]
    """Position of each of the task's labels among the checkpoint's classes."""
    output: Output = added_field("linear")
    revision: ClassVar[int] = 1

    def examples(self, rows: int) -> int:
        """Return the number of examples of all trainings: none."""
        return 0

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Load the weights and report 0 training examples."""
        config = checkpoint_config(backbone, data.task, self.output)
        model, report = fine_tuned(backbone, config, self.places)
        return FreshFit(model, Training(0, 0, 0.0, 0.0, (), 0), report)


CHECKPOINT = Checkpoint()
