"""TinyBERT (Jiao et al., Findings of EMNLP 2020): a shallow and narrow student that learns what happens inside its teacher."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from baselines.augmentation import AUGMENTATION_REVISION, Augmentation, augmented
from baselines.bert import Bert
from baselines.encoder import EncoderModel, Head, Layer
from baselines.finetune import fit_best_rate, last_only, model_config, selection_of, with_exits
from baselines.losses import attention_loss, exit_losses, hidden_loss, soft_losses
from baselines.masked_lm import MaskedLm, masked_lm
from baselines.students import Start, published
from baselines.teacher import Teacher
from baselines.training import Examples, Recipe, Schedule, train
from baselines.weights import pretrained
from harness.backbones import BACKBONES, Backbone, EncoderShape, find_backbone
from harness.errors import HarnessError, unknown
from harness.model import MultiExitModel
from harness.records import WeightsReport
from harness.stages import Fitted, FittedStage, FreshFit, StageRun, Work
from harness.tasks import Split, Task, TaskData


@dataclass(frozen=True)
class Inside:
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
    padding), each compared state has a projection of its own (as in the models they published), layers of any two depths are mapped, and
    projections are not kept from one part to the next.
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
    """Passes over the corpus (paper: 3)."""
    general_rate: float = 1e-4
    """Learning rate of general distillation."""
    intermediate_steps: int | None = 3_000
    """Bound on the steps that learn the teacher's inside on the task; None: `intermediate_epochs`."""
    intermediate_epochs: int = 20
    """Passes over the augmented rows without a bound (paper: 20; the authors' README: 10)."""
    intermediate_rate: float = 5e-5
    """Learning rate of that part (paper: 5e-5)."""
    prediction_steps: int | None = 1_000
    """Bound on the steps that learn the teacher's answers; None: `epochs`."""
    augmentation: int = 20
    """Altered copies of each training row (section 3.3: N); 0 for none."""
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
    """Learn the teacher's answers (equation 10); False: the labels in their place."""
    teacher: Bert = field(default_factory=Bert)
    """The reference's own cached stage."""
    head: Head = "dense"
    """As the reference's."""
    family: ClassVar[str] = "tinybert"

    def __post_init__(self) -> None:
        """Raises: ValueError for a value outside its range."""
        super().__post_init__()
        shares = {"layers": self.layers, "width": self.width, "ffn": self.ffn, "replaced": self.replaced}
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} {share}: wanted a share above 0, up to 1")
        counts = {"general_epochs": self.general_epochs, "intermediate_epochs": self.intermediate_epochs, "candidates": self.candidates}
        counts |= {"intermediate_steps": self.intermediate_steps or 1, "prediction_steps": self.prediction_steps or 1}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} {count}: wanted 1 or more")
        if self.augmentation < 0:
            raise ValueError(f"augmentation {self.augmentation}: wanted 0 or more copies")
        if min(self.general_rate, self.intermediate_rate) <= 0:
            raise ValueError(f"general_rate {self.general_rate}, intermediate_rate {self.intermediate_rate}: wanted positive numbers")
        if self.checkpoint is not None and self.checkpoint not in BACKBONES:
            raise ValueError(str(unknown("checkpoint", self.checkpoint, BACKBONES)))

    def pretrains(self) -> bool:
        """For general distillation, and for the words that augmentation puts in."""
        return self._distils_on_corpus or self.augmentation > 0

    def settled(self, backbone: Backbone) -> Self:
        """With the backbone's own values where a field is None, in the teacher too.

        Raises: HarnessError for a published student with another number of heads.
        """
        heads, own = self._shape(backbone).heads[0], set(backbone.shape.heads)
        if self.attention and own != {heads}:
            raise HarnessError(f"attention is compared head by head: the student has {heads} heads, backbone {backbone.name} {own}")
        return replace(super().settled(backbone), teacher=self.teacher.settled(backbone))

    def revisions(self) -> dict[str, int]:
        """The stages of `fit`."""
        used = {
            "masked-lm": MaskedLm.revision if self.augmentation else 0,
            "augmentation": AUGMENTATION_REVISION if self.augmentation else 0,
            "start": Start.revision if self.checkpoint else 0,
            "general": DistilInside.revision if self._distils_on_corpus else 0,
            "intermediate": 0 if self._inside.nothing else DistilInside.revision,
            "prediction": DistilAnswers.revision,
        }
        return self.teacher.revisions() | {name: revision for name, revision in used.items() if revision}

    def untrained(self, backbone: Backbone, task: Task) -> EncoderModel:
        """The student with one exit."""
        shape = self._shape(backbone)
        return EncoderModel(model_config(backbone, task, last_only(shape, self.head), shape))

    def fit(self, data: TaskData, backbone: Backbone, work: Work) -> Fitted:
        """General distillation once, then both parts on the task, the last at the learning rate that `selection` prefers."""
        if self.checkpoint is not None:
            published(self.checkpoint, backbone)  # if it does not fit, say so before anything is fitted
        taught = self.teacher.fit(data, backbone, work)
        rows = self._augmented(data, backbone, work)

        def parents(at: Work) -> tuple[FittedStage, ...]:
            teacher = self.teacher.fit(data, backbone, at).stage
            start = self._start(data, backbone, at)
            if not self._inside.nothing:
                schedule = self._schedule(backbone, self.intermediate_epochs, self.intermediate_rate)
                inside = DistilInside("intermediate", self._shape(backbone), self._inside, self.intermediate_steps, schedule)
                start = (at.fitted(inside, rows, backbone, (*start, teacher)),)
            return *start, teacher

        def stage(schedule: Schedule) -> DistilAnswers:
            return DistilAnswers("prediction", self._shape(backbone), self.head, self.prediction, self.prediction_steps, schedule)

        fitted, trials = fit_best_rate(stage, self.schedules(backbone), rows, backbone, work, parents)
        return Fitted(fitted, taught.trials + trials)

    @property
    def _inside(self) -> Inside:
        return Inside(self.attention, self.hidden, self.embedding)

    @property
    def _distils_on_corpus(self) -> bool:
        return self.general and self.checkpoint is None and not self._inside.nothing

    def _shape(self, backbone: Backbone) -> EncoderShape:
        if self.checkpoint is not None:
            return find_backbone(self.checkpoint).shape
        return smaller(backbone.shape, self.layers, self.width, self.ffn)

    def _schedule(self, backbone: Backbone, epochs: int, rate: float) -> Schedule:
        return replace(self.schedules(backbone)[0], epochs=epochs, learning_rate=rate)

    def _augmented(self, data: TaskData, backbone: Backbone, work: Work) -> TaskData:
        if not self.augmentation:
            return data
        words = masked_lm(backbone, data.max_length, work)
        return augmented(data, backbone, Augmentation(self.augmentation, self.replaced, self.candidates), words, work)

    def _start(self, data: TaskData, backbone: Backbone, work: Work) -> tuple[FittedStage, ...]:
        """The student before it has seen the task; nothing where it begins with random weights."""
        if self.checkpoint is not None:
            return (work.fitted(published(self.checkpoint, backbone), data, backbone),)
        if not self._distils_on_corpus:
            return ()
        schedule = self._schedule(backbone, self.general_epochs, self.general_rate)
        stage = DistilInside("general", self._shape(backbone), self._inside, None, schedule)
        return (work.pretrained(stage, backbone, data.max_length),)


