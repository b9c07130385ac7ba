"""Build a smaller encoder from the most important heads and neurons of a larger one."""

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
    """Return a new model of the smaller shape with each layer's most important heads and neurons.

    They stay in their original order. The embedding is factorised to the new rank; positions, token
    types, norms and exits are copied. Keeping all units gives a model with the same predictions.

    Raises: ValueError if the shape is larger than the model's in any layer.
    """
    small = type(model)(replace(model.config, shape=shape)).eval()
    scores = zip(importance.heads, importance.neurons, strict=True)
    widths = zip(shape.heads, shape.ffn, strict=True)
    layers = zip(model.layers, small.layers, scores, widths, strict=True)
    with torch.no_grad():
        _copy_embedding(model, small)
        for old, new, (head_scores, neuron_scores), (heads, ffn) in layers:
            assert isinstance(old, EncoderLayer)
            units, state = old.prunable(), old.state_dict()
            state = _keep_units(state, units.heads, highest(head_scores, heads))
            state = _keep_units(state, units.neurons, highest(neuron_scores, ffn))
            new.load_state_dict(state)
        for old_exit, new_exit in zip(exit_heads(model), exit_heads(small), strict=True):
            new_exit.load_state_dict(old_exit.state_dict())
    return small


def highest(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the `count` highest scores, ascending; ties keep the lower index.

    Raises: ValueError if the count is below 1 or above the number of scores.
    """
    if not 1 <= count <= len(scores):
        raise ValueError(f"cannot keep {count} of {len(scores)} units: keep 1 to {len(scores)}")
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


def _keep_units(state: dict[str, Tensor], units: Units, kept: Tensor) -> dict[str, Tensor]:
    """Return a layer's tensors with only the units at these indices, in this order."""
    state = dict(state)
    for part in units.parts:
        tensor = state[part.name]
        share = units.share(part, tensor)
        index = (kept[:, None] * share + torch.arange(share)).flatten()
        state[part.name] = tensor.index_select(part.axis, index)
    return state
