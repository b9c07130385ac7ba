"""Find out which stages a method would fit, without fitting any."""

from dataclasses import dataclass, field
from typing import NamedTuple

from harness.data.dataset import TaskData
from harness.errors import HarnessError
from harness.methods.stages import DivergedError, FitContext, FittedStage, Stage
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel
from harness.records import StageReport
from harness.store.stage_cache import DIVERGED, Stored, is_fitted, read_stored, stage_folder


class PlannedStage(NamedTuple):
    """A stage that has to be fitted."""

    key: str
    name: str
    tokens: float
    """Number of tokens that training goes through, repeated ones included; 0 without training."""


@dataclass(frozen=True)
class UnfittedStage(FittedStage):
    """A stage of a plan: it may be cached or not, and its cached model is never deleted."""

    @property
    def model(self) -> MultiExitModel:
        """Raise HarnessError: a plan has no models."""
        raise HarnessError(f"stage {self.stored.report.name} is planned, not fitted")

    def drop_model(self) -> None:
        """Keep the model."""


@dataclass(frozen=True)
class PlanningContext(FitContext):
    """A context in which `Method.fit` collects the stages that it would fit.

    A search takes its first candidate where the scores of the others are not known yet, so that
    the number of stages is right, but not the keys of those that follow the search.
    """

    is_plan = True
    planned: dict[str, PlannedStage] = field(default_factory=dict)
    """The stages by key, in the order in which they would be fitted."""

    def _fit_or_reuse(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...],
        needs_model: bool,
    ) -> FittedStage:
        key = self.key(stage, data, backbone, parents)
        folder = stage_folder(self.cache, key)
        if (folder / DIVERGED).is_file():
            raise DivergedError(f"stage {stage.name} diverged")
        if is_fitted(folder, needs_model=False):
            stored = read_stored(folder)
        else:
            stored = Stored(StageReport(0, 0, 0.0, 0.0, (1.0,), 0, name=stage.name, key=key), None)
        if not is_fitted(folder, needs_model):
            length = float(data.train.tokens.lengths.mean())
            tokens = stage.examples(len(data.train)) * length
            self.planned.setdefault(key, PlannedStage(key, stage.name, tokens))
        return UnfittedStage(folder, True, parents, stored, self.formats)
