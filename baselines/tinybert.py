"""TinyBERT: a shallow, narrow student trained by intermediate-layer distillation.

Source: Jiao et al., Findings of EMNLP 2020.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from baselines.bert import Bert
from baselines.distillation.augmentation import (
    AUGMENTATION_REVISION,
    Augmentation,
    augmented,
    word_piece_tokenizer,
)
from baselines.distillation.masked_lm import MaskedLm, Pieces, masked_lm
from baselines.distillation.stages import PredictionDistillation
from baselines.distillation.students import (
    Start,
    check_published,
    initial_student,
    published_student,
)
from baselines.encoders.encoder import EncoderModel, Head
from baselines.encoders.layer import EncoderLayer
from baselines.encoders.weights import pretrained
from baselines.training.finetune import model_config, single_exit
from baselines.training.loop import Examples, train
from baselines.training.losses import attention_loss, hidden_loss
from baselines.training.recipe import Recipe, Schedule
from baselines.training.search import fit_best_rate
from baselines.training.steps import limit_steps
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.methods.protocol import ExternalInputs
from harness.methods.stages import FitContext, Fitted, FittedStage, FreshFit, StageRun
from harness.models.backbones import Backbone, find_backbone
from harness.models.multi_exit import LayerContext, MultiExitModel
from harness.models.shapes import EncoderShape


@dataclass(frozen=True)
class IntermediateLosses:
    """Switches of the losses between intermediate layers (section 3.1)."""

    attention: bool = True
    """Compare attention scores before the softmax (equation 7)."""
    hidden: bool = True
    """Compare hidden states after a learned projection (equation 8)."""
    embedding: bool = True
    """Compare embedding outputs after a learned projection (equation 9)."""

    @property
    def all_off(self) -> bool:
        """Whether every loss is off."""
        return not (self.attention or self.hidden or self.embedding)


@dataclass(frozen=True)
class TinyBert(Recipe):
    """Distil intermediate layers on the corpus, then, on the augmented task, those and predictions.

    The three phases are general, intermediate-layer and prediction-layer distillation (section 3).
    Differs from the paper: both phases on the task have a bounded number of steps by default, so
    that they finish on a small machine; the learning rate of the last is chosen on `selection`.
    Differs from the authors' code: losses are means over real tokens (theirs: padding too); each
    compared state has its own projection (as in their published models); student and teacher may
    have any depths; projections are not carried over to the next phase; the sentences in an example
    of the corpus are unrelated (theirs: from one document); for regression the last phase learns
    the teacher's predictions as for any task (theirs: the labels).
    If the masked-LM head predicts less than 30 % of held-out masked words (`MIN_MASKED_ACCURACY`),
    augmentation uses only nearest words by word vectors, and the record notes the accuracy.
    """

    layers: float = 1 / 3
    """Share of the backbone's layers in the student.

    The defaults of `layers`, `width` and `ffn` make TinyBERT-4L-312 from BERT-base."""
    width: float = 13 / 32
    """Share of the hidden size, rounded to a multiple of the number of heads.

    The number of heads is the backbone's, because attention is compared head by head."""
    ffn: float = 25 / 64
    """Share of the feed-forward neurons in each layer."""
    checkpoint: str | None = None
    """Name of a published student to use instead of general distillation
    (TinyBERT_General_4L_312D, TinyBERT_General_6L_768D)."""
    general: bool = True
    """Distil on the corpus first; False: the student starts from random weights."""
    general_epochs: int = 3
    """Passes over the corpus (default of the authors' code: 3)."""
    general_batch: int = 64
    """Examples per step of general distillation (authors' README: 256)."""
    general_rate: float = 2e-4
    """Learning rate of general distillation (authors' default: 5e-5, on millions of sentences)."""
    intermediate_steps: int | None = 3_000
    """Steps of intermediate-layer distillation on the task; None: `intermediate_epochs` passes."""
    intermediate_epochs: int = 20
    """Passes over the augmented examples without a step bound (paper: 20; authors' README: 10)."""
    intermediate_rate: float = 2e-4
    """Constant learning rate of intermediate-layer distillation on the task.

    It is constant in the authors' code too. The paper uses 5e-5, for more than ten times as many
    steps; after 400 steps on MRPC the loss is 5.5 at 5e-5 and 4.7 at 2e-4."""
    prediction_steps: int | None = 1_000
    """Steps of prediction-layer distillation; None: `epochs` passes (`epochs` has no other use)."""
    augmentation: int = 20
    """Altered copies of each training example (algorithm 1: N); 0 turns augmentation off."""
    replaced: float = 0.4
    """Probability that a word is replaced in a copy (p_t)."""
    candidates: int = 15
    """Candidate words for each replaced word (K)."""
    attention: bool = True
    """Distil attention scores before the softmax (equation 7)."""
    hidden: bool = True
    """Distil hidden states (equation 8)."""
    embedding: bool = True
    """Distil the embedding's output (equation 9)."""
    prediction: bool = True
    """Distil the teacher's predictions (equation 10); False: train on the labels instead.

    An altered example has the label of its original."""
    teacher: Bert = field(default_factory=Bert)
    """Settings of the teacher, which is the reference's own cached stage."""
    head: Head = "dense"
    """Exit head, as in the reference."""
    family: ClassVar[str] = "tinybert"

    def __post_init__(self) -> None:
        """Raise ValueError for a value outside its range."""
        super().__post_init__()
        shares = {
            "layers": self.layers,
            "width": self.width,
            "ffn": self.ffn,
            "replaced": self.replaced,
        }
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} {share}: expected a share above 0, up to 1")
        counts = {"general_epochs": self.general_epochs, "general_batch": self.general_batch}
        counts |= {"candidates": self.candidates, "intermediate_epochs": self.intermediate_epochs}
        bounds = {
            "intermediate_steps": self.intermediate_steps,
            "prediction_steps": self.prediction_steps,
        }
        counts |= {name: steps for name, steps in bounds.items() if steps is not None}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} {count}: expected 1 or more")
        if self.augmentation < 0:
            raise ValueError(f"augmentation {self.augmentation}: expected 0 or more copies")
        if min(self.general_rate, self.intermediate_rate) <= 0:
            raise ValueError(
                f"general_rate {self.general_rate}, intermediate_rate {self.intermediate_rate}: "
                "expected positive numbers"
            )
        check_published(self.checkpoint)

    def external_inputs(self) -> ExternalInputs:
        """Return the external inputs of general distillation and augmentation.

        Both read the corpus; only augmentation reads word vectors.
        """
        return ExternalInputs(
            self._distils_on_corpus or self.augmentation > 0, self.augmentation > 0, self.checkpoint
        )

    def resolved(self, backbone: Backbone) -> Self:
        """Return a copy with the backbone's values where a field is None, in the teacher too.

        `general` becomes False if nothing is distilled on the corpus.
        Raises: HarnessError for a published student with another number of heads.
        """
        heads, expected = self._shape(backbone).heads[0], backbone.shape.heads[0]
        if self.attention and heads != expected:
            raise HarnessError(
                f"the student has {heads} heads, backbone {backbone.name} has {expected}; "
                "attention is compared head by head: give another student or set "
                "tinybert.attention=false"
            )
        return replace(
            super().resolved(backbone),
            general=self._distils_on_corpus,
            teacher=self.teacher.resolved(backbone),
        )

    def revisions(self) -> dict[str, int]:
        """Return the revisions of the stages that `fit` runs."""
        used = {
            "masked-lm": MaskedLm.revision if self.augmentation else 0,
            "augmentation": AUGMENTATION_REVISION if self.augmentation else 0,
            "start": Start.revision if self.checkpoint else 0,
            "general": IntermediateDistillation.revision if self._distils_on_corpus else 0,
            "intermediate": 0 if self._losses.all_off else IntermediateDistillation.revision,
            "prediction": PredictionDistillation.revision,
        }
        return self.teacher.revisions() | {
            name: revision for name, revision in used.items() if revision
        }

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """Build the student with one exit."""
        return initial_student((), self._shape(backbone), self.head, task, backbone)[0]

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Run general distillation once, then both phases on the task.

        The last phase has the learning rate that scores best on `selection`.
        """
        self._check(backbone)
        teacher_fit = self.teacher.fit(data, backbone, context)
        language_model = (
            masked_lm(backbone, data.max_length, context) if self.augmentation else None
        )
        settings = Augmentation(self.augmentation, self.replaced, self.candidates)
        train_data = (
            augmented(data, backbone, settings, language_model, context)
            if language_model is not None
            else data
        )

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            teacher = self.teacher.fit(data, backbone, at).stage
            start = self._start(data, backbone, at)
            if not self._losses.all_off:
                schedule = replace(
                    self.schedules(backbone)[0],
                    epochs=self.intermediate_epochs,
                    learning_rate=self.intermediate_rate,
                    warmup=0.0,
                    decay=False,
                )
                intermediate = IntermediateDistillation(
                    "intermediate",
                    self._shape(backbone),
                    self._losses,
                    self.intermediate_steps,
                    schedule,
                )
                start = (at.fitted(intermediate, train_data, backbone, (*start, teacher)),)
            return *start, teacher

        def stage(schedule: Schedule) -> PredictionDistillation:
            return PredictionDistillation(
                "prediction",
                self._shape(backbone),
                self.head,
                float(self.prediction),
                1.0,
                self.prediction_steps,
                schedule,
            )

        fitted, trials = fit_best_rate(
            stage, self.schedules(backbone), train_data, backbone, context, parents
        )
        trials = teacher_fit.trials + trials
        if language_model is None:
            return Fitted(fitted, trials)
        remarks = language_model.remarks("augmentation uses only nearest words by word vectors")
        return Fitted(fitted, trials, (language_model.stage,), remarks)

    @property
    def _losses(self) -> IntermediateLosses:
        return IntermediateLosses(
            attention=self.attention, hidden=self.hidden, embedding=self.embedding
        )

    @property
    def _distils_on_corpus(self) -> bool:
        return self.general and self.checkpoint is None and not self._losses.all_off

    def _shape(self, backbone: Backbone) -> EncoderShape:
        if self.checkpoint is not None:
            return find_backbone(self.checkpoint).shape
        return smaller(backbone.shape, self.layers, self.width, self.ffn)

    def _check(self, backbone: Backbone) -> None:
        """Raise HarnessError for a published student or a vocabulary that does not fit."""
        if self.checkpoint is not None:
            published_student(self.checkpoint, backbone)
        if self.augmentation:
            word_piece_tokenizer(backbone)
            Pieces.of(backbone)

    def _start(
        self, data: TaskData, backbone: Backbone, context: FitContext
    ) -> tuple[FittedStage, ...]:
        """Return the student before it is trained on the task; none if its weights are random."""
        if self.checkpoint is not None:
            return (context.fitted(published_student(self.checkpoint, backbone), data, backbone),)
        if not self._distils_on_corpus:
            return ()
        schedule = replace(
            self.schedules(backbone)[0],
            epochs=self.general_epochs,
            batch_size=self.general_batch,
            learning_rate=self.general_rate,
        )
        stage = IntermediateDistillation(
            "general", self._shape(backbone), self._losses, None, schedule
        )
        return (context.pretrained(stage, backbone, data.max_length),)


def smaller(shape: EncoderShape, layers: float, width: float, ffn: float) -> EncoderShape:
    """Return the shape of a student with as many heads as the teacher, each of them smaller."""
    depth = max(round(layers * shape.layers), 1)
    size = max(round(width * shape.hidden / shape.heads[0]), 1)
    neurons = max(round(ffn * shape.ffn[0]), 1)
    return replace(
        shape,
        hidden=size * shape.heads[0],
        head_size=size,
        heads=(shape.heads[0],) * depth,
        ffn=(neurons,) * depth,
        embedding_rank=None,
    )


def layer_map(student: int, teacher: int) -> tuple[int, ...]:
    """Return the teacher's layer for each layer of the student, both counted from 1.

    This is the paper's uniform mapping: the last layer learns from the last.
    """
    return tuple(max(layer * teacher // student, 1) for layer in range(1, student + 1))


class ProjectedStudent(nn.Module):
    """A student with a projection of each compared state to the teacher's width, for training."""

    def __init__(self, student: EncoderModel, width: int) -> None:
        super().__init__()
        self.student = student
        shape = student.config.shape
        self.projections = nn.ModuleList(
            nn.Linear(shape.hidden, width) for _ in range(shape.layers + 1)
        )


