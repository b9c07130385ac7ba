"""The multi-exit model: an embedding, a list of layers, and an optional exit after each layer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """A padded batch of examples."""

    ids: Tensor
    """[n, t] word-piece ids."""
    types: Tensor
    """[n, t] token types."""
    mask: Tensor
    """[n, t] bool, True at real tokens."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(self.ids.to(device), self.types.to(device), self.mask.to(device))


class LayerContext(NamedTuple):
    """Mask and positions that a layer receives along with the hidden states."""

    mask: Tensor
    """[n, t] bool, True at real tokens."""
    positions: Tensor
    """[n, t] long, the position of each token in its text; [1, t] if all examples share them."""

    @classmethod
    def of(cls, mask: Tensor) -> "LayerContext":
        """Return the context of examples that all start at position 0."""
        return cls(mask, torch.arange(mask.shape[1], device=mask.device).unsqueeze(0))

    def rows(self, index: Tensor) -> "LayerContext":
        """Return the context of the examples at these indices."""
        shared = len(self.positions) == 1
        return LayerContext(self.mask[index], self.positions if shared else self.positions[index])


class State(NamedTuple):
    """The inputs that an exit may read."""

    hiddens: tuple[Tensor, ...]
    """The latest hidden states [n, t, d], newest last; their number is the model's lookback."""
    context: LayerContext
    """Mask and positions of the examples; layers receive the same."""
    logits: tuple[Tensor, ...] = ()
    """Logits [n, c] of the exits so far."""

    @property
    def mask(self) -> Tensor:
        """[n, t] bool, True at real tokens."""
        return self.context.mask

    def rows(self, index: Tensor) -> "State":
        """Return the state of the examples at these indices."""
        hiddens = tuple(hidden[index] for hidden in self.hiddens)
        logits = tuple(logits[index] for logits in self.logits)
        return State(hiddens, self.context.rows(index), logits)

    def after(self, hidden: Tensor, lookback: int) -> "State":
        """Return the state after another layer."""
        return self._replace(hiddens=(*self.hiddens, hidden)[-lookback:])

    def with_logits(self, logits: Tensor) -> "State":
        """Return the state after another exit."""
        return self._replace(logits=(*self.logits, logits))


class AllExits(NamedTuple):
    """Outputs of a forward pass through all exits."""

    logits: Tensor
    """Logits [e, n, c] of the exits."""
    hiddens: tuple[Tensor, ...]
    """Outputs of the embedding and of each layer: l + 1 tensors [n, t, d]."""


class MultiExitModel(nn.Module):
    """A model with one or more exits; the last layer always has one.

    `embedding(ids, types) -> [n, t, d]`, `layers[i](hidden, context) -> [n, t, d]`,
    `exit_after(i)(state) -> [n, c]`. For a regression c is 1 and exits predict in label units.
    There are two ways to run the model: `forward` runs all exits, for training and tracing;
    `inference.predict_early` lets each example exit early. Both give each layer the state's
    `LayerContext`.
    """

    def __init__(
        self, embedding: nn.Module, layers: Sequence[nn.Module], exits: Sequence[nn.Module | None]
    ) -> None:
        """Raise ValueError if the lists differ in length or the last layer has no exit."""
        super().__init__()
        if len(layers) != len(exits) or not exits or exits[-1] is None:
            raise ValueError(
                f"{len(layers)} layers and {len(exits)} exits: "
                "expected an exit or None for each layer, and an exit for the last"
            )
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.exits = nn.ModuleDict(
            {str(layer): module for layer, module in enumerate(exits) if module is not None}
        )
        self.lookback = max(int(getattr(module, "lookback", 1)) for module in self.exits.values())

    @property
    def exit_layers(self) -> list[int]:
        """Number of layers run before each exit, counted from 1."""
        return [layer + 1 for layer in range(len(self.layers)) if str(layer) in self.exits]

    def exit_after(self, layer: int) -> nn.Module | None:
        """Return the exit after a layer (counted from 0), or None."""
        module: nn.Module | None = self.exits[str(layer)] if str(layer) in self.exits else None
        return module

    def embed(self, batch: Batch) -> State:
        """Return the state before the first layer."""
        return State((self.embedding(batch.ids, batch.types),), LayerContext.of(batch.mask))

    def forward(self, batch: Batch) -> AllExits:
        """Run every layer and every exit on every example."""
        state = self.embed(batch)
        hiddens = [state.hiddens[-1]]
        for index, layer in enumerate(self.layers):
            state = state.after(layer(state.hiddens[-1], state.context), self.lookback)
            hiddens.append(state.hiddens[-1])
            exit_head = self.exit_after(index)
            if exit_head is not None:
                state = state.with_logits(exit_head(state))
        return AllExits(torch.stack(state.logits), tuple(hiddens))

    def truncated(self, layers: int) -> "MultiExitModel":
        """Return the static model of the first `layers` layers with only the exit after them.

        Modules are shared, not copied. Exits that read the logits of earlier exits cannot be used,
        since a truncated model has no earlier exits.

        Raises: ValueError if that layer has no exit.
        """
        exits = [*[None] * (layers - 1), self.exit_after(layers - 1)]
        model = MultiExitModel(self.embedding, list(self.layers)[:layers], exits)
        model.lookback = self.lookback
        return model.train(self.training)

    def parameter_count(self) -> int:
        """Return the number of parameters; shared ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())
