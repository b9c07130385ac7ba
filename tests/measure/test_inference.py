"""Traces and early exit: order, rounding and what each example runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from harness.data.dataset import Split, Tokens
from harness.evaluation.curves import exit_indices
from harness.evaluation.policies import Confidence, Entropy, Patience, Policy, exit_scores
from harness.evaluation.trace import Trace
from harness.measure.inference import collect, predict_early
from harness.models.batches import collate
from harness.models.multi_exit import Batch, MultiExitModel, State
from harness.models.shapes import bert_shape

CPU = torch.device("cpu")
LAYERS = 5
ROUNDING = 1e-6
"""Rounding error of a trace, which is float32. The models here compute in float64: in float32 their
logits differ between batches by up to 1.3e-5, depending on the processor, and could hide errors."""
EVERY_LAYER: tuple[Head | None, ...] = ("dense",) * LAYERS
SOME_LAYERS: tuple[Head | None, ...] = (None, "plain", None, "dense", "plain")

CLASS_POLICIES: tuple[Policy, ...] = (Entropy(), Confidence(), Patience())


def _random_split() -> Split:
    """Return 48 examples of 3 to 20 random words, numbered from 100."""
    draw = np.random.default_rng(4)
    lengths = draw.integers(3, 21, 48)
    ids = tuple(draw.integers(0, 40, length).astype(np.int32) for length in lengths)
    types = tuple((np.arange(length) > length // 2).astype(np.int32) for length in lengths)
    return Split(
        np.arange(100, 148),
        (("a text",),) * 48,
        draw.integers(0, 2, 48).astype(np.float64),
        Tokens(ids, types, 0),
    )


def _random_model(
    exits: tuple[Head | None, ...] = EVERY_LAYER, classes: int = 2, scale: float = 1.0
) -> EncoderModel:
    """Return a random model whose exits disagree.

    Each exit's logits have mean 0 and standard deviation 1 (times scale) over the examples.
    """
    shape = bert_shape(LAYERS, 16, 2, 32, vocabulary=40, positions=32)
    model = EncoderModel(ModelConfig(shape, "mean", classes, scale, exits)).eval()
    generator = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5, generator=generator)
    with torch.no_grad():
        logits = model(_whole_batch(_random_split())).logits / scale
        for head, values in zip(model.exits.values(), logits, strict=True):
            head.classifier.weight /= values.std(0)[:, None]
            head.classifier.bias -= values.mean(0) / values.std(0)
    return model.double()


@pytest.fixture(scope="module")
def dev() -> Split:
    return _random_split()


@pytest.fixture(scope="module")
def model() -> EncoderModel:
    return _random_model()


def _whole_batch(split: Split) -> Batch:
    return collate(split.tokens, np.arange(len(split)))


def _permuted(split: Split, order: NDArray[np.int64]) -> Split:
    tokens = split.tokens
    moved = Tokens(
        tuple(tokens.ids[row] for row in order),
        tuple(tokens.types[row] for row in order),
        tokens.truncated,
    )
    return replace(split.rows(order), tokens=moved)


def _clear_thresholds(policy: Policy, trace: Trace) -> list[float]:
    """Return thresholds spread over the scores of the trace.

    None is closer than 1e-4 to a score, where rounding might decide.
    """
    if isinstance(policy, Patience):
        return [1.0, 2.0, 3.0, 4.0, 9.0]
    scores = np.unique(exit_scores(policy, trace.logits))
    gaps = np.flatnonzero(np.diff(scores) > 2e-4)
    chosen = gaps[np.linspace(0, len(gaps) - 1, 7).astype(int)]
    return [abs(float(middle)) for middle in (scores[chosen] + scores[chosen + 1]) / 2]


def test_trace_keeps_order_of_data(model: EncoderModel, dev: Split) -> None:
    """A trace keeps the order of the data."""
    trace = collect(model, dev, 7, CPU)
    assert trace.logits.dtype == np.float32
    assert trace.logits.shape == (LAYERS, len(dev), 2)
    assert np.array_equal(trace.ids, dev.ids)
    assert np.array_equal(trace.labels, dev.labels)
    assert trace.lengths.tolist() == [len(row) for row in dev.tokens.ids]
    assert trace.exit_layers.tolist() == [1, 2, 3, 4, 5]
    with torch.no_grad():
        for row in range(len(dev)):
            single = model(collate(dev.tokens, np.array([row]))).logits[:, 0]
            np.testing.assert_allclose(trace.logits[:, row], single.numpy(), atol=ROUNDING)


def test_trace_ignores_batch_size(model: EncoderModel, dev: Split) -> None:
    """A trace does not depend on the batch size."""
    one, seven, many = (collect(model, dev, size, CPU).logits for size in (1, 7, 64))
    np.testing.assert_allclose(seven, one, atol=ROUNDING)
    np.testing.assert_allclose(many, one, atol=ROUNDING)


def test_permuted_examples_permute_the_trace(model: EncoderModel, dev: Split) -> None:
    """The trace of permuted rows is the permuted trace."""
    order = np.random.default_rng(3).permutation(len(dev))
    trace, moved = collect(model, dev, 7, CPU), collect(model, _permuted(dev, order), 7, CPU)
    np.testing.assert_allclose(moved.logits, trace.logits[:, order], atol=ROUNDING)
    assert np.array_equal(moved.ids, trace.ids[order])
    assert np.array_equal(moved.labels, trace.labels[order])
    assert np.array_equal(moved.lengths, trace.lengths[order])


def test_trace_runs_in_evaluation_mode(dev: Split) -> None:
    """A trace is made in evaluation mode without gradients."""
    model = _random_model().train()
    logits = collect(model, dev, 16, CPU).logits
    assert np.array_equal(logits, collect(model, dev, 16, CPU).logits)
    assert {module.training for module in model.modules()} == {False}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_trace_names_its_exit_layers(dev: Split) -> None:
    """The trace of a model with exits at some layers names these layers."""
    trace = collect(_random_model(SOME_LAYERS), dev, 16, CPU)
    assert trace.exit_layers.tolist() == [2, 4, 5]
    assert trace.logits.shape == (3, len(dev), 2)


@pytest.mark.parametrize("policy", CLASS_POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("exits", [EVERY_LAYER, SOME_LAYERS], ids=["every layer", "some layers"])
def test_early_exit_equals_offline_choice(
    dev: Split, policy: Policy, exits: tuple[Head | None, ...]
) -> None:
    """Early predictions equal those computed offline on the trace."""
    model = _random_model(exits)
    trace = collect(model, dev, 16, CPU)
    reached = set()
    for threshold in _clear_thresholds(policy, trace):
        early = predict_early(model, _whole_batch(dev), policy, policy.score_threshold(threshold))
        (offline,) = exit_indices(policy, trace.logits, np.array([threshold]))
        assert early.exits.tolist() == offline.tolist()
        np.testing.assert_allclose(
            early.logits, trace.logits[offline, np.arange(len(dev))], atol=ROUNDING
        )
        reached |= set(offline.tolist())
    assert len(reached) >= len(trace.exit_layers) - 1


def test_regression_early_exit_equals_offline(dev: Split) -> None:
    """Early predictions of a regression equal those computed offline."""
    model = _random_model(classes=1, scale=5.0)
    trace = collect(model, dev, 16, CPU)
    changes = np.unique(np.abs(np.diff(trace.logits[..., 0], axis=0)))
    middle = len(changes) // 2
    assert changes[middle + 1] - changes[middle] > 1e-4
    policy = Patience(tolerance=float(changes[middle] + changes[middle + 1]) / 2)
    reached = set()
    for threshold in (1.0, 2.0, 3.0):
        early = predict_early(model, _whole_batch(dev), policy, policy.score_threshold(threshold))
        (offline,) = exit_indices(policy, trace.logits, np.array([threshold]))
        assert early.exits.tolist() == offline.tolist()
        np.testing.assert_allclose(
            early.logits, trace.logits[offline, np.arange(len(dev))], atol=ROUNDING
        )
        reached |= set(offline.tolist())
    assert reached == {1, 2, 3, 4}


@pytest.mark.parametrize("policy", CLASS_POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("exits", [EVERY_LAYER, SOME_LAYERS], ids=["every layer", "some layers"])
def test_only_remaining_examples_enter_layers(
    dev: Split, policy: Policy, exits: tuple[Head | None, ...]
) -> None:
    """Exactly the examples that have not exited enter a layer."""
    model = _random_model(exits)
    trace = collect(model, dev, 16, CPU)
    threshold = _clear_thresholds(policy, trace)[0 if isinstance(policy, Patience) else 3]
    with torch.no_grad():
        expected = model(_whole_batch(dev)).hiddens
    entered: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        for layer in model.layers
    ]
    early = predict_early(model, _whole_batch(dev), policy, policy.score_threshold(threshold))
    for hook in hooks:
        hook.remove()
    exited_after = trace.exit_layers[exit_indices(policy, trace.logits, np.array([threshold]))[0]]
    assert len(set(exited_after.tolist())) >= 2
    assert trace.exit_layers[early.exits.numpy()].tolist() == exited_after.tolist()
    for layer, hidden in enumerate(entered):
        remaining = np.flatnonzero(exited_after > layer)
        assert len(remaining) == len(hidden)
        torch.testing.assert_close(hidden, expected[layer][remaining], atol=ROUNDING, rtol=0)
    assert len(entered) == exited_after.max()


def test_hidden_states_identify_examples(model: EncoderModel, dev: Split) -> None:
    """Examples can be distinguished by their hidden states."""
    with torch.no_grad():
        hiddens = model(_whole_batch(dev)).hiddens
    for hidden in hiddens[:-1]:
        flat = hidden.flatten(1)
        distances = torch.cdist(flat, flat) + torch.eye(len(flat))
        assert distances.min() > 1e-2


@pytest.mark.parametrize(
    ("policy", "threshold"),
    [(Entropy(), 1.0), (Confidence(), 0.0)],
    ids=lambda value: getattr(value, "name", value),
)
def test_lowest_threshold_stops_at_first_exit(
    model: EncoderModel, dev: Split, policy: Policy, threshold: float
) -> None:
    """All examples exit at the first exit, and no further layer runs."""
    ran: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(model.layers)
    ]
    early = predict_early(model, _whole_batch(dev), policy, policy.score_threshold(threshold))
    for hook in hooks:
        hook.remove()
    assert ran == [0]
    assert set(early.exits.tolist()) == {0}


@pytest.mark.parametrize(
    ("policy", "threshold"),
    [(Entropy(), 0.0), (Confidence(), 1.0), (Patience(), float(LAYERS))],
    ids=lambda value: getattr(value, "name", value),
)
def test_highest_threshold_reaches_last_exit(
    model: EncoderModel, dev: Split, policy: Policy, threshold: float
) -> None:
    """No example exits before the last exit."""
    early = predict_early(model, _whole_batch(dev), policy, policy.score_threshold(threshold))
    assert set(early.exits.tolist()) == {LAYERS - 1}
    with torch.no_grad():
        assert torch.equal(early.logits, model(_whole_batch(dev)).logits[-1])


@pytest.mark.parametrize("policy", CLASS_POLICIES, ids=lambda policy: policy.name)
def test_each_example_decides_for_itself(model: EncoderModel, dev: Split, policy: Policy) -> None:
    threshold = _clear_thresholds(policy, collect(model, dev, 16, CPU))[
        0 if isinstance(policy, Patience) else 3
    ]
    score_threshold = policy.score_threshold(threshold)
    batched = predict_early(model, _whole_batch(dev), policy, score_threshold)
    assert len(set(batched.exits.tolist())) >= 2
    for rows in ([row] for row in range(len(dev))):
        single = predict_early(model, collate(dev.tokens, np.array(rows)), policy, score_threshold)
        assert single.exits.tolist() == batched.exits[rows].tolist()
        torch.testing.assert_close(single.logits, batched.logits[rows], atol=ROUNDING, rtol=0)


def test_saturated_logits_exit_first(dev: Split) -> None:
    model = _random_model()
    for head in model.exits.values():
        head.scale = 1e6
    with torch.no_grad():
        margin = model(_whole_batch(dev)).logits[0].diff(dim=-1).abs()
    assert margin.min() > 200
    early = predict_early(model, _whole_batch(dev), Entropy(), Entropy().score_threshold(0.01))
    assert set(early.exits.tolist()) == {0}


def test_single_exit_model_predicts_there(dev: Split) -> None:
    """A model with one exit predicts there."""
    model = _random_model((None,) * (LAYERS - 1) + ("dense",))
    early = predict_early(model, _whole_batch(dev), Entropy(), Entropy().score_threshold(10.0))
    assert set(early.exits.tolist()) == {0}
    with torch.no_grad():
        assert torch.equal(early.logits, model(_whole_batch(dev)).logits[-1])


class SumOfAll(nn.Module):
    """An exit that predicts the sum of two hidden states and all earlier logits."""

    lookback = 2

    def forward(self, state: State) -> Tensor:
        assert len(state.hiddens) == 2
        total = torch.stack([hidden[:, 0, :2] for hidden in state.hiddens]).sum(0)
        return total + sum(state.logits, torch.zeros_like(total))


def test_lookback_exits_see_remaining_examples(dev: Split) -> None:
    """Exits with a lookback see the remaining examples."""
    encoder = _random_model()
    model = MultiExitModel(
        encoder.embedding, list(encoder.layers), [SumOfAll() for _ in range(LAYERS)]
    ).eval()
    trace = collect(model, dev, 16, CPU)
    policy = Entropy()
    for threshold in _clear_thresholds(policy, trace):
        early = predict_early(model, _whole_batch(dev), policy, policy.score_threshold(threshold))
        (offline,) = exit_indices(policy, trace.logits, np.array([threshold]))
        assert early.exits.tolist() == offline.tolist()
        np.testing.assert_allclose(
            early.logits, trace.logits[offline, np.arange(len(dev))], atol=ROUNDING
        )
