"""COST-EFF (Shen et al., EMNLP 2022): a slender multi-exit model, pruned in width and distilled.

Importance comes from the losses of all exits, and the teacher is a full-width multi-exit model.
"""

from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar, Literal, NamedTuple, Self

import torch

from baselines.bert import Bert
from baselines.distillation.stages import Distil, Exits, Targets
from baselines.encoders.encoder import Combine, EncoderModel, ModelConfig
from baselines.training.finetune import model_config, single_exit
from baselines.training.recipe import Schedule
from baselines.training.search import fit_best_rate
from costeff.schedule import Epochs, epochs_for, pruning_rounds, scaled, smaller
from costeff.slenderize import HIDDEN_TARGETS, RECOVERY_TARGETS, Allocation, Slenderize
from costeff.width_budget import encoder_macs, largest_share
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.methods.protocol import ExternalInputs
from harness.methods.stages import SEARCH_SEED, FitContext, Fitted, FittedStage
from harness.models.backbones import Backbone, Pooling
from harness.models.shapes import EncoderShape
from harness.records import Trial


@dataclass(frozen=True)
class CostEff:
    """Train a teacher and a multi-exit assistant, prune in rounds, then recover by distillation.

    This is the method of sections 3.1 to 3.4 and the authors' run.sh.

    Differs from the authors' code: every example exits on its own; the pooling is the backbone's
    unless it is set; the learning rates of the assistant and of the last stage are searched, as for
    every method, and the stages between use the authors' multiples of the assistant's rate instead
    of fixed rates; the best epochs are chosen on `selection` instead of dev. All stages use the
    teacher's warm-up, weight decay, clipping and accumulation.
    """

    heads: float = 1 / 2
    """Share of each layer's attention heads to keep."""
    ffn: float = 1 / 2
    """Share of each layer's feed-forward neurons to keep."""
    rank: float = 1 / 2
    """Rank of the word embedding as a share of the hidden size; 1 leaves it unfactorised. A lower
    rank saves parameters, but factorising adds MACs."""
    parameter_ratio: float | None = None
    """Target ratio of the full-width multi-exit model's parameters to the compressed model's. The
    largest share that reaches it replaces `heads`, `ffn` and `rank`; None keeps these."""
    mac_ratio: float | None = None
    """Target ratio of the full-width encoder's MACs at 128 tokens to the compressed encoder's. The
    largest share that reaches it replaces `heads` and `ffn`; None keeps these."""
    teacher: Bert = field(default_factory=Bert)
    """Settings of the fine-tuned teacher, whose cached stage is shared with method `bert`."""
    pooling: Pooling | None = None
    """Pooling of hidden states in an exit, the first token or the mean over real tokens; None uses
    the backbone's pooling."""
    last_states: int = 1
    """Number of last hidden states that an exit uses; early exits use as many as there are."""
    combine: Combine = "concatenate"
    """How an exit combines several hidden states; without effect if there is only one."""
    epochs_table: Epochs | None = None
    """Epochs of each stage; None uses the authors' epochs for the task."""
    effort: float = 1.0
    """Factor applied to the epochs of all stages except the teacher's. Every stage has at least one
    epoch; a period of pruning may be shorter."""
    taylor_share: float = 1.0
    """Share of the training rows used to measure importance."""
    growth: float = 1.12
    """Factor applied to the learning rate of pruning after each round."""
    learning_rates: tuple[float, ...] | None = None
    """Learning rates tried for the assistant on `selection` with one fixed seed; all seeds use the
    best. None uses the backbone's list. Training on hidden states alone, which comes first, uses
    the teacher's rate."""
    pruning_rate: float = 0.5
    """Learning rate of the first pruning round, as a multiple of the assistant's (authors: 1e-5 for
    an assistant at 2e-5)."""
    hidden_rate: float = 1.5
    """Learning rate of recovery on hidden states alone, as a multiple of the assistant's (authors:
    3e-5 for 2e-5)."""
    prediction_rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Learning rates of recovery on hidden states and predictions, as multiples of the assistant's
    (authors: 1, with 2e-5). Several are tried on `selection` with one fixed seed; all seeds use the
    best."""
    batch_size: int | None = None
    """Examples per optimiser step; None uses the backbone's batch size."""
    equilibrium: bool = True
    """Whether a layer receives the mean of its exits' gradients (gradient equilibrium) or their
    sum."""
    importance: Literal["all exits", "last exit"] = "all exits"
    """Exits whose prediction losses enter the importance; losses of hidden states always do."""
    rounds: Literal["iterative", "one"] = "iterative"
    """Whether to prune in rounds, removing one head per layer in each (iterative), or to prune
    everything at the end of the first round and still train for as long (one)."""
    exits_from: Literal["assistant", "pruning", "recovery"] = "assistant"
    """Stage that introduces the exits. `assistant`: the full-width assistant has exits and teaches
    the student (the paper). `pruning`: the student gets exits when pruning starts and learns from
    the teacher, without an assistant. `recovery`: the compressed single-exit model gets exits at
    the end, with the assistant's losses, epochs and learning rates; single-exit stages do not
    average gradients. In all three, learning rates are multiples of the one chosen for the
    assistant."""
    allocation: Allocation = "layer"
    """Whether every layer keeps the same number of heads and neurons (layer, the paper), or the
    units of all layers compete for the same MACs (global)."""
    tolerance: float = 0.1
    """Difference in label units below which predictions of a regression agree (patience)."""
    family: ClassVar[str] = "costeff"
    policy: ClassVar[str | None] = "entropy"

    def __post_init__(self) -> None:
        """Raise ValueError if a value is out of range."""
        for name, share in {
            "heads": self.heads,
            "ffn": self.ffn,
            "rank": self.rank,
            "taylor_share": self.taylor_share,
        }.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} {share}: expected a share above 0, up to 1")
        if self.parameter_ratio is not None and self.mac_ratio is not None:
            raise ValueError(
                "parameter_ratio, mac_ratio: set only one, because both determine the widths"
            )
        for name, ratio in {
            "parameter_ratio": self.parameter_ratio,
            "mac_ratio": self.mac_ratio,
        }.items():
            if ratio is not None and ratio < 1:
                raise ValueError(f"{name} {ratio}: expected 1 or more")
        if not self.prediction_rates:
            raise ValueError("prediction_rates is empty: expected one or more rates")
        rates = (
            *(self.learning_rates or ()),
            self.pruning_rate,
            self.hidden_rate,
            *self.prediction_rates,
        )
        for name, value in {
            "effort": self.effort,
            "growth": self.growth,
            "tolerance": self.tolerance,
            "the lowest learning rate or multiple": min(rates),
        }.items():
            if value <= 0:
                raise ValueError(f"{name} {value}: expected a positive number")
        for name, count in {"last_states": self.last_states, "batch_size": self.batch_size}.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} {count}: expected 1 or more")

    def external_inputs(self) -> ExternalInputs:
        """Return no inputs, as no stage pre-trains."""
        return ExternalInputs()

    def resolved(self, backbone: Backbone) -> Self:
        """Fill in the backbone's values where a field is None, and the widths for a ratio.

        Raises: HarnessError if the backbone has a single layer or cannot be pruned, or if no width
        reaches the ratio.
        """
        if backbone.shape.layers < 2:
            raise HarnessError(
                f"CostEff needs at least 2 layers for early exits: backbone {backbone.name} has 1"
            )
        heads, ffn, rank = self._shares(backbone)
        return replace(
            self,
            heads=heads,
            ffn=ffn,
            rank=rank,
            last_states=min(self.last_states, backbone.shape.layers + 1),
            combine=self.combine if self.last_states > 1 else "concatenate",
            pooling=self.pooling or backbone.pooling,
            batch_size=self.batch_size or backbone.batch_size,
            learning_rates=self.learning_rates or backbone.learning_rates,
            teacher=self.teacher.resolved(backbone),
        )

    def revisions(self) -> dict[str, int]:
        """Return the revision of each stage of `fit`."""
        late = ("exits",) if self.exits_from == "recovery" else ()
        trained = ("assistant-hidden", "assistant", "recover-hidden", "recover", *late)
        return (
            self.teacher.revisions()
            | dict.fromkeys(trained, Distil.revision)
            | {"slenderize": Slenderize.revision}
        )

    def shape(self, backbone: Backbone) -> EncoderShape:
        """Return the shape of the compressed encoder.

        With global allocation, its layers may differ in width within the MACs of this shape.
        """
        return smaller(backbone.shape, *self._shares(backbone))

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """Return a model of the final shape with random weights and an exit after every layer."""
        start = model_config(backbone, task, single_exit(backbone.shape, self.teacher.head))
        return EncoderModel(replace(self._exits().config(start), shape=self.shape(backbone)))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Train teacher and assistant, prune, and recover.

        Each stage is cached, so another width reuses the stages before pruning.
        """
        method = self.resolved(backbone)
        epochs = method.epochs_table or epochs_for(data.task.name, len(data.train))
        recovered = method._recovered(epochs, data, backbone, context)
        if method.exits_from != "recovery":
            return recovered

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            start = recovered if at is context else method._recovered(epochs, data, backbone, at)
            return start.stage, method.teacher.fit(data, backbone, at).stage

        def exits(schedule: Schedule) -> Distil:
            return Distil("exits", ASSISTANT_TARGETS, method._exits(), method.equilibrium, schedule)

        stage, trials = fit_best_rate(
            exits, method._assistant_schedules(epochs), data, backbone, context, parents
        )
        return Fitted(stage, recovered.trials + trials)

    def _recovered(
        self, epochs: Epochs, data: TaskData, backbone: Backbone, context: FitContext
    ) -> Fitted:
        """Fit the compressed model up to recovery on hidden states and predictions."""
        compressed = self._compressed(epochs, data, backbone, context)

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            start = compressed if at is context else self._compressed(epochs, data, backbone, at)
            return start.student, start.teacher

        def recovery(schedule: Schedule) -> Distil:
            return Distil("recover", RECOVERY_TARGETS, None, self._averaged, schedule)

        count = scaled(epochs.at(self.heads, epochs.prediction) * self.effort)
        schedules = tuple(
            self._schedule(compressed.rate * multiple, count)
            for multiple in dict.fromkeys(self.prediction_rates)
        )
        stage, trials = fit_best_rate(recovery, schedules, data, backbone, context, parents)
        return Fitted(stage, compressed.trials + trials)

    def _compressed(
        self, epochs: Epochs, data: TaskData, backbone: Backbone, context: FitContext
    ) -> "Compressed":
        """Fit teacher, assistant, pruning, and recovery on hidden states alone."""
        fine_tuned = self.teacher.fit(data, backbone, context)
        if self.exits_from == "assistant":
            assistant = self._assistant(epochs, fine_tuned, data, backbone, context)
            teacher = assistant.stage
        else:
            # Only the learning rate of this assistant is used.
            search = context.with_seed(SEARCH_SEED)
            assistant = self._assistant(
                epochs, self.teacher.fit(data, backbone, search), data, backbone, search
            )
            teacher = fine_tuned.stage
        rate = _chosen_rate(self.learning_rates, assistant)
        pruning = self._slenderize(backbone, epochs, rate)
        student = context.fitted(pruning, data, backbone, (teacher, teacher))
        count = scaled(epochs.at(self.heads, epochs.hidden) * self.effort)
        schedule = self._schedule(rate * self.hidden_rate, count)
        recovery = Distil("recover-hidden", HIDDEN_TARGETS, None, self._averaged, schedule)
        return Compressed(
            student=context.fitted(recovery, data, backbone, (student, teacher)),
            teacher=teacher,
            rate=rate,
            trials=fine_tuned.trials + assistant.trials,
        )

    def _shares(self, backbone: Backbone) -> tuple[float, float, float]:
        """Return the shares of heads, neurons and rank to keep.

        Raises: HarnessError if the backbone cannot be pruned to them.
        """
        if backbone.shape.shared_layers:
            raise HarnessError(
                f"CostEff cannot prune backbone {backbone.name}: its layers share their weights"
            )
        if backbone.shape.embedding_size and (self.parameter_ratio is not None or self.rank < 1):
            raise HarnessError(
                f"CostEff: the embedding of backbone {backbone.name} is already factorised: "
                "set rank=1 and no parameter_ratio"
            )
        if self.parameter_ratio is None and self.mac_ratio is None:
            return self.heads, self.ffn, self.rank
        share = _share_for(self.parameter_ratio, self.mac_ratio, self.rank, self._exits(), backbone)
        if share is None:
            ratio = self.parameter_ratio or self.mac_ratio
            raise HarnessError(
                f"backbone {backbone.name} cannot be made {ratio:g} times smaller by pruning "
                "widths alone: set a smaller ratio"
            )
        return share, share, self.rank if self.parameter_ratio is None else share

    def _exits(self) -> Exits:
        return Exits(self.pooling, self.last_states, self.combine)

    def _schedule(self, rate: float, epochs: int = 1) -> Schedule:
        assert self.batch_size is not None
        teacher = self.teacher
        return Schedule(
            epochs,
            self.batch_size,
            rate,
            teacher.warmup,
            teacher.weight_decay,
            teacher.clip,
            teacher.accumulation,
        )

    @property
    def _averaged(self) -> bool:
        """Return whether the stages from pruning to `recover` average gradients over exits.

        With `exits_from="recovery"` these stages have a single exit and nothing to average.
        """
        return self.equilibrium and self.exits_from != "recovery"

    def _assistant(
        self,
        epochs: Epochs,
        fine_tuned: Fitted,
        data: TaskData,
        backbone: Backbone,
        context: FitContext,
    ) -> Fitted:
        """Train the assistant from the pretrained weights.

        A third of the epochs (rounded down, as in run.sh) trains on hidden states alone. Then the
        teacher's last-exit predictions and the labels have equal weight, at the learning rate that
        scores best on `selection`.
        """
        schedule = self._schedule(
            _chosen_rate(self.teacher.learning_rates, fine_tuned),
            scaled(epochs.assistant // 3 * self.effort),
        )
        hidden = Distil(
            "assistant-hidden", HIDDEN_TARGETS, self._exits(), self.equilibrium, schedule
        )

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            fitted = fine_tuned if at is context else self.teacher.fit(data, backbone, at)
            return at.fitted(hidden, data, backbone, (fitted.stage,)), fitted.stage

        def assistant(schedule: Schedule) -> Distil:
            return Distil("assistant", ASSISTANT_TARGETS, None, self.equilibrium, schedule)

        schedules = self._assistant_schedules(epochs)
        return Fitted(*fit_best_rate(assistant, schedules, data, backbone, context, parents))

    def _assistant_schedules(self, epochs: Epochs) -> tuple[Schedule, ...]:
        """Return one schedule for each learning rate to try."""
        return tuple(
            self._schedule(rate, scaled(epochs.assistant * self.effort))
            for rate in dict.fromkeys(self.learning_rates or ())
        )

    def _slenderize(self, backbone: Backbone, epochs: Epochs, rate: float) -> Slenderize:
        end = self.shape(backbone)
        return Slenderize(
            name="slenderize",
            shape=end,
            exits=self._exits() if self.exits_from == "pruning" else None,
            rounds=pruning_rounds(backbone.shape, end),
            period=epochs.at(self.heads, epochs.period) * self.effort,
            hidden_share=epochs.hidden_share,
            taylor_share=self.taylor_share,
            growth=self.growth,
            last_exit_only=self.importance == "last exit",
            allocation=self.allocation,
            equilibrium=self._averaged,
            schedule=self._schedule(rate * self.pruning_rate),
            at_once=self.rounds == "one",
        )


class Compressed(NamedTuple):
    """A compressed model before recovery on predictions."""

    student: FittedStage
    teacher: FittedStage
    """Teacher of the student: the assistant, or the fine-tuned model if there is no assistant."""
    rate: float
    """Learning rate chosen for the assistant; later rates are multiples of it."""
    trials: tuple[Trial, ...]


ASSISTANT_TARGETS = Targets(soft=0.5, hard=0.5)
"""Loss of the assistant: half the sum over exits of the cross-entropies with the teacher's
last-exit predictions plus half the sum of those with the labels."""


def _chosen_rate(tried: tuple[float, ...] | None, fitted: Fitted) -> float:
    """Return the learning rate that a search chose, or the only one tried."""
    chosen = [trial.value for trial in fitted.trials if trial.chosen] or tried
    assert chosen
    return chosen[0]


@cache
def _share_for(
    parameter_ratio: float | None,
    mac_ratio: float | None,
    rank: float,
    exits: Exits,
    backbone: Backbone,
) -> float | None:
    """Return the largest share of heads and neurons that reaches the ratio, or None.

    For a ratio of parameters, the share also applies to the rank.
    """
    config = exits.config(ModelConfig(backbone.shape, backbone.pooling, 2, 1.0, ()))

    def size(shape: EncoderShape) -> int:
        if parameter_ratio is None:
            return encoder_macs(shape)
        return _parameters(replace(config, shape=shape))

    ratio, full = parameter_ratio or mac_ratio or 1.0, size(backbone.shape)

    def fits(share: float) -> bool:
        new_rank = rank if parameter_ratio is None else share
        return size(smaller(backbone.shape, share, share, new_rank)) * ratio <= full

    return largest_share(fits)


def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return EncoderModel(config).parameter_count()


COSTEFF = CostEff()
"""Half of all widths: 54.98 M parameters on BERT-base."""
COSTEFF_8X = CostEff(heads=1 / 6, ffn=1 / 12, rank=1 / 6)
"""An eighth of the parameters: 13.92 M on BERT-base."""
