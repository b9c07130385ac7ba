"""The multi-exit model: an embedding, a list of layers, and an exit (or none) after each layer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """Padded rows."""

    ids: Tensor
    """[n, t] word-piece ids."""
    types: Tensor
    """[n, t] token types."""
    mask: Tensor
    """[n, t] bool, True at real tokens."""

    def to(self, device: torch.device) -> "Batch":
        """The same rows on a device."""
        return Batch(self.ids.to(device), self.types.to(device), self.mask.to(device))


class LayerContext(NamedTuple):
    """What a layer is told of its rows beside their hidden states."""

    mask: Tensor
    """[n, t] bool, True at real tokens."""
    positions: Tensor
    """[n, t] long, the position of each token in its text; [1, t] where all rows have the same."""

    @classmethod
    def of(cls, mask: Tensor) -> "LayerContext":
        """The context of rows that all begin at position 0."""
        return cls(mask, torch.arange(mask.shape[1], device=mask.device).unsqueeze(0))

    def rows(self, index: Tensor) -> "LayerContext":
        """The rows at these indices."""
        shared = len(self.positions) == 1
        return LayerContext(self.mask[index], self.positions if shared else self.positions[index])


class State(NamedTuple):
    """What an exit may look at."""

    hiddens: tuple[Tensor, ...]
    """The last hidden states [n, t, d], the newest at the end; as many as the model's exits look back."""
    context: LayerContext
    """The mask and the positions of the rows; layers are told the same."""
    logits: tuple[Tensor, ...] = ()
    """Logits [n, c] of the exits so far."""

    @property
    def mask(self) -> Tensor:
        """[n, t] bool, True at real tokens."""
        return self.context.mask

    def rows(self, index: Tensor) -> "State":
        """The rows at these indices."""
        kept = tuple(hidden[index] for hidden in self.hiddens)
        logits = tuple(logits[index] for logits in self.logits)
        return State(kept, self.context.rows(index), logits)

    def after(self, hidden: Tensor, lookback: int) -> "State":
        """The state once another layer has run."""
        return self._replace(hiddens=(*self.hiddens, hidden)[-lookback:])

    def answered(self, logits: Tensor) -> "State":
        """The state once another exit has answered."""
        return self._replace(logits=(*self.logits, logits))


class AllExits(NamedTuple):
    """What the walk through all exits gives."""

    logits: Tensor
    """[e, n, c]"""
    hiddens: tuple[Tensor, ...]
    """The embedding's output and each layer's, l + 1 tensors [n, t, d]."""


class MultiExitModel(nn.Module):
    """A model with one exit or many; the last layer always has one.

    `embedding(ids, types) -> [n, t, d]`, `layers[i](hidden, context) -> [n, t, d]`,
    `exit_after(i)(state) -> [n, c]`. For a regression c is 1 and exits answer in label units. Two
    walks exist: `forward`, through all exits, for training and tracing, and
    `inference.predict_early`. Both hand each layer the state's `LayerContext`.
    """

    def __init__(
        self, embedding: nn.Module, layers: Sequence[nn.Module], exits: Sequence[nn.Module | None]
    ) -> None:
        """Raises: ValueError when the lists differ in length or the last layer has no exit."""
        super().__init__()
        if len(layers) != len(exits) or not exits or exits[-1] is None:
            raise ValueError(
                f"{len(layers)} layers and {len(exits)} exits: wanted one entry a layer, the last not None"
            )
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.exits = nn.ModuleDict(
            {str(layer): module for layer, module in enumerate(exits) if module is not None}
        )
        self.lookback = max(int(getattr(module, "lookback", 1)) for module in self.exits.values())

    @property
    def exit_layers(self) -> list[int]:
        """Layers run before each exit, from 1."""
        return [layer + 1 for layer in range(len(self.layers)) if str(layer) in self.exits]

    def exit_after(self, layer: int) -> nn.Module | None:
        """The exit after a layer (from 0), or None."""
        module: nn.Module | None = self.exits[str(layer)] if str(layer) in self.exits else None
        return module

    def embed(self, batch: Batch) -> State:
        """The state before the first layer."""
        return State((self.embedding(batch.ids, batch.types),), LayerContext.of(batch.mask))

    def forward(self, batch: Batch) -> AllExits:
        """Run every layer and every exit on every row."""
        state = self.embed(batch)
        hiddens = [state.hiddens[-1]]
        for index, layer in enumerate(self.layers):
            state = state.after(layer(state.hiddens[-1], state.context), self.lookback)
            hiddens.append(state.hiddens[-1])
            leave = self.exit_after(index)
            if leave is not None:
                state = state.answered(leave(state))
        return AllExits(torch.stack(state.logits), tuple(hiddens))

    def truncated(self, layers: int) -> "MultiExitModel":
        """The static model of the first `layers` layers with the exit after them alone; modules are shared, not copied.

        Only for exits that read hidden states: one that reads earlier answers has none to read here.

        Raises: ValueError when that layer has no exit.
        """
        exits = [*[None] * (layers - 1), self.exit_after(layers - 1)]
        model = MultiExitModel(self.embedding, list(self.layers)[:layers], exits)
        model.lookback = self.lookback
        return model.train(self.training)

    def parameter_count(self) -> int:
        """Parameters; shared ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())
