"""The one encoder: BERT with per-layer widths, factorised embeddings and shared layers, and the exits that stand on it.

Equal to the library's BERT, DistilBERT, RoBERTa, ELECTRA and ALBERT to 1e-5 (tests). Our own because the library prunes no heads, wants
hidden % heads == 0 and has one width for all layers; a compressed encoder is a new encoder of another shape, never surgery on an old one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.encoders.layer import EncoderLayer, Part, Prunable, Units
from harness.models.backbones import Pooling
from harness.models.multi_exit import LayerContext, MultiExitModel, State
from harness.models.shapes import EncoderShape, Size
from harness.records import Polynomial

Head = Literal["dense", "shared", "plain"]
"""What stands between an exit's pooled vector and its linear classifier: a dense pooler of its own, one dense pooler that all exits
share, or none. Tanh and drop-out are in all three."""

Combine = Literal["concatenate", "average"]

ExitActivation = Literal["tanh", "gelu", "relu"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}
EXIT_ACTIVATIONS: dict[ExitActivation, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "relu": functional.relu,
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes a model's tensors; kept beside its weights."""

    shape: EncoderShape
    pooling: Pooling
    classes: Size
    """Outputs of an exit; 1 is a regression."""
    scale: float
    """Regression: exits answer in units of the label, this many times what their linear layer gives."""
    exits: tuple[Head | None, ...]
    """The exit after each layer, None where there is none."""
    last_states: int = 1
    """How many of the last hidden states an exit pools, each by itself; early exits have fewer (the embedding's output is the first)."""
    combine: Combine = "concatenate"
    """What an exit makes of the pooled vectors of several hidden states."""
    masked_lm: bool = False
    """Whether there is a masked-LM head too, which no exit and no measurement uses."""
    exit_activation: ExitActivation = "tanh"
    """Of an exit, in front of its classifier; another one than tanh is that of a checkpoint which others have fine-tuned."""


