"""A smaller encoder from a larger one: the best heads and neurons of each layer, and an embedding of smaller rank."""

from dataclasses import replace

import torch
from torch import Tensor

from baselines.encoders.encoder import Embedding, EncoderModel
from baselines.encoders.layer import EncoderLayer, Units
from baselines.encoders.weights import exit_heads
from costeff.factorize import factorised
from costeff.importance import Importance
from harness.models.shapes import EncoderShape


def pruned(model: EncoderModel, shape: EncoderShape, importance: Importance) -> EncoderModel:
    """A new model of the smaller shape with the most important heads and neurons of each layer, in their old order.

    Positions, token types, norms and exits are copied. Keeping everything gives a model with the same answers.

    Raises: ValueError when the shape is larger than the model's somewhere.
    """
    small = type(model)(replace(model.config, shape=shape)).eval()
    rows = (
        model.layers,
        small.layers,
        shape.heads,
        shape.ffn,
        importance.heads,
        importance.neurons,
    )
    with torch.no_grad():
        _copy_embedding(model, small)
        for old, new, heads, ffn, head_scores, neuron_scores in zip(*rows, strict=True):
            assert isinstance(old, EncoderLayer)
            units, state = old.prunable(), old.state_dict()
            state = _kept(state, units.heads, best(head_scores, heads))
            state = _kept(state, units.neurons, best(neuron_scores, ffn))
            new.load_state_dict(state)
        for old_exit, new_exit in zip(exit_heads(model), exit_heads(small), strict=True):
            new_exit.load_state_dict(old_exit.state_dict())
    return small


def best(scores: Tensor, count: int) -> Tensor:
    """Positions of the `count` highest scores, ascending; of equal scores the earlier.

    Raises: ValueError when there are fewer, or none are wanted.
    """
    if not 1 <= count <= len(scores):
        raise ValueError(f"{count} of {len(scores)} kept: wanted 1 to {len(scores)}")
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _copy_embedding(model: EncoderModel, small: EncoderModel) -> None:
    old, new = model.embedding, small.embedding
    assert isinstance(old, Embedding)
    state = {
        name: tensor
        for name, tensor in old.state_dict().items()
        if not name.startswith(("word.", "projection."))
    }
    rank = small.config.shape.embedding_rank
    if rank is None or rank == model.config.shape.embedding_rank:
        state = old.state_dict()
    else:
        table, projection = factorised(old, rank)
        state |= {"word.weight": table, "projection.weight": projection}
    new.load_state_dict(state)


def _kept(state: dict[str, Tensor], units: Units, kept: Tensor) -> dict[str, Tensor]:
    """The tensors of a layer with the units at these indices alone, in this order."""
    state = dict(state)
    for part in units.parts:
        tensor = state[part.name]
        share = units.share(part, tensor)
        index = (kept[:, None] * share + torch.arange(share)).flatten()
        state[part.name] = tensor.index_select(part.axis, index)
    return state
