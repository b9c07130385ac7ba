"""Backbones: unknown names, the shapes of a local folder's config, and fingerprints."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.synthetic import BERT_CONFIG, BERT_WORDS, one_line, write_bert

from harness.errors import HarnessError
from harness.models.backbones import BACKBONES, find_backbone
from harness.models.shapes import EncoderShape

# --- names


def test_unknown_backbone_gets_near_matches_and_the_hint_of_a_folder() -> None:
    with pytest.raises(HarnessError) as error:
        find_backbone("minilmm")
    said = one_line(error)
    assert "did you mean minilm" in said
    assert "bert-base-uncased" in said
    assert "folder" in said


# --- a local folder


def test_local_folder_is_found_by_its_path_with_the_shape_of_its_config(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "mine")
    backbone = find_backbone(str(folder))
    assert backbone.shape == EncoderShape(
        vocabulary=len(BERT_WORDS), hidden=8, head_size=4, heads=(2, 2, 2), ffn=(12, 12, 12), positions=48, token_types=2,
        activation="gelu_new", layer_norm_eps=1e-6, dropout=0.2,
    )  # fmt: skip
    assert backbone.folder == folder
    assert backbone.pooling == "cls"


@pytest.mark.parametrize(("mean", "pooling"), [(True, "mean"), (False, "cls")])
def test_pooling_of_a_sentence_encoder_is_read_from_its_folder(tmp_path: Path, mean: bool, pooling: str) -> None:
    folder = write_bert(tmp_path / "sentences")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": mean, "pooling_mode_cls_token": not mean}))
    assert find_backbone(str(folder)).pooling == pooling


@pytest.mark.parametrize("written", ["{folder}", "{folder}/", "./mine", "mine", ".", "../{name}/mine"])
def test_name_of_a_local_folder_is_its_last_part_and_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    folder = write_bert(tmp_path / "mine")
    monkeypatch.chdir(folder if written == "." else tmp_path)
    assert find_backbone(written.format(folder=folder, name=tmp_path.name)).name == "mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, ["model_type", "'gpt2'", "'bert'", "'albert'"]),
        ({"model_type": None}, ["model_type", "'bert'"]),
        ({"hidden_size": "many"}, ["config.json", "hidden_size 'many'", "whole number"]),
        ({"hidden_size": None}, ["config.json", "hidden_size None"]),
        ({"num_attention_heads": 0}, ["config.json"]),
        ({"hidden_act": "silu"}, ["silu", "gelu"]),
        ({"num_hidden_layers": 0}, ["config.json", "num_hidden_layers 0", "from 1"]),
        ({"intermediate_size": -4}, ["config.json", "intermediate_size -4", "from 1"]),
        ({"num_attention_heads": 3}, ["config.json", "hidden_size 8", "multiple of num_attention_heads 3"]),
        ({"num_attention_heads": 64}, ["config.json", "hidden_size 8", "num_attention_heads 64"]),
        ({"hidden_dropout_prob": 3}, ["config.json", "hidden_dropout_prob 3", "below 1"]),
        ({"max_position_embeddings": 31}, ["max_position_embeddings", "31", "32"]),
    ],
)
def test_config_of_another_model_is_an_error(tmp_path: Path, change: dict[str, object], words: list[str]) -> None:
    folder = write_bert(tmp_path / "other", BERT_CONFIG | change)
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    said = one_line(error)
    assert str(folder) in said
    assert all(word in said for word in words)


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "max_position_embeddings"])
def test_config_without_a_size_is_an_error_that_names_it(tmp_path: Path, key: str) -> None:
    folder = write_bert(tmp_path / "short", {name: value for name, value in BERT_CONFIG.items() if name != key})
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    assert key in one_line(error)


@pytest.mark.parametrize("text", ['{"model_type": "bert",\n\n', "[1, 2]", "", "\xff"])
def test_broken_config_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    folder = write_bert(tmp_path / "broken")
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    assert str(folder / "config.json") in one_line(error)


def test_folder_without_config_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as error:
        find_backbone(str(tmp_path))
    assert str(tmp_path / "config.json") in one_line(error)


# --- fingerprints


def test_fingerprint_changes_with_weights_vocabulary_shape_and_pooling_and_not_with_the_place(tmp_path: Path) -> None:
    first = find_backbone(str(write_bert(tmp_path / "a")))
    others = [
        find_backbone(str(write_bert(tmp_path / "weights", seed=1))),
        find_backbone(str(write_bert(tmp_path / "vocabulary", vocabulary=[*BERT_WORDS[:-1], "##f"]))),
        find_backbone(str(write_bert(tmp_path / "shape", BERT_CONFIG | {"intermediate_size": 13}))),
        replace(first, pooling="mean"),
    ]
    found = [first.fingerprint, *(other.fingerprint for other in others)]
    assert len(set(found)) == len(found)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    assert find_backbone(str(tmp_path / "elsewhere" / "b")).fingerprint == first.fingerprint


def test_fingerprint_changes_with_lower_case(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "mine")
    first = find_backbone(str(folder)).fingerprint
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert find_backbone(str(folder)).fingerprint != first


@pytest.mark.parametrize("length", [8, 16])
def test_fingerprint_does_not_depend_on_what_was_encoded_before(tmp_path: Path, length: int) -> None:
    folder = str(write_bert(tmp_path / "mine"))
    fresh, used = find_backbone(folder), find_backbone(folder)
    used.encode([("the film",)], length)
    assert used.fingerprint == fresh.fingerprint


def test_random_backbone_has_no_folder_and_a_stable_fingerprint() -> None:
    assert replace(BACKBONES["tiny"]).folder is None
    assert replace(BACKBONES["tiny"]).fingerprint == replace(BACKBONES["tiny"]).fingerprint
    assert replace(BACKBONES["tiny"], shape=replace(BACKBONES["tiny"].shape, dropout=0.5)).fingerprint != BACKBONES["tiny"].fingerprint
