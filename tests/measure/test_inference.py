from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from harness.data.dataset import Split, Tokens
from harness.evaluation.curves import leaving
from harness.evaluation.policies import Confidence, Entropy, Patience, Policy, exit_scores
from harness.evaluation.trace import Trace
from harness.measure.inference import collect, predict_early
from harness.models.batches import collate
from harness.models.multi_exit import Batch, MultiExitModel, State
from harness.models.shapes import bert_shape

CPU = torch.device("cpu")
LAYERS = 5
ROUNDING = 1e-6
"""What a trace's float32 may be off. The models here compute in float64: in float32 their logits differ with the batch by up to 1.3e-5, how
much depends on the processor, and that would hide what should be seen."""
EVERY: tuple[Head | None, ...] = ("dense",) * LAYERS
SOME: tuple[Head | None, ...] = (None, "plain", None, "dense", "plain")

CLASS_POLICIES: tuple[Policy, ...] = (Entropy(), Confidence(), Patience())


def _random_rows() -> Split:
    """48 rows of 3 to 20 random words, numbered from 100 on."""
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


def _spread(
    exits: tuple[Head | None, ...] = EVERY, classes: int = 2, scale: float = 1.0
) -> EncoderModel:
    """A random model whose exits disagree: each exit's logits have mean 0 and deviation 1 (times scale) over the rows."""
    shape = bert_shape(LAYERS, 16, 2, 32, vocabulary=40, positions=32)
    model = EncoderModel(ModelConfig(shape, "mean", classes, scale, exits)).eval()
    generator = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5, generator=generator)
    with torch.no_grad():
        logits = model(_all(_random_rows())).logits / scale
        for head, own in zip(model.exits.values(), logits, strict=True):
            head.classifier.weight /= own.std(0)[:, None]
            head.classifier.bias -= own.mean(0) / own.std(0)
    return model.double()


@pytest.fixture(scope="module")
def dev() -> Split:
    return _random_rows()


@pytest.fixture(scope="module")
def model() -> EncoderModel:
    return _spread()


def _all(split: Split) -> Batch:
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
    """Thresholds in whose neighbourhood no score of the trace lies (closer than 1e-4, rounding may decide), spread over the scores."""
    if isinstance(policy, Patience):
        return [1.0, 2.0, 3.0, 4.0, 9.0]
    scores = np.unique(exit_scores(policy, trace.logits))
    gaps = np.flatnonzero(np.diff(scores) > 2e-4)
    chosen = gaps[np.linspace(0, len(gaps) - 1, 7).astype(int)]
    return [abs(float(middle)) for middle in (scores[chosen] + scores[chosen + 1]) / 2]


def test_trace_keeps_order_of_data(model: EncoderModel, dev: Split) -> None:
    """A trace stands in the order of the data."""
    trace = collect(model, dev, 7, CPU)
    assert trace.logits.dtype == np.float32
    assert trace.logits.shape == (LAYERS, len(dev), 2)
    assert np.array_equal(trace.ids, dev.ids)
    assert np.array_equal(trace.labels, dev.labels)
    assert trace.lengths.tolist() == [len(row) for row in dev.tokens.ids]
    assert trace.exit_layers.tolist() == [1, 2, 3, 4, 5]
    with torch.no_grad():
        for row in range(len(dev)):
            alone = model(collate(dev.tokens, np.array([row]))).logits[:, 0]
            np.testing.assert_allclose(trace.logits[:, row], alone.numpy(), atol=ROUNDING)


def test_trace_ignores_batch_size(model: EncoderModel, dev: Split) -> None:
    """A trace does not depend on the batch size."""
    one, seven, many = (collect(model, dev, size, CPU).logits for size in (1, 7, 64))
    np.testing.assert_allclose(seven, one, atol=ROUNDING)
    np.testing.assert_allclose(many, one, atol=ROUNDING)


