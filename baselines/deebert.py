"""DeeBERT (Xin et al., ACL 2020): exits on a frozen, fine-tuned model; leave when the entropy is low."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from baselines.bert import Bert
from baselines.encoders.encoder import EncoderModel, Head
from baselines.training.finetune import AddExits, added_exits, model_config
from baselines.training.recipe import Recipe, Schedule
from baselines.training.search import fit_best_rate
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.methods.stages import FitContext, Fitted, FittedStage
from harness.models.backbones import Backbone


@dataclass(frozen=True)
class DeeBert(Recipe):
    """Stage 1 is the reference's own cached stage; stage 2 trains all exits but the last on their summed losses (section 3.1).

    Differs from the authors' code: the last exit is always the main classifier (theirs can return an untrained one), every example
    decides for itself (theirs decides for the batch), the pooling and the batch of training (theirs: 8 rows) are the backbone's own, and
    the best epoch and rate are those of the highest mean score over the new exits.
    """

    head: Head = "dense"
    """Of the added exits: a dense pooler each, as in the authors' code."""
    learning_rates: tuple[float, ...] | None = None
    """Of stage 2, where heads alone are trained; None: the backbone's own list for that.

    It is larger than the authors' 2e-5, with which heads hardly move in 3 epochs.
    """
    teacher: Bert = field(default_factory=Bert)
    """Stage 1."""
    family: ClassVar[str] = "deebert"
    policy: ClassVar[str | None] = "entropy"

    def revisions(self) -> dict[str, int]:
        """Both stages."""
        return self.teacher.revisions() | {"deebert-exits": AddExits.revision}

    def resolved(self, backbone: Backbone) -> Self:
        """With the backbone's own values where a field is None, in both stages."""
        rates = self.learning_rates or backbone.head_learning_rates
        return replace(
            super().resolved(backbone),
            learning_rates=rates,
            teacher=self.teacher.resolved(backbone),
        )

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """The backbone's shape with an exit after every layer."""
        exits = added_exits(backbone.shape.layers, self.head, self.teacher.head)
        return EncoderModel(model_config(backbone, task, exits))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Stage 1, then stage 2 at the learning rate that `selection` prefers."""
        first = self.teacher.fit(data, backbone, context)

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            return (
                first.stage
                if at.seed == context.seed
                else self.teacher.fit(data, backbone, at).stage,
            )

        def stage(schedule: Schedule) -> AddExits:
            return AddExits("deebert-exits", self.head, schedule)

        last, trials = fit_best_rate(
            stage, self.schedules(backbone), data, backbone, context, parents
        )
        return Fitted(last, first.trials + trials)


DEEBERT = DeeBert()