def smaller(shape: EncoderShape, layers: float, width: float, ffn: float) -> EncoderShape:
    """The student's shape: as many heads as the teacher, each of them smaller."""
    depth = max(round(layers * shape.layers), 1)
    size = max(round(width * shape.hidden / shape.heads[0]), 1)
    neurons = max(round(ffn * shape.ffn[0]), 1)
    return replace(
        shape, hidden=size * shape.heads[0], head_size=size, heads=(shape.heads[0],) * depth, ffn=(neurons,) * depth, embedding_rank=None
    )


def layer_map(student: int, teacher: int) -> tuple[int, ...]:
    """For each layer of the student, from 1, the teacher's that it learns from, the last from the last (section 4.3: uniform)."""
    return tuple(max(layer * teacher // student, 1) for layer in range(1, student + 1))


class Bounded(NamedTuple):
    """What a part with a bounded number of steps trains on."""

    rows: Split
    schedule: Schedule


def bounded(rows: Split, schedule: Schedule, steps: int | None) -> Bounded:
    """At most so many steps: whole passes over the rows where they fit, else one pass over as many rows, drawn with torch's generator."""
    if steps is None:
        return Bounded(rows, schedule)
    taken = steps * schedule.batch_size
    if taken >= len(rows):
        return Bounded(rows, replace(schedule, epochs=max(steps // schedule.steps(len(rows)), 1)))
    drawn = torch.randperm(len(rows))[:taken].sort().values.numpy()
    return Bounded(rows.rows(drawn), replace(schedule, epochs=1))


class Pupil(nn.Module):
    """A student with what only its lessons need: a projection of each compared state to the teacher's width."""

    def __init__(self, student: EncoderModel, width: int) -> None:
        super().__init__()
        self.student = student
        own = student.config.shape
        self.projections = nn.ModuleList(nn.Linear(own.hidden, width) for _ in range(own.layers + 1))


@dataclass(frozen=True)
class DistilInside:
    """Train a student on its teacher's inner states. Parents: where the student begins, and the teacher; without the first the student is
    random, without both the teacher is the backbone with its pretrained weights."""

    name: str
    shape: EncoderShape
    inside: Inside
    steps: int | None
    """Bound on optimiser steps; None: the schedule's epochs."""
    schedule: Schedule
    revision: ClassVar[int] = 1

    def fit(self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun) -> FreshFit:
        """Fit on train and keep the last epoch: there is no score for hidden states."""
        teacher, report = _teacher(parents, data.task, backbone)
        student = _student(parents[:-1], self.shape, "plain", data.task, backbone)
        teacher = teacher.to(run.compute.device).eval().requires_grad_(False)
        pupil = Pupil(student, teacher.config.shape.hidden)
        rows, schedule = bounded(data.train, self.schedule, self.steps)

        def loss(pupil: Pupil, examples: Examples) -> Tensor:
            return inside_loss(pupil, teacher, self.inside, examples)

        training = train(pupil, loss, rows, None, schedule, run)
        return FreshFit(student, training, report)


def _teacher(parents: tuple[MultiExitModel, ...], task: Task, backbone: Backbone) -> tuple[EncoderModel, WeightsReport | None]:
    if not parents:
        return pretrained(backbone, model_config(backbone, task, last_only(backbone.shape, "plain")))
    teacher = parents[-1]
    assert isinstance(teacher, EncoderModel)
    return teacher, None


def inside_loss(pupil: Pupil, teacher: EncoderModel, inside: Inside, examples: Examples) -> Tensor:
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
        scores = [_scores(student, layer, own, mask) for layer in range(1, len(own))]
        with torch.no_grad():
            theirs = [_scores(teacher, place, wanted, mask) for place in places]
        value = value + attention_loss(scores, theirs, mask)
    return value


def _scores(model: EncoderModel, number: int, hiddens: tuple[Tensor, ...], mask: Tensor) -> Tensor:
    """Attention scores [n, h, t, t] of a layer, from 1."""
    layer = model.layers[number - 1]
    assert isinstance(layer, Layer)
    return layer.attention_scores(hiddens[number - 1], mask)


@dataclass(frozen=True)
class DistilAnswers:
    """Train a student with a fresh last exit on its teacher's answers. Parents: where the student begins, and the teacher; without the
    first it is random."""

    name: str
    shape: EncoderShape
    head: Head
    soft: bool
    """The teacher's answers at temperature 1; False: the labels."""
    steps: int | None
    """Bound on optimiser steps; None: the schedule's epochs."""
    schedule: Schedule
    revision: ClassVar[int] = 1

    def fit(self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun) -> FreshFit:
        """Fit on train, choose the epoch on selection."""
        *begun, guide = parents
        student = _student(tuple(begun), self.shape, self.head, data.task, backbone)
        rows, schedule = bounded(data.train, self.schedule, self.steps)
        teacher = Teacher(guide, rows, run, hiddens=False)

        def loss(model: EncoderModel, examples: Examples) -> Tensor:
            own = model(examples.batch).logits[-1:]
            if not self.soft:
                return exit_losses(own, examples.labels, data.task.scale).sum()
            return soft_losses(own, teacher(examples).logits[-1:], data.task.scale).sum()

        return FreshFit(student, train(student, loss, rows, selection_of(data, run, [0]), schedule, run))


def _student(begun: tuple[MultiExitModel, ...], shape: EncoderShape, head: Head, task: Task, backbone: Backbone) -> EncoderModel:
    """With a fresh last exit on the encoder that was begun, or on a random one."""
    exits = last_only(shape, head)
    return with_exits(begun, exits, task, backbone)[0] if begun else EncoderModel(model_config(backbone, task, exits, shape))


TINYBERT = TinyBert()
"""TinyBERT-4L-312 of BERT-base; 2 layers x 156 of MiniLM."""
TINYBERT_6L = TinyBert(layers=1 / 2, width=1, ffn=1)
"""TinyBERT-6L-768 of BERT-base."""
TINYBERT_HALF = TinyBert(layers=2 / 3, width=1 / 2, ffn=1 / 2)
"""4 layers x 192 of MiniLM."""
TINYBERT_PAPER = TinyBert(intermediate_steps=None, prediction_steps=None, epochs=3, learning_rates=(1e-5, 2e-5, 3e-5))
"""TinyBERT-4L-312 by the paper's schedule."""
