"""DistilBERT (Sanh et al., 2019): half the layers, distilled in pre-training, then fine-tuned."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from baselines.bert import Bert
from baselines.distillation.masked_lm import (
    MaskedLanguageModel,
    MaskedLm,
    Pieces,
    mask_tokens,
    maskable,
    masked_accuracy,
    masked_lm,
    masked_logits,
)
from baselines.distillation.stages import PredictionDistillation
from baselines.distillation.students import (
    Start,
    check_published,
    every_other,
    initial_student,
    published_student,
    shape_of,
    take_layers,
)
from baselines.encoders.encoder import EncoderModel, Head
from baselines.training.finetune import FineTune, single_exit
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
    """Distil every other layer of the backbone on masked words of the corpus, then fine-tune.

    Section 2 describes the distillation. With a `teacher`, fine-tuning distils from it too
    (section 4.1, "additional step of distillation").
    Differs from the authors' code: the corpus has examples of one or more sentences and of varying
    length instead of blocks of 512 tokens, without those of fewer than four words; both word losses
    use masked positions only (theirs: the soft loss uses every token); there are fewer and smaller
    steps; the learning rate and best epoch of fine-tuning are chosen on `selection`; the vector of
    token type 0 is added to the position embeddings instead of dropped, so that on a single text
    the student's embedding equals the teacher's; the task head is the reference's (theirs: [CLS],
    dense, ReLU).
    """

    layers: float = 1 / 2
    """Share of the backbone's layers in the student, spread evenly from first to last."""
    checkpoint: str | None = None
    """Name of a published student to use instead of distilling one (distilbert-base-uncased)."""
    pretraining: bool = True
    """Distil on the corpus; False: the student starts from the backbone's layers as they are."""
    pretraining_epochs: int = 3
    """Passes over the corpus; the one best at held-out masked words is kept (authors: 3)."""
    pretraining_batch: int = 64
    """Examples per optimiser step of pre-training (authors: up to 4,000)."""
    pretraining_rate: float = 2e-4
    """Learning rate of pre-training (authors: 5e-4).

    Warm-up, weight decay and clip are those of fine-tuning (authors: 0.05, 0, 5)."""
    soft: float = 5.0
    """Weight of the teacher's predictions at masked positions.

    If the teacher predicts less than 30 % of held-out masked words (`MIN_MASKED_ACCURACY`),
    this weight and `masked` are 0, the stage is called distil-cosine and the record notes it; words
    are still masked."""
    masked: float = 2.0
    """Weight of the masked-LM loss against the true words."""
    cosine: float = 1.0
    """Weight of the cosine loss between last hidden states."""
    temperature: float = 2.0
    """Softmax temperature of all soft losses."""
    teacher: Bert | None = None
    """Teacher during fine-tuning; None: fine-tune on the labels only."""
    task_soft: float = 0.5
    """Weight of that teacher's predictions; the labels get 1 minus it (authors: 0.5)."""
    head: Head = "dense"
    """Exit head, as in the reference."""
    family: ClassVar[str] = "distilbert"

    def __post_init__(self) -> None:
        """Raise ValueError for a value outside its range."""
        super().__post_init__()
        if not 0 < self.layers <= 1:
            raise ValueError(f"layers {self.layers}: expected a share above 0, up to 1")
        check_published(self.checkpoint)
        for name, count in {
            "pretraining_epochs": self.pretraining_epochs,
            "pretraining_batch": self.pretraining_batch,
        }.items():
            if count < 1:
                raise ValueError(f"{name} {count}: expected 1 or more")
        if min(self.pretraining_rate, self.temperature) <= 0:
            raise ValueError(
                f"pretraining_rate {self.pretraining_rate}, temperature {self.temperature}: "
                "expected positive numbers"
            )
        if (
            min(self.soft, self.masked, self.cosine) < 0
            or self.soft + self.masked + self.cosine == 0
        ):
            raise ValueError(
                f"soft {self.soft}, masked {self.masked}, cosine {self.cosine}: "
                "expected weights of 0 or more, at least one above 0"
            )
        if not 0 <= self.task_soft <= 1:
            raise ValueError(f"task_soft {self.task_soft}: expected a share from 0 to 1")

    def external_inputs(self) -> ExternalInputs:
        """Return the corpus, unless pre-training is off or a published student is used."""
        return ExternalInputs(
            corpus=self.pretraining and self.checkpoint is None, checkpoint=self.checkpoint
        )

    def resolved(self, backbone: Backbone) -> Self:
        """Return a copy with the backbone's values where a field is None, in the teacher too."""
        return replace(
            super().resolved(backbone), teacher=self.teacher and self.teacher.resolved(backbone)
        )

    def revisions(self) -> dict[str, int]:
        """Return the revisions of the stages that `fit` runs."""
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
        """Build the student with one exit."""
        return initial_student((), self._shape(backbone), self.head, task, backbone)[0]

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Pre-train once, then fine-tune at the learning rate that scores best on `selection`."""
        self._check(backbone)
        teacher = self.teacher
        teacher_fit = teacher.fit(data, backbone, context) if teacher is not None else None
        language_model = (
            masked_lm(backbone, data.max_length, context) if self.external_inputs().corpus else None
        )
        shape = self._shape(backbone)

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            start = self._start(language_model, data, backbone, at)
            return (start,) if teacher is None else (start, teacher.fit(data, backbone, at).stage)

        def stage(schedule: Schedule) -> FineTune | PredictionDistillation:
            if teacher is None:
                return FineTune("fine-tune", single_exit(shape, self.head), (1.0,), schedule)
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
            language_model.remarks("pre-training distils hidden states only")
            if language_model is not None
            else ()
        )
        teacher_trials = teacher_fit.trials if teacher_fit is not None else ()
        return Fitted(fitted, teacher_trials + trials, remarks=remarks)

    def _check(self, backbone: Backbone) -> None:
        """Raise HarnessError for a published student or a vocabulary that does not fit."""
        if self.checkpoint is not None:
            published_student(self.checkpoint, backbone)
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
        self,
        language_model: MaskedLanguageModel | None,
        data: TaskData,
        backbone: Backbone,
        context: FitContext,
    ) -> FittedStage:
        """Return the student before it is trained on the task; `language_model` pre-trains it."""
        kept = every_other(backbone.shape.layers, self.layers)
        if self.checkpoint is not None:
            return context.fitted(published_student(self.checkpoint, backbone), data, backbone)
        if language_model is None:
            return context.fitted(Start("start", kept), data, backbone)
        if not language_model.is_accurate and not self.cosine:
            raise HarnessError(
                f"backbone {backbone.name} predicts {language_model.accuracy:.2f} of masked words, "
                "too few to distil from: set distilbert.cosine above 0"
            )
        schedule = replace(
            self.schedules(backbone)[0],
            epochs=self.pretraining_epochs,
            batch_size=self.pretraining_batch,
            learning_rate=self.pretraining_rate,
        )
        weights = (self.soft, self.masked) if language_model.is_accurate else (0.0, 0.0)
        name = "distil" if language_model.is_accurate else "distil-cosine"
        stage = MaskedLmDistillation(name, kept, *weights, self.cosine, self.temperature, schedule)
        return context.pretrained(stage, backbone, data.max_length, (language_model.stage,))


@dataclass(frozen=True)
class MaskedLmDistillation:
    """Distil some layers of the parent on masked sentences (section 2: "triple loss").

    The parent has a masked-LM head.
    """

    name: str
    kept: tuple[int, ...]
    soft: float
    masked: float
    cosine: float
    temperature: float
    schedule: Schedule
    revision: ClassVar[int] = 2

    def examples(self, rows: int) -> int:
        """Return the number of examples of all epochs."""
        return self.schedule.examples(rows)

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Fit on the corpus and keep the epoch best at held-out masked words.

        Without word losses the last epoch is kept.
        """
        (parent,) = parents
        assert isinstance(parent, EncoderModel)
        student, pieces = take_layers(parent, self.kept), Pieces.of(backbone)
        teacher = parent.to(run.compute.device).eval().requires_grad_(False)
        rows, held_out = maskable(data.train, pieces), maskable(data.selection, pieces)

        def loss(model: EncoderModel, examples: Examples) -> Tensor:
            masked_batch = mask_tokens(examples.batch, pieces)
            hidden = model(masked_batch.batch).hiddens[-1]
            with torch.no_grad():
                teacher_hidden = teacher(masked_batch.batch).hiddens[-1]
            value = self.cosine * cosine_loss(hidden, teacher_hidden, examples.batch.mask)
            if self.soft or self.masked:
                logits = masked_logits(model, hidden, masked_batch)
                with torch.no_grad():
                    teacher_logits = masked_logits(teacher, teacher_hidden, masked_batch)
                soft = soft_losses(logits[None], teacher_logits[None], 1.0, self.temperature)
                value = value + self.soft * soft.sum()
                hard = functional.cross_entropy(logits.float(), masked_batch.targets)
                value = value + self.masked * hard
            return value

        def score(model: EncoderModel) -> float:
            return masked_accuracy(model, held_out, pieces, run.compute)

        epoch_score = score if self.soft or self.masked else None
        return FreshFit(student, train(student, loss, rows, epoch_score, self.schedule, run))


DISTILBERT = DistilBert()
DISTILBERT_KD = DistilBert(teacher=Bert())
