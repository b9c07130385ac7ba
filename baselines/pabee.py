"""PABEE (Zhou et al., NeurIPS 2020): joint training of all exits, early exit by patience."""

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
    """Train all exits jointly; at inference exit once enough successive predictions agree.

    The loss is sum j L_j / sum j over exits j = 1..l (section 3.3, equation 3); patience is
    described in section 3.2.
    Differs from the authors' code: each example exits on its own (theirs: the whole batch at once);
    pooling, epochs and learning rates are the backbone's own (theirs: 5 epochs at 2e-5); the best
    epoch and learning rate have the highest mean score over all exits.
    """

    head: Head = "shared"
    """Exit heads; shared is the authors': one dense pooler for all, a linear layer for each."""
    family: ClassVar[str] = "pabee"
    policy: ClassVar[str | None] = "patience"

    def revisions(self) -> dict[str, int]:
        """Return the revision of the only stage."""
        return {"pabee-joint": FineTune.revision}

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """Build a model of the backbone's shape with an exit after every layer."""
        return EncoderModel(model_config(backbone, task, (self.head,) * backbone.shape.layers))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Train all exits jointly at the learning rate that scores best on `selection`."""
        layers = backbone.shape.layers
        weights = tuple(2 * exit_ / (layers * (layers + 1)) for exit_ in range(1, layers + 1))

        def stage(schedule: Schedule) -> FineTune:
            return FineTune("pabee-joint", (self.head,) * layers, weights, schedule)

        return Fitted(*fit_best_rate(stage, self.schedules(backbone), data, backbone, context))


PABEE = Pabee()
