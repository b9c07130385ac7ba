"""DistilBERT (Sanh et al., 2019): half the layers, distilled while it is pre-trained, then fine-tuned."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from baselines.bert import Bert
from baselines.distillation.masked_lm import (
    MaskedLm,
    Pieces,
    Words,
    maskable,
    masked,
    masked_accuracy,
    masked_lm,
    told,
)
from baselines.distillation.stages import PredictionDistillation
from baselines.distillation.students import (
    Start,
    check_published,
    every_other,
    initial_student,
    published,
    shape_of,
    take_layers,
)
from baselines.encoders.encoder import EncoderModel, Head
from baselines.training.finetune import FineTune, last_only
from baselines.training.loop import Examples, train
from baselines.training.losses import cosine_loss, soft_losses
from baselines.training.recipe import Recipe, Schedule
from baselines.training.search import fit_best_rate
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.methods.protocol import ExternalInputs
from harness.methods.stages import FitContext, Fitted, FittedStage, FreshFit, StageRun
from harness.models.backbones import Backbone, find_backbone
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape


@dataclass(frozen=True)
class DistilBert(Recipe):
    """A student of every other layer of the backbone, distilled on masked words of the corpus (section 2), then fine-tuned on the labels,
    with a teacher against that too (section 4.1, "additional step of distillation").

    Differs from the authors' code: rows of one sentence or several, of many lengths, instead of blocks of 512 tokens, those below four
    words left out; the words' losses at the masked places alone (theirs: the soft one at every token); fewer and smaller steps; rate and
    best epoch of fine-tuning chosen by `selection`. The vector of token type 0 is added to the positions instead of being dropped, so that
    the student of a single text begins with the teacher's own embedding. The task's head is the reference's (authors: [CLS], dense, ReLU).
    """

    layers: float = 1 / 2
    """Share of the backbone's layers that the student has, spread evenly from the first to the last."""
    checkpoint: str | None = None
    """A backbone of the table that the student is, instead of one made and distilled here: distilbert-base-uncased."""
    pretraining: bool = True
    """Distil on the corpus; False: the student begins with the backbone's layers as they are."""
    pretraining_epochs: int = 3
    """Passes over the corpus; the best by held-out masked words is kept (authors: 3)."""
    pretraining_batch: int = 64
    """Rows per step of that (authors: up to 4,000)."""
    pretraining_rate: float = 2e-4
    """Its learning rate (authors: 5e-4). Warm-up, weight decay and clip are those of fine-tuning (authors: 0.05, 0, 5)."""
    soft: float = 5.0
    """Weight of the teacher's answers at masked places. Where the teacher tells less than `FEWEST_RIGHT` of the masked words, this and the
    next are 0, the stage is called distil-cosine and the record says so; words are masked all the same."""
    masked: float = 2.0
    """Weight of the masked words themselves."""
    cosine: float = 1.0
    """Weight of the angle between the last hidden states."""
    temperature: float = 2.0
    """Of every soft answer."""
    teacher: Bert | None = None
    """Who teaches while the student is fine-tuned; None: the labels alone."""
    task_soft: float = 0.5
    """Weight of that teacher's answers; the labels have the rest to 1 (authors: 0.5)."""
    head: Head = "dense"
    """As the reference's."""
    family: ClassVar[str] = "distilbert"

    def __post_init__(self) -> None:
        """Raises: ValueError for a value outside its range."""
        super().__post_init__()
        if not 0 < self.layers <= 1:
            raise ValueError(f"layers {self.layers}: wanted a share above 0, up to 1")
        check_published(self.checkpoint)
        for name, count in {
            "pretraining_epochs": self.pretraining_epochs,
            "pretraining_batch": self.pretraining_batch,
        }.items():
            if count < 1:
                raise ValueError(f"{name} {count}: wanted 1 or more")
        if min(self.pretraining_rate, self.temperature) <= 0:
            raise ValueError(
                f"pretraining_rate {self.pretraining_rate}, temperature {self.temperature}: wanted positive numbers"
            )
        if (
            min(self.soft, self.masked, self.cosine) < 0
            or self.soft + self.masked + self.cosine == 0
        ):
            raise ValueError(
                f"soft {self.soft}, masked {self.masked}, cosine {self.cosine}: wanted weights from 0, one of them above"
            )
        if not 0 <= self.task_soft <= 1:
            raise ValueError(f"task_soft {self.task_soft}: wanted a share from 0 to 1")

    def external_inputs(self) -> ExternalInputs:
        """The corpus, unless pre-training is off or done by others."""
        return ExternalInputs(
            corpus=self.pretraining and self.checkpoint is None, checkpoint=self.checkpoint
        )

    def resolved(self, backbone: Backbone) -> Self:
        """With the backbone's own values where a field is None, in the teacher too."""
        return replace(
            super().resolved(backbone), teacher=self.teacher and self.teacher.resolved(backbone)
        )

    def revisions(self) -> dict[str, int]:
        """The stages of `fit`."""
        start = (
            {"masked-lm": MaskedLm.revision, "distil": MaskedLmDistillation.revision}
            if self.external_inputs().corpus
            else {"start": Start.revision}
        )
        if self.teacher is None:
            return start | {"fine-tune": FineTune.revision}
        return (
            start | self.teacher.revisions() | {"fine-tune-taught": PredictionDistillation.revision}
        )

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """The student with one exit."""
        return initial_student((), self._shape(backbone), self.head, task, backbone)[0]

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Pre-train once, then fine-tune at the learning rate that `selection` prefers."""
        self._check(backbone)
        teacher = self.teacher
        taught = teacher.fit(data, backbone, context) if teacher is not None else None
        words = (
            masked_lm(backbone, data.max_length, context) if self.external_inputs().corpus else None
        )
        shape = self._shape(backbone)

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            start = self._start(words, data, backbone, at)
            return (start,) if teacher is None else (start, teacher.fit(data, backbone, at).stage)

        def stage(schedule: Schedule) -> FineTune | PredictionDistillation:
            if teacher is None:
                return FineTune("fine-tune", last_only(shape, self.head), (1.0,), schedule)
            return PredictionDistillation(
                "fine-tune-taught",
                shape,
                self.head,
                self.task_soft,
                self.temperature,
                None,
                schedule,
            )

        fitted, trials = fit_best_rate(
            stage, self.schedules(backbone), data, backbone, context, parents
        )
        remarks = (
            words.remarks("pre-training learns hidden states alone") if words is not None else ()
        )
        return Fitted(
            fitted, (taught.trials if taught is not None else ()) + trials, remarks=remarks
        )

    def _check(self, backbone: Backbone) -> None:
        """Raises: HarnessError, before anything is fitted, for a published student or a vocabulary that does not fit."""
        if self.checkpoint is not None:
            published(self.checkpoint, backbone)
        elif self.pretraining:
            Pieces.of(backbone)

    def _shape(self, backbone: Backbone) -> EncoderShape:
        kept = every_other(backbone.shape.layers, self.layers)
        return (
            shape_of(backbone.shape, kept)
            if self.checkpoint is None
            else find_backbone(self.checkpoint).shape
        )

    def _start(
        self, words: Words | None, data: TaskData, backbone: Backbone, context: FitContext
    ) -> FittedStage:
        """The student before it has seen the task; `words`: who pre-trains it."""
        kept = every_other(backbone.shape.layers, self.layers)
        if self.checkpoint is not None:
            return context.fitted(published(self.checkpoint, backbone), data, backbone)
        if words is None:
            return context.fitted(Start("start", kept), data, backbone)
        if not words.teach and not self.cosine:
            raise HarnessError(
                f"backbone {backbone.name} tells {words.accuracy:.2f} of masked words: give distilbert.cosine a weight"
            )
        plain = self.schedules(backbone)[0]
        schedule = replace(
            plain,
            epochs=self.pretraining_epochs,
            batch_size=self.pretraining_batch,
            learning_rate=self.pretraining_rate,
        )
        weights = (self.soft, self.masked) if words.teach else (0.0, 0.0)
        name = "distil" if words.teach else "distil-cosine"
        stage = MaskedLmDistillation(name, kept, *weights, self.cosine, self.temperature, schedule)
        return context.pretrained(stage, backbone, data.max_length, (words.stage,))


@dataclass(frozen=True)
class MaskedLmDistillation:
    """Distil a student of some layers of the parent, a model with a masked-LM head, on masked sentences (section 2: "triple loss")."""

    name: str
    kept: tuple[int, ...]
    soft: float
    masked: float
    cosine: float
    temperature: float
    schedule: Schedule
    revision: ClassVar[int] = 2

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on the corpus; the best epoch tells most held-out masked words, without the words' losses it is the last."""
        (parent,) = parents
        assert isinstance(parent, EncoderModel)
        student, pieces = take_layers(parent, self.kept), Pieces.of(backbone)
        teacher = parent.to(run.compute.device).eval().requires_grad_(False)
        rows, held = maskable(data.train, pieces), maskable(data.selection, pieces)

        def loss(model: EncoderModel, examples: Examples) -> Tensor:
            given = masked(examples.batch, pieces)
            own = model(given.batch).hiddens[-1]
            with torch.no_grad():
                wanted = teacher(given.batch).hiddens[-1]
            value = self.cosine * cosine_loss(own, wanted, examples.batch.mask)
            if self.soft or self.masked:
                words = told(model, own, given)
                with torch.no_grad():
                    soft = told(teacher, wanted, given)
                value = (
                    value
                    + self.soft * soft_losses(words[None], soft[None], 1.0, self.temperature).sum()
                )
                value = value + self.masked * functional.cross_entropy(words.float(), given.targets)
            return value

        def score(model: EncoderModel) -> float:
            return masked_accuracy(model, held, pieces, run.compute)

        by_words = score if self.soft or self.masked else None
        return FreshFit(student, train(student, loss, rows, by_words, self.schedule, run))


DISTILBERT = DistilBert()
DISTILBERT_KD = DistilBert(teacher=Bert())
