"""The interface of an encoder layer and the description of its prunable units."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from harness.models.multi_exit import LayerContext
from harness.models.shapes import EncoderShape
from harness.records import Polynomial


class Part(NamedTuple):
    """A layer's parameter that is divided equally among the units of one kind.

    With n units and an axis of size n k, unit u owns the indices u k to u k + k - 1.
    """

    name: str
    """Name of the parameter within the layer."""
    axis: int
    """Axis along which the parameter is divided."""
    scored: bool = False
    """Whether a unit's importance is computed from its weights here and their gradients."""


class Units(NamedTuple):
    """The units of one kind in a layer, each of which can be removed on its own."""

    number: int
    """Number of units."""
    parts: tuple[Part, ...]
    """Parameters divided among the units, at least one of them scored; pruning keeps all others."""
    macs: Polynomial
    """MACs of one unit for one example, as a function of the example's tokens."""

    @property
    def scored(self) -> tuple[Part, ...]:
        """Return the parts from whose weights a unit's importance is computed."""
        return tuple(part for part in self.parts if part.scored)

    def share(self, part: Part, parameter: Tensor) -> int:
        """Return the number of consecutive indices of the part's axis that one unit owns.

        Raises: ValueError if the axis size is not a multiple of the number of units.
        """
        size = parameter.shape[part.axis]
        if size % self.number:
            units = f"not a multiple of the {self.number} units"
            raise ValueError(f"axis {part.axis} of {part.name} has size {size}, {units}")
        return size // self.number


class Prunable(NamedTuple):
    """The units of a layer that can be pruned."""

    heads: Units
    """Attention heads."""
    neurons: Units
    """Feed-forward neurons."""


class EncoderLayer(nn.Module, ABC):
    """A layer of an encoder; a model family with a different layer has its own subclass.

    Training, measurement, distillation and pruning use only these methods. The embedding always
    adds a table of positions, so a family with rotary attention needs a change there too.
    """

    def __init__(self, shape: EncoderShape, index: int) -> None:
        """Build layer `index`, from 0, of an encoder of this shape."""
        super().__init__()

    @abstractmethod
    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        """Return the next hidden states [n, t, d]; padded tokens must not change real ones."""

    @abstractmethod
    def attention_scores(self, hidden: Tensor, context: LayerContext) -> Tensor:
        """Return the scores before the softmax [n, h, t, t], -inf at padded keys."""

    @abstractmethod
    def prunable(self) -> Prunable:
        """Describe the layer's current attention heads and feed-forward neurons."""
