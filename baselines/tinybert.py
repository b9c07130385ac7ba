"""TinyBERT (Jiao et al., Findings of EMNLP 2020): a shallow and narrow student that learns what happens inside its teacher."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from baselines.bert import Bert
from baselines.distillation.augmentation import (
    AUGMENTATION_REVISION,
    Augmentation,
    augmented,
    check_vocabulary,
)
from baselines.distillation.masked_lm import MaskedLm, Pieces, masked_lm
from baselines.distillation.stages import PredictionDistillation
from baselines.distillation.students import Start, check_published, initial_student, published
from baselines.encoders.encoder import EncoderModel, Head
from baselines.encoders.layer import EncoderLayer
from baselines.encoders.weights import pretrained
from baselines.training.finetune import last_only, model_config
from baselines.training.loop import Examples, train
from baselines.training.losses import attention_loss, hidden_loss
from baselines.training.recipe import Recipe, Schedule
from baselines.training.search import fit_best_rate
from baselines.training.steps import bounded
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
    """Which of a teacher's inner states a student learns (section 3.1)."""

    attention: bool = True
    """Attention scores before the soft-max (equation 7)."""
    hidden: bool = True
    """Hidden states through a learned projection (equation 8)."""
    embedding: bool = True
    """The embedding's output through one (equation 9)."""

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to learn."""
        return not (self.attention or self.hidden or self.embedding)


@dataclass(frozen=True)
class TinyBert(Recipe):
    """General distillation on the corpus; then, on the task's augmented rows, the teacher's inside and last its answers (section 3).

    Differs from the paper: the two parts on the task have a bounded number of steps by default, so that they end on a small machine, and
    the learning rate of the last is chosen by `selection`. From the authors' code: losses are means over real tokens (theirs count
    padding), each compared state has a projection of its own (as in the models they published), layers of any two depths are mapped,
    projections are not kept from one part to the next, the sentences of a row of the corpus are strangers to one another (theirs: one
    document's), and on a regression the last part learns the teacher's answers as on any task (theirs: the labels). Where the masked-LM
    head tells less than `FEWEST_RIGHT` of held-out words, augmentation takes neighbours alone; the record says so, and how many it tells.
    """

    layers: float = 1 / 3
    """Share of the backbone's layers that the student has. With the next two TinyBERT-4L-312 of BERT-base."""
    width: float = 13 / 32
    """Share of the hidden size, to the nearest multiple of the number of heads, which stays: attention is compared head by head."""
    ffn: float = 25 / 64
    """Share of each layer's feed-forward neurons."""
    checkpoint: str | None = None
    """A backbone of the table that the student is after general distillation: TinyBERT_General_4L_312D, TinyBERT_General_6L_768D."""
    general: bool = True
    """Distil on the corpus first; False: the student begins with random weights."""
    general_epochs: int = 3
    """Passes over the corpus (the authors' default: 3)."""
    general_batch: int = 64
    """Rows per step of that (the authors' README: 256)."""
    general_rate: float = 2e-4
    """Its learning rate (the authors' default: 5e-5, on millions of sentences)."""
    intermediate_steps: int | None = 3_000
    """Bound on the steps that learn the teacher's inside on the task; None: `intermediate_epochs`."""
    intermediate_epochs: int = 20
    """Passes over the augmented rows without a bound (paper: 20; the authors' README: 10)."""
    intermediate_rate: float = 2e-4
    """Learning rate of that part, from the first step to the last, as in the authors' code (paper: 5e-5, on more than ten times as many
    steps; after 400 steps on MRPC the loss is 5.5 at that rate, 4.7 at this one)."""
    prediction_steps: int | None = 1_000
    """Bound on the steps that learn the teacher's answers; None: `epochs`, which count for nothing else."""
    augmentation: int = 20
    """Altered copies of each training row (algorithm 1: N); 0 for none."""
    replaced: float = 0.4
    """Probability that a copy has another word in the place of one (p_t)."""
    candidates: int = 15
    """Words that may stand there (K)."""
    attention: bool = True
    """Learn attention scores before the soft-max (equation 7)."""
    hidden: bool = True
    """Learn hidden states (equation 8)."""
    embedding: bool = True
    """Learn the embedding's output (equation 9)."""
    prediction: bool = True
    """Learn the teacher's answers (equation 10); False: the labels in their place, of altered rows those of the rows they were."""
    teacher: Bert = field(default_factory=Bert)
    """The reference's own cached stage."""
    head: Head = "dense"
    """As the reference's."""
    family: ClassVar[str] = "tinybert"

    def __post_init__(self) -> None:
        """Raises: ValueError for a value outside its range."""
        super().__post_init__()
        shares = {
            "layers": self.layers,
            "width": self.width,
            "ffn": self.ffn,
            "replaced": self.replaced,
        }
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} {share}: wanted a share above 0, up to 1")
        counts = {"general_epochs": self.general_epochs, "general_batch": self.general_batch}
        counts |= {"candidates": self.candidates, "intermediate_epochs": self.intermediate_epochs}
        bounds = {
            "intermediate_steps": self.intermediate_steps,
            "prediction_steps": self.prediction_steps,
        }
        counts |= {name: steps for name, steps in bounds.items() if steps is not None}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} {count}: wanted 1 or more")
        if self.augmentation < 0:
            raise ValueError(f"augmentation {self.augmentation}: wanted 0 or more copies")
        if min(self.general_rate, self.intermediate_rate) <= 0:
            raise ValueError(
                f"general_rate {self.general_rate}, intermediate_rate {self.intermediate_rate}: wanted positive numbers"
            )
        check_published(self.checkpoint)

    def external_inputs(self) -> ExternalInputs:
        """The corpus for general distillation and for the words that augmentation puts in, word vectors for these alone."""
        return ExternalInputs(
            self._distils_on_corpus or self.augmentation > 0, self.augmentation > 0, self.checkpoint
        )

    def resolved(self, backbone: Backbone) -> Self:
        """With the backbone's own values where a field is None, in the teacher too, and `general` as it comes out.

        Raises: HarnessError for a published student with another number of heads.
        """
        heads, own = self._shape(backbone).heads[0], backbone.shape.heads[0]
        if self.attention and heads != own:
            raise HarnessError(
                f"attention is compared head by head: the student has {heads} heads, backbone {backbone.name} has {own}"
            )
        return replace(
            super().resolved(backbone),
            general=self._distils_on_corpus,
            teacher=self.teacher.resolved(backbone),
        )

    def revisions(self) -> dict[str, int]:
        """The stages of `fit`."""
        used = {
            "masked-lm": MaskedLm.revision if self.augmentation else 0,
            "augmentation": AUGMENTATION_REVISION if self.augmentation else 0,
            "start": Start.revision if self.checkpoint else 0,
            "general": IntermediateDistillation.revision if self._distils_on_corpus else 0,
            "intermediate": 0 if self._inside.nothing else IntermediateDistillation.revision,
            "prediction": PredictionDistillation.revision,
        }
        return self.teacher.revisions() | {
            name: revision for name, revision in used.items() if revision
        }

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """The student with one exit."""
        return initial_student((), self._shape(backbone), self.head, task, backbone)[0]

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """General distillation once, then both parts on the task, the last at the learning rate that `selection` prefers."""
        self._check(backbone)
        taught = self.teacher.fit(data, backbone, context)
        words = masked_lm(backbone, data.max_length, context) if self.augmentation else None
        how = Augmentation(self.augmentation, self.replaced, self.candidates)
        rows = augmented(data, backbone, how, words, context) if words is not None else data

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            teacher = self.teacher.fit(data, backbone, at).stage
            start = self._start(data, backbone, at)
            if not self._inside.nothing:
                plain = self.schedules(backbone)[0]
                rate = self.intermediate_rate
                schedule = replace(
                    plain,
                    epochs=self.intermediate_epochs,
                    learning_rate=rate,
                    warmup=0.0,
                    decay=False,
                )
                inside = IntermediateDistillation(
                    "intermediate",
                    self._shape(backbone),
                    self._inside,
                    self.intermediate_steps,
                    schedule,
                )
                start = (at.fitted(inside, rows, backbone, (*start, teacher)),)
            return *start, teacher

        def stage(schedule: Schedule) -> PredictionDistillation:
            soft = float(self.prediction)
            return PredictionDistillation(
                "prediction",
                self._shape(backbone),
                self.head,
                soft,
                1.0,
                self.prediction_steps,
                schedule,
            )

        fitted, trials = fit_best_rate(
            stage, self.schedules(backbone), rows, backbone, context, parents
        )
        if words is None:
            return Fitted(fitted, taught.trials + trials)
        return Fitted(
            fitted,
            taught.trials + trials,
            (words.stage,),
            words.remarks("augmentation takes neighbours alone"),
        )

    @property
    def _inside(self) -> IntermediateLosses:
        return IntermediateLosses(
            attention=self.attention, hidden=self.hidden, embedding=self.embedding
        )

    @property
    def _distils_on_corpus(self) -> bool:
        return self.general and self.checkpoint is None and not self._inside.nothing

    def _shape(self, backbone: Backbone) -> EncoderShape:
        if self.checkpoint is not None:
            return find_backbone(self.checkpoint).shape
        return smaller(backbone.shape, self.layers, self.width, self.ffn)

    def _check(self, backbone: Backbone) -> None:
        """Raises: HarnessError, before anything is fitted, for a published student or a vocabulary that does not fit."""
        if self.checkpoint is not None:
            published(self.checkpoint, backbone)
        if self.augmentation:
            check_vocabulary(backbone)
            Pieces.of(backbone)

    def _start(
        self, data: TaskData, backbone: Backbone, context: FitContext
    ) -> tuple[FittedStage, ...]:
        """The student before it has seen the task; nothing where it begins with random weights."""
        if self.checkpoint is not None:
            return (context.fitted(published(self.checkpoint, backbone), data, backbone),)
        if not self._distils_on_corpus:
            return ()
        plain = self.schedules(backbone)[0]
        schedule = replace(
            plain,
            epochs=self.general_epochs,
            batch_size=self.general_batch,
            learning_rate=self.general_rate,
        )
        stage = IntermediateDistillation(
            "general", self._shape(backbone), self._inside, None, schedule
        )
        return (context.pretrained(stage, backbone, data.max_length),)


