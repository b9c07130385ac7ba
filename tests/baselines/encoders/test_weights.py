"""Tests of loading pretrained checkpoints.

Every tensor of the file is loaded or named, and a pickle is never loaded.
"""

import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.messages import assert_message
from support.synthetic import SMALL, TouchesAFile, small_config
from torch import Tensor

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from baselines.encoders.weights import exit_heads, load_model, pretrained, save_model
from harness.errors import ExitCode, HarnessError, IncompleteError
from harness.models.backbones import Backbone, Pooling
from harness.models.shapes import bert_shape
from harness.records import WeightsReport

LAYER_NAMES = {
    "attention.self.query": ("query", (16, 16)),
    "attention.self.key": ("key", (16, 16)),
    "attention.self.value": ("value", (16, 16)),
    "attention.output.dense": ("output", (16, 16)),
    "attention.output.LayerNorm": ("attention_norm", (16,)),
    "intermediate.dense": ("widen", (24, 16)),
    "output.dense": ("narrow", (16, 24)),
    "output.LayerNorm": ("norm", (16,)),
}
"""Module of the library's layer -> our module and the shape of its weight."""


def _expected(loaded: int, left_out: Sequence[str], fresh: Sequence[str]) -> WeightsReport:
    """Return a report of these names; names that differ only in numbers are merged and counted."""

    def merged(names: Sequence[str]) -> tuple[str, ...]:
        alike = {
            name: [
                other
                for other in names
                if re.sub("[0-9]+", "", other) == re.sub("[0-9]+", "", name)
            ]
            for name in names
        }
        words = {
            re.sub("[0-9]+", "*", name) + f" ({len(group)})" if len(group) > 1 else name
            for name, group in alike.items()
        }
        return tuple(sorted(words))

    return WeightsReport(loaded, merged(left_out), merged(fresh))


def _bert_names() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Map each tensor of the library's encoder to our tensor and its shape."""
    names: dict[str, tuple[str, tuple[int, ...]]] = {
        "embeddings.word_embeddings.weight": ("embedding.word.weight", (30, 16)),
        "embeddings.position_embeddings.weight": ("embedding.position.weight", (12, 16)),
        "embeddings.token_type_embeddings.weight": ("embedding.token_type.weight", (2, 16)),
        "embeddings.LayerNorm.weight": ("embedding.norm.weight", (16,)),
        "embeddings.LayerNorm.bias": ("embedding.norm.bias", (16,)),
    }
    for layer in range(2):
        for library_name, (name, shape) in LAYER_NAMES.items():
            names[f"encoder.layer.{layer}.{library_name}.weight"] = (
                f"layers.{layer}.{name}.weight",
                shape,
            )
            names[f"encoder.layer.{layer}.{library_name}.bias"] = (
                f"layers.{layer}.{name}.bias",
                shape[:1],
            )
    return names


NAMES = _bert_names()
POOLER = {"pooler.dense.weight": (16, 16), "pooler.dense.bias": (16,)}
HEADS = {
    "cls.predictions.bias": (30,),
    "cls.predictions.transform.dense.weight": (16, 16),
    "cls.seq_relationship.bias": (2,),
}

FRESH_CLASSIFIERS = tuple(
    f"exits.{layer}.classifier.{kind}" for layer in (0, 1) for kind in ("bias", "weight")
)
FRESH_POOLERS = tuple(
    f"exits.{layer}.pooler.{kind}" for layer in (0, 1) for kind in ("bias", "weight")
)


