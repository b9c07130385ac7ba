"""Listed backbones: published parameters and MACs, and unchanged fingerprints."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from support.synthetic import needs_minilm
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForPreTraining,
    ElectraConfig,
    ElectraModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from baselines.distillation.stages import PredictionDistillation
from baselines.encoders.encoder import EncoderModel
from baselines.encoders.tensor_names import NAMES
from baselines.training.finetune import model_config, single_exit
from baselines.training.recipe import Schedule
from harness.data import demo
from harness.data.tasks import TASKS
from harness.files.digests import written_fields
from harness.files.typed_json import from_json
from harness.measure.macs import piece_costs
from harness.methods.registry import load_method
from harness.models.backbones import BACKBONES, MINIATURES, Backbone, find_backbone, known_backbones
from harness.models.families import FAMILIES
from harness.models.shapes import EncoderShape


def closed_form(shape: EncoderShape, classes: int) -> int:
    """Return the number of parameters of BERT as described by Devlin et al.

    They are embeddings and norm, layers, dense pooler and classifier, all with biases. Other
    families add unused rows of positions, a narrower embedding with a projection, and shared
    layers, which count once.
    """
    d, width = shape.hidden, shape.embedding_size or shape.hidden
    attention = 4 * (d * d + d) + 2 * d
    feed_forward = (d * shape.ffn[0] + shape.ffn[0]) + (shape.ffn[0] * d + d) + 2 * d
    embeddings = (
        shape.vocabulary + shape.first_position + shape.positions + shape.token_types
    ) * width + 2 * width
    projection = width * d + d if shape.embedding_size else 0
    layers = (1 if shape.shared_layers else shape.layers) * (attention + feed_forward)
    return embeddings + projection + layers + (d * d + d) + (d * classes + classes)


PUBLISHED = {
    "minilm": 22_713_216,
    "bert-base-uncased": 109_482_240,
    "bert-large-uncased": 335_141_888,
    "roberta-base": 124_645_632,
    "albert-base-v2": 11_683_584,
}
"""Parameters of the library's models for these checkpoints, including the dense pooler."""


def on_meta(backbone: Backbone, masked_lm: bool = False) -> EncoderModel:
    """Return a model with one exit, which has a dense pooler and two classes."""
    config = model_config(backbone, TASKS["rte"], single_exit(backbone.shape, "dense"))
    with torch.device("meta"):
        return EncoderModel(replace(config, masked_lm=masked_lm))


@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_match_closed_form(name: str) -> None:
    """Parameter counts equal the closed form and those of the published models."""
    shape = BACKBONES[name].shape
    with torch.device("meta"):
        model = load_method("bert").build(BACKBONES[name], TASKS["rte"])
    assert model.parameter_count() == closed_form(shape, 2)
    if name in PUBLISHED:
        assert closed_form(shape, 0) == PUBLISHED[name]


BASE: dict[str, object] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
ROBERTA = RobertaConfig(**BASE, vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [
        ("roberta-base", RobertaModel, ROBERTA),
        ("albert-base-v2", AlbertModel, AlbertConfig(**BASE)),
        ("electra-small-discriminator", ElectraModel, ElectraConfig()),
        ("electra-base-discriminator", ElectraModel, ElectraConfig(**BASE, embedding_size=768)),
    ],
)
def test_parameters_match_library_models(
    name: str, kind: type[PreTrainedModel], config: PreTrainedConfig
) -> None:
    """Parameter counts equal those of the library's model; ELECTRA's has no pooler."""
    with torch.device("meta"):
        library = sum(parameter.numel() for parameter in kind(config).parameters())
    d = BACKBONES[name].shape.hidden
    pooler = d * d + d if kind is ElectraModel else 0
    assert on_meta(BACKBONES[name]).parameter_count() - (2 * d + 2) - pooler == library


