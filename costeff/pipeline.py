"""COST-EFF (Shen et al., EMNLP 2022): a slender multi-exit model, pruned in width by what all exits say and taught by a full-width one."""

from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar, Literal, Self

import torch

from baselines.bert import Bert
from baselines.encoder import Combine, EncoderModel, ModelConfig
from baselines.finetune import last_only, model_config
from baselines.training import Schedule
from costeff.budget import encoder_macs, largest_share
from costeff.distill import Distil, Exits, Targets
from costeff.schedule import Epochs, epochs_for, rounds_of, scaled, smaller
from costeff.slenderize import Allocation, Slenderize
from harness.backbones import Backbone, EncoderShape, Pooling
from harness.errors import HarnessError
from harness.stages import Fitted, Work
from harness.tasks import Task, TaskData


@dataclass(frozen=True)
class CostEff:
    """Teacher -> multi-exit assistant -> rounds of pruning -> recovery (sections 3.1 to 3.4, and the authors' run.sh).

    Differs from the authors' code: every example decides for itself, the pooling is the backbone's own unless it is set, learning rates
    are the authors' multiples of the rate that the teacher's search found instead of fixed ones, and the best epochs are chosen on
    `selection` instead of dev.
    """

    heads: float = 1 / 2
    """Share of each layer's attention heads that stays."""
    ffn: float = 1 / 2
    """Share of each layer's feed-forward neurons that stays."""
    rank: float = 1 / 2
    """Rank of the word embedding, as a share of the hidden size."""
    parameter_ratio: float | None = None
    """One share for all three instead: the largest with which the full-width multi-exit model has at least so many times the parameters."""
    mac_ratio: float | None = None
    """The same for MACs of the encoder at 128 tokens."""
    teacher: Bert = field(default_factory=Bert)
    """Stage 1: the reference's own cached stage."""
    pooling: Pooling | None = None
    """What an exit looks at: the first token, or the mean over real tokens; None: the backbone's own."""
    last_states: int = 1
    """How many of the last hidden states an exit looks at."""
    combine: Combine = "concatenate"
    """What an exit makes of several."""
    epochs_table: Epochs | None = None
    """Passes over the training rows of each part; None: the authors' for the task."""
    effort: float = 1.0
    """All of them are multiplied by this."""
    taylor_share: float = 1.0
    """Part of the training rows that importance is measured on."""
    growth: float = 1.12
    """The learning rate of pruning is multiplied by this from round to round."""
    assistant_rate: float = 1.0
    """Learning rate of the assistant over the teacher's (authors: 2e-5 both)."""
    pruning_rate: float = 0.5
    """Of the first round of pruning (authors: 1e-5)."""
    hidden_rate: float = 1.5
    """Of recovery on hidden states (authors: 3e-5)."""
    prediction_rate: float = 1.0
    """Of recovery on hidden states and answers (authors: 2e-5)."""
    batch_size: int | None = None
    """Rows per optimiser step; None: the backbone's own number."""
    equilibrium: bool = True
    """Each layer receives the mean of its exits' gradients; False: their sum."""
    importance: Literal["all exits", "last exit"] = "all exits"
    """Whose losses say what matters."""
    rounds: Literal["iterative", "one"] = "iterative"
    """A round for each head that goes, or everything at once with as much training after it."""
    exits_from: Literal["assistant", "pruning", "recovery"] = "assistant"
    """Where exits first appear: on the full-width assistant, which then teaches (the paper); on the student as pruning begins, taught by
    the teacher (no assistant); on the compressed single-exit model at the end, by the assistant's losses and epochs."""
    allocation: Allocation = "layer"
    """Each layer keeps the same number of heads and neurons (the paper), or those of all layers compete for the same MACs (global)."""
    tolerance: float = 0.1
    """Regression: patience calls answers that differ by less, in label units, agreement."""
    family: ClassVar[str] = "costeff"
    policy: ClassVar[str | None] = "entropy"

    def __post_init__(self) -> None:
        """Raises: ValueError for a value outside its range."""
        for name, share in {"heads": self.heads, "ffn": self.ffn, "rank": self.rank, "taylor_share": self.taylor_share}.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} {share}: wanted a share above 0, up to 1")
        if self.parameter_ratio is not None and self.mac_ratio is not None:
            raise ValueError("parameter_ratio and mac_ratio: wanted one of them, both fix the widths")
        for name, ratio in {"parameter_ratio": self.parameter_ratio, "mac_ratio": self.mac_ratio}.items():
            if ratio is not None and ratio < 1:
                raise ValueError(f"{name} {ratio}: wanted 1 or more")
        rates = (self.assistant_rate, self.pruning_rate, self.hidden_rate, self.prediction_rate)
        for name, value in {"effort": self.effort, "growth": self.growth, "tolerance": self.tolerance, "a rate": min(rates)}.items():
            if value <= 0:
                raise ValueError(f"{name} {value}: wanted a positive number")
        for name, count in {"last_states": self.last_states, "batch_size": self.batch_size}.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} {count}: wanted 1 or more")

    def settled(self, backbone: Backbone) -> Self:
        """With the backbone's own values where a field is None, and the widths that a ratio asks for.

        Raises: HarnessError when the backbone has a single layer, or no width reaches the ratio.
        """
        if backbone.shape.layers < 2:
            raise HarnessError(f"CostEff needs exits before the last one: backbone {backbone.name} has a single layer")
        heads, ffn, rank = self._shares(backbone)
        return replace(
            self,
            heads=heads,
            ffn=ffn,
            rank=rank,
            pooling=self.pooling or backbone.pooling,
            batch_size=self.batch_size or backbone.batch_size,
            teacher=self.teacher.settled(backbone),
        )

    def revisions(self) -> dict[str, int]:
        """The stages of `fit`, in order."""
        trained = {
            "assistant": ("assistant-hidden", "assistant", "recover-hidden", "recover"),
            "pruning": ("recover-hidden", "recover"),
            "recovery": ("recover-hidden", "recover", "exits"),
        }[self.exits_from]
        return self.teacher.revisions() | dict.fromkeys(trained, Distil.revision) | {"slenderize": Slenderize.revision}

    def shape(self, backbone: Backbone) -> EncoderShape:
        """The encoder at the end; with global allocation the layers then differ, within the MACs of this one."""
        return smaller(backbone.shape, *self._shares(backbone))

    def untrained(self, backbone: Backbone, task: Task) -> EncoderModel:
        """A model of the final shape with an exit after every layer."""
        start = model_config(backbone, task, last_only(backbone, self.teacher.head))
        return EncoderModel(replace(self._exits().config(start), shape=self.shape(backbone)))

    def fit(self, data: TaskData, backbone: Backbone, work: Work) -> Fitted:
        """Teacher, assistant, pruning, recovery; each stage is cached, so a second width reuses what comes before pruning."""
        ready = self.settled(backbone)
        epochs = ready.epochs_table or epochs_for(data.task.name, len(data.train))
        taught = ready.teacher.fit(data, backbone, work)
        rate = _chosen_rate(ready.teacher, taught)
        guide = teacher = taught.stage
        if ready.exits_from == "assistant":
            hidden, answers = ready._assistant(epochs, rate)
            start = work.fitted(hidden, data, backbone, (teacher, teacher))
            guide = work.fitted(answers, data, backbone, (start, teacher))
        student = work.fitted(ready._slenderize(backbone, epochs, rate), data, backbone, (guide, guide))
        for stage in ready._recovery(epochs, rate):
            student = work.fitted(stage, data, backbone, (student, guide))
        if ready.exits_from == "recovery":
            student = work.fitted(ready._late_exits(epochs, rate), data, backbone, (student, teacher))
        return Fitted(student, taught.trials)

    def _shares(self, backbone: Backbone) -> tuple[float, float, float]:
        """Of heads, neurons and rank."""
        if self.parameter_ratio is None and self.mac_ratio is None:
            return self.heads, self.ffn, self.rank
        share = _share_for(self.parameter_ratio, self.mac_ratio, self._exits(), backbone)
        if share is None:
            ratio = self.parameter_ratio or self.mac_ratio
            raise HarnessError(f"backbone {backbone.name} cannot be made {ratio:g} times smaller in width alone: give a smaller ratio")
        return share, share, share

    def _exits(self) -> Exits:
        return Exits(self.pooling, self.last_states, self.combine)

    def _schedule(self, rate: float, epochs: int = 1) -> Schedule:
        assert self.batch_size is not None
        teacher = self.teacher
        return Schedule(epochs, self.batch_size, rate, teacher.warmup, teacher.weight_decay, teacher.clip, teacher.accumulation)

    def _assistant(self, epochs: Epochs, rate: float) -> tuple[Distil, Distil]:
        """Hidden states alone for a third of the epochs, then the teacher's last answers and the labels by halves."""
        own, passes = rate * self.assistant_rate, epochs.assistant * self.effort
        hidden, answers = self._schedule(own, scaled(passes / 3)), self._schedule(own, scaled(passes))
        return (
            Distil("assistant-hidden", Targets(hidden=1.0), self._exits(), self.equilibrium, hidden),
            Distil("assistant", ANSWERS, None, self.equilibrium, answers),
        )

    def _late_exits(self, epochs: Epochs, rate: float) -> Distil:
        """The assistant's losses and epochs, on the compressed model."""
        schedule = self._schedule(rate * self.assistant_rate, scaled(epochs.assistant * self.effort))
        return Distil("exits", ANSWERS, self._exits(), self.equilibrium, schedule)

    def _slenderize(self, backbone: Backbone, epochs: Epochs, rate: float) -> Slenderize:
        end = self.shape(backbone)
        rounds = rounds_of(backbone.shape, end)
        one_shot = self.rounds == "one"
        return Slenderize(
            name="slenderize",
            shape=end,
            exits=self._exits() if self.exits_from == "pruning" else None,
            rounds=1 if one_shot else rounds,
            period=epochs.period * self.effort * (rounds if one_shot else 1),
            hidden_share=epochs.hidden_share,
            taylor_share=self.taylor_share,
            growth=self.growth,
            last_exit_only=self.importance == "last exit",
            allocation=self.allocation,
            equilibrium=self.equilibrium,
            schedule=self._schedule(rate * self.pruning_rate),
        )

    def _recovery(self, epochs: Epochs, rate: float) -> tuple[Distil, Distil]:
        """Hidden states alone, then these and the assistant's answers at the same exits."""
        hidden = scaled(epochs.at(self.heads, epochs.hidden) * self.effort)
        both = scaled(epochs.at(self.heads, epochs.prediction) * self.effort)
        return (
            Distil("recover-hidden", Targets(hidden=1.0), None, self.equilibrium, self._schedule(rate * self.hidden_rate, hidden)),
            Distil("recover", Targets(hidden=1.0, soft=1.0), None, self.equilibrium, self._schedule(rate * self.prediction_rate, both)),
        )


