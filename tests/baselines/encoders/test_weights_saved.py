"""Tests of saving, loading and copying our own models."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.messages import assert_message, names_in_order
from support.synthetic import BOTH, SMALL, small_config
from torch import nn

from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.encoders.weights import copy_encoder, exit_heads, load_model, save_model
from harness.errors import ExitCode, IncompleteError
from harness.models.multi_exit import Batch, MultiExitModel


def _batch() -> Batch:
    ids = torch.arange(24).view(3, 8)
    return Batch(ids, ids % 2, torch.arange(8) < torch.tensor([8, 3, 5])[:, None])


def _scattered(config: ModelConfig) -> EncoderModel:
    model = EncoderModel(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(SMALL, "cls", 3, 1.0, ("dense", "dense")),
        ModelConfig(SMALL, "cls", 3, 1.0, ("shared", "shared")),
        ModelConfig(SMALL, "cls", 3, 1.0, (None, "plain")),
        ModelConfig(replace(SMALL, heads=(1, 2), ffn=(5, 24)), "cls", 3, 1.0, ("plain", "shared")),
        ModelConfig(
            replace(SMALL, embedding_rank=3, dropout=0.0, activation="relu", layer_norm_eps=1e-5),
            "cls",
            3,
            1.0,
            ("dense", "plain"),
        ),
        ModelConfig(SMALL, "mean", 1, 5.0, BOTH),
    ],
    ids=[
        "dense",
        "shared pooler",
        "one exit",
        "uneven widths",
        "factorised embedding",
        "regression with its scale",
    ],
)
def test_saved_model_predicts_the_same(tmp_path: Path, config: ModelConfig) -> None:
    """A saved and loaded model has bitwise equal logits."""
    model = _scattered(config)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert again.parameter_count() == model.parameter_count()
    assert {module.training for module in again.modules()} == {False}
    with torch.no_grad():
        assert torch.equal(again(_batch()).logits, model(_batch()).logits)


def test_shared_pooler_is_written_once(tmp_path: Path) -> None:
    """A shared pooler is written once and is shared again after loading."""
    save_model(_scattered(small_config(exits=("shared", "shared"))), tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = file.keys()
    assert sum(name.endswith("pooler.weight") for name in names) == 1
    first, second = exit_heads(load_model(tmp_path))
    assert first.pooler is second.pooler


def test_only_two_files_are_written(tmp_path: Path) -> None:
    """Only a safetensors file and a config are written."""
    save_model(_scattered(small_config()), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_model_without_config_is_refused(tmp_path: Path) -> None:
    """A model without a config cannot be saved."""
    model = EncoderModel(small_config())
    with pytest.raises(TypeError, match="MultiExitModel"):
        save_model(
            MultiExitModel(model.embedding, list(model.layers), [None, model.exits["1"]]), tmp_path
        )


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def _drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["layers.0.query.weight"]
    save_file(tensors, folder / "model.safetensors")


def _add_tensor(folder: Path) -> None:
    save_file(
        load_file(folder / "model.safetensors") | {"stranger": torch.ones(1)},
        folder / "model.safetensors",
    )


def _reshape_tensor(folder: Path) -> None:
    changed = {"layers.0.query.weight": torch.ones(16, 15)}
    save_file(load_file(folder / "model.safetensors") | changed, folder / "model.safetensors")


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _config_text(text: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "config.json").write_bytes(text)

    return damage


def _config_field(name: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        section = config["shape"] if name in config["shape"] else config
        section[name] = value
        (folder / "config.json").write_text(json.dumps(config))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _cut_weights,
        _drop_tensor,
        _add_tensor,
        _reshape_tensor,
        _remove("model.safetensors"),
        _remove("config.json"),
        _config_text(b""),
        _config_text(b"[1, 2]"),
        _config_text(b"\xff\xfe\x00not text"),
        _config_field("classes", "two"),
        _config_field("unknown", 1),
        _config_field("exits", ["dense"]),
        _config_field("exits", ["dense", None]),
        _config_field("exits", ["dense", "deep"]),
        _config_field("ffn", [24]),
        _config_field("heads", [2, 2, 2]),
        _config_field("activation", "swish"),
        _config_field("hidden", 17),
    ],
    ids=[
        "weights cut", "tensor missing", "tensor unexpected", "tensor of another shape",
        "no weights", "no config", "config empty", "config a list", "config not text",
        "classes a word", "unknown field", "too few exits", "no last exit", "unknown head",
        "too few widths", "too many heads", "unknown activation", "another hidden size",
    ],
)  # fmt: skip
def test_damaged_model_folder_is_incomplete(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A damaged model folder raises IncompleteError."""
    save_model(EncoderModel(small_config()), tmp_path)
    damage(tmp_path)
    with pytest.raises(IncompleteError) as caught:
        load_model(tmp_path)
    assert_message(caught, tmp_path, code=ExitCode.INCOMPLETE)


def test_copying_encoder_spares_exits() -> None:
    """Copying an encoder copies the embedding and the layers, but no exit."""
    source, target = (
        _scattered(small_config(exits=(None, "dense"))),
        _scattered(small_config(exits=("plain", "plain"))),
    )
    before = {name: value.clone() for name, value in target.exits.state_dict().items()}
    copy_encoder(source, target)
    with torch.no_grad():
        pairs = zip(source(_batch()).hiddens, target(_batch()).hiddens, strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    assert all(
        torch.equal(before[name], value) for name, value in target.exits.state_dict().items()
    )
    assert {value.data_ptr() for value in source.state_dict().values()}.isdisjoint(
        v.data_ptr() for v in target.state_dict().values()
    )


@pytest.mark.parametrize("change", [{"ffn": (24, 23)}, {"embedding_rank": 4}, {"dropout": 0.2}])
def test_copying_needs_equal_shapes(change: dict[str, object]) -> None:
    """Copying between encoders of different shapes raises an error."""
    other = EncoderModel(small_config(shape=replace(SMALL, **change)))
    with pytest.raises(ValueError, match=r"\d") as caught:
        copy_encoder(EncoderModel(small_config()), other)
    assert names_in_order(str(caught.value), SMALL, other.config.shape)