def _tensors(*more: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = {name: shape for name, (_, shape) in NAMES.items()}
    for extra in more:
        shapes |= extra
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _backbone(folder: Path, tensors: dict[str, Tensor], pooling: Pooling = "mean") -> Backbone:
    save_file(tensors, folder / "model.safetensors")
    return Backbone("small", SMALL, pooling, f"folder:{folder}", "none", (1e-3,))


def _load(
    folder: Path, tensors: dict[str, Tensor], config: ModelConfig
) -> tuple[EncoderModel, WeightsReport]:
    return pretrained(_backbone(folder, tensors, config.pooling), config)


def test_every_tensor_is_loaded(tmp_path: Path) -> None:
    """Every tensor of the file is loaded into its target."""
    tensors = _tensors()
    model, report = _load(tmp_path, tensors, small_config())
    state = model.state_dict()
    for library_name, (name, _) in NAMES.items():
        assert torch.equal(state[name], tensors[library_name]), library_name
    assert report == _expected(len(NAMES), (), tuple(sorted(FRESH_CLASSIFIERS + FRESH_POOLERS)))
    assert {name for name, _ in NAMES.values()} | {*FRESH_CLASSIFIERS, *FRESH_POOLERS} == set(state)


@pytest.mark.parametrize(
    "name", ["embeddings.word_embeddings.weight", "encoder.layer.1.output.LayerNorm.bias"]
)
def test_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    """A missing tensor is named."""
    tensors = _tensors()
    del tensors[name]
    with pytest.raises(HarnessError) as caught:
        _load(tmp_path, tensors, small_config())
    assert_message(caught, "small", 1, name)


@pytest.mark.parametrize(
    "name",
    ["encoder.layer.2.output.dense.bias", "classifier.weight", "encoder.layer.0.adapter.weight"],
)
def test_unexpected_tensor_is_named(tmp_path: Path, name: str) -> None:
    """An unexpected tensor is named."""
    with pytest.raises(HarnessError) as caught:
        _load(tmp_path, _tensors({name: (2,)}), small_config())
    assert_message(caught, "small", 1, name)


@pytest.mark.parametrize(
    ("name", "got", "wanted"),
    [
        ("encoder.layer.1.attention.self.key.weight", (8, 16), [16, 16]),
        ("embeddings.LayerNorm.bias", (1,), [16]),
    ],
    ids=["smaller", "it would broadcast"],
)
def test_wrong_shape_names_both_shapes(
    tmp_path: Path, name: str, got: tuple[int, ...], wanted: list[int]
) -> None:
    """The error names a tensor of another shape with both shapes."""
    with pytest.raises(HarnessError) as caught:
        _load(tmp_path, _tensors({name: got}), small_config())
    assert_message(caught, "small", 1, name, list(got), wanted)


def test_one_line_names_all_problems(tmp_path: Path) -> None:
    """One line names all problems."""
    tensors = _tensors({"stranger": (1,), "embeddings.LayerNorm.bias": (3,)})
    del tensors["encoder.layer.0.attention.self.query.bias"]
    with pytest.raises(HarnessError) as caught:
        _load(tmp_path, tensors, small_config())
    missing, unexpected, another_shape = (
        "encoder.layer.0.attention.self.query.bias",
        "stranger",
        "embeddings.LayerNorm.bias",
    )
    assert_message(caught, "small", 1, missing, 1, unexpected, 1, another_shape, [3], [16])


def _with_prefix(name: str) -> str:
    return f"bert.{name}"


def _old_norms(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )


@pytest.mark.parametrize(
    "rename", [_with_prefix, _old_norms, lambda name: _with_prefix(_old_norms(name))]
)
def test_older_tensor_names_are_read(tmp_path: Path, rename: Callable[[str], str]) -> None:
    """Tensor names of other library versions are read."""
    tensors = _tensors(POOLER)
    model, report = _load(
        tmp_path, {rename(name): tensor for name, tensor in tensors.items()}, small_config("cls")
    )
    state = model.state_dict()
    assert all(
        torch.equal(state[name], tensors[library_name]) for library_name, (name, _) in NAMES.items()
    )
    assert torch.equal(state["exits.1.pooler.weight"], tensors["pooler.dense.weight"])
    assert report.loaded == len(tensors)
    assert report.left_out == ()


def test_unused_tensors_are_left_out(tmp_path: Path) -> None:
    """Buffers and pre-training heads are left out and reported by name."""
    tensors = _tensors(HEADS) | {"embeddings.position_ids": torch.arange(12).view(1, 12)}
    _, report = _load(tmp_path, tensors, small_config())
    assert report.left_out == tuple(sorted([*HEADS, "embeddings.position_ids"]))
    assert report.loaded == len(NAMES)


@pytest.mark.parametrize("exits", [("dense", "dense"), ("shared", "shared"), ("dense", "shared")])
def test_pooler_starts_every_exit(tmp_path: Path, exits: tuple[Head | None, ...]) -> None:
    """The pooler of a backbone with cls pooling initialises the pooler of every exit."""
    tensors = _tensors(POOLER)
    model, report = _load(tmp_path, tensors, small_config("cls", exits))
    for head in exit_heads(model):
        assert head.pooler is not None
        assert torch.equal(head.pooler.weight, tensors["pooler.dense.weight"])
        assert torch.equal(head.pooler.bias, tensors["pooler.dense.bias"])
    assert report == _expected(len(NAMES) + 2, (), tuple(sorted(FRESH_CLASSIFIERS)))


def test_pooler_starts_the_only_exit(tmp_path: Path) -> None:
    """The pooler of a backbone with cls pooling initialises the only exit."""
    tensors = _tensors(POOLER)
    model, report = _load(tmp_path, tensors, small_config("cls", (None, "dense")))
    assert torch.equal(model.state_dict()["exits.1.pooler.weight"], tensors["pooler.dense.weight"])
    assert report.fresh == ("exits.1.classifier.bias", "exits.1.classifier.weight")


@pytest.mark.parametrize(
    ("pooling", "exits"), [("mean", ("dense", "dense")), ("cls", ("plain", "plain"))]
)
def test_unusable_pooler_is_left_out(
    tmp_path: Path, pooling: Pooling, exits: tuple[Head | None, ...]
) -> None:
    """The pooler is left out if no exit can use it."""
    tensors = _tensors(POOLER)
    model, report = _load(tmp_path, tensors, small_config(pooling, exits))
    assert report.left_out == tuple(sorted(POOLER))
    poolers = [head.pooler.weight for head in exit_heads(model) if head.pooler is not None]
    assert not any(torch.equal(weight, tensors["pooler.dense.weight"]) for weight in poolers)


def test_half_a_pooler_is_refused(tmp_path: Path) -> None:
    """A pooler without its bias raises an error."""
    tensors = _tensors(POOLER)
    del tensors["pooler.dense.bias"]
    with pytest.raises(HarnessError) as caught:
        _load(tmp_path, tensors, small_config("cls"))
    assert_message(caught, "small", 1, "pooler.dense.bias")


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    """Half-precision weights are converted to float32."""
    tensors = {name: tensor.half() for name, tensor in _tensors().items()}
    model, _ = _load(tmp_path, tensors, small_config())
    value = model.state_dict()["layers.0.query.weight"]
    assert value.dtype == torch.float32
    assert torch.equal(value, tensors["encoder.layer.0.attention.self.query.weight"].float())


def test_random_backbone_loads_nothing(micro: Backbone) -> None:
    """A random backbone loads nothing."""
    _, report = pretrained(micro, ModelConfig(micro.shape, "mean", 2, 1.0, (None, None, "dense")))
    assert (report.loaded, report.left_out, len(report.fresh)) == (0, (), 1)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    """A damaged weights file raises an error that names it."""
    backbone = _backbone(tmp_path, _tensors())
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(HarnessError) as caught:
        pretrained(backbone, small_config())
    assert_message(caught, "small", file)


def test_pickle_is_never_loaded(tmp_path: Path) -> None:
    """A pickle is never loaded, whatever its file name."""
    trace, folder = tmp_path / "was-loaded", tmp_path / "folder"
    folder.mkdir()
    payload = pickle.dumps({"state": TouchesAFile(trace)})
    backbone = Backbone("small", SMALL, "mean", f"folder:{folder}", "none", (1e-3,))
    (folder / "pytorch_model.bin").write_bytes(payload)
    with pytest.raises(HarnessError) as caught:
        pretrained(backbone, small_config())
    assert_message(caught, "small", folder, "model.safetensors")
    (folder / "model.safetensors").write_bytes(payload)
    with pytest.raises(HarnessError) as caught:
        pretrained(replace(backbone), small_config())
    assert_message(caught, "small", folder / "model.safetensors")
    with pytest.raises(IncompleteError):
        load_model(folder)
    save_model(EncoderModel(small_config()), folder)
    (folder / "model.safetensors").write_bytes(payload)
    with pytest.raises(IncompleteError) as broken:
        load_model(folder)
    assert_message(broken, folder, code=ExitCode.INCOMPLETE)
    assert not trace.exists()
    pickle.loads(payload)
    assert trace.exists()


def test_exit_heads_come_in_order() -> None:
    """Exit heads are listed first to last, skipping layers without one."""
    exits: tuple[Head | None, ...] = ("plain", None, *("dense",) * 9)
    model = EncoderModel(small_config(exits=exits, shape=bert_shape(11, 16, 2, 4, vocabulary=30)))
    assert exit_heads(model) == [model.exits[str(layer)] for layer in (0, *range(2, 11))]
