"""The encoder: BERT with per-layer widths, factorised embeddings, shared layers and exits.

Its outputs equal those of BERT, DistilBERT, RoBERTa, ELECTRA and ALBERT in transformers to 1e-5
(tested). The project has its own encoder because transformers does not prune heads, requires
hidden % heads == 0 and gives all layers one width. Compression builds a new encoder of another
shape and never modifies an existing one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.encoders.bert_layer import ACTIVATIONS, BertLayer, Dropout
from baselines.encoders.layer import EncoderLayer
from harness.files.digests import added_field
from harness.models.backbones import Pooling
from harness.models.multi_exit import MultiExitModel, State
from harness.models.shapes import EncoderShape, Size

Head = Literal["dense", "shared", "plain"]
"""Pooler between an exit's pooled vector and its linear classifier: its own dense layer, one dense
layer shared by all exits, or none. All three apply the activation and dropout."""

Combine = Literal["concatenate", "average"]

ExitActivation = Literal["tanh", "gelu", "relu"]
Output = Literal["linear", "sigmoid"]

EXIT_ACTIVATIONS: dict[ExitActivation, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "relu": functional.relu,
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines a model's tensors; it is saved with the weights."""

    shape: EncoderShape
    pooling: Pooling
    classes: Size
    """Number of outputs of an exit; 1 means regression."""
    scale: float
    """Factor that converts the output of a regression exit's linear layer to label units."""
    exits: tuple[Head | None, ...]
    """Exit after each layer, None for a layer without one."""
    last_states: int = 1
    """Number of last hidden states that an exit pools separately. Early exits may have fewer, as
    the embedding's output is the first hidden state."""
    combine: Combine = "concatenate"
    """How an exit combines the pooled vectors of several hidden states."""
    masked_lm: bool = False
    """Whether the model also has a masked-LM head, which no exit or measurement uses."""
    exit_activation: ExitActivation = "tanh"
    """Activation before an exit's classifier; only a checkpoint fine-tuned elsewhere may have
    another one than tanh."""
    output: Output = added_field("linear")
    """Function of the linear layer's output; only a checkpoint fine-tuned elsewhere may have
    another one than linear."""
    offset: float = added_field(0.0)
    """Number added to the scaled output of a regression, in label units."""


class Embedding(nn.Module):
    """Normalised sum of word, position and any token-type embeddings.

    Shapes: ids [n, t], types [n, t] -> [n, t, d]. With a rank r, the word embedding is a table
    [V, r] times a projection [r, d] (COST-EFF). With an embedding size s, everything up to the norm
    has width s, and a projection [s, d] with a bias follows (ELECTRA, ALBERT). Under autocast the
    output, and so the layers' residual stream, has autocast's precision, which halves the memory
    traffic between the matrix products.
    """

    def __init__(self, shape: EncoderShape) -> None:
        """Raise ValueError if the shape has both factorisations."""
        super().__init__()
        rank, width = shape.embedding_rank, shape.embedding_width
        if rank and shape.embedding_size:
            raise ValueError(
                f"embedding_rank {rank} and embedding_size {shape.embedding_size}: set only one"
            )
        self.word = nn.Embedding(shape.vocabulary, rank or width)
        self.projection = nn.Linear(rank, shape.hidden, bias=False) if rank else None
        self.position = nn.Embedding(shape.first_position + shape.positions, width)
        self.token_type = nn.Embedding(shape.token_types, width) if shape.token_types else None
        self.norm = nn.LayerNorm(width, eps=shape.layer_norm_eps)
        self.to_hidden = nn.Linear(width, shape.hidden) if shape.embedding_size else None
        self.dropout = Dropout(shape.dropout)
        self.first_position = shape.first_position

    def _positions(self, ids: Tensor) -> Tensor:
        """Return the position embeddings [t, d] or, where they depend on the tokens, [n, t, d].

        RoBERTa's positions count from the padding token's id + 1. A padding token that occurs in a
        text has the position of its id and is not counted, as in the library.
        """
        if not self.first_position:
            return self.position.weight[: ids.shape[1]]
        padding = self.first_position - 1
        counted = ids != padding
        vectors: Tensor = self.position(counted.cumsum(1) * counted + padding)
        return vectors

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        # words: [n, t, d] or [n, t, s]
        words = self.word(ids) if self.projection is None else self.projection(self.word(ids))
        if self.token_type is not None:
            words = words + self.token_type(types)
        hidden: Tensor = self.dropout(self.norm(words + self._positions(ids)))
        if self.to_hidden is not None:
            hidden = self.to_hidden(hidden)
        device = hidden.device.type
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        return hidden.to(torch.get_autocast_dtype(device)) if autocast else hidden


LAYERS: dict[str, type[EncoderLayer]] = {"bert": BertLayer}
"""Layer classes by the name that an encoder's shape gives."""


