"""Encoder families whose config.json can be read."""

from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError, unknown
from harness.models.checkpoint_files import CONFIG, JsonObject, read_json
from harness.models.shapes import EncoderShape

MIN_POSITIONS = 32
"""Smallest number of positions: MACs are counted at lengths of up to 32 tokens."""
ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")
"""Activations that a feed-forward block may use."""
ACTIVATION_SYNONYMS = {
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
    "swish": "silu",
}
"""Other names of the transformers library for the same functions (equal to 1e-6)."""

BERT_DEFAULTS: JsonObject = {
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
}


class Family(NamedTuple):
    """Keys of config.json in a family of the transformers library; the defaults are BERT's."""

    hidden: str = "hidden_size"
    heads: str = "num_attention_heads"
    layers: str = "num_hidden_layers"
    ffn: str = "intermediate_size"
    activation: str = "hidden_act"
    dropout: str = "hidden_dropout_prob"
    token_types: str | None = "type_vocab_size"
    """None if the family has no token types."""
    embedding_size: str | None = None
    """None if the embedding always has the hidden size."""
    always_projects: bool = False
    """The embedding is followed by a projection even if both sizes are equal."""
    padding: str | None = None
    """Key of the padding token's id, after which positions start; None if they start at 0."""
    shared_layers: bool = False
    layer: str = "bert"
    """Kind of layer (`EncoderShape.layer`)."""
    must_be_one: tuple[str, ...] = ()
    """Keys whose value must be 1."""
    defaults: JsonObject = BERT_DEFAULTS
    """Values that the transformers library assumes for keys missing from the file."""


FAMILIES: dict[str, Family] = {
    "bert": Family(),
    "distilbert": Family(
        hidden="dim",
        heads="n_heads",
        layers="n_layers",
        ffn="hidden_dim",
        activation="activation",
        dropout="dropout",
        token_types=None,
        defaults={"activation": "gelu", "dropout": 0.1, "layer_norm_eps": 1e-12},
    ),
    "roberta": Family(padding="pad_token_id", defaults=BERT_DEFAULTS | {"pad_token_id": 1}),
    "electra": Family(
        embedding_size="embedding_size", defaults=BERT_DEFAULTS | {"embedding_size": 128}
    ),
    "albert": Family(
        embedding_size="embedding_size",
        always_projects=True,
        shared_layers=True,
        must_be_one=("num_hidden_groups", "inner_group_num"),
        defaults=BERT_DEFAULTS
        | {
            "embedding_size": 128,
            "hidden_act": "gelu_new",
            "hidden_dropout_prob": 0.0,
            "num_hidden_groups": 1,
            "inner_group_num": 1,
        },
    ),
}
"""Families by the model_type of config.json.

A new family also needs a row in `NAMES`, the encoder's table of tensor names; one whose layer
differs from BERT's needs a row in `LAYERS` too.
"""


class EncoderConfig(NamedTuple):
    """Family and shape of the encoder that a config.json describes."""

    family: str
    shape: EncoderShape


def read_encoder_config(folder: Path) -> EncoderConfig:
    """Return the encoder that the folder's config.json describes.

    Raises: HarnessError for an unsupported family, and for sizes that are missing or invalid.
    """
    file = folder / CONFIG
    config = read_json(file)
    name = config.get("model_type")
    if name not in FAMILIES:
        raise HarnessError(
            f"{file}: model_type {name!r}, expected {' or '.join(map(repr, FAMILIES))}"
        )
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise HarnessError(
                f"{file}: {key} is set, expected an encoder, whose tokens see all others"
            )
    family = FAMILIES[str(name)]
    values = family.defaults | config
    try:
        shape = _shape(family, values)
    except ValueError as error:
        raise HarnessError(
            f"{file} does not describe an encoder of family {name}: {error}"
        ) from None
    if shape.positions < MIN_POSITIONS:
        positions, minimum = (
            count + shape.first_position for count in (shape.positions, MIN_POSITIONS)
        )
        raise HarnessError(
            f"{file}: max_position_embeddings {positions}, expected {minimum} or more"
        )
    if shape.activation not in ACTIVATIONS:
        raise HarnessError(f"{file}: {unknown(family.activation, shape.activation, ACTIVATIONS)}")
    for key in family.must_be_one:
        if values[key] != 1:
            raise HarnessError(
                f"{file}: {key} {values[key]}, expected 1: all layers share one set of weights"
            )
    return EncoderConfig(str(name), shape)


def _shape(family: Family, values: JsonObject) -> EncoderShape:
    """Raise ValueError naming a size that is missing, not a number, or invalid."""
    hidden, heads, layers, ffn = (
        _size(values, key) for key in (family.hidden, family.heads, family.layers, family.ffn)
    )
    if hidden % heads:
        raise ValueError(f"{family.hidden} {hidden}, expected a multiple of {family.heads} {heads}")
    width = _size(values, family.embedding_size) if family.embedding_size else hidden
    activation = str(values[family.activation])
    first = _size(values, family.padding, minimum=0) + 1 if family.padding else 0
    return EncoderShape(
        vocabulary=_size(values, "vocab_size"),
        hidden=hidden,
        head_size=hidden // heads,
        heads=(heads,) * layers,
        ffn=(ffn,) * layers,
        positions=_size(values, "max_position_embeddings") - first,
        token_types=_size(values, family.token_types) if family.token_types else 0,
        activation=ACTIVATION_SYNONYMS.get(activation, activation),
        layer_norm_eps=_fraction(values, "layer_norm_eps"),
        dropout=_fraction(values, family.dropout),
        embedding_size=width if family.always_projects or width != hidden else None,
        first_position=first,
        shared_layers=family.shared_layers,
        layer=family.layer,
    )


def _size(values: JsonObject, key: str, minimum: int = 1) -> int:
    """Raise ValueError unless the value is a whole number of at least `minimum`."""
    value = values.get(key)
    if type(value) is not int or value < minimum:
        raise ValueError(f"{key} {value!r}, expected a whole number of at least {minimum}")
    return value


def _fraction(values: JsonObject, key: str) -> float:
    """Raise ValueError unless the value is a number from 0 to below 1."""
    value = values[key]
    if isinstance(value, str | bool) or not 0 <= value < 1:
        raise ValueError(f"{key} {value!r}, expected a number from 0 to below 1")
    return float(value)
