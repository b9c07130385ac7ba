"""What the encoder asks of a family's layer, and what a layer answers about its own pruning."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from harness.models.multi_exit import LayerContext
from harness.models.shapes import EncoderShape
from harness.records import Polynomial


class Part(NamedTuple):
    """A parameter of a layer of which every unit of a group owns an equal share.

    With n units and an axis of size n k, unit u owns the indices u k to u k + k - 1.
    """

    name: str
    """The parameter's name within the layer."""
    axis: int
    """The axis along which the units' shares lie."""
    scored: bool = False
    """Whether the weights of a unit's share, with their gradients, say how important it is."""


class Units(NamedTuple):
    """The units of one kind in a layer, each of which can be removed by itself."""

    number: int
    """How many there are."""
    parts: tuple[Part, ...]
    """Everything that a unit owns, at least one of it scored; what no unit owns stays as it is."""
    macs: Polynomial
    """MACs of one unit for one row, as a function of the row's tokens."""

    @property
    def scored(self) -> tuple[Part, ...]:
        """The parts whose weights score a unit."""
        return tuple(part for part in self.parts if part.scored)

    def share(self, part: Part, parameter: Tensor) -> int:
        """How many consecutive indices of the part's axis one unit owns.

        Raises: ValueError when the axis does not divide into the units.
        """
        size = parameter.shape[part.axis]
        if size % self.number:
            wanted = f"wanted a multiple of the {self.number} units"
            raise ValueError(f"axis {part.axis} of {part.name} has size {size}: {wanted}")
        return size // self.number


class Prunable(NamedTuple):
    """What of a layer can be removed."""

    heads: Units
    """Attention heads."""
    neurons: Units
    """Feed-forward neurons."""


class EncoderLayer(nn.Module, ABC):
    """A layer of an encoder; each family has its own.

    Every method that trains, measures, distils or prunes an encoder knows its layers by these
    methods alone.
    """

    def __init__(self, shape: EncoderShape, index: int) -> None:
        """Build layer `index`, from 0, of an encoder of this shape."""
        super().__init__()

    @abstractmethod
    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        """Return the next hidden states [n, t, d]; padded tokens must not change real ones."""

    @abstractmethod
    def attention_scores(self, hidden: Tensor, context: LayerContext) -> Tensor:
        """Return the scores before the soft-max [n, h, t, t], -inf at padded keys."""

    @abstractmethod
    def prunable(self) -> Prunable:
        """Describe the layer's attention heads and feed-forward neurons as they are now."""
