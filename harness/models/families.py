"""The families of encoders whose config.json can be read."""

from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError, unknown
from harness.models.checkpoint_files import CONFIG, JsonObject, read_json
from harness.models.shapes import EncoderShape

FEWEST_POSITIONS = 32
"""MACs are counted at up to so many tokens."""
ACTIVATIONS = ("gelu", "gelu_new", "relu")
"""What a layer's feed-forward block may use."""

BERT_SAYS: JsonObject = {
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
}


class Family(NamedTuple):
    """What a family of the library calls its sizes in config.json; by default as BERT does."""

    hidden: str = "hidden_size"
    heads: str = "num_attention_heads"
    layers: str = "num_hidden_layers"
    ffn: str = "intermediate_size"
    activation: str = "hidden_act"
    dropout: str = "hidden_dropout_prob"
    token_types: str | None = "type_vocab_size"
    """None: it has none."""
    embedding_size: str | None = None
    """None: its embedding has the hidden size."""
    projects_always: bool = False
    """The projection after the embedding is there even if both sizes are equal."""
    padding: str | None = None
    """The number of the padding piece, after which positions are counted; None: they are counted from 0."""
    shared_layers: bool = False
    ones: tuple[str, ...] = ()
    """What must be 1."""
    says: JsonObject = BERT_SAYS
    """What the library takes where the file says nothing."""


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
        says={"activation": "gelu", "dropout": 0.1, "layer_norm_eps": 1e-12},
    ),
    "roberta": Family(padding="pad_token_id", says=BERT_SAYS | {"pad_token_id": 1}),
    "electra": Family(embedding_size="embedding_size", says=BERT_SAYS | {"embedding_size": 128}),
    "albert": Family(
        embedding_size="embedding_size",
        projects_always=True,
        shared_layers=True,
        ones=("num_hidden_groups", "inner_group_num"),
        says=BERT_SAYS
        | {
            "embedding_size": 128,
            "hidden_act": "gelu_new",
            "hidden_dropout_prob": 0.0,
            "num_hidden_groups": 1,
            "inner_group_num": 1,
        },
    ),
}
"""model_type of config.json -> the family."""


class Described(NamedTuple):
    """What a config.json says."""

    family: str
    shape: EncoderShape


def described(folder: Path) -> Described:
    """The encoder that the folder's config.json describes.

    Raises: HarnessError for another family, and for sizes that are missing or that no encoder can have.
    """
    file = folder / CONFIG
    config = read_json(file)
    name = config.get("model_type")
    if name not in FAMILIES:
        raise HarnessError(
            f"{file}: model_type {name!r}, wanted {' or '.join(map(repr, FAMILIES))}"
        )
    family = FAMILIES[str(name)]
    given = family.says | config
    try:
        shape = _shape(family, given)
    except ValueError as error:
        raise HarnessError(
            f"{file} does not describe an encoder of the family {name}: {error}"
        ) from None
    if shape.positions < FEWEST_POSITIONS:
        rows, wanted = (
            count + shape.first_position for count in (shape.positions, FEWEST_POSITIONS)
        )
        raise HarnessError(f"{file}: max_position_embeddings {rows}, wanted {wanted} or more")
    if shape.activation not in ACTIVATIONS:
        raise HarnessError(f"{file}: {unknown(family.activation, shape.activation, ACTIVATIONS)}")
    for key in family.ones:
        if given[key] != 1:
            raise HarnessError(
                f"{file}: {key} {given[key]}, wanted 1: one layer whose tensors serve all"
            )
    return Described(str(name), shape)


def _shape(family: Family, given: JsonObject) -> EncoderShape:
    """Raises: ValueError that names a size which is missing, is no number, or which no encoder can have."""
    hidden, heads, layers, ffn = (
        _size(given, key) for key in (family.hidden, family.heads, family.layers, family.ffn)
    )
    if hidden % heads:
        raise ValueError(f"{family.hidden} {hidden}, wanted a multiple of {family.heads} {heads}")
    width = _size(given, family.embedding_size) if family.embedding_size else hidden
    first = _size(given, family.padding, least=0) + 1 if family.padding else 0
    return EncoderShape(
        vocabulary=_size(given, "vocab_size"),
        hidden=hidden,
        head_size=hidden // heads,
        heads=(heads,) * layers,
        ffn=(ffn,) * layers,
        positions=_size(given, "max_position_embeddings") - first,
        token_types=_size(given, family.token_types) if family.token_types else 0,
        activation=str(given[family.activation]),
        layer_norm_eps=_share(given, "layer_norm_eps"),
        dropout=_share(given, family.dropout),
        embedding_size=width if family.projects_always or width != hidden else None,
        first_position=first,
        shared_layers=family.shared_layers,
    )


def _size(given: JsonObject, key: str, least: int = 1) -> int:
    """Raises: ValueError for what is no whole number from `least`."""
    value = given.get(key)
    if type(value) is not int or value < least:
        raise ValueError(f"{key} {value!r}, wanted a whole number from {least}")
    return value


def _share(given: JsonObject, key: str) -> float:
    """Raises: ValueError for what is no number from 0 to below 1."""
    value = given[key]
    if isinstance(value, str | bool) or not 0 <= value < 1:
        raise ValueError(f"{key} {value!r}, wanted a number from 0 to below 1")
    return float(value)