def test_permuted_rows_permute_the_trace(model: EncoderModel, dev: Split) -> None:
    """The trace of permuted rows is the permuted trace."""
    order = np.random.default_rng(3).permutation(len(dev))
    trace, moved = collect(model, dev, 7, CPU), collect(model, _permuted(dev, order), 7, CPU)
    np.testing.assert_allclose(moved.logits, trace.logits[:, order], atol=ROUNDING)
    assert np.array_equal(moved.ids, trace.ids[order])
    assert np.array_equal(moved.labels, trace.labels[order])
    assert np.array_equal(moved.lengths, trace.lengths[order])


def test_trace_runs_in_evaluation_mode(dev: Split) -> None:
    """A trace is made in evaluation mode without gradients."""
    model = _spread().train()
    logits = collect(model, dev, 16, CPU).logits
    assert np.array_equal(logits, collect(model, dev, 16, CPU).logits)
    assert {module.training for module in model.modules()} == {False}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_trace_names_its_exit_layers(dev: Split) -> None:
    """The trace of exits at some layers names these layers."""
    trace = collect(_spread(SOME), dev, 16, CPU)
    assert trace.exit_layers.tolist() == [2, 4, 5]
    assert trace.logits.shape == (3, len(dev), 2)


@pytest.mark.parametrize("policy", CLASS_POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("exits", [EVERY, SOME], ids=["every layer", "some layers"])
def test_early_exit_equals_offline_choice(
    dev: Split, policy: Policy, exits: tuple[Head | None, ...]
) -> None:
    """Early predictions equal those that are found offline on the trace."""
    model = _spread(exits)
    trace = collect(model, dev, 16, CPU)
    reached = set()
    for threshold in _clear_thresholds(policy, trace):
        answers = predict_early(model, _all(dev), policy, policy.score_threshold(threshold))
        (offline,) = leaving(policy, trace.logits, np.array([threshold]))
        assert answers.exits.tolist() == offline.tolist()
        np.testing.assert_allclose(
            answers.logits, trace.logits[offline, np.arange(len(dev))], atol=ROUNDING
        )
        reached |= set(offline.tolist())
    assert len(reached) >= len(trace.exit_layers) - 1


def test_regression_early_exit_equals_offline(dev: Split) -> None:
    """Early predictions of a regression equal those that are found offline."""
    model = _spread(classes=1, scale=5.0)
    trace = collect(model, dev, 16, CPU)
    changes = np.unique(np.abs(np.diff(trace.logits[..., 0], axis=0)))
    middle = len(changes) // 2
    assert changes[middle + 1] - changes[middle] > 1e-4
    policy = Patience(tolerance=float(changes[middle] + changes[middle + 1]) / 2)
    reached = set()
    for threshold in (1.0, 2.0, 3.0):
        answers = predict_early(model, _all(dev), policy, policy.score_threshold(threshold))
        (offline,) = leaving(policy, trace.logits, np.array([threshold]))
        assert answers.exits.tolist() == offline.tolist()
        np.testing.assert_allclose(
            answers.logits, trace.logits[offline, np.arange(len(dev))], atol=ROUNDING
        )
        reached |= set(offline.tolist())
    assert reached == {1, 2, 3, 4}


@pytest.mark.parametrize("policy", CLASS_POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("exits", [EVERY, SOME], ids=["every layer", "some layers"])
def test_only_remaining_rows_enter_layers(
    dev: Split, policy: Policy, exits: tuple[Head | None, ...]
) -> None:
    """The rows that enter a layer are exactly those that have not left."""
    model = _spread(exits)
    trace = collect(model, dev, 16, CPU)
    threshold = _clear_thresholds(policy, trace)[0 if isinstance(policy, Patience) else 3]
    with torch.no_grad():
        expected = model(_all(dev)).hiddens
    entered: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        for layer in model.layers
    ]
    answers = predict_early(model, _all(dev), policy, policy.score_threshold(threshold))
    for hook in hooks:
        hook.remove()
    left_after = trace.exit_layers[leaving(policy, trace.logits, np.array([threshold]))[0]]
    assert len(set(left_after.tolist())) >= 2
    assert trace.exit_layers[answers.exits.numpy()].tolist() == left_after.tolist()
    for layer, hidden in enumerate(entered):
        stayed = np.flatnonzero(left_after > layer)
        assert len(stayed) == len(hidden)
        torch.testing.assert_close(hidden, expected[layer][stayed], atol=ROUNDING, rtol=0)
    assert len(entered) == left_after.max()


def test_hidden_states_identify_rows(model: EncoderModel, dev: Split) -> None:
    """Rows can be told apart by their hidden states."""
    with torch.no_grad():
        hiddens = model(_all(dev)).hiddens
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
    """Everybody leaves at the first exit, and nothing more runs."""
    ran: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(model.layers)
    ]
    answers = predict_early(model, _all(dev), policy, policy.score_threshold(threshold))
    for hook in hooks:
        hook.remove()
    assert ran == [0]
    assert set(answers.exits.tolist()) == {0}


