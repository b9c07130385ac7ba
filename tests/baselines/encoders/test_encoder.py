"""The encoder equals the library's, and its layers, pooling and exits are as published."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.synthetic import needs_minilm
from torch import nn

from baselines.encoders import bert_layer
from baselines.encoders.bert_layer import BertLayer
from baselines.encoders.encoder import (
    Combine,
    EncoderModel,
    ExitHead,
    Head,
    ModelConfig,
    pool,
)
from baselines.encoders.weights import pretrained
from harness.data.demo import demo_vocabulary
from harness.models.backbones import Pooling, find_backbone
from harness.models.batches import collate
from harness.models.families import ACTIVATIONS
from harness.models.multi_exit import Batch, LayerContext, State
from harness.models.shapes import EncoderShape, bert_shape

SHAPE = bert_shape(3, 32, 4, 64, vocabulary=60, positions=24)
ALL: tuple[Head | None, ...] = ("dense", "dense", "dense")


def _batch(rows: int = 5, length: int = 11, vocabulary: int = 60) -> Batch:
    """Return examples of 3, 5, 7, ... tokens with words in the padding, to expose a model that
    attends to it."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(vocabulary, (rows, length), generator=generator)
    types = torch.randint(2, (rows, length), generator=generator)
    mask = torch.arange(length) < (3 + 2 * torch.arange(rows))[:, None]
    return Batch(ids, types, mask)


def _config(
    shape: EncoderShape = SHAPE, pooling: Pooling = "mean", exits: tuple[Head | None, ...] = ALL
) -> ModelConfig:
    return ModelConfig(shape, pooling, 2, 1.0, exits)


def _randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter, biases and norms included, far from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(
            parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.2, generator=generator
        )
    return model.eval()


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_encoder_equals_library_bert(tmp_path: Path, activation: str) -> None:
    """The hidden states of all layers equal the library's BERT, with padding and token types."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_act=activation,
        layer_norm_eps=1e-7,
    )
    library = _randomised(BertModel(config))
    save_file(library.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "vocab.txt").write_text("\n".join(demo_vocabulary()[:60]))
    backbone = find_backbone(str(tmp_path))
    model, _ = pretrained(backbone, ModelConfig(backbone.shape, backbone.pooling, 2, 1.0, ALL))
    batch = _batch()
    with torch.no_grad():
        expected = library(batch.ids, batch.mask.long(), batch.types, output_hidden_states=True)
        output = model.eval()(batch)
        last = model.exit_after(2)
        logits = last.classifier(expected.pooler_output)
    assert len(output.hiddens) == len(expected.hidden_states) == 4
    for hidden, reference in zip(output.hiddens, expected.hidden_states, strict=True):
        torch.testing.assert_close(hidden[batch.mask], reference[batch.mask], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.logits[-1], logits, atol=1e-5, rtol=0)


@needs_minilm
def test_encoder_equals_library_on_minilm() -> None:
    """The hidden states of all layers equal the library's BERT on minilm."""
    from transformers import BertModel

    backbone = find_backbone("minilm")
    assert backbone.folder is not None
    model, report = pretrained(
        backbone, ModelConfig(backbone.shape, backbone.pooling, 2, 1.0, (None,) * 5 + ("dense",))
    )
    library = BertModel.from_pretrained(backbone.folder).eval()
    tokens = backbone.encode(
        [
            ("A man is playing a guitar.", "Nobody plays."),
            ("Rain.",),
            ("It was not a bad film, was it?",),
        ],
        32,
    )
    batch = collate(tokens, np.arange(3))
    with torch.no_grad():
        expected = library(
            batch.ids, batch.mask.long(), batch.types, output_hidden_states=True
        ).hidden_states
        output = model.eval()(batch).hiddens
    assert report.loaded == 5 + 6 * 16
    assert len(output) == 7
    for hidden, reference in zip(output, expected, strict=True):
        torch.testing.assert_close(hidden[batch.mask], reference[batch.mask], atol=1e-5, rtol=0)


