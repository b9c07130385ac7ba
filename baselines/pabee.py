"""PABEE (Zhou et al., NeurIPS 2020): all exits trained jointly; leave when several answers in a row agree."""

from dataclasses import dataclass
from typing import ClassVar

from baselines.encoders.encoder import EncoderModel, Head
from baselines.training.finetune import FineTune, model_config
from baselines.training.recipe import Recipe, Schedule
from baselines.training.search import fit_best_rate
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.methods.stages import FitContext, Fitted
from harness.models.backbones import Backbone


@dataclass(frozen=True)
class Pabee(Recipe):
    """Joint loss sum j L_j / sum j over exits j = 1..l (section 3.3, equation 3); patience at inference (section 3.2).

    Differs from the authors' code: every example decides for itself (theirs decides for the batch), the pooling and the number of epochs
    are the backbone's own (theirs: 5 epochs at 2e-5), and best epoch and rate are those of the highest mean score over all exits.
    """

    head: Head = "shared"
    """One dense pooler for all exits and a linear each, as in the authors' code."""
    family: ClassVar[str] = "pabee"
    policy: ClassVar[str | None] = "patience"

    def revisions(self) -> dict[str, int]:
        """The one stage."""
        return {"pabee-joint": FineTune.revision}

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """The backbone's shape with an exit after every layer."""
        return EncoderModel(model_config(backbone, task, (self.head,) * backbone.shape.layers))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Joint training at the learning rate that `selection` prefers."""
        layers = backbone.shape.layers
        weights = tuple(2 * exit_ / (layers * (layers + 1)) for exit_ in range(1, layers + 1))

        def stage(schedule: Schedule) -> FineTune:
            return FineTune("pabee-joint", (self.head,) * layers, weights, schedule)

        return Fitted(*fit_best_rate(stage, self.schedules(backbone), data, backbone, context))


PABEE = Pabee()