class ExitHead(nn.Module):
    """Exit: pool -> (dense) -> activation -> dropout -> linear, from a state to logits [n, c]."""

    def __init__(self, config: ModelConfig, pooler: nn.Linear | None, layer: int) -> None:
        """Build the exit after layer `layer`, counted from 0."""
        super().__init__()
        self.pooling, self.combine = config.pooling, config.combine
        self.classes, self.scale, self.offset = config.classes, config.scale, config.offset
        self.output = config.output
        self.lookback = min(config.last_states, layer + 2)
        self.pooler = pooler
        self.activation = EXIT_ACTIVATIONS[config.exit_activation]
        self.dropout = Dropout(config.shape.dropout)
        vectors = self.lookback if config.combine == "concatenate" else 1
        self.classifier = nn.Linear(vectors * config.shape.hidden, config.classes)

    def forward(self, state: State) -> Tensor:
        pooled = [
            pool(hidden, state.mask, self.pooling) for hidden in state.hiddens[-self.lookback :]
        ]
        vector = pooled[0]
        if pooled[1:]:  # [n, lookback * d] or [n, d]
            vector = (
                torch.cat(pooled, -1)
                if self.combine == "concatenate"
                else torch.stack(pooled).mean(0)
            )
        if self.pooler is not None:
            vector = self.pooler(vector)
        logits: Tensor = self.classifier(self.dropout(self.activation(vector)))
        if self.output == "sigmoid":
            logits = torch.sigmoid(logits)
        return logits * self.scale + self.offset if self.offset else logits * self.scale


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool hidden states [n, t, d] to [n, d]: the first token's, or the mean over real tokens."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


class MaskedLmHead(nn.Module):
    """Masked-LM head: dense -> activation -> norm -> decoder, from hidden states [m, d] to [m, V].

    The decoder is the embedding's table plus a bias, and the head has the embedding's width. Only
    teachers and models in pre-training have one (Devlin et al., NAACL 2019, section 3.1).
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden, shape.embedding_width)
        self.norm = nn.LayerNorm(shape.embedding_width, eps=shape.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))
        self.activation = ACTIVATIONS[shape.activation]

    def forward(self, hidden: Tensor, embedding: Embedding) -> Tensor:
        transformed = self.norm(self.activation(self.dense(hidden)))
        if embedding.projection is not None:
            transformed = transformed @ embedding.projection.weight  # [m, r]
        return functional.linear(transformed, embedding.word.weight, self.bias)


class EncoderModel(MultiExitModel):
    """A multi-exit model whose config determines its tensors, so it can be saved and rebuilt."""

    def __init__(self, config: ModelConfig) -> None:
        """Initialise the weights as BERT does: normal, biases 0, norms 1.

        The standard deviation is BERT's 0.02 at hidden size 768, times sqrt(768 / hidden), so that
        the hidden states of small models start at the same scale.

        Raises: ValueError if the config does not give an exit (or None) for each layer, if exits
        with a dense pooler read several hidden states, or if shared layers differ in width.
        """
        shape = config.shape
        if config.last_states > 1 and {"dense", "shared"} & set(config.exits):
            raise ValueError(
                f"last_states {config.last_states}: expected 1, because an exit has a dense pooler"
            )
        shared = nn.Linear(shape.hidden, shape.hidden) if "shared" in config.exits else None
        super().__init__(
            embedding=Embedding(shape),
            layers=_layers(shape),
            exits=[
                None if head is None else ExitHead(config, _pooler(head, shape, shared), layer)
                for layer, head in enumerate(config.exits)
            ],
        )
        self.config = config
        self.masked_lm = MaskedLmHead(shape) if config.masked_lm else None
        deviation = 0.02 * (768 / shape.hidden) ** 0.5
        self.apply(lambda module: _initialise(module, deviation))


def build_layer(shape: EncoderShape, index: int) -> EncoderLayer:
    """Build layer `index` of an encoder of this shape.

    Raises: ValueError if the kind of layer is unknown.
    """
    if shape.layer not in LAYERS:
        raise ValueError(f"layer {shape.layer[:40]!r}: expected one of {', '.join(LAYERS)}")
    return LAYERS[shape.layer](shape, index)


def _layers(shape: EncoderShape) -> list[EncoderLayer]:
    if not shape.shared_layers:
        return [build_layer(shape, index) for index in range(shape.layers)]
    if len({*zip(shape.heads, shape.ffn, strict=True)}) > 1:
        raise ValueError(
            f"shared layers have heads {shape.heads} and neurons {shape.ffn}: expected equal widths"
        )
    return [build_layer(shape, 0)] * shape.layers


def _pooler(head: Head, shape: EncoderShape, shared: nn.Linear | None) -> nn.Linear | None:
    return {"dense": nn.Linear(shape.hidden, shape.hidden), "shared": shared, "plain": None}[head]


def _initialise(module: nn.Module, deviation: float) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=deviation)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
