"""What each family of the library calls the tensors of its checkpoints, and which of ours they are."""

from collections.abc import Iterable
from typing import NamedTuple

from harness.models.shapes import EncoderShape

BOTH = ("weight", "bias")

PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "norm": "output.LayerNorm",
}
"""Our module of a layer -> BERT's."""


class Names(NamedTuple):
    """A family's names; by default BERT's."""

    prefix: str = "bert."
    """Of the encoder inside a model with a head."""
    layer: str = "encoder.layer.{}"
    """A layer by its number."""
    parts: dict[str, str] = PARTS
    """Our module of a layer -> the family's."""
    projection: str | None = None
    """The projection after a factorised embedding."""
    pooler: str = "pooler.dense"
    """The [CLS] pooler."""
    head: tuple[str, str] = ("pooler.dense", "classifier")
    """Of a fine-tuned classifier: the dense layer, and the one that gives the logits."""
    masked_lm: dict[str, str] | None = None
    """Our tensor of the masked-LM head, whose decoder is the embedding's table -> the family's; None: it has no such head."""
    left_out: tuple[str, ...] = ("embeddings.position_ids", "pooler.")
    """Beginnings of names that a model may leave in the file: a buffer, the pooler, heads of pre-training."""

    def plain(self, name: str) -> str:
        """A tensor's name without the prefix, and with today's words for a norm's weight and bias."""
        name = name.removeprefix(self.prefix)
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        )

    def encoder_tensors(self, shape: EncoderShape) -> dict[str, list[str]]:
        """The family's tensor -> ours, for an encoder of this shape; a layer that repeats is several of ours."""
        embedding = {"word_embeddings": "word", "position_embeddings": "position"}
        embedding |= {"token_type_embeddings": "token_type"} if shape.token_types else {}
        tensors = {
            f"embeddings.{theirs}.weight": [f"embedding.{ours}.weight"]
            for theirs, ours in embedding.items()
        }
        modules = {"embeddings.LayerNorm": ["embedding.norm"]}
        if shape.embedding_size and self.projection is not None:
            modules[self.projection] = ["embedding.to_hidden"]
        for layer in range(1 if shape.shared_layers else shape.layers):
            places = range(shape.layers) if shape.shared_layers else (layer,)
            modules |= {
                f"{self.layer.format(layer)}.{theirs}": [f"layers.{i}.{ours}" for i in places]
                for ours, theirs in self.parts.items()
            }
        return tensors | {
            f"{theirs}.{kind}": [f"{name}.{kind}" for name in ours]
            for theirs, ours in modules.items()
            for kind in BOTH
        }

    def head_tensors(self, exit_: str) -> dict[str, list[str]]:
        """The family's tensor -> ours, of a fine-tuned classifier's head, which is our exit of this name."""
        modules = dict(zip(self.head, ("pooler", "classifier"), strict=True))
        return {
            f"{theirs}.{kind}": [f"{exit_}.{ours}.{kind}"]
            for theirs, ours in modules.items()
            for kind in BOTH
        }

    def masked_lm_tensors(self) -> dict[str, list[str]]:
        """The family's tensor -> ours, of the masked-LM head."""
        return {theirs: [f"masked_lm.{ours}"] for ours, theirs in (self.masked_lm or {}).items()}

    def has_masked_lm(self, names: Iterable[str]) -> bool:
        """Whether a checkpoint with these plain names holds the head."""
        return self.masked_lm is not None and set(self.masked_lm.values()) <= set(names)


def _masked_lm(dense: str, norm: str, bias: str) -> dict[str, str]:
    modules = {"dense": dense, "norm": norm}
    return {
        f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in BOTH
    } | {"bias": bias}


NAMES: dict[str, Names] = {
    "bert": Names(
        masked_lm=_masked_lm(
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.bias",
        ),
        left_out=(*Names().left_out, "cls.", "fit_dense"),
    ),
    "distilbert": Names(
        prefix="distilbert.",
        layer="transformer.layer.{}",
        parts={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "output": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "widen": "ffn.lin1",
            "narrow": "ffn.lin2",
            "norm": "output_layer_norm",
        },
        head=("pre_classifier", "classifier"),
        masked_lm=_masked_lm("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
        left_out=(*Names().left_out, "vocab_"),
    ),
    "roberta": Names(
        prefix="roberta.",
        head=("classifier.dense", "classifier.out_proj"),
        masked_lm=_masked_lm("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
        left_out=(*Names().left_out, "lm_head."),
    ),
    "electra": Names(
        prefix="electra.",
        projection="embeddings_project",
        head=("classifier.dense", "classifier.out_proj"),
        left_out=(*Names().left_out, "discriminator_predictions."),
    ),
    "albert": Names(
        prefix="albert.",
        layer="encoder.albert_layer_groups.{}.albert_layers.0",
        parts={
            "query": "attention.query",
            "key": "attention.key",
            "value": "attention.value",
            "output": "attention.dense",
            "attention_norm": "attention.LayerNorm",
            "widen": "ffn",
            "narrow": "ffn_output",
            "norm": "full_layer_layer_norm",
        },
        projection="encoder.embedding_hidden_mapping_in",
        pooler="pooler",
        head=("pooler", "classifier"),
        masked_lm=_masked_lm("predictions.dense", "predictions.LayerNorm", "predictions.bias"),
        left_out=(*Names().left_out, "predictions.", "sop_classifier."),
    ),
}
"""Family (`shapes.FAMILIES`) -> its names. Left out: TinyBERT's projections, an untied copy of the decoder, ELECTRA's head."""
