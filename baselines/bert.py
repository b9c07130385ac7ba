"""Plain fine-tuning of BERT: the reference for all other methods."""

from dataclasses import dataclass
from typing import ClassVar

from baselines.encoders.encoder import EncoderModel, Head
from baselines.training.finetune import FineTune, model_config, single_exit
from baselines.training.recipe import Recipe, Schedule
from baselines.training.search import fit_best_rate
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.methods.stages import FitContext, Fitted
from harness.models.backbones import Backbone


@dataclass(frozen=True)
class Bert(Recipe):
    """Fine-tune the whole encoder with one exit after the last layer.

    Source: Devlin et al., NAACL 2019, section 4.1.
    Differs from the paper: each backbone has its own pooling (BERT: [CLS]; MiniLM: mean of tokens).
    """

    head: Head = "dense"
    """Exit head; dense is that of the authors' code: dense pooler, tanh, dropout, linear layer."""
    family: ClassVar[str] = "bert"
    policy: ClassVar[str | None] = None

    def revisions(self) -> dict[str, int]:
        """Return the revision of the only stage."""
        return {"fine-tune": FineTune.revision}

    def build(self, backbone: Backbone, task: Task) -> EncoderModel:
        """Build a model of the backbone's shape with one exit."""
        return EncoderModel(model_config(backbone, task, single_exit(backbone.shape, self.head)))

    def fit(self, data: TaskData, backbone: Backbone, context: FitContext) -> Fitted:
        """Fine-tune at the learning rate that scores best on `selection`."""

        def stage(schedule: Schedule) -> FineTune:
            return FineTune("fine-tune", single_exit(backbone.shape, self.head), (1.0,), schedule)

        return Fitted(*fit_best_rate(stage, self.schedules(backbone), data, backbone, context))


BERT = Bert()
