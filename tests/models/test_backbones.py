"""Backbones: unknown names, the shapes of a local folder's config, and fingerprints."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.messages import assert_message
from support.synthetic import BERT_CONFIG, BERT_WORDS, write_bert

from harness.errors import HarnessError
from harness.models.backbones import BACKBONES, find_backbone
from harness.models.shapes import EncoderShape

# --- names


def test_unknown_backbone_gets_near_matches() -> None:
    """The error for an unknown backbone names near matches and the form OWNER/NAME."""
    with pytest.raises(HarnessError) as error:
        find_backbone("minilmm")
    assert_message(error, "minilmm", "minilm", "OWNER/NAME")


# --- a local folder


def test_folder_config_gives_shape(tmp_path: Path) -> None:
    """A local folder is found by its path, with the shape of its config."""
    folder = write_bert(tmp_path / "local")
    backbone = find_backbone(str(folder))
    assert backbone.shape == EncoderShape(
        vocabulary=len(BERT_WORDS), hidden=8, head_size=4, heads=(2, 2, 2), ffn=(12, 12, 12),
        positions=48, token_types=2, activation="gelu_new", layer_norm_eps=1e-6, dropout=0.2,
    )  # fmt: skip
    assert backbone.folder == folder
    assert backbone.pooling == "cls"


@pytest.mark.parametrize(("mean", "pooling"), [(True, "mean"), (False, "cls")])
def test_pooling_is_read_from_folder(tmp_path: Path, mean: bool, pooling: str) -> None:
    """The pooling of a sentence encoder is read from its folder."""
    folder = write_bert(tmp_path / "sentences")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_mean_tokens": mean, "pooling_mode_cls_token": not mean})
    )
    assert find_backbone(str(folder)).pooling == pooling


@pytest.mark.parametrize(
    "written", ["{folder}", "{folder}/", "./local", "local", ".", "../{name}/local"]
)
def test_folder_name_excludes_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """The name of a local folder is its last part and never a path."""
    folder = write_bert(tmp_path / "local")
    monkeypatch.chdir(folder if written == "." else tmp_path)
    assert find_backbone(written.format(folder=folder, name=tmp_path.name)).name == "local"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"model_type": "gpt2"}, ["model_type", "gpt2", "bert", "albert"]),
        ({"model_type": None}, ["model_type", None, "bert"]),
        ({"hidden_size": "many"}, ["hidden_size", "many"]),
        ({"hidden_size": None}, ["hidden_size", None]),
        ({"num_attention_heads": 0}, ["num_attention_heads", 0, 1]),
        ({"hidden_act": "selu"}, ["hidden_act", "selu", "gelu"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", 0, 1]),
        ({"intermediate_size": -4}, ["intermediate_size", -4, 1]),
        ({"num_attention_heads": 3}, ["hidden_size", 8, "num_attention_heads", 3]),
        ({"num_attention_heads": 64}, ["hidden_size", 8, "num_attention_heads", 64]),
        ({"hidden_dropout_prob": 3}, ["hidden_dropout_prob", 3, 0, 1]),
        ({"max_position_embeddings": 31}, ["max_position_embeddings", 31, 32]),
    ],
)
def test_config_of_other_model_is_refused(
    tmp_path: Path, change: dict[str, object], names: list[object]
) -> None:
    """A config of an unsupported or invalid model is an error."""
    folder = write_bert(tmp_path / "other", BERT_CONFIG | change)
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    assert_message(error, folder / "config.json", *names)


@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
    ],
)
def test_config_lacking_size_is_refused(tmp_path: Path, key: str) -> None:
    """A config without a size is an error that names it."""
    folder = write_bert(
        tmp_path / "short", {name: value for name, value in BERT_CONFIG.items() if name != key}
    )
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    assert_message(error, folder / "config.json", key)


@pytest.mark.parametrize("text", ['{"model_type": "bert",\n\n', "[1, 2]", "", "\xff"])
def test_broken_config_is_named(tmp_path: Path, text: str) -> None:
    """A broken config is an error that names the file."""
    folder = write_bert(tmp_path / "broken")
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    assert_message(error, folder / "config.json")


def test_missing_config_is_named(tmp_path: Path) -> None:
    """A folder without a config is an error that names the file."""
    with pytest.raises(HarnessError) as error:
        find_backbone(str(tmp_path))
    assert_message(error, tmp_path / "config.json")


# --- fingerprints


def test_fingerprint_follows_content_not_path(tmp_path: Path) -> None:
    """A fingerprint depends on weights, vocabulary, shape and pooling, but not on the path."""
    first = find_backbone(str(write_bert(tmp_path / "a")))
    others = [
        find_backbone(str(write_bert(tmp_path / "weights", seed=1))),
        find_backbone(
            str(write_bert(tmp_path / "vocabulary", vocabulary=[*BERT_WORDS[:-1], "##f"]))
        ),
        find_backbone(str(write_bert(tmp_path / "shape", BERT_CONFIG | {"intermediate_size": 13}))),
        replace(first, pooling="mean"),
    ]
    fingerprints = [first.fingerprint, *(other.fingerprint for other in others)]
    assert len(set(fingerprints)) == len(fingerprints)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    assert find_backbone(str(tmp_path / "elsewhere" / "b")).fingerprint == first.fingerprint


def test_fingerprint_changes_with_lower_case(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "local")
    first = find_backbone(str(folder)).fingerprint
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert find_backbone(str(folder)).fingerprint != first


@pytest.mark.parametrize("length", [8, 16])
def test_fingerprint_ignores_earlier_encoding(tmp_path: Path, length: int) -> None:
    """A fingerprint does not depend on what was encoded before."""
    folder = str(write_bert(tmp_path / "local"))
    fresh, used = find_backbone(folder), find_backbone(folder)
    used.encode([("the film",)], length)
    assert used.fingerprint == fresh.fingerprint


def test_random_backbone_fingerprint_is_stable() -> None:
    """A random backbone has no folder and a stable fingerprint."""
    assert replace(BACKBONES["tiny"]).folder is None
    assert replace(BACKBONES["tiny"]).fingerprint == replace(BACKBONES["tiny"]).fingerprint
    assert (
        replace(BACKBONES["tiny"], shape=replace(BACKBONES["tiny"].shape, dropout=0.5)).fingerprint
        != BACKBONES["tiny"].fingerprint
    )
