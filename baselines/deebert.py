"""DeeBERT (Xin et al., ACL 2020): exits on a frozen fine-tuned model, early exit by entropy."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from baselines.bert import Bert
from baselines.encoders.encoder import EncoderModel, Head
from baselines.training.finetune import AddExits, exits_before_last, model_config
from baselines.training.recipe import Recipe, Schedule
from baselines.training.search import fit_best_rate
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.methods.stages import FitContext, Fitted, FittedStage
from harness.models.backbones import Backbone


@dataclass(frozen=True)
class DeeBert(Recipe):
    """Fine-tune BERT (stage 1), then train all exits but the last, all else frozen (stage 2).

    Stage 1 is the reference's own cached stage; stage 2 minimises the sum of the new exits' losses
    (section 3.1).
    Differs from the authors' code: the last exit is always the main classifier (theirs can return
    an untrained one); each example exits on its own (theirs: the whole batch at once); pooling and
    batch size are the backbone's own (theirs: 8 examples); the best epoch and learning rate have
    the highest mean score over the new exits.
    """

    head: Head = "dense"
    """Head of each added exit; dense has its own pooler, as in the authors' code."""
    learning_rates: tuple[float, ...] | None = None
    """Learning rates tried in stage 2, which trains heads only; None: the backbone's, for heads.

    The list is above the authors' 2e-5, at which heads hardly change in 3 epochs.
    """
    teacher: Bert = field(default_factory=Bert)
    """Settings of stage 1, plain fine-tuning."""
    family: ClassVar[str] = "deebert"
    policy: ClassVar[str | None] = "entropy"

    def revisions(self) -> dict[str, int]:
        """Return the revisions of both stages."""
        return self.teacher.revisions() | {"deebert-exits": AddExits.revision}

    def resolved(self, backbone: Backbone) -> Self:
        """Return a copy with the backbone's own values where a field is None, in both stages."""
        rates = self.learning_rates or backbone.head_learning_rates
        return replace(
            super().resolved(backbone),
            learning_rates=rates,
            teacher=self.teacher.resolved(backbone),
        )

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """Build a model of the backbone's shape with an exit after every layer."""
        exits = exits_before_last(backbone.shape.layers, self.head, self.teacher.head)
        return EncoderModel(model_config(backbone, task, exits))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Fit stage 1, then stage 2 at the learning rate that scores best on `selection`."""
        teacher_fit = self.teacher.fit(data, backbone, context)

        def parents(at: FitContext) -> tuple[FittedStage, ...]:
            same_seed = at.seed == context.seed
            fitted = teacher_fit if same_seed else self.teacher.fit(data, backbone, at)
            return (fitted.stage,)

        def stage(schedule: Schedule) -> AddExits:
            return AddExits("deebert-exits", self.head, schedule)

        fitted, trials = fit_best_rate(
            stage, self.schedules(backbone), data, backbone, context, parents
        )
        return Fitted(fitted, teacher_fit.trials + trials)


DEEBERT = DeeBert()
