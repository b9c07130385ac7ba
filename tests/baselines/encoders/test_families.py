"""Tests of the model families: equality with the library, and errors for bad checkpoints."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.families import FAMILIES, LIBRARY, SIZES, library_model, randomised, write_family
from support.messages import assert_message
from support.synthetic import pieces
from torch import nn
from transformers import (
    AlbertForPreTraining,
    BertForPreTraining,
    BertModel,
    DistilBertForMaskedLM,
    ElectraForPreTraining,
    PreTrainedModel,
    RobertaForMaskedLM,
)

from baselines.distillation.masked_lm import Masked, Pieces, masked_logits
from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from baselines.encoders.weights import has_masked_lm_head, load_model, pretrained, save_model
from harness.errors import HarnessError
from harness.models.backbones import BACKBONES, Backbone, find_backbone
from harness.models.batches import collate
from harness.models.checkpoint_files import INDEX, PICKLED, WEIGHTS
from harness.models.families import ACTIVATION_SYNONYMS
from harness.models.multi_exit import Batch

EVERY: tuple[Head | None, ...] = ("dense", "dense", "dense")
TEXTS = [
    ("anna found the film good , not long and not bad", "she smiled"),
    ("he sang",),
    ("well , it was Loud", "i think so"),
]


def read(
    folder: Path, exits: tuple[Head | None, ...] = EVERY, masked_lm: bool = False
) -> tuple[Backbone, EncoderModel]:
    backbone = find_backbone(str(folder))
    model, _ = pretrained(
        backbone, ModelConfig(backbone.shape, "cls", 2, 1.0, exits, masked_lm=masked_lm)
    )
    return backbone, model.eval()


def with_words_in_padding(batch: Batch) -> Batch:
    """Put words into the padding, to expose a model that attends to it."""
    return batch._replace(ids=batch.ids.masked_fill(~batch.mask, 9))


def inputs(library: PreTrainedModel, batch: Batch) -> dict[str, torch.Tensor]:
    given = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
    return (
        given
        if library.config.model_type == "distilbert"
        else given | {"token_type_ids": batch.types}
    )


@pytest.mark.parametrize("case", LIBRARY)
def test_encoders_equal_library_families(tmp_path: Path, case: str) -> None:
    """The hidden states of all layers equal the library's, with padding and pairs."""
    library = library_model(case)
    backbone, model = read(write_family(tmp_path / "it", case, library))
    assert backbone.family == case.partition(" ")[0]
    batch = with_words_in_padding(collate(backbone.encode(TEXTS, 32), np.arange(3)))
    assert batch.mask.sum(1).unique().numel() > 1
    with torch.no_grad():
        expected = library(**inputs(library, batch), output_hidden_states=True)
        output = model(batch)
        last = model.exit_after(2)
    assert len(output.hiddens) == len(expected.hidden_states) == 4
    for hidden, reference in zip(output.hiddens, expected.hidden_states, strict=True):
        torch.testing.assert_close(hidden[batch.mask], reference[batch.mask], atol=1e-5, rtol=0)
    if "pooler_output" in expected:
        assert last is not None
        torch.testing.assert_close(
            output.logits[-1], last.classifier(expected.pooler_output), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("case", LIBRARY)
def test_padding_tokens_in_texts_equal_library(tmp_path: Path, case: str) -> None:
    """The library gives no position to a padding token inside a text where it counts positions."""
    library = library_model(case)
    backbone, model = read(write_family(tmp_path / "it", case, library))
    batch = collate(backbone.encode(TEXTS, 32), np.arange(3))
    ids = batch.ids.clone()
    ids[:, [2, 3, 5]] = library.config.pad_token_id
    batch = batch._replace(ids=torch.where(batch.mask, ids, batch.ids))
    with torch.no_grad():
        expected = library(**inputs(library, batch), output_hidden_states=True)
        output = model(batch)
    for hidden, reference in zip(output.hiddens, expected.hidden_states, strict=True):
        torch.testing.assert_close(hidden[batch.mask], reference[batch.mask], atol=1e-5, rtol=0)


HEADS: dict[str, type[PreTrainedModel]] = {
    "bert": BertForPreTraining,
    "distilbert": DistilBertForMaskedLM,
    "roberta": RobertaForMaskedLM,
    "electra": ElectraForPreTraining,
    "albert": AlbertForPreTraining,
}
"""Library class from which the published checkpoints of each family were saved."""


def with_head(family: str) -> nn.Module:
    return randomised(HEADS[family](LIBRARY[family][1]))


@pytest.mark.parametrize("family", HEADS)
def test_checkpoint_tensors_are_accounted_for(tmp_path: Path, family: str) -> None:
    """Every tensor of a checkpoint with its head is loaded or deliberately left out."""
    folder = write_family(tmp_path / "it", family, with_head(family))
    held = load_file(folder / "model.safetensors")
    backbone = find_backbone(str(folder))
    config = ModelConfig(backbone.shape, "cls", 2, 1.0, EVERY, masked_lm=True)
    _, report = pretrained(backbone, config)
    fresh = ["exits.*.classifier.bias (3)", "exits.*.classifier.weight (3)"]
    fresh += (
        []
        if any("pooler" in name for name in held)
        else ["exits.*.pooler.bias (3)", "exits.*.pooler.weight (3)"]
    )
    fresh += [
        "masked_lm.bias",
        "masked_lm.dense.bias",
        "masked_lm.dense.weight",
        "masked_lm.norm.bias",
        "masked_lm.norm.weight",
    ] * (family == "electra")
    assert report.fresh == tuple(sorted(fresh))
    unused = (
        "decoder.",
        "projector.weight",
        "seq_relationship",
        "sop_classifier",
        "discriminator_predictions",
    )
    assert report.loaded == sum(not any(part in name for part in unused) for name in held)


@pytest.mark.parametrize("family", [family for family in HEADS if family != "electra"])
def test_masked_lm_head_equals_library(tmp_path: Path, family: str) -> None:
    """The outputs of the masked-LM head equal the library's."""
    library = with_head(family)
    folder = write_family(tmp_path / "it", family, library)
    backbone, model = read(folder, masked_lm=True)
    assert has_masked_lm_head(backbone)
    batch = collate(backbone.encode(TEXTS, 32), np.arange(3))
    everywhere = Masked(batch, batch.mask, batch.ids[batch.mask])
    with torch.no_grad():
        outputs = library(**inputs(library, batch))
        expected = outputs["prediction_logits" if "prediction_logits" in outputs else "logits"]
        found = masked_logits(model, model(batch).hiddens[-1], everywhere)
    torch.testing.assert_close(found, expected[batch.mask], atol=1e-4, rtol=1e-5)


def test_electra_has_no_masked_lm_head(tmp_path: Path) -> None:
    assert not has_masked_lm_head(
        find_backbone(str(write_family(tmp_path / "it", "electra", with_head("electra"))))
    )


@pytest.mark.parametrize("name", ["electra-small-discriminator", "bert_uncased_L-2_H-128_A-2"])
def test_table_pickle_uses_family_names(tmp_path: Path, name: str) -> None:
    """A pickled checkpoint of the table is read with its family's tensor names."""
    entry = BACKBONES[name]
    head = with_head(entry.family)
    folder = write_family(tmp_path / "it", entry.family, head)
    shape = find_backbone(str(folder)).shape
    (folder / WEIGHTS).unlink()
    torch.save(head.state_dict(), folder / PICKLED)
    _, report = pretrained(
        replace(entry, shape=shape, source=f"folder:{folder}"),
        ModelConfig(shape, "cls", 2, 1.0, EVERY),
    )
    assert report.loaded == 3 + 2 + 3 * 16 + 2  # tables, norm, layers, pooler or projection
    heads = {"bert": "cls.", "electra": "discriminator_predictions."}
    assert all(left.startswith(heads[entry.family]) for left in report.left_out)


@pytest.mark.parametrize("family", ["roberta", "albert"])
def test_masking_knows_special_pieces(tmp_path: Path, family: str) -> None:
    """Masking uses the special pieces of the family."""
    backbone = find_backbone(str(write_family(tmp_path / "it", family)))
    found = Pieces.of(backbone)
    assert pieces(backbone, [found.mask])[0] in ("<mask>", "[MASK]")
    assert sorted(found.special) == [0, 1, 2, 3, 4]


# --- bad checkpoints


TENSOR = {
    "bert": "encoder.layer.1.attention.self.key.weight",
    "distilbert": "transformer.layer.1.attention.k_lin.weight",
    "roberta": "encoder.layer.1.attention.self.key.weight",
    "electra": "embeddings_project.bias",
    "albert": "encoder.albert_layer_groups.0.albert_layers.0.ffn_output.bias",
}
"""One tensor of each family."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("problem", ["missing", "of another shape", "unexpected"])
def test_mismatched_tensor_is_named(tmp_path: Path, family: str, problem: str) -> None:
    """The error names a mismatched tensor by its name in the file."""
    folder = write_family(tmp_path / "it", family)
    tensors, name = load_file(folder / "model.safetensors"), TENSOR[family]
    if problem == "missing":
        del tensors[name]
    elif problem == "unexpected":
        name = TENSOR["electra" if family == "albert" else "albert"]
        tensors[name] = torch.zeros(2)
    else:
        size, *rest = tensors[name].shape
        tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(HarnessError) as caught:
        read(folder)
    shapes = [[size - 1, *rest], [size, *rest]] if problem == "of another shape" else []
    assert_message(caught, "it", 1, name, *shapes)


@pytest.mark.parametrize(
    ("case", "change", "names"),
    [
        ("albert", {"num_hidden_groups": 3}, ["num_hidden_groups", 3, 1]),
        ("albert", {"inner_group_num": 2}, ["inner_group_num", 2, 1]),
        ("albert", {"embedding_size": 0}, ["embedding_size", 0, 1]),
        ("electra", {"embedding_size": "wide"}, ["embedding_size", "wide"]),
        ("roberta", {"max_position_embeddings": 33}, ["max_position_embeddings", 33, 34]),
        ("roberta", {"pad_token_id": None}, ["pad_token_id", None]),
    ],
)
def test_unsupported_config_is_named(
    tmp_path: Path, case: str, change: dict[str, object], names: list[object]
) -> None:
    """An unsupported config raises a one-line error that names the key and its value."""
    folder = write_family(tmp_path / "it", case)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(HarnessError) as caught:
        find_backbone(str(folder))
    assert_message(caught, folder / "config.json", *names)


@pytest.mark.parametrize("family", FAMILIES)
def test_config_defaults_equal_library(tmp_path: Path, family: str) -> None:
    """A config.json with only sizes gets the library's defaults for the rest."""
    folder = write_family(tmp_path / "it", family)
    config = json.loads((folder / "config.json").read_text())
    sizes = {"model_type", *SIZES, "dim", "n_layers", "n_heads", "hidden_dim"}
    written = {key: value for key, value in config.items() if key in sizes}
    (folder / "config.json").write_text(json.dumps(written))
    library = type(LIBRARY[family][1])(**written)
    shape = find_backbone(str(folder)).shape
    assert shape.activation == (
        library.activation if family == "distilbert" else library.hidden_act
    )
    assert shape.dropout == (
        library.dropout if family == "distilbert" else library.hidden_dropout_prob
    )
    assert shape.layer_norm_eps == getattr(library, "layer_norm_eps", 1e-12)
    assert shape.token_types == getattr(library, "type_vocab_size", 0)
    assert shape.embedding_width == getattr(library, "embedding_size", shape.hidden)


# --- saved models


def test_repeated_layers_are_saved_once(tmp_path: Path) -> None:
    """Shared layers are written once and are shared again after loading."""
    backbone, model = read(write_family(tmp_path / "it", "albert"))
    (tmp_path / "saved").mkdir()
    save_model(model, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.config == model.config
    assert len(set(again.layers)) == 1
    batch = collate(backbone.encode(TEXTS, 32), np.arange(3))
    with torch.no_grad():
        assert torch.equal(again(batch).logits, model(batch).logits)
    written = sum(
        tensor.numel() for tensor in load_file(tmp_path / "saved" / "model.safetensors").values()
    )
    assert written == model.parameter_count() == again.parameter_count()


@pytest.mark.parametrize("name", [*sorted(ACTIVATION_SYNONYMS), "silu"])
def test_activations_equal_library(tmp_path: Path, name: str) -> None:
    """Hidden states equal the library's under every name of an activation."""
    config = LIBRARY["bert"][1].__class__(**SIZES, hidden_act=name)
    library = randomised(BertModel(config))
    folder = write_family(tmp_path / "it", "bert", library)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    backbone, model = read(folder)
    batch = collate(backbone.encode(TEXTS, 32), np.arange(3))
    with torch.no_grad():
        wanted = library(**inputs(library, batch)).last_hidden_state
        found = model(batch).hiddens[-1]
    torch.testing.assert_close(found[batch.mask], wanted[batch.mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", ["is_decoder", "add_cross_attention"])
def test_decoders_are_refused(tmp_path: Path, key: str) -> None:
    """A model whose tokens see only earlier ones is refused."""
    folder = write_family(tmp_path / "it", "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: True}))
    with pytest.raises(HarnessError) as caught:
        find_backbone(str(folder))
    assert_message(caught, folder / "config.json", key)


def in_shards(folder: Path, count: int = 3) -> Path:
    """Divide the weights into shards with an index, as the library saves large models."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = [f"model-{index + 1:05}-of-{count:05}.safetensors" for index in range(count)]
    shard_of = {tensor: names[index % count] for index, tensor in enumerate(sorted(tensors))}
    for name in names:
        save_file({key: tensors[key] for key in tensors if shard_of[key] == name}, folder / name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    return folder


def test_shards_equal_one_file(tmp_path: Path) -> None:
    """Weights in shards are the same model as in one file; one file is preferred."""
    whole = read(write_family(tmp_path / "whole", "bert"))[1]
    folder = in_shards(write_family(tmp_path / "shards", "bert"))
    backbone, model = read(folder)
    for name, tensor in whole.state_dict().items():
        if not name.startswith("exits") or "pooler" in name:
            assert torch.equal(tensor, model.state_dict()[name]), name
    assert not has_masked_lm_head(backbone)
    first = backbone.fingerprint
    shard = folder / "model-00002-of-00003.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(shard).items()}, shard)
    assert find_backbone(str(folder)).fingerprint != first


def no_shard(folder: Path) -> None:
    (folder / "model-00002-of-00003.safetensors").unlink()


def index_without_map(folder: Path) -> None:
    (folder / INDEX).write_text("{}")


def shard_outside_the_folder(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (no_shard, [INDEX, "model-00002-of-00003.safetensors"]),
        (index_without_map, [INDEX, "weight_map"]),
        (shard_outside_the_folder, [INDEX]),
    ],
)
def test_incomplete_shards_are_named(
    tmp_path: Path, damage: Callable[[Path], None], names: list[object]
) -> None:
    folder = in_shards(write_family(tmp_path / "it", "bert"))
    damage(folder)
    with pytest.raises(HarnessError) as caught:
        read(folder)
    assert_message(caught, *names)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    """A tensor with a value that is infinite or not a number is named."""
    folder = write_family(tmp_path / "it", "bert")
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in tensors if name.endswith("encoder.layer.1.output.dense.weight"))
    tensors[name][0, 0] = value
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(HarnessError) as caught:
        read(folder)
    assert_message(caught, "it", "encoder.layer.1.output.dense.weight")
