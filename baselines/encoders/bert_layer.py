"""The layer of BERT, which DistilBERT, RoBERTa, ELECTRA and ALBERT share."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.encoders.layer import EncoderLayer, Part, Prunable, Units
from harness.models.multi_exit import LayerContext
from harness.models.shapes import EncoderShape
from harness.records import Polynomial

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}


class Dropout(nn.Module):
    """Zero each element with this probability (to 1/65536) in training and scale up the others.

    On the CPU, torch draws random numbers one by one on a single core, which takes a third of a
    training step. Here a numpy generator draws sixteen bits per element; its seed is drawn from
    torch's generator, so seeding torch still makes the result reproducible.
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


class BertLayer(EncoderLayer):
    """Self-attention and feed-forward, each followed by a residual connection and a norm."""

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
        attention = self._training_attention if self.training else self._attention
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

    def _training_attention(self, hidden: Tensor, context: LayerContext) -> Tensor:
        """Attend with dropout of the attention probabilities."""
        weights = self.dropout(self.attention_scores(hidden, context).softmax(-1))
        return weights @ self._heads(self.value(hidden))

    def attention_scores(self, hidden: Tensor, context: LayerContext) -> Tensor:
        """Return the scaled query-key products before the softmax [n, h, t, t].

        They are -inf at padded keys. Training and distillation use them.
        """
        mask = context.mask
        # query and key: [n h, t, s]
        query, key = (self._heads(part(hidden)).flatten(0, 1) for part in (self.query, self.key))
        padding = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(
            ~mask, float("-inf")
        )
        padding = padding.repeat_interleave(self.heads, 0)[:, None]  # [n h, 1, t]
        # One pass computes product, scale and mask.
        scores = torch.baddbmm(padding, query, key.transpose(1, 2), alpha=self.head_size**-0.5)
        return scores.view(len(mask), self.heads, *scores.shape[1:])

    def prunable(self) -> Prunable:
        """Describe the layer's heads and neurons.

        A head owns rows of `query`, `key` and `value` and columns of `output`; a neuron owns rows
        of `widen` and columns of `narrow`. A head is scored by its columns of `output`, a neuron
        by both of its weights (COST-EFF, section 3.3).
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
