"""Shapes of encoders, and the families of the library whose config.json describes one. They need no weights and no hub."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Size = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class EncoderShape:
    """Everything that fixes the tensors of a BERT-type encoder. Widths are per layer, so a pruned encoder has one too."""

    vocabulary: Size
    hidden: Size
    head_size: Size
    heads: tuple[int, ...]
    """Attention heads of each layer."""
    ffn: tuple[int, ...]
    """Neurons of each layer's feed-forward block."""
    positions: Size = 512
    """Tokens that a text may have."""
    token_types: int = 2
    """0: texts of a pair are told apart by the separator alone (DistilBERT)."""
    embedding_rank: int | None = None
    """Rank of a word embedding factorised by COST-EFF, whose product has the hidden size; None is a plain one."""
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    """Drop-out of hidden states and attention probabilities in training."""
    embedding_size: Size | None = None
    """Width of an embedding factorised from the start: words, positions, token types and the norm have it, a projection with a bias follows
    (ELECTRA, ALBERT). None: all have the hidden size, and nothing follows."""
    first_position: int = 0
    """Row of the position table that a text's first token takes (RoBERTa: 2); those before it are there and unused."""
    shared_layers: bool = False
    """One layer's tensors serve all (ALBERT); their widths are equal."""

    @property
    def layers(self) -> int:
        """Number of layers that run."""
        return len(self.heads)

    @property
    def embedding_width(self) -> int:
        """Of positions, token types and the embedding's norm."""
        return self.hidden if self.embedding_size is None else self.embedding_size


LATER: dict[str, object] = {
    "embedding_size": None,
    "first_position": 0,
    "shared_layers": False,
    "at_once": False,
    "decay": True,
}
"""Fields of shapes and stages that came after the first results, and what they are where nothing is said of them."""


def hashed(value: "DataclassInstance") -> dict[str, object]:
    """The fields of a frozen dataclass as they enter a hash: without those of `LATER` that say nothing, so that older hashes stay."""
    return asdict(
        value,
        dict_factory=lambda items: {
            name: item for name, item in items if name not in LATER or item != LATER[name]
        },
    )


def bert_shape(
    layers: int,
    hidden: int,
    heads: int,
    ffn: int,
    vocabulary: int = 30_522,
    positions: int = 512,
    dropout: float = 0.1,
) -> EncoderShape:
    """The shape of an uncompressed BERT: equal layers, head size = hidden / heads."""
    return EncoderShape(
        vocabulary,
        hidden,
        hidden // heads,
        (heads,) * layers,
        (ffn,) * layers,
        positions,
        dropout=dropout,
    )