def test_table_shapes_are_published_ones() -> None:
    """The shapes of listed backbones are the published ones."""
    shapes = {
        name: (
            b.shape.layers,
            b.shape.hidden,
            b.shape.heads[0],
            b.shape.ffn[0],
            b.shape.vocabulary,
            b.shape.positions,
        )
        for name, b in BACKBONES.items()
        if not name.startswith("bert_uncased_L")
    }
    assert shapes == {
        "tiny": (4, 128, 4, 512, len(demo.demo_vocabulary()), 128),
        "minilm": (6, 384, 12, 1536, 30_522, 512),
        "bert-base-uncased": (12, 768, 12, 3072, 30_522, 512),
        "bert-large-uncased": (24, 1024, 16, 4096, 30_522, 512),
        "distilbert-base-uncased": (6, 768, 12, 3072, 30_522, 512),
        "TinyBERT_General_4L_312D": (4, 312, 12, 1200, 30_522, 512),
        "TinyBERT_General_6L_768D": (6, 768, 12, 3072, 30_522, 512),
        "roberta-base": (12, 768, 12, 3072, 50_265, 512),
        "albert-base-v2": (12, 768, 12, 3072, 30_000, 512),
        "electra-small-discriminator": (12, 256, 4, 1024, 30_522, 512),
        "electra-base-discriminator": (12, 768, 12, 3072, 30_522, 512),
    }
    for name, backbone in BACKBONES.items():
        assert backbone.name == name
        assert backbone.shape.head_size * backbone.shape.heads[0] == backbone.shape.hidden
        assert len(backbone.shape.ffn) == len(backbone.shape.heads) == backbone.shape.layers
        assert backbone.licence
        assert backbone.learning_rates
        assert backbone.family in FAMILIES
    assert FAMILIES.keys() == NAMES.keys()


@needs_minilm
def test_minilm_wheel_holds_expected_weights() -> None:
    """The package of minilm holds the expected weights and shape."""
    minilm = replace(BACKBONES["minilm"])
    folder = minilm.folder
    assert folder is not None
    assert find_backbone(str(folder)).shape == minilm.shape
    published = [101, 7592, 2088, 999, 102]  # by bert-base-uncased
    assert minilm.encode([("hello world!",)], 16).ids[0].tolist() == published


# --- Turc's miniatures


WIDTHS = (128, 256, 512, 768)
MILLIONS = {
    2: (4.4, 9.7, 22.8, 39.2),
    4: (4.8, 11.3, 29.1, 53.4),
    6: (5.2, 12.8, 35.4, 67.5),
    8: (5.6, 14.4, 41.7, 81.7),
    10: (6.0, 16.0, 48.0, 95.9),
    12: (6.4, 17.6, 54.3, 110.1),
}
"""Layers -> parameters at each width, as reported by Turc et al."""
TRUNCATED = {(6, 768), (8, 768)}
"""67.58 and 81.75 are reported as 67.5 and 81.7; all others are rounded."""


def miniature(layers: int, hidden: int) -> Backbone:
    return find_backbone(f"google/bert_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}")


@pytest.mark.parametrize("layers", MILLIONS)
def test_miniature_parameters_are_published_ones(layers: int) -> None:
    """The parameters of the miniatures are the published ones.

    They include the pooler, next-sentence classifier and masked-LM head of the checkpoints."""
    for hidden, millions in zip(WIDTHS, MILLIONS[layers], strict=True):
        backbone = miniature(layers, hidden)
        count = on_meta(backbone, masked_lm=True).parameter_count()
        shape = backbone.shape
        config = BertConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=shape.heads[0],
            intermediate_size=shape.ffn[0],
        )
        with torch.device("meta"):
            assert count == sum(
                parameter.numel() for parameter in BertForPreTraining(config).parameters()
            )
        assert millions == (
            int(count / 1e5) / 10 if (layers, hidden) in TRUNCATED else round(count / 1e6, 1)
        )


@pytest.mark.parametrize(
    ("name", "layers", "hidden", "millions", "gigamacs"),
    [
        ("bert-tiny", 2, 128, 4.39, 0.059),
        ("bert-mini", 4, 256, 11.17, 0.436),
        ("bert-small", 4, 512, 28.76, 1.678),
        ("bert-medium", 8, 512, 41.37, 3.356),
    ],
)
def test_named_miniatures_match_published_costs(
    name: str, layers: int, hidden: int, millions: float, gigamacs: float
) -> None:
    """With pooler and two classes the named miniatures have the published parameters and MACs
    at 128 tokens."""
    backbone = find_backbone(name)
    assert backbone is miniature(layers, hidden)
    model = on_meta(backbone)
    assert round(model.parameter_count() / 1e6, 2) == millions
    assert round(piece_costs(model).static(layers - 1, 128) / 1e9, 3) == gigamacs