@pytest.mark.parametrize(
    ("policy", "threshold"),
    [(Entropy(), 0.0), (Confidence(), 1.0), (Patience(), float(LAYERS))],
    ids=lambda value: getattr(value, "name", value),
)
def test_highest_threshold_reaches_last_exit(
    model: EncoderModel, dev: Split, policy: Policy, threshold: float
) -> None:
    """At the other end nobody leaves before the last exit."""
    answers = predict_early(model, _all(dev), policy, policy.score_threshold(threshold))
    assert set(answers.exits.tolist()) == {LAYERS - 1}
    with torch.no_grad():
        assert torch.equal(answers.logits, model(_all(dev)).logits[-1])


@pytest.mark.parametrize("policy", CLASS_POLICIES, ids=lambda policy: policy.name)
def test_each_row_decides_for_itself(model: EncoderModel, dev: Split, policy: Policy) -> None:
    threshold = _clear_thresholds(policy, collect(model, dev, 16, CPU))[
        0 if isinstance(policy, Patience) else 3
    ]
    cut = policy.score_threshold(threshold)
    together = predict_early(model, _all(dev), policy, cut)
    assert len(set(together.exits.tolist())) >= 2
    for rows in ([row] for row in range(len(dev))):
        alone = predict_early(model, collate(dev.tokens, np.array(rows)), policy, cut)
        assert alone.exits.tolist() == together.exits[rows].tolist()
        torch.testing.assert_close(alone.logits, together.logits[rows], atol=ROUNDING, rtol=0)


def test_saturated_logits_leave_first(dev: Split) -> None:
    model = _spread()
    for head in model.exits.values():
        head.scale = 1e6
    with torch.no_grad():
        margin = model(_all(dev)).logits[0].diff(dim=-1).abs()
    assert margin.min() > 200
    answers = predict_early(model, _all(dev), Entropy(), Entropy().score_threshold(0.01))
    assert set(answers.exits.tolist()) == {0}


def test_single_exit_model_predicts_there(dev: Split) -> None:
    """A model with one exit predicts there."""
    model = _spread((None,) * (LAYERS - 1) + ("dense",))
    answers = predict_early(model, _all(dev), Entropy(), Entropy().score_threshold(10.0))
    assert set(answers.exits.tolist()) == {0}
    with torch.no_grad():
        assert torch.equal(answers.logits, model(_all(dev)).logits[-1])


class Remembering(nn.Module):
    """Answers with the sum of both hidden states it sees and of all earlier answers."""

    lookback = 2

    def forward(self, state: State) -> Tensor:
        assert len(state.hiddens) == 2
        own = torch.stack([hidden[:, 0, :2] for hidden in state.hiddens]).sum(0)
        return own + sum(state.logits, torch.zeros_like(own))


def test_lookback_exits_see_remaining_rows(dev: Split) -> None:
    """Exits that look back see the rows that are left."""
    encoder = _spread()
    model = MultiExitModel(
        encoder.embedding, list(encoder.layers), [Remembering() for _ in range(LAYERS)]
    ).eval()
    trace = collect(model, dev, 16, CPU)
    policy = Entropy()
    for threshold in _clear_thresholds(policy, trace):
        answers = predict_early(model, _all(dev), policy, policy.score_threshold(threshold))
        (offline,) = leaving(policy, trace.logits, np.array([threshold]))
        assert answers.exits.tolist() == offline.tolist()
        np.testing.assert_allclose(
            answers.logits, trace.logits[offline, np.arange(len(dev))], atol=ROUNDING
        )
