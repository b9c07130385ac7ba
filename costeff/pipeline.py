"""COST-EFF (Shen et al., EMNLP 2022): a slender multi-exit model, pruned in width by what all exits say and taught by a full-width one."""

from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar, Literal, NamedTuple, Self

import torch

from baselines.bert import Bert
from baselines.distillation.stages import Distil, Exits, Targets
from baselines.encoders.encoder import Combine, EncoderModel, ModelConfig
from baselines.training.finetune import last_only, model_config
from baselines.training.recipe import Schedule
from baselines.training.search import fit_best_rate
from costeff.schedule import Epochs, epochs_for, rounds_of, scaled, smaller
from costeff.slenderize import BOTH, HIDDEN, Allocation, Slenderize
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
    """Teacher -> multi-exit assistant -> rounds of pruning -> recovery (sections 3.1 to 3.4, and the authors' run.sh).

    Differs from the authors' code: every example decides for itself; the pooling is the backbone's own unless it is set; the assistant's
    learning rate and the last part's are searched, as every method's is, and those between are the authors' multiples of the assistant's
    instead of fixed ones; the best epochs are chosen on `selection` instead of dev. Warm-up, weight decay, clip and accumulation are the
    teacher's throughout.
    """

    heads: float = 1 / 2
    """Share of each layer's attention heads that stays."""
    ffn: float = 1 / 2
    """Share of each layer's feed-forward neurons that stays."""
    rank: float = 1 / 2
    """Rank of the word embedding, as a share of the hidden size; 1 leaves it unfactorised. It saves parameters and costs MACs."""
    parameter_ratio: float | None = None
    """How many times fewer parameters: one share takes the place of all three, the largest with which the full-width multi-exit model has
    at least so many times as many."""
    mac_ratio: float | None = None
    """How many times fewer MACs of the encoder at 128 tokens: one share takes the place of those of heads and neurons."""
    teacher: Bert = field(default_factory=Bert)
    """Stage 1: the reference's own cached stage."""
    pooling: Pooling | None = None
    """What an exit looks at: the first token, or the mean over real tokens; None: the backbone's own."""
    last_states: int = 1
    """How many of the last hidden states an exit looks at; as many as there are where there are fewer."""
    combine: Combine = "concatenate"
    """What an exit makes of several hidden states; of one there is nothing to make."""
    epochs_table: Epochs | None = None
    """Passes over the training rows of each part; None: the authors' for the task."""
    effort: float = 1.0
    """All of them are multiplied by this; every part but a period of pruning has at least one pass. The teacher's epochs are its own."""
    taylor_share: float = 1.0
    """Part of the training rows that importance is measured on."""
    growth: float = 1.12
    """The learning rate of pruning is multiplied by this from round to round."""
    learning_rates: tuple[float, ...] | None = None
    """Tried for the assistant on `selection` with one fixed seed, the best used by all seeds; None: the backbone's own list. Its training
    on hidden states takes the teacher's."""
    pruning_rate: float = 0.5
    """Learning rate before the first cut over the assistant's (authors: 1e-5 over 2e-5)."""
    hidden_rate: float = 1.5
    """The same of recovery on hidden states (authors: 3e-5)."""
    prediction_rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    """The same of recovery on hidden states and answers (authors: 1, of 2e-5). Several are tried on `selection` with one fixed seed, the
    best is used by all seeds."""
    batch_size: int | None = None
    """Rows per optimiser step; None: the backbone's own number."""
    equilibrium: bool = True
    """Each layer receives the mean of its exits' gradients; False: their sum."""
    importance: Literal["all exits", "last exit"] = "all exits"
    """Whose answers say what matters; hidden states are compared in both."""
    rounds: Literal["iterative", "one"] = "iterative"
    """A round of training and cutting for each head that goes, or the same training with everything cut at the end of its first round."""
    exits_from: Literal["assistant", "pruning", "recovery"] = "assistant"
    """Where exits first appear: on the full-width assistant, which then teaches (the paper); on the student as pruning begins, taught by
    the teacher (no assistant); on the compressed single-exit model at the end, by the assistant's losses, epochs and list of rates.
    Learning rates are multiples of the one that was chosen for the assistant in all three; a single-exit model's gradients are not
    averaged."""
    allocation: Allocation = "layer"
    """Each layer keeps the same number of heads and neurons (the paper), or those of all layers compete for the same MACs (global)."""
    tolerance: float = 0.1
    """Regression: patience calls answers that differ by less, in label units, agreement."""
    family: ClassVar[str] = "costeff"
    policy: ClassVar[str | None] = "entropy"

    def __post_init__(self) -> None:
        """Raises: ValueError for a value outside its range."""
        for name, share in {
            "heads": self.heads,
            "ffn": self.ffn,
            "rank": self.rank,
            "taylor_share": self.taylor_share,
        }.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} {share}: wanted a share above 0, up to 1")
        if self.parameter_ratio is not None and self.mac_ratio is not None:
            raise ValueError(
                "parameter_ratio and mac_ratio: wanted one of them, both fix the widths"
            )
        for name, ratio in {
            "parameter_ratio": self.parameter_ratio,
            "mac_ratio": self.mac_ratio,
        }.items():
            if ratio is not None and ratio < 1:
                raise ValueError(f"{name} {ratio}: wanted 1 or more, how many times fewer")
        if not self.prediction_rates:
            raise ValueError("prediction_rates: wanted one or more")
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
            "a rate": min(rates),
        }.items():
            if value <= 0:
                raise ValueError(f"{name} {value}: wanted a positive number")
        for name, count in {"last_states": self.last_states, "batch_size": self.batch_size}.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} {count}: wanted 1 or more")

    def external_inputs(self) -> ExternalInputs:
        """Nothing: no stage pre-trains."""
        return ExternalInputs()

    def resolved(self, backbone: Backbone) -> Self:
        """With the backbone's own values where a field is None, and the widths that a ratio asks for.

        Raises: HarnessError when the backbone has a single layer or cannot be pruned, or no width reaches the ratio.
        """
        if backbone.shape.layers < 2:
            raise HarnessError(
                f"CostEff needs exits before the last one: backbone {backbone.name} has a single layer"
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
        """The stages of `fit`, in order."""
        late = ("exits",) if self.exits_from == "recovery" else ()
        trained = ("assistant-hidden", "assistant", "recover-hidden", "recover", *late)
        return (
            self.teacher.revisions()
            | dict.fromkeys(trained, Distil.revision)
            | {"slenderize": Slenderize.revision}
        )

    def shape(self, backbone: Backbone) -> EncoderShape:
        """The encoder at the end; with global allocation the layers then differ, within the MACs of this one."""
        return smaller(backbone.shape, *self._shares(backbone))

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """A model of the final shape with an exit after every layer."""
        start = model_config(backbone, task, last_only(backbone.shape, self.teacher.head))
        return EncoderModel(replace(self._exits().config(start), shape=self.shape(backbone)))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Teacher, assistant, pruning, recovery; each stage is cached, so a second width reuses what comes before pruning."""
        ready = self.resolved(backbone)
        epochs = ready.epochs_table or epochs_for(data.task.name, len(data.train))
        done = ready._recovered(epochs, data, backbone, context)
        if ready.exits_from != "recovery":
            return done

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            before = done if at is context else ready._recovered(epochs, data, backbone, at)
            return before.stage, ready.teacher.fit(data, backbone, at).stage

        def exits(schedule: Schedule) -> Distil:
            return Distil("exits", ANSWERS, ready._exits(), ready.equilibrium, schedule)

        stage, trials = fit_best_rate(
            exits, ready._assistant_schedules(epochs), data, backbone, context, parents
        )
        return Fitted(stage, done.trials + trials)

    def _recovered(
        self, epochs: Epochs, data: TaskData, backbone: Backbone, context: FitContext
    ) -> Fitted:
        """The compressed model after recovery on hidden states and answers."""
        done = self._compressed(epochs, data, backbone, context)

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            before = done if at is context else self._compressed(epochs, data, backbone, at)
            return before.student, before.guide

        def recovery(schedule: Schedule) -> Distil:
            return Distil("recover", BOTH, None, self._averaged, schedule)

        passes = scaled(epochs.at(self.heads, epochs.prediction) * self.effort)
        schedules = tuple(
            self._schedule(done.rate * share, passes)
            for share in dict.fromkeys(self.prediction_rates)
        )
        stage, trials = fit_best_rate(recovery, schedules, data, backbone, context, parents)
        return Fitted(stage, done.trials + trials)

    def _compressed(
        self, epochs: Epochs, data: TaskData, backbone: Backbone, context: FitContext
    ) -> "Compressed":
        """Teacher, assistant, pruning, and recovery on hidden states alone."""
        taught = self.teacher.fit(data, backbone, context)
        if self.exits_from == "assistant":
            assistant = self._assistant(epochs, taught, data, backbone, context)
            guide = assistant.stage
        else:
            search = context.at_seed(SEARCH_SEED)  # for its rate alone
            assistant = self._assistant(
                epochs, self.teacher.fit(data, backbone, search), data, backbone, search
            )
            guide = taught.stage
        rate, trials = (
            _chosen_rate(self.learning_rates, assistant),
            taught.trials + assistant.trials,
        )
        student = context.fitted(
            self._slenderize(backbone, epochs, rate), data, backbone, (guide, guide)
        )
        passes = scaled(epochs.at(self.heads, epochs.hidden) * self.effort)
        hidden = Distil(
            "recover-hidden",
            HIDDEN,
            None,
            self._averaged,
            self._schedule(rate * self.hidden_rate, passes),
        )
        return Compressed(
            context.fitted(hidden, data, backbone, (student, guide)), guide, rate, trials
        )

    def _shares(self, backbone: Backbone) -> tuple[float, float, float]:
        """Of heads, neurons and rank.

        Raises: HarnessError for a backbone that cannot be pruned in these.
        """
        if backbone.shape.shared_layers:
            raise HarnessError(
                f"CostEff prunes each layer by itself: backbone {backbone.name} has one, which repeats"
            )
        if backbone.shape.embedding_size and (self.parameter_ratio is not None or self.rank < 1):
            raise HarnessError(
                f"CostEff: backbone {backbone.name} has a factorised embedding already: give rank=1, and no parameter_ratio"
            )
        if self.parameter_ratio is None and self.mac_ratio is None:
            return self.heads, self.ffn, self.rank
        share = _share_for(self.parameter_ratio, self.mac_ratio, self.rank, self._exits(), backbone)
        if share is None:
            ratio = self.parameter_ratio or self.mac_ratio
            raise HarnessError(
                f"backbone {backbone.name} cannot be made {ratio:g} times smaller in width alone: give a smaller ratio"
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
        """Whether gradients are averaged over exits before the last part adds them: a single one has nothing to average."""
        return self.equilibrium and self.exits_from != "recovery"

    def _assistant(
        self,
        epochs: Epochs,
        taught: Fitted,
        data: TaskData,
        backbone: Backbone,
        context: FitContext,
    ) -> Fitted:
        """From the pretrained weights: hidden states alone for a third of the epochs (a whole number, as in run.sh), then the teacher's
        last answers and the labels by halves, at the rate that `selection` prefers."""
        first = self._schedule(
            _chosen_rate(self.teacher.learning_rates, taught),
            scaled(epochs.assistant // 3 * self.effort),
        )
        hidden = Distil("assistant-hidden", HIDDEN, self._exits(), self.equilibrium, first)

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            teacher = taught.stage if at is context else self.teacher.fit(data, backbone, at).stage
            return at.fitted(hidden, data, backbone, (teacher,)), teacher

        def answers(schedule: Schedule) -> Distil:
            return Distil("assistant", ANSWERS, None, self.equilibrium, schedule)

        return Fitted(
            *fit_best_rate(
                answers, self._assistant_schedules(epochs), data, backbone, context, parents
            )
        )

    def _assistant_schedules(self, epochs: Epochs) -> tuple[Schedule, ...]:
        """One for each rate that is tried."""
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
            rounds=rounds_of(backbone.shape, end),
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
    """What comes before recovery on answers."""

    student: FittedStage
    guide: FittedStage
    """Who teaches it."""
    rate: float
    """The assistant's learning rate, of which the later ones are multiples."""
    trials: tuple[Trial, ...]


ANSWERS = Targets(soft=0.5, hard=0.5)
"""The assistant's loss: 1/2 (sum of soft cross-entropies with the teacher's last answers + sum of cross-entropies with the labels)."""


def _chosen_rate(tried: tuple[float, ...] | None, fitted: Fitted) -> float:
    """The learning rate that a search chose, or the only one there was."""
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
    """The largest share of heads and neurons (and rank, for parameters) that makes the model so many times smaller; None when none does."""
    config = exits.config(ModelConfig(backbone.shape, backbone.pooling, 2, 1.0, ()))

    def size(shape: EncoderShape) -> int:
        return (
            encoder_macs(shape)
            if parameter_ratio is None
            else _parameters(replace(config, shape=shape))
        )

    ratio, full = parameter_ratio or mac_ratio or 1.0, size(backbone.shape)

    def fits(share: float) -> bool:
        return (
            size(smaller(backbone.shape, share, share, rank if parameter_ratio is None else share))
            * ratio
            <= full
        )

    return largest_share(fits)


def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return EncoderModel(config).parameter_count()


COSTEFF = CostEff()
"""Half of everything: on BERT-base 54.98 M parameters."""
COSTEFF_8X = CostEff(heads=1 / 6, ffn=1 / 12, rank=1 / 6)
"""An eighth of the parameters: on BERT-base 13.92 M."""
