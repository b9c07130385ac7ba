"""The protocol of methods."""

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
    """Inputs that a method learns from, besides the task and the backbone."""

    corpus: bool = False
    """Whether it reads the sentences of --corpus."""
    vectors: bool = False
    """Whether it reads the word vectors of --glove."""
    checkpoint: str | None = None
    """Name of a published student in the table of backbones."""


class Method(Protocol):
    """A frozen dataclass of hyper-parameters that can be fitted.

    A preset is another instance; a teacher is a nested method.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    """Required by `dataclasses.fields`, `replace` and `asdict`."""
    family: ClassVar[str]
    """Name of this method in `--set FAMILY.FIELD` when it is nested in another."""
    policy: ClassVar[str | None]
    """Exit policy of its paper; None for a model with one exit."""
    tolerance: float
    """Difference in label units below which predictions of a regression agree (patience)."""

    def revisions(self) -> dict[str, int]:
        """Return the revision of every stage that `fit` uses, by stage name.

        A raised revision gives runs new ids.
        """
        ...

    def external_inputs(self) -> ExternalInputs:
        """Return what `fit` reads besides the task and the backbone; it is part of the run id."""
        ...

    def resolved(self, backbone: "Backbone") -> Self:
        """Return the method with None fields set to the backbone's values (epochs, rates, ...).

        Nested methods are resolved too. A record's settings thus name every hyper-parameter that
        was used, and a changed table of backbones gives new runs.
        """
        ...

    def build(self, backbone: "Backbone", task: Task) -> "MultiExitModel":
        """Return a model of the final shape with random weights, as `harness flops` counts it."""
        ...

    def fit(self, data: "TaskData", backbone: "Backbone", context: "FitContext") -> "Fitted":
        """Train the model, or reuse its cached stages."""
        ...