@dataclass(frozen=True)
class IntermediateDistillation:
    """Train a student on its teacher's intermediate layers.

    The parents are the initial student and the teacher; without the former the student has random
    weights, without both the teacher is the pretrained backbone.
    """

    name: str
    shape: EncoderShape
    inside: IntermediateLosses
    """The losses to minimise."""
    steps: int | None
    """Number of optimiser steps; None: the schedule's epochs."""
    schedule: Schedule
    revision: ClassVar[int] = 2

    def examples(self, rows: int) -> int:
        """Return the number of examples of all steps."""
        return self.schedule.examples(rows, self.steps)

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on the train split and keep the last epoch, since hidden states have no score."""
        teacher = _teacher(parents, data.task, backbone)
        student, report = initial_student(parents[:-1], self.shape, "plain", data.task, backbone)
        teacher = teacher.to(run.compute.device).eval().requires_grad_(False)
        model = ProjectedStudent(student, teacher.config.shape.hidden)
        plan = limit_steps(data.train, self.schedule, self.steps)

        def loss(model: ProjectedStudent, examples: Examples) -> Tensor:
            return intermediate_loss(model, teacher, self.inside, examples)

        training = train(model, loss, plan.parts, None, plan.schedule, run)
        return FreshFit(student, training, report)


def _teacher(parents: tuple[MultiExitModel, ...], task: Task, backbone: Backbone) -> EncoderModel:
    if not parents:
        config = model_config(backbone, task, single_exit(backbone.shape, "plain"))
        return pretrained(backbone, config)[0]
    teacher = parents[-1]
    assert isinstance(teacher, EncoderModel)
    return teacher


def intermediate_loss(
    model: ProjectedStudent, teacher: EncoderModel, losses: IntermediateLosses, examples: Examples
) -> Tensor:
    """Return the sum of the losses on embeddings, hidden states and attention scores."""
    student, mask = model.student, examples.batch.mask
    hiddens = student(examples.batch).hiddens
    with torch.no_grad():
        targets = teacher(examples.batch).hiddens
    layers = layer_map(len(hiddens) - 1, len(targets) - 1)
    value = hiddens[0].new_zeros((), dtype=torch.float32)
    projected = [project(state) for project, state in zip(model.projections, hiddens, strict=True)]
    if losses.embedding:
        value = value + hidden_loss(projected[:1], targets[:1], mask)
    if losses.hidden:
        value = value + hidden_loss(projected[1:], [targets[layer] for layer in layers], mask)
    if losses.attention:
        context = LayerContext.of(mask)
        scores = [_scores(student, layer, hiddens, context) for layer in range(1, len(hiddens))]
        with torch.no_grad():
            expected = [_scores(teacher, layer, targets, context) for layer in layers]
        value = value + attention_loss(scores, expected, mask)
    return value


def _scores(
    model: EncoderModel, layer: int, hiddens: tuple[Tensor, ...], context: LayerContext
) -> Tensor:
    """Return the attention scores [n, h, t, t] of a layer, counted from 1."""
    module = model.layers[layer - 1]
    assert isinstance(module, EncoderLayer)
    return module.attention_scores(hiddens[layer - 1], context)


TINYBERT = TinyBert()
"""TinyBERT-4L-312 from BERT-base; 2 layers x 156 from MiniLM."""
TINYBERT_6L = TinyBert(layers=1 / 2, width=1, ffn=1)
"""TinyBERT-6L-768 from BERT-base."""
TINYBERT_HALF = TinyBert(layers=2 / 3, width=1 / 2, ffn=1 / 2)
"""4 layers x 192 from MiniLM."""
TINYBERT_PAPER = TinyBert(
    general_batch=256,
    general_rate=5e-5,
    intermediate_steps=None,
    intermediate_rate=5e-5,
    prediction_steps=None,
    epochs=3,
    learning_rates=(1e-5, 2e-5, 3e-5),
)
"""TinyBERT-4L-312 with the paper's schedule: 20 passes, then 3.

It leaves out the paper's task-specific passes and maximum lengths and its search over batch sizes.
"""
