"""Tensor names in the checkpoints of each model family, mapped to the encoder's own names.

Here and in `weights`, a source is a name in the checkpoint and a target a name in our model.
"""

from collections.abc import Iterable
from typing import NamedTuple

from harness.models.shapes import EncoderShape

KINDS = ("weight", "bias")

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


class TensorNames(NamedTuple):
    """Tensor names of a family; the defaults are BERT's."""

    prefix: str = "bert."
    """Prefix of the encoder's tensors in a model with a head."""
    layer: str = "encoder.layer.{}"
    """Name of a layer, given its index."""
    parts: dict[str, str] = PARTS
    """Our module of a layer -> the family's."""
    projection: str | None = None
    """Projection after a factorised embedding."""
    pooler: str = "pooler.dense"
    """[CLS] pooler."""
    head: tuple[str, str] = ("pooler.dense", "classifier")
    """Dense layer and output layer of a fine-tuned classifier."""
    masked_lm: dict[str, str] | None = None
    """Our tensor of the masked-LM head -> the family's; None for a family without that head. The
    decoder is the embedding's table."""
    left_out: tuple[str, ...] = ("embeddings.position_ids", "pooler.")
    """Prefixes of tensors that may stay unused: a buffer, the pooler, the heads of pre-training."""

    def normalised(self, name: str) -> str:
        """Return the name without the prefix and with `weight`, `bias` for a norm's gamma, beta."""
        name = name.removeprefix(self.prefix)
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        )

    def encoder_tensors(self, shape: EncoderShape) -> dict[str, list[str]]:
        """Map the tensors of an encoder of this shape to ours; a shared layer maps to several."""
        embedding = {"word_embeddings": "word", "position_embeddings": "position"}
        embedding |= {"token_type_embeddings": "token_type"} if shape.token_types else {}
        tensors = {
            f"embeddings.{source}.weight": [f"embedding.{target}.weight"]
            for source, target in embedding.items()
        }
        modules = {"embeddings.LayerNorm": ["embedding.norm"]}
        if shape.embedding_size and self.projection is not None:
            modules[self.projection] = ["embedding.to_hidden"]
        for layer in range(1 if shape.shared_layers else shape.layers):
            indices = range(shape.layers) if shape.shared_layers else (layer,)
            modules |= {
                f"{self.layer.format(layer)}.{source}": [f"layers.{i}.{target}" for i in indices]
                for target, source in self.parts.items()
            }
        return tensors | {
            f"{source}.{kind}": [f"{target}.{kind}" for target in targets]
            for source, targets in modules.items()
            for kind in KINDS
        }

    def head_tensors(self, exit_: str) -> dict[str, list[str]]:
        """Map the tensors of a fine-tuned classifier's head to those of our exit `exit_`."""
        modules = dict(zip(self.head, ("pooler", "classifier"), strict=True))
        return {
            f"{source}.{kind}": [f"{exit_}.{target}.{kind}"]
            for source, target in modules.items()
            for kind in KINDS
        }

    def masked_lm_tensors(self) -> dict[str, list[str]]:
        """Map the tensors of the masked-LM head to ours."""
        names = self.masked_lm or {}
        return {source: [f"masked_lm.{target}"] for target, source in names.items()}

    def has_masked_lm(self, names: Iterable[str]) -> bool:
        """Return whether a checkpoint with these normalised names holds the masked-LM head."""
        return self.masked_lm is not None and set(self.masked_lm.values()) <= set(names)


def _masked_lm(dense: str, norm: str, bias: str) -> dict[str, str]:
    modules = {"dense": dense, "norm": norm}
    return {
        f"{target}.{kind}": f"{source}.{kind}"
        for target, source in modules.items()
        for kind in KINDS
    } | {"bias": bias}


NAMES: dict[str, TensorNames] = {
    "bert": TensorNames(
        masked_lm=_masked_lm(
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.bias",
        ),
        left_out=(*TensorNames().left_out, "cls.", "fit_dense"),
    ),
    "distilbert": TensorNames(
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
        left_out=(*TensorNames().left_out, "vocab_"),
    ),
    "roberta": TensorNames(
        prefix="roberta.",
        head=("classifier.dense", "classifier.out_proj"),
        masked_lm=_masked_lm("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
        left_out=(*TensorNames().left_out, "lm_head."),
    ),
    "electra": TensorNames(
        prefix="electra.",
        projection="embeddings_project",
        head=("classifier.dense", "classifier.out_proj"),
        left_out=(*TensorNames().left_out, "discriminator_predictions."),
    ),
    "albert": TensorNames(
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
        left_out=(*TensorNames().left_out, "predictions.", "sop_classifier."),
    ),
}
"""Family (`families.FAMILIES`) -> its tensor names. The tensors left out include TinyBERT's
projections, an untied copy of the decoder and ELECTRA's head."""
