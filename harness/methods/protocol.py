"""What a method is."""

from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from harness.data.tasks import Task

if TYPE_CHECKING:
    from harness.data.dataset import TaskData
    from harness.methods.stages import FitContext, Fitted
    from harness.models.backbones import Backbone
    from harness.models.multi_exit import MultiExitModel


@dataclass(frozen=True)
class ExternalInputs:
    """What a method learns from beside the task and the backbone."""

    corpus: bool = False
    """The sentences of --corpus."""
    vectors: bool = False
    """The word vectors of --glove."""
    checkpoint: str | None = None
    """A published student: a backbone of the table."""


class Method(Protocol):
    """A frozen dataclass of hyper-parameters with one verb. A preset is another instance; a teacher is a nested method."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    """What `dataclasses.fields`, `replace` and `asdict` ask for."""
    family: ClassVar[str]
    """What `--set FAMILY.FIELD` calls this method when it is nested in another."""
    policy: ClassVar[str | None]
    """The exit policy that its paper uses; None for a model with one exit."""
    tolerance: float
    """Regression: the largest difference, in label units, that patience calls agreement."""

    def revisions(self) -> dict[str, int]:
        """Stage name -> revision of every stage that `fit` uses; a raised revision makes new runs of old ones."""
        ...

    def external_inputs(self) -> ExternalInputs:
        """What `fit` reads beside the task and the backbone; it is part of what names a run."""
        ...

    def resolved(self, backbone: "Backbone") -> Self:
        """The method, nested ones too, with the backbone's own values (epochs, learning rates, ...) where a field is None.

        So a record's settings name every hyper-parameter that was used, and a changed table makes new runs.
        """
        ...

    def build(self, backbone: "Backbone", task: Task) -> "MultiExitModel":
        """A model of the final shape with random weights: what `harness flops` counts."""
        ...

    def fit(self, data: "TaskData", backbone: "Backbone", context: "FitContext") -> "Fitted":
        """Train, or reuse what is cached."""
        ...
