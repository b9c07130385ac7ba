"""Tests of published small checkpoints, in a hub cache that the tests create.

Every tensor is accounted for, and pickles may hold only tensors.
"""

import pickle
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from support.messages import assert_message
from support.synthetic import BERT_WORDS, TouchesAFile
from torch import Tensor

from baselines.encoders.encoder import ModelConfig
from baselines.encoders.weights import has_masked_lm_head, pretrained
from harness.errors import HarnessError
from harness.models.backbones import BACKBONES, Backbone, find_backbone
from harness.models.checkpoint_files import PICKLED, WEIGHTS
from harness.models.shapes import bert_shape

HIDDEN, FFN, POSITIONS = 12, 20, 40
"""Sizes of the models in these tests; layers, names and files are those of the hub."""

Shapes = dict[str, tuple[int, ...]]

BERT_LAYER: Shapes = {
    "attention.self.query": (HIDDEN, HIDDEN),
    "attention.self.key": (HIDDEN, HIDDEN),
    "attention.self.value": (HIDDEN, HIDDEN),
    "attention.output.dense": (HIDDEN, HIDDEN),
    "attention.output.LayerNorm": (HIDDEN,),
    "intermediate.dense": (FFN, HIDDEN),
    "output.dense": (HIDDEN, FFN),
    "output.LayerNorm": (HIDDEN,),
}
DISTILBERT_LAYER: Shapes = {
    "attention.q_lin": (HIDDEN, HIDDEN),
    "attention.k_lin": (HIDDEN, HIDDEN),
    "attention.v_lin": (HIDDEN, HIDDEN),
    "attention.out_lin": (HIDDEN, HIDDEN),
    "sa_layer_norm": (HIDDEN,),
    "ffn.lin1": (FFN, HIDDEN),
    "ffn.lin2": (HIDDEN, FFN),
    "output_layer_norm": (HIDDEN,),
}
EMBEDDINGS: Shapes = {
    "embeddings.word_embeddings.weight": (len(BERT_WORDS), HIDDEN),
    "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
    "embeddings.LayerNorm.weight": (HIDDEN,),
    "embeddings.LayerNorm.bias": (HIDDEN,),
}


def with_biases(modules: Shapes, prefix: str) -> Shapes:
    named = {f"{prefix}{name}.weight": shape for name, shape in modules.items()}
    return named | {f"{prefix}{name}.bias": shape[:1] for name, shape in modules.items()}


def tinybert(layers: int) -> Shapes:
    """Return the tensor shapes in pytorch_model.bin of huawei-noah's general models.

    They are BERT's, those of its pre-training heads, and a projection for each hidden state."""
    heads = {
        "cls.predictions.transform.dense": (HIDDEN, HIDDEN),
        "cls.predictions.transform.LayerNorm": (HIDDEN,),
    }
    shapes = {f"bert.{name}": shape for name, shape in EMBEDDINGS.items()}
    shapes |= {"bert.embeddings.token_type_embeddings.weight": (2, HIDDEN)}
    for layer in range(layers):
        shapes |= with_biases(BERT_LAYER, f"bert.encoder.layer.{layer}.")
    shapes |= with_biases(
        {"bert.pooler.dense": (HIDDEN, HIDDEN), **heads, "cls.seq_relationship": (2, HIDDEN)}, ""
    )
    shapes |= {
        "cls.predictions.bias": (len(BERT_WORDS),),
        "cls.predictions.decoder.weight": (len(BERT_WORDS), HIDDEN),
    }
    return shapes | with_biases(
        {f"fit_denses.{state}": (2 * HIDDEN, HIDDEN) for state in range(layers + 1)}, ""
    )


def distilbert(layers: int) -> Shapes:
    """Return the tensor shapes in model.safetensors of distilbert-base-uncased.

    The file holds the word embedding once, without the projector's weight, which is the same
    tensor."""
    shapes = {f"distilbert.{name}": shape for name, shape in EMBEDDINGS.items()}
    for layer in range(layers):
        shapes |= with_biases(DISTILBERT_LAYER, f"distilbert.transformer.layer.{layer}.")
    shapes |= with_biases({"vocab_transform": (HIDDEN, HIDDEN), "vocab_layer_norm": (HIDDEN,)}, "")
    return shapes | {"vocab_projector.bias": (len(BERT_WORDS),)}


PROJECTOR: Shapes = {"vocab_projector.weight": (len(BERT_WORDS), HIDDEN)}
"""Tensor that pytorch_model.bin of DistilBERT holds in addition."""

CHECKPOINTS = {
    "TinyBERT_General_4L_312D": tinybert(4),
    "TinyBERT_General_6L_768D": tinybert(6),
    "distilbert-base-uncased": distilbert(6),
}