ANSWERS = Targets(soft=0.5, hard=0.5)
"""The assistant's loss: 1/2 (sum of soft cross-entropies with the teacher's last answers + sum of cross-entropies with the labels)."""


def _chosen_rate(teacher: Bert, fitted: Fitted) -> float:
    """The learning rate that the teacher was fitted with."""
    chosen = [trial.value for trial in fitted.trials if trial.chosen] or teacher.learning_rates
    assert chosen
    return chosen[0]


@cache
def _share_for(parameter_ratio: float | None, mac_ratio: float | None, exits: Exits, backbone: Backbone) -> float | None:
    """The largest share of heads, neurons and rank that makes the model so many times smaller; None when none does."""
    config = exits.config(ModelConfig(backbone.shape, backbone.pooling, 2, 1.0, ()))

    def size(shape: EncoderShape) -> int:
        return encoder_macs(shape) if parameter_ratio is None else _parameters(replace(config, shape=shape))

    ratio, full = parameter_ratio or mac_ratio or 1.0, size(backbone.shape)
    return largest_share(lambda share: size(smaller(backbone.shape, share, share, share)) * ratio <= full)


def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return EncoderModel(config).parameter_count()


COSTEFF = CostEff()
"""Half of everything: on BERT-base 54.98 M parameters."""
COSTEFF_8X = CostEff(heads=1 / 6, ffn=1 / 12, rank=1 / 6)
"""An eighth of the parameters: on BERT-base 13.92 M."""