def test_miniatures_have_authors_settings() -> None:
    """All 24 miniatures are listed with the settings of their authors."""
    found = [backbone for name, backbone in BACKBONES.items() if name.startswith("bert_uncased_L")]
    assert (
        len({(backbone.shape.layers, backbone.shape.hidden) for backbone in found})
        == len(found)
        == 24
    )
    assert all(
        backbone.shape.head_size == 64 and backbone.shape.ffn[0] == 4 * backbone.shape.hidden
        for backbone in found
    )
    assert all(
        backbone.epochs == 4 and backbone.learning_rates == (5e-5, 1e-4, 3e-4) and backbone.pickled
        for backbone in found
    )
    assert MINIATURES.keys() <= known_backbones().keys()


# --- MACs of the other families


def closed_form_macs(shape: EncoderShape, t: int) -> int:
    """Return the MACs of projection, layers, pooler and a classifier of two classes."""
    d = shape.hidden
    layer = 4 * t * d**2 + 2 * t**2 * d + 2 * t * d * shape.ffn[0]
    return t * (shape.embedding_size or 0) * d + shape.layers * layer + d**2 + 2 * d


@pytest.mark.parametrize(
    "name",
    ["roberta-base", "albert-base-v2", "electra-small-discriminator", "electra-base-discriminator"],
)
def test_macs_count_every_layer_run(name: str) -> None:
    """MACs count the projection, and each layer each time it runs."""
    backbone = BACKBONES[name]
    model = on_meta(backbone)
    assert piece_costs(model).static(11, 128) == closed_form_macs(backbone.shape, 128)
    if backbone.shape.hidden == 768 and not backbone.shape.embedding_size:
        assert piece_costs(model).static(11, 128) == 11_174_217_216


def test_repeated_layers_are_one() -> None:
    """Shared layers are one module, whatever their number."""
    with torch.device("meta"):
        model = load_method("pabee").build(BACKBONES["albert-base-v2"], TASKS["rte"])
    total, first = (model.truncated(layers).parameter_count() for layers in (12, 1))
    assert total == first == 11_683_584 + 2 * 768 + 2
    assert len(set(model.layers)) == 1


# --- fingerprints


def test_tiny_fingerprint_never_changes() -> None:
    """The fingerprint of tiny is that of the first results."""
    assert replace(BACKBONES["tiny"]).fingerprint == "8ea5b0acd1b787e1"


@needs_minilm
def test_minilm_fingerprint_never_changes() -> None:
    """The fingerprint of minilm is that of the first results."""
    assert replace(BACKBONES["minilm"]).fingerprint == "5a7f0c96dfdaeaa9"


TINY = {
    "vocabulary": 128, "hidden": 128, "head_size": 32, "heads": (4, 4, 4, 4),
    "ffn": (512, 512, 512, 512), "positions": 128, "token_types": 2, "embedding_rank": None,
    "activation": "gelu", "layer_norm_eps": 1e-12, "dropout": 0.0,
}  # fmt: skip
"""Fields of the shape of `tiny` that were hashed before other families were added, in order."""


def test_later_fields_hash_when_set() -> None:
    """Later fields are not hashed at their default values."""
    shape = BACKBONES["tiny"].shape
    assert json.dumps(written_fields(shape)) == json.dumps(TINY)
    stage = PredictionDistillation(
        "prediction", shape, "dense", 0.5, 1.0, None, Schedule(1, 16, 1e-3, 0.0, 0.01, 1.0, 1)
    )
    schedule = asdict(stage.schedule)
    without_decay = schedule | {"decay": False}
    del schedule["decay"]
    assert written_fields(stage) == asdict(stage) | {"shape": TINY, "schedule": schedule}
    assert (
        written_fields(replace(stage, schedule=replace(stage.schedule, decay=False)))["schedule"]
        == without_decay
    )
    others = {"embedding_size": 64, "first_position": 2, "shared_layers": True, "layer": "x"}
    for name, value in others.items():
        assert written_fields(replace(shape, **{name: value})) == TINY | {name: value}


def test_old_shape_file_is_read() -> None:
    """A shape saved before the later fields were added can be read."""
    assert from_json(EncoderShape, json.dumps(TINY), "config.json") == BACKBONES["tiny"].shape