class Dropout(nn.Module):
    """Drop-out: in training each element is zero with this probability (to 1/65536), the others are scaled up.

    On the CPU torch draws its random numbers one by one on one core, a third of a training step; here sixteen bits an element come from
    a numpy generator whose seed is drawn from torch's, so that seeding torch still fixes everything.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.probability)
        generator = np.random.SFC64(int(torch.randint(2**62, ())))
        words = generator.random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
        kept = torch.from_numpy(words >= round(self.probability * 65_536)).view(x.shape)
        return x * kept.to(x.dtype).mul_(1 / (1 - self.probability))


class Embedding(nn.Module):
    """Word + position + token type (where there are any), normalised: ids [n, t], types [n, t] -> [n, t, d].

    With a rank r the word embedding is a table [V, r] times a projection [r, d] (COST-EFF). With an embedding size s everything up to the
    norm has that width, and a projection [s, d] with a bias comes last (ELECTRA, ALBERT). Under autocast the output, and with it what the
    layers add to, has autocast's precision: half the memory to move for everything between the matrix products.
    """

    def __init__(self, shape: EncoderShape) -> None:
        """Raises: ValueError for a shape with both factorisations."""
        super().__init__()
        rank, width = shape.embedding_rank, shape.embedding_width
        if rank and shape.embedding_size:
            raise ValueError(
                f"an embedding of rank {rank} and of size {shape.embedding_size}: wanted one of them"
            )
        self.word = nn.Embedding(shape.vocabulary, rank or width)
        self.projection = nn.Linear(rank, shape.hidden, bias=False) if rank else None
        self.position = nn.Embedding(shape.first_position + shape.positions, width)
        self.token_type = nn.Embedding(shape.token_types, width) if shape.token_types else None
        self.norm = nn.LayerNorm(width, eps=shape.layer_norm_eps)
        self.to_hidden = nn.Linear(width, shape.hidden) if shape.embedding_size else None
        self.dropout = Dropout(shape.dropout)
        self.first_position = shape.first_position

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        words = (
            self.word(ids) if self.projection is None else self.projection(self.word(ids))
        )  # [n, t, d] or [n, t, s]
        if self.token_type is not None:
            words = words + self.token_type(types)
        positions = self.position.weight[
            self.first_position : self.first_position + ids.shape[1]
        ]  # [t, d] or [t, s]
        hidden: Tensor = self.dropout(self.norm(words + positions))
        if self.to_hidden is not None:
            hidden = self.to_hidden(hidden)
        kind = hidden.device.type
        halved = kind != "meta" and torch.is_autocast_enabled(kind)
        return hidden.to(torch.get_autocast_dtype(kind)) if halved else hidden


class Layer(EncoderLayer):
    """Self-attention and feed-forward, each with a residual and a norm after it."""

    def __init__(self, shape: EncoderShape, index: int) -> None:
        super().__init__(shape, index)
        width = shape.heads[index] * shape.head_size
        self.heads, self.head_size = shape.heads[index], shape.head_size
        self.query = nn.Linear(shape.hidden, width)
        self.key = nn.Linear(shape.hidden, width)
        self.value = nn.Linear(shape.hidden, width)
        self.output = nn.Linear(width, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=shape.layer_norm_eps)
        self.widen = nn.Linear(shape.hidden, shape.ffn[index])
        self.narrow = nn.Linear(shape.ffn[index], shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.layer_norm_eps)
        self.activation = ACTIVATIONS[shape.activation]
        self.dropout = Dropout(shape.dropout)

    def forward(self, hidden: Tensor, context: LayerContext) -> Tensor:
        attention = self._trained_attention if self.training else self._attention
        mixed = attention(hidden, context)  # [n, h, t, s]
        mixed = self.output(mixed.transpose(1, 2).flatten(2))
        hidden = self.attention_norm(hidden + self.dropout(mixed))
        wide = self.activation(self.widen(hidden))  # [n, t, ffn]
        result: Tensor = self.norm(hidden + self.dropout(self.narrow(wide)))
        return result

    def _attention(self, hidden: Tensor, context: LayerContext) -> Tensor:
        query, key, value = (
            self._heads(part(hidden)) for part in (self.query, self.key, self.value)
        )
        mask = context.mask[:, None, None, :]
        return functional.scaled_dot_product_attention(query, key, value, mask)

    def _trained_attention(self, hidden: Tensor, context: LayerContext) -> Tensor:
        """The same with drop-out of the attention probabilities."""
        weights = self.dropout(self.attention_scores(hidden, context).softmax(-1))
        return weights @ self._heads(self.value(hidden))

    def attention_scores(self, hidden: Tensor, context: LayerContext) -> Tensor:
        """Scaled products of queries and keys before the soft-max [n, h, t, t], -inf at padded keys; for training and distillation."""
        mask = context.mask
        query, key = (
            self._heads(part(hidden)).flatten(0, 1) for part in (self.query, self.key)
        )  # [n h, t, s]
        padding = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(
            ~mask, float("-inf")
        )
        padding = padding.repeat_interleave(self.heads, 0)[:, None]  # [n h, 1, t]
        scores = torch.baddbmm(
            padding, query, key.transpose(1, 2), alpha=self.head_size**-0.5
        )  # product, scale and mask in one pass
        return scores.view(len(mask), self.heads, *scores.shape[1:])

    def prunable(self) -> Prunable:
        """Heads own rows of query, key and value and columns of the output; neurons own rows of
        the widening and columns of the narrowing.

        A head is scored by its columns of the output, a neuron by both of its weights (COST-EFF,
        section 3.3).
        """
        hidden, size = self.output.out_features, self.head_size
        names = ("query", "key", "value")
        inner = [Part(f"{name}.{kind}", 0) for name in names for kind in ("weight", "bias")]
        outer = Part("output.weight", 1, scored=True)
        wide = Part("widen.weight", 0, scored=True), Part("widen.bias", 0)
        narrow = Part("narrow.weight", 1, scored=True)
        return Prunable(
            heads=Units(self.heads, (*inner, outer), Polynomial(0, 4 * hidden * size, 2 * size)),
            neurons=Units(self.widen.out_features, (*wide, narrow), Polynomial(0, 2 * hidden, 0)),
        )

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_size).transpose(1, 2)  # [n, h, t, s]


class ExitHead(nn.Module):
    """pooled -> (dense) -> tanh (or what the config says) -> drop-out -> linear: state -> logits [n, c]."""

    def __init__(self, config: ModelConfig, pooler: nn.Linear | None, layer: int) -> None:
        """`layer`, from 0: the one that the exit stands after."""
        super().__init__()
        self.pooling, self.combine, self.classes, self.scale = (
            config.pooling,
            config.combine,
            config.classes,
            config.scale,
        )
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
        return logits * self.scale


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector [n, d] of hidden states [n, t, d]: the first token's, or the mean over real tokens."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


class MaskedLmHead(nn.Module):
    """Hidden states [m, d] -> logits [m, V]: dense, activation, norm, and a decoder that is the embedding's own table, with a bias.

    Only models that teach, or are being pre-trained, have one (Devlin et al., NAACL 2019, section 3.1). Its width is the embedding's.
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
    """A multi-exit model whose tensors are fixed by a config, so that it can be saved and built again."""

    layer_class: ClassVar[type[EncoderLayer]] = Layer
    """The family's layer."""

    def __init__(self, config: ModelConfig) -> None:
        """Random weights as BERT's: normal, biases 0, norms 1. The deviation is BERT's 0.02 at hidden size 768 and grows with the square
        root of 768 / hidden, so that small models start with hidden states of the same size.

        Raises: ValueError when the config does not name an exit (or None) for each layer, exits with a dense pooler are to look at
        several hidden states, or layers that share their tensors differ in width.
        """
        shape = config.shape
        if config.last_states > 1 and {"dense", "shared"} & set(config.exits):
            raise ValueError("exits that look at several hidden states have no dense pooler")
        shared = nn.Linear(shape.hidden, shape.hidden) if "shared" in config.exits else None
        super().__init__(
            embedding=Embedding(shape),
            layers=_layers(shape, self.layer_class),
            exits=[
                None if head is None else ExitHead(config, _pooler(head, shape, shared), layer)
                for layer, head in enumerate(config.exits)
            ],
        )
        self.config = config
        self.masked_lm = MaskedLmHead(shape) if config.masked_lm else None
        deviation = 0.02 * (768 / shape.hidden) ** 0.5
        self.apply(lambda module: _initialise(module, deviation))


def _layers(shape: EncoderShape, layer_class: type[EncoderLayer]) -> list[EncoderLayer]:
    if not shape.shared_layers:
        return [layer_class(shape, index) for index in range(shape.layers)]
    if len({*zip(shape.heads, shape.ffn, strict=True)}) > 1:
        raise ValueError(
            f"shared layers with heads {shape.heads} and neurons {shape.ffn}: wanted equal widths"
        )
    return [layer_class(shape, 0)] * shape.layers


def _pooler(head: Head, shape: EncoderShape, shared: nn.Linear | None) -> nn.Linear | None:
    return {"dense": nn.Linear(shape.hidden, shape.hidden), "shared": shared, "plain": None}[head]


def _initialise(module: nn.Module, deviation: float) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=deviation)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