def smaller(shape: EncoderShape, layers: float, width: float, ffn: float) -> EncoderShape:
    """The student's shape: as many heads as the teacher, each of them smaller."""
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
    """For each layer of the student, from 1, the teacher's that it learns from, the last from the last (the paper's uniform mapping)."""
    return tuple(max(layer * teacher // student, 1) for layer in range(1, student + 1))


class Pupil(nn.Module):
    """A student with what only its lessons need: a projection of each compared state to the teacher's width."""

    def __init__(self, student: EncoderModel, width: int) -> None:
        super().__init__()
        self.student = student
        own = student.config.shape
        self.projections = nn.ModuleList(
            nn.Linear(own.hidden, width) for _ in range(own.layers + 1)
        )


@dataclass(frozen=True)
class IntermediateDistillation:
    """Train a student on its teacher's inner states. Parents: where the student begins, and the teacher; without the first the student is
    random, without both the teacher is the backbone with its pretrained weights."""

    name: str
    shape: EncoderShape
    inside: IntermediateLosses
    steps: int | None
    """Bound on optimiser steps; None: the schedule's epochs."""
    schedule: Schedule
    revision: ClassVar[int] = 2

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on train and keep the last epoch: there is no score for hidden states."""
        teacher = _teacher(parents, data.task, backbone)
        student, report = initial_student(parents[:-1], self.shape, "plain", data.task, backbone)
        teacher = teacher.to(run.compute.device).eval().requires_grad_(False)
        pupil = Pupil(student, teacher.config.shape.hidden)
        learned = bounded(data.train, self.schedule, self.steps)

        def loss(pupil: Pupil, examples: Examples) -> Tensor:
            return intermediate_loss(pupil, teacher, self.inside, examples)

        training = train(pupil, loss, learned.parts, None, learned.schedule, run)
        return FreshFit(student, training, report)


def _teacher(parents: tuple[MultiExitModel, ...], task: Task, backbone: Backbone) -> EncoderModel:
    if not parents:
        return pretrained(
            backbone, model_config(backbone, task, last_only(backbone.shape, "plain"))
        )[0]
    teacher = parents[-1]
    assert isinstance(teacher, EncoderModel)
    return teacher


def intermediate_loss(
    pupil: Pupil, teacher: EncoderModel, inside: IntermediateLosses, examples: Examples
) -> Tensor:
    """Sum of the losses on the embedding's output, on hidden states and on attention scores of the layers that are compared."""
    student, mask = pupil.student, examples.batch.mask
    own = student(examples.batch).hiddens
    with torch.no_grad():
        wanted = teacher(examples.batch).hiddens
    places = layer_map(len(own) - 1, len(wanted) - 1)
    value = own[0].new_zeros((), dtype=torch.float32)
    projected = [project(state) for project, state in zip(pupil.projections, own, strict=True)]
    if inside.embedding:
        value = value + hidden_loss(projected[:1], wanted[:1], mask)
    if inside.hidden:
        value = value + hidden_loss(projected[1:], [wanted[place] for place in places], mask)
    if inside.attention:
        context = LayerContext.of(mask)
        scores = [_scores(student, layer, own, context) for layer in range(1, len(own))]
        with torch.no_grad():
            theirs = [_scores(teacher, place, wanted, context) for place in places]
        value = value + attention_loss(scores, theirs, mask)
    return value


def _scores(
    model: EncoderModel,
    number: int,
    hiddens: tuple[Tensor, ...],
    context: LayerContext,
) -> Tensor:
    """Attention scores [n, h, t, t] of a layer, from 1."""
    layer = model.layers[number - 1]
    assert isinstance(layer, EncoderLayer)
    return layer.attention_scores(hiddens[number - 1], context)


TINYBERT = TinyBert()
"""TinyBERT-4L-312 of BERT-base; 2 layers x 156 of MiniLM."""
TINYBERT_6L = TinyBert(layers=1 / 2, width=1, ffn=1)
"""TinyBERT-6L-768 of BERT-base."""
TINYBERT_HALF = TinyBert(layers=2 / 3, width=1 / 2, ffn=1 / 2)
"""4 layers x 192 of MiniLM."""
TINYBERT_PAPER = TinyBert(
    general_batch=256,
    general_rate=5e-5,
    intermediate_steps=None,
    intermediate_rate=5e-5,
    prediction_steps=None,
    epochs=3,
    learning_rates=(1e-5, 2e-5, 3e-5),
)
"""TinyBERT-4L-312 by the paper's schedule: 20 passes, then 3 (numbers of passes and maximum lengths of single tasks, and the choice of
batch sizes, are not in it)."""