def random_tensors(shapes: Shapes) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def create_snapshot(name: str, cache: Path) -> tuple[Backbone, Path]:
    """Return a narrow backbone of that name and its cached snapshot, still without weights."""
    backbone = BACKBONES[name]
    repository = backbone.source.removeprefix("hub:")
    snapshot = (
        cache / f"models--{repository.replace('/', '--')}" / "snapshots" / str(backbone.revision)
    )
    snapshot.mkdir(parents=True)
    (snapshot / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")
    narrow = bert_shape(backbone.shape.layers, HIDDEN, 3, FFN, len(BERT_WORDS), POSITIONS)
    return replace(
        backbone, shape=replace(narrow, token_types=backbone.shape.token_types), sha256=None
    ), snapshot


def write_weights(backbone: Backbone, snapshot: Path, tensors: dict[str, Tensor]) -> None:
    if backbone.pickled:
        torch.save(tensors, snapshot / PICKLED)
    else:
        save_file(tensors, snapshot / WEIGHTS)


@pytest.mark.parametrize(
    ("name", "more"),
    [*((name, {}) for name in CHECKPOINTS), ("distilbert-base-uncased", PROJECTOR)],
    ids=str,
)
def test_published_tensors_are_accounted_for(name: str, more: Shapes, cache: Path) -> None:
    """Every tensor of a published checkpoint is loaded or deliberately left out."""
    backbone, snapshot = create_snapshot(name, cache)
    tensors = random_tensors(CHECKPOINTS[name] | more)
    write_weights(backbone, snapshot, tensors)
    layers = backbone.shape.layers
    config = ModelConfig(
        backbone.shape, "mean", 2, 1.0, (None,) * (layers - 1) + ("plain",), masked_lm=True
    )
    model, report = pretrained(backbone, config)
    assert backbone.folder == snapshot
    assert has_masked_lm_head(backbone)
    assert report.fresh == (
        f"exits.{layers - 1}.classifier.bias",
        f"exits.{layers - 1}.classifier.weight",
    )
    unused = ("pooler", "fit_dense", "seq_relationship", "decoder.weight", "projector.weight")
    left = sum(any(part in tensor for part in unused) for tensor in tensors)
    assert report.loaded == len(tensors) - left
    query = (
        "transformer.layer.3.attention.q_lin"
        if name.startswith("distil")
        else "encoder.layer.3.attention.self.query"
    )
    family = "distilbert" if name.startswith("distil") else "bert"
    assert torch.equal(
        model.state_dict()["layers.3.query.weight"], tensors[f"{family}.{query}.weight"]
    )


def test_pickle_is_kept_as_safetensors(cache: Path) -> None:
    """A pickle of tensors is converted to safetensors without changing the fingerprint."""
    name = "TinyBERT_General_4L_312D"
    backbone, snapshot = create_snapshot(name, cache)
    write_weights(backbone, snapshot, random_tensors(CHECKPOINTS[name]))
    before = backbone.fingerprint
    config = ModelConfig(backbone.shape, "mean", 2, 1.0, (None, None, None, "plain"))
    first, _ = pretrained(backbone, config)
    (converted,) = snapshot.glob("*.safetensors")
    again = replace(backbone)
    second, _ = pretrained(again, config)
    assert again.fingerprint == before
    (snapshot / WEIGHTS).write_bytes(b"written by somebody else")
    write_weights(
        backbone,
        snapshot,
        {name: value + 1 for name, value in random_tensors(CHECKPOINTS[name]).items()},
    )
    other = replace(backbone)
    third, _ = pretrained(other, config)
    assert other.fingerprint != before
    assert not torch.equal(
        first.state_dict()["layers.0.query.weight"], third.state_dict()["layers.0.query.weight"]
    )
    assert len(list(snapshot.glob("*.safetensors"))) == 3
    assert converted.is_file()
    assert torch.equal(
        first.state_dict()["layers.0.query.weight"], second.state_dict()["layers.0.query.weight"]
    )


@pytest.mark.parametrize("content", ["code", "no tensors", "half"])
def test_unsafe_pickle_is_refused_unrun(content: str, cache: Path, tmp_path: Path) -> None:
    """A pickle that holds anything but tensors raises an error and is not executed."""
    backbone, snapshot = create_snapshot("TinyBERT_General_4L_312D", cache)
    trace = tmp_path / "was-loaded"
    if content == "code":
        (snapshot / PICKLED).write_bytes(pickle.dumps({"state": TouchesAFile(trace)}, protocol=2))
    elif content == "no tensors":
        torch.save({"a": "text"}, snapshot / PICKLED)
    else:
        torch.save(random_tensors({"a": (50, 50)}), snapshot / PICKLED)
        (snapshot / PICKLED).write_bytes((snapshot / PICKLED).read_bytes()[:500])
    with pytest.raises(HarnessError) as caught:
        pretrained(
            backbone, ModelConfig(backbone.shape, "mean", 2, 1.0, (None, None, None, "plain"))
        )
    assert_message(caught, backbone.name, snapshot / PICKLED)
    assert not trace.exists()
    assert sorted(path.name for path in snapshot.iterdir()) == [PICKLED, "vocab.txt"]


def test_checkpoint_has_two_names() -> None:
    """A checkpoint is found by its name and by its repository's name."""
    for name in CHECKPOINTS:
        backbone = find_backbone(name)
        assert find_backbone(backbone.source.removeprefix("hub:")) is backbone
        assert len(backbone.revision or "") == 40