def test_training_attention_equals_evaluation() -> None:
    """Without dropout, attention in training equals attention in evaluation."""
    model = _randomised(EncoderModel(_config(replace(SHAPE, dropout=0.0))))
    batch = _batch()
    trained, evaluated = (model.train(mode)(batch) for mode in (True, False))
    torch.testing.assert_close(trained.logits, evaluated.logits, atol=1e-5, rtol=0)
    for one, other in zip(trained.hiddens, evaluated.hiddens, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_uneven_layers_have_expected_parameters() -> None:
    """Layers of different widths have the expected number of parameters, and run."""
    heads, ffn = (1, 4, 2), (8, 64, 1)
    shape = replace(SHAPE, heads=heads, ffn=ffn)
    model = EncoderModel(_config(shape)).eval()
    for layer, layer_heads, layer_ffn in zip(model.layers, heads, ffn, strict=True):
        width = 8 * layer_heads
        expected = (
            3 * (32 * width + width)
            + (width * 32 + 32)
            + (32 * layer_ffn + layer_ffn)
            + (layer_ffn * 32 + 32)
            + 2 * 2 * 32
        )
        assert sum(parameter.numel() for parameter in layer.parameters()) == expected
    assert [tuple(hidden.shape) for hidden in model(_batch()).hiddens] == [(5, 11, 32)] * 4


def test_fewer_heads_equal_silent_heads() -> None:
    """A layer with fewer units equals a full layer whose other units have zero output weights."""
    wide = _randomised(EncoderModel(_config())).layers[0]
    narrow = BertLayer(replace(SHAPE, heads=(2, 4, 4), ffn=(40, 64, 64)), 0).eval()
    state = wide.state_dict()
    kept = {
        f"{name}.{kind}": state[f"{name}.{kind}"][:16]
        for name in ("query", "key", "value")
        for kind in ("weight", "bias")
    }
    kept |= {
        "output.weight": state["output.weight"][:, :16],
        "narrow.weight": state["narrow.weight"][:, :40],
    }
    kept |= {f"widen.{kind}": state[f"widen.{kind}"][:40] for kind in ("weight", "bias")}
    narrow.load_state_dict(state | kept)
    with torch.no_grad():
        wide.output.weight[:, 16:] = 0
        wide.narrow.weight[:, 40:] = 0
        hidden, context = torch.randn(5, 11, 32), LayerContext.of(_batch().mask)
        expected = wide(hidden, context)
        torch.testing.assert_close(narrow(hidden, context), expected, atol=1e-5, rtol=0)


def test_full_rank_factorisation_equals_plain() -> None:
    """A factorised embedding of full rank equals the unfactorised one."""
    plain = _randomised(EncoderModel(_config())).embedding
    factorised = EncoderModel(_config(replace(SHAPE, embedding_rank=32))).eval().embedding
    assert factorised.projection is not None
    projection = factorised.projection.weight.double()
    nn.init.orthogonal_(projection)
    table = plain.word.weight.double() @ torch.linalg.inv(projection).T
    rest = {
        name: value for name, value in plain.state_dict().items() if not name.startswith("word")
    }
    factorised.load_state_dict(
        rest | {"word.weight": table.float(), "projection.weight": projection.float()}
    )
    batch = _batch()
    torch.testing.assert_close(
        factorised(batch.ids, batch.types), plain(batch.ids, batch.types), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("rank", [1, 5])
def test_factorised_embedding_saves_parameters(rank: int) -> None:
    """A factorised embedding saves parameters and runs."""
    model = EncoderModel(_config(replace(SHAPE, embedding_rank=rank))).eval()
    plain = EncoderModel(_config())
    assert plain.parameter_count() - model.parameter_count() == 60 * 32 - (60 * rank + rank * 32)
    assert model(_batch()).logits.shape == (3, 5, 2)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("training", [True, False])
def test_logits_ignore_the_padding(pooling: Pooling, training: bool) -> None:
    """Logits do not depend on the padding."""
    model = _randomised(EncoderModel(_config(replace(SHAPE, dropout=0.0), pooling))).train(training)
    batch = _batch()
    other = Batch(
        torch.where(batch.mask, batch.ids, 59 - batch.ids),
        torch.where(batch.mask, batch.types, 1 - batch.types),
        batch.mask,
    )
    longer = Batch(*(nn.functional.pad(tensor, (0, 6)) for tensor in batch))
    with torch.no_grad():
        logits = model(batch).logits
        for changed in (other, longer):
            torch.testing.assert_close(model(changed).logits, logits, atol=1e-5, rtol=0)
        for row, length in enumerate(batch.mask.sum(1).tolist()):
            unpadded = Batch(*(tensor[row : row + 1, :length] for tensor in batch))
            torch.testing.assert_close(
                model(unpadded).logits, logits[:, row : row + 1], atol=1e-5, rtol=0
            )


def test_pooling_computed_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 10], [2, 20], [6, 90]], [[4, 1], [5, 2], [9, 3]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert pool(hidden, mask, "cls").tolist() == [[1.0, 10.0], [4.0, 1.0]]
    assert pool(hidden, mask, "mean").tolist() == [[1.5, 15.0], [6.0, 2.0]]


def test_attention_scores_are_scaled_products() -> None:
    """Attention scores are scaled products, -inf at padded keys."""
    layer = _randomised(EncoderModel(_config())).layers[1]
    hidden, mask = torch.randn(5, 11, 32, generator=torch.Generator().manual_seed(1)), _batch().mask
    with torch.no_grad():
        scores = layer.attention_scores(hidden, LayerContext.of(mask))
        query = hidden @ layer.query.weight.T + layer.query.bias
        key = hidden @ layer.key.weight.T + layer.key.bias
    assert scores.shape == (5, 4, 11, 11)
    for head in range(4):
        units = slice(8 * head, 8 * head + 8)
        expected = torch.einsum("nqs,nks->nqk", query[..., units], key[..., units]) / math.sqrt(8)
        for row in range(5):
            length = int(mask[row].sum())
            torch.testing.assert_close(
                scores[row, head, :, :length], expected[row, :, :length], atol=1e-5, rtol=1e-5
            )
            assert (scores[row, head, :, length:] == -torch.inf).all()


def test_attention_scores_drive_the_layer() -> None:
    """The attention scores are those that the layer itself uses."""
    layer = _randomised(EncoderModel(_config())).layers[0]
    nn.init.zeros_(layer.narrow.weight)
    nn.init.zeros_(layer.narrow.bias)
    layer.norm = nn.Identity()
    hidden = torch.randn(5, 11, 32, generator=torch.Generator().manual_seed(1))
    context = LayerContext.of(_batch().mask)
    with torch.no_grad():
        weights = layer.attention_scores(hidden, context).softmax(-1)
        value = layer.value(hidden).view(5, 11, 4, 8)
        mixed = torch.einsum("nhqk,nkhs->nqhs", weights, value).reshape(5, 11, 32)
        expected = layer.attention_norm(hidden + layer.output(mixed))
        torch.testing.assert_close(layer(hidden, context), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("exits", "poolers"),
    [
        (("dense", "dense", "dense"), 3),
        (("shared", "shared", "shared"), 1),
        (("plain", "plain", "plain"), 0),
        ((None, None, "dense"), 1),
        (("shared", None, "shared"), 1),
        (("dense", "plain", "shared"), 2),
    ],
)
@pytest.mark.parametrize("classes", [1, 3])
def test_heads_have_expected_parameters(
    exits: tuple[Head | None, ...], poolers: int, classes: int
) -> None:
    """Exit heads have the expected number of parameters."""
    model = EncoderModel(ModelConfig(SHAPE, "mean", classes, 1.0, exits))
    heads = 3 - exits.count(None)
    count = sum(parameter.numel() for parameter in model.exits.parameters())
    assert count == poolers * (32 * 32 + 32) + heads * (32 * classes + classes)


def test_shared_pooler_is_one_module() -> None:
    """Exits with a shared pooler have the same module, dense ones their own."""
    for head, poolers in (("shared", 1), ("dense", 3)):
        model = EncoderModel(_config(exits=(head,) * 3))
        assert len({id(model.exits[str(layer)].pooler) for layer in range(3)}) == poolers


@pytest.mark.parametrize("head", ["dense", "plain"])
def test_exit_pools_then_classifies(head: Head) -> None:
    """An exit applies pooling, the dense layer, tanh and the classifier in this order."""
    model = _randomised(EncoderModel(_config(exits=(head,) * 3)))
    exit_head = model.exits["1"]
    batch = _batch()
    hidden = torch.randn(5, 11, 32, generator=torch.Generator().manual_seed(1))
    vector = torch.stack([row[keep].mean(0) for row, keep in zip(hidden, batch.mask, strict=True)])
    if head == "dense":
        vector = vector @ exit_head.pooler.weight.T + exit_head.pooler.bias
    expected = vector.tanh() @ exit_head.classifier.weight.T + exit_head.classifier.bias
    state = State((hidden,), LayerContext.of(batch.mask))
    torch.testing.assert_close(exit_head(state), expected, atol=1e-5, rtol=0)


def test_regression_exits_use_label_units() -> None:
    """Regression exits predict in label units."""
    configs = [ModelConfig(SHAPE, "mean", 1, scale, ALL) for scale in (1.0, 5.0)]
    plain, scaled = (_randomised(EncoderModel(config)) for config in configs)
    batch = _batch()
    assert scaled(batch).logits.shape == (3, 5, 1)
    torch.testing.assert_close(scaled(batch).logits, 5 * plain(batch).logits)


def test_exits_must_match_layers() -> None:
    """A config without an exit or None for each layer raises an error."""
    for exits in (("dense",), ("dense",) * 4, ("dense", "dense", None)):
        with pytest.raises(ValueError, match=rf"\b3\b\D+\b{len(exits)}\b"):
            EncoderModel(_config(exits=exits))


def test_fresh_weights_scale_with_width() -> None:
    """Fresh weights are normal with BERT's deviation scaled to the hidden size."""
    torch.manual_seed(0)
    model = EncoderModel(
        _config(bert_shape(2, 128, 4, 256, vocabulary=900), exits=("dense", "shared"))
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02 * math.sqrt(768 / 128), rel=0.15), (
                name
            )
            assert parameter.mean().item() == pytest.approx(
                0.0, abs=0.05 * 5 / math.sqrt(parameter.numel())
            ), name
        else:
            norm = "norm" in name and name.endswith("weight")
            assert (parameter == (1.0 if norm else 0.0)).all(), name


def test_every_named_activation_exists() -> None:
    """The encoder has every activation that a config.json may name."""
    assert sorted(bert_layer.ACTIVATIONS) == sorted(ACTIVATIONS)


@pytest.mark.parametrize(("combine", "width"), [("concatenate", 2), ("average", 1)])
def test_exit_pools_several_states(combine: Combine, width: int) -> None:
    """An exit that uses several hidden states pools each of them."""
    config = replace(
        _config(replace(SHAPE, dropout=0.0)),
        exits=("plain",) * SHAPE.layers,
        last_states=2,
        combine=combine,
    )
    model = _randomised(EncoderModel(config)).eval()
    batch = _batch()
    output = model(batch)
    last = model.exit_after(SHAPE.layers - 1)
    assert isinstance(last, ExitHead)
    assert last.classifier.in_features == width * SHAPE.hidden
    vectors = [pool(hidden, batch.mask, config.pooling) for hidden in output.hiddens[-2:]]
    vector = torch.cat(vectors, -1) if combine == "concatenate" else (vectors[0] + vectors[1]) / 2
    torch.testing.assert_close(
        output.logits[-1], last.classifier(torch.tanh(vector)) * config.scale
    )


def test_dense_pooler_needs_one_state() -> None:
    """An exit with a dense pooler may use only one hidden state."""
    with pytest.raises(ValueError, match=r"\bdense\b"):
        EncoderModel(
            replace(_config(SHAPE), exits=(None,) * (SHAPE.layers - 1) + ("dense",), last_states=2)
        )
