"""Shapes of encoders, independent of their weights and of the hub."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from harness.files.digests import added_field

Size = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class EncoderShape:
    """Everything that determines the tensors of a BERT-type encoder.

    Widths are given per layer, so that the shape can also describe a pruned encoder.
    """

    vocabulary: Size
    hidden: Size
    head_size: Size
    heads: tuple[int, ...]
    """Number of attention heads in each layer."""
    ffn: tuple[int, ...]
    """Number of neurons in each layer's feed-forward block."""
    positions: Size = 512
    """Maximum number of tokens in a text."""
    token_types: int = 2
    """0 if only the separator distinguishes the texts of a pair (DistilBERT)."""
    embedding_rank: int | None = None
    """Rank of a word embedding factorised by COST-EFF into a product of the hidden size; None if
    it is not factorised."""
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    """Dropout rate of hidden states and attention probabilities in training."""
    embedding_size: Size | None = added_field(None)
    """Width of an embedding factorised from the start (ELECTRA, ALBERT): words, positions, token
    types and the norm have this width, and a projection with a bias follows. If None, all have
    the hidden size and there is no projection."""
    first_position: int = added_field(0)
    """Row of the position table for a text's first token (RoBERTa: 2); earlier rows are unused."""
    shared_layers: bool = added_field(False)
    """All layers share the tensors of one (ALBERT); their widths are equal."""
    layer: str = added_field("bert")
    """Kind of layer: a name in the encoder's table `LAYERS`."""

    @property
    def layers(self) -> int:
        """Number of layers that run."""
        return len(self.heads)

    @property
    def embedding_width(self) -> int:
        """Width of positions, token types and the embedding's norm."""
        return self.hidden if self.embedding_size is None else self.embedding_size


def bert_shape(
    layers: int,
    hidden: int,
    heads: int,
    ffn: int,
    vocabulary: int = 30_522,
    positions: int = 512,
    dropout: float = 0.1,
) -> EncoderShape:
    """Return the shape of an uncompressed BERT: equal layers, head size = hidden / heads."""
    return EncoderShape(
        vocabulary,
        hidden,
        hidden // heads,
        (heads,) * layers,
        (ffn,) * layers,
        positions,
        dropout=dropout,
    )
