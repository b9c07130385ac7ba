"""Masked language modelling (Devlin et al., NAACL 2019, section 3.1): masking rows, and a head that tells the masked words."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.encoder import Embedding
from harness.backbones import Backbone, EncoderShape
from harness.errors import HarnessError
from harness.model import Batch

MASKED_SHARE = 0.15
"""Of the real tokens; at least one a row."""
AS_MASK, AS_RANDOM = 0.8, 0.1
"""What becomes of a masked token: [MASK], a random word piece, or (the rest) itself."""


class MaskedLmHead(nn.Module):
    """Hidden states [m, d] -> logits [m, V]: dense, GELU, norm, and a decoder that is the embedding's own table, with a bias."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))

    def forward(self, hidden: Tensor, embedding: Embedding) -> Tensor:
        transformed = self.norm(functional.gelu(self.dense(hidden)))
        if embedding.projection is not None:
            transformed = transformed @ embedding.projection.weight  # [m, r]
        return functional.linear(transformed, embedding.word.weight, self.bias)


class Pieces(NamedTuple):
    """The word pieces of a vocabulary that masking treats apart."""

    mask: int
    special: tuple[int, ...]
    """Never masked, never put in: [PAD], [UNK], [CLS], [SEP], [MASK]."""
    size: int

    @classmethod
    def of(cls, backbone: Backbone) -> "Pieces":
        """Raises: HarnessError when the backbone's vocabulary has no [MASK]."""
        ids = {name: backbone.tokenizer.token_to_id(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
        if ids["[MASK]"] is None:
            raise HarnessError(f"backbone {backbone.name}: the vocabulary has no [MASK], which masked language modelling needs")
        return cls(ids["[MASK]"], tuple(id_ for id_ in ids.values() if id_ is not None), backbone.tokenizer.get_vocab_size())


class Masked(NamedTuple):
    """Rows with some of their tokens masked."""

    batch: Batch
    places: Tensor
    """[n, t] bool: where something is to be told."""
    targets: Tensor
    """[m] what stood there, in the order of `places`."""


def masked(batch: Batch, pieces: Pieces) -> Masked:
    """Mask a share of each row's tokens, drawn from torch's generator."""
    special = torch.tensor(pieces.special, device=batch.ids.device)
    free = batch.mask & ~torch.isin(batch.ids, special)
    draws = torch.rand(batch.ids.shape, device=batch.ids.device).masked_fill(~free, 2.0)
    counts = (MASKED_SHARE * free.sum(1)).round().clamp(min=1).minimum(free.sum(1)).long()
    ranks = draws.argsort(1).argsort(1)
    places = ranks < counts[:, None]
    fate = torch.rand(batch.ids.shape, device=batch.ids.device)
    ids = torch.where(places & (fate < AS_MASK), pieces.mask, batch.ids)
    words = _words(pieces, batch.ids.device)
    random = words[torch.randint(len(words), batch.ids.shape, device=batch.ids.device)]
    ids = torch.where(places & (fate >= AS_MASK) & (fate < AS_MASK + AS_RANDOM), random, ids)
    return Masked(batch._replace(ids=ids), places, batch.ids[places])


def _words(pieces: Pieces, device: torch.device) -> Tensor:
    """Ids of all pieces but the special ones."""
    everything = torch.arange(pieces.size, device=device)
    return everything[~torch.isin(everything, torch.tensor(pieces.special, device=device))]
