import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from baselines.encoder import EncoderModel, Head, ModelConfig
from baselines.losses import exit_losses
from baselines.training import Recipe, Schedule, selection_score, train
from harness.backbones import Backbone
from harness.batches import collate
from harness.errors import IncompleteError
from harness.inference import collect
from harness.model import Batch, MultiExitModel
from harness.progress import Progress
from harness.records import Training
from harness.stages import Compute, DivergedError, StageRun
from harness.tasks import TASKS, Split, TaskData, Tokens

CPU = torch.device("cpu")
FREE = 1e9
"""A bound on the gradient's norm that is never reached."""


def _schedule(**changes: float) -> Schedule:
    plain = Schedule(epochs=1, batch_size=16, learning_rate=1e-3, warmup=0.0, weight_decay=0.01, clip=FREE, accumulation=1)
    return replace(plain, **changes)


def _run(scratch: Path, precision: str = "float32", seed: int = 5) -> StageRun:
    scratch.mkdir(exist_ok=True)
    return StageRun(Compute(CPU, precision, threads=1), "a cell", "a stage", seed, scratch)


def _model(backbone: Backbone, dropout: float = 0.0, exits: tuple[Head | None, ...] = (None, "dense", "dense")) -> EncoderModel:
    torch.manual_seed(9)
    return EncoderModel(ModelConfig(replace(backbone.shape, dropout=dropout), "mean", 2, 1.0, exits))


def _loss(model: MultiExitModel, batch: Batch, labels: Tensor) -> Tensor:
    return exit_losses(model(batch).logits, labels, 1.0).sum()


def _no_score(model: MultiExitModel) -> float:
    return 0.0


def _first(rows: Split, count: int) -> Split:
    tokens = Tokens(rows.tokens.ids[:count], rows.tokens.types[:count], 0)
    return replace(rows.rows(np.arange(count)), tokens=tokens)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


class Steps:
    """What the optimiser was given at each step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.decays: list[list[float]] = []
        self.gradients: list[list[Tensor]] = []
        self.sizes: list[list[list[int]]] = []

    def __call__(self, optimiser: torch.optim.Optimizer, *_: object) -> None:
        groups = optimiser.param_groups
        self.rates.append([group["lr"] for group in groups])
        self.decays.append([group["weight_decay"] for group in groups])
        self.sizes.append([[parameter.ndim for parameter in group["params"]] for group in groups])
        self.gradients.append([p.grad.clone() for group in groups for p in group["params"] if p.grad is not None])


@contextmanager
def _watched_steps() -> Iterator[Steps]:
    steps = Steps()
    handle = register_optimizer_step_pre_hook(steps)
    try:
        yield steps
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("warmup", "factors"),
    [
        (0.0, [1.0, 1.0, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]),
        (0.2, [1 / 2, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (0.5, [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1.0, 1.0, 4 / 5, 3 / 5, 2 / 5, 1 / 5]),
    ],
)
def test_learning_rate_rises_over_the_warm_up_and_falls_to_zero(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, warmup: float, factors: list[float]
) -> None:
    schedule = _schedule(epochs=2, batch_size=10, warmup=warmup, learning_rate=1e-4)
    with _watched_steps() as steps:
        training = train(_model(micro), _loss, few_rows.train, _no_score, schedule, _run(tmp_path))
    assert training.steps == 10
    assert [rate for rate, _ in steps.rates] == pytest.approx([1e-4 * factor for factor in factors])
    assert all(one == other for one, other in steps.rates)


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulation", "expected"),
    [(48, 16, 1, 3), (48, 32, 1, 2), (48, 64, 1, 1), (48, 32, 2, 2), (48, 16, 4, 3), (45, 16, 4, 3), (41, 16, 4, 3), (7, 16, 4, 1)],
)
def test_steps_of_an_epoch_are_those_that_the_optimiser_makes(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, rows: int, batch_size: int, accumulation: int, expected: int
) -> None:
    schedule = _schedule(batch_size=batch_size, accumulation=accumulation)
    assert schedule.steps(rows) == expected
    with _watched_steps() as steps:
        training = train(_model(micro), _loss, _first(few_rows.train, rows), _no_score, schedule, _run(tmp_path))
    assert len(steps.rates) == training.steps == expected
    assert training.rows == rows


def _gradients_of_one_step(backbone: Backbone, rows: Split, schedule: Schedule, folder: Path) -> list[Tensor]:
    with _watched_steps() as steps:
        train(_model(backbone), _loss, rows, _no_score, schedule, _run(folder))
    (gradients,) = steps.gradients
    return gradients


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulation"),
    [(48, 48, 2), (48, 48, 3), (40, 48, 2), (24, 48, 4), (29, 48, 4)],
    ids=["two halves", "three thirds", "a short batch at the end", "fewer batches than are accumulated", "both"],
)
def test_accumulated_gradients_equal_those_of_one_batch(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, rows: int, batch_size: int, accumulation: int
) -> None:
    split = _first(few_rows.train, rows)
    whole = _schedule(batch_size=batch_size)
    expected = _gradients_of_one_step(micro, split, whole, tmp_path / "whole")
    reached = _gradients_of_one_step(micro, split, replace(whole, accumulation=accumulation), tmp_path / "parts")
    largest = max(gradient.abs().max().item() for gradient in expected)
    for got, wanted in zip(reached, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5 * largest, rtol=1e-4)


def test_gradients_of_one_batch_are_those_of_the_mean_loss_over_its_rows(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    reached = _gradients_of_one_step(micro, few_rows.train, _schedule(batch_size=48), tmp_path)
    model = _model(micro)
    labels = torch.from_numpy(few_rows.train.labels)
    for row in range(48):
        (_loss(model, collate(few_rows.train.tokens, np.array([row])), labels[row : row + 1]) / 48).backward()
    parameters = [p for p in model.parameters() if p.ndim > 1] + [p for p in model.parameters() if p.ndim <= 1]
    for got, parameter in zip(reached, parameters, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(got, parameter.grad, atol=1e-6, rtol=1e-3)


def test_weight_decay_shrinks_matrices_and_leaves_biases_and_norms(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    model = _model(micro)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    before = _copy(model)

    def flat(model: MultiExitModel, batch: Batch, labels: Tensor) -> Tensor:
        return 0.0 * sum(parameter.sum() for parameter in model.parameters())

    schedule = _schedule(batch_size=48, learning_rate=0.1, weight_decay=0.2)
    with _watched_steps() as steps:
        train(model, flat, few_rows.train, _no_score, schedule, _run(tmp_path))
    assert steps.decays == [[0.2, 0.0]]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name] * (0.98 if value.ndim > 1 else 1.0))


@pytest.mark.parametrize("clip", [0.01, FREE])
def test_gradients_are_cut_to_the_largest_norm_in_their_own_direction(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, clip: float
) -> None:
    free = _gradients_of_one_step(micro, few_rows.train, _schedule(batch_size=48), tmp_path / "free")
    cut = _gradients_of_one_step(micro, few_rows.train, _schedule(batch_size=48, clip=clip), tmp_path / "cut")
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in free))
    assert norm > 0.05
    factor = min(clip / norm, 1.0)
    for got, whole in zip(cut, free, strict=True):
        torch.testing.assert_close(got, factor * whole, atol=1e-7, rtol=1e-3)


def test_frozen_parameters_stay_as_they_are_and_the_others_move(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    model = _model(micro, dropout=0.1)
    model.requires_grad_(False)
    model.exits["1"].requires_grad_(True)
    before = _copy(model)
    with _watched_steps() as steps:
        train(model, _loss, few_rows.train, _no_score, _schedule(epochs=2, weight_decay=0.5), _run(tmp_path))
    trained = len(list(model.exits["1"].parameters()))
    assert {sum(len(group) for group in groups) for groups in steps.sizes} == {trained}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("exits.1."), name


class ScriptedScore:
    """Scores that the test chooses; keeps the weights that each was given for."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = list(scores)
        self.weights: list[dict[str, Tensor]] = []

    def __call__(self, model: MultiExitModel) -> float:
        self.weights.append(_copy(model))
        return self.scores[len(self.weights) - 1]


@pytest.mark.parametrize(
    ("scores", "best"), [((0.2, 0.9, 0.5), 2), ((0.9, 0.2, 0.5), 1), ((0.1, 0.2, 0.5), 3), ((0.5, 0.7, 0.7), 2), ((-1.0, -0.5, -2.0), 2)]
)
def test_weights_of_the_best_epoch_are_kept_the_first_of_equals(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, scores: tuple[float, ...], best: int
) -> None:
    model, score = _model(micro), ScriptedScore(scores)
    training = train(model, _loss, few_rows.train, score, _schedule(epochs=3), _run(tmp_path))
    assert training.best_epoch == best
    assert training.selection == scores
    assert _equal(_copy(model), score.weights[best - 1])
    assert not _equal(score.weights[0], score.weights[1])


def test_the_trained_model_is_in_evaluation_mode_on_the_cpu(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    model = _model(micro)
    train(model, _loss, few_rows.train, _no_score, _schedule(), _run(tmp_path))
    assert {module.training for module in model.modules()} == {False}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_every_epoch_trains_in_training_mode_even_after_a_score_in_evaluation_mode(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    modes = []

    def loss(model: MultiExitModel, batch: Batch, labels: Tensor) -> Tensor:
        modes.append(model.training)
        return _loss(model, batch, labels)

    def score(model: MultiExitModel) -> float:
        model.eval()
        return 0.0

    train(_model(micro), loss, few_rows.train, score, _schedule(epochs=3), _run(tmp_path))
    assert modes == [True] * 9


def test_every_epoch_sees_every_row_once_with_its_own_label_in_another_order(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    rows = replace(few_rows.train, labels=np.arange(48) / 64)
    seen: list[list[float]] = []

    def loss(model: MultiExitModel, batch: Batch, labels: Tensor) -> Tensor:
        for ids, mask, label in zip(batch.ids, batch.mask, labels, strict=True):
            assert ids[mask].tolist() == rows.tokens.ids[round(label.item() * 64)].tolist()
        seen.append(labels.tolist())
        return _loss(model, batch, labels.round())

    train(_model(micro), loss, rows, _no_score, _schedule(epochs=2), _run(tmp_path))
    epochs = [list(chain.from_iterable(batches)) for batches in (seen[:3], seen[3:])]
    assert all(sorted(epoch) == rows.labels.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_final_loss_is_the_mean_over_the_last_epoch(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    told = iter((9.0, 8.0, 7.0, 4.0, 3.0, 5.0))

    def loss(model: MultiExitModel, batch: Batch, labels: Tensor) -> Tensor:
        value = _loss(model, batch, labels)
        return value - value.detach() + next(told)

    training = train(_model(micro), loss, few_rows.train, _no_score, _schedule(epochs=2), _run(tmp_path))
    assert training.final_loss == pytest.approx(4.0)


@pytest.mark.parametrize("content", [b"", b"PK torn", None])
def test_a_damaged_state_is_said_and_training_begins_again(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """None: a state of another version, which lacks a part."""
    whole = train(_model(micro), _loss, few_rows.train, _no_score, _schedule(epochs=2), _run(tmp_path / "whole"))
    run = _run(tmp_path / "torn")
    run = replace(run, compute=replace(run.compute, progress=Progress()))
    if content is None:
        torch.save({"losses": [1.0]}, run.scratch / "train.pt")
    else:
        (run.scratch / "train.pt").write_bytes(content)
    again = train(_model(micro), _loss, few_rows.train, _no_score, _schedule(epochs=2), run)
    assert again.final_loss == whole.final_loss
    assert "training begins again" in " ".join(capsys.readouterr().err.split())


def test_answers_that_are_not_finite_are_a_divergence(micro: Backbone, few_rows: TaskData) -> None:
    """One step at a huge rate leaves finite, but huge weights: the loss was finite, what the model says is not."""
    model = _model(micro)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1e30)
    with pytest.raises(DivergedError, match="not finite"):
        selection_score(model, few_rows.selection, TASKS["demo-pair"], [0], CPU)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_learning_rate(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, value: float
) -> None:
    calls = []

    def loss(model: MultiExitModel, batch: Batch, labels: Tensor) -> Tensor:
        calls.append(1)
        return _loss(model, batch, labels) * (value if len(calls) == 5 else 1.0)

    with pytest.raises(IncompleteError) as caught:
        train(_model(micro), loss, few_rows.train, _no_score, _schedule(epochs=2, learning_rate=3e-4), _run(tmp_path))
    said = str(caught.value)
    for part in ("a stage: ", f"the loss is {value}", "epoch 2, batch 2", "learning rate 0.0003", "--set all.learning_rates"):
        assert part in said
    assert "\n" not in said


def test_training_learns(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """What the label is, the first word says."""
    ids = tuple(
        np.where(np.arange(len(row)) == 0, 5 + label, row).astype(np.int32)
        for row, label in zip(few_rows.train.tokens.ids, few_rows.train.labels, strict=True)
    )
    rows = replace(few_rows.train, tokens=replace(few_rows.train.tokens, ids=ids))
    model, later_is_better = _model(micro), ScriptedScore(range(8))
    training = train(model, _loss, rows, later_is_better, _schedule(epochs=8, batch_size=8, learning_rate=5e-3), _run(tmp_path))
    assert training.final_loss < 0.3
    assert (collect(model, rows, 16, CPU).predictions() == rows.labels).all()


class StopHereError(Exception):
    pass


def _interrupt_in(epoch: int) -> Callable[[MultiExitModel], float]:
    """Raises when the epoch's score is asked for; before that the epoch's number is the score, so that the last is the best."""
    calls = []

    def score(model: MultiExitModel) -> float:
        calls.append(1)
        if len(calls) == epoch:
            raise StopHereError
        return float(len(calls))

    return score


def _train_again(model: EncoderModel, rows: Split, folder: Path, score: Callable[[MultiExitModel], float]) -> Training:
    return train(model, _loss, rows, score, _schedule(epochs=3, warmup=0.3, accumulation=2), _run(folder))


def test_an_interrupted_training_goes_on_to_the_same_weights_to_the_last_bit(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    straight, watched = _model(micro, dropout=0.1), ScriptedScore((1.0, 2.0, 3.0))
    undisturbed = _train_again(straight, few_rows.train, tmp_path / "straight", watched)
    with pytest.raises(StopHereError):
        _train_again(_model(micro, dropout=0.1), few_rows.train, tmp_path / "broken", _interrupt_in(2))
    torch.manual_seed(12345)
    resumed, after = EncoderModel(straight.config), ScriptedScore((2.0, 3.0))
    training = _train_again(resumed, few_rows.train, tmp_path / "broken", after)
    assert replace(training, seconds=0.0) == replace(undisturbed, seconds=0.0)
    assert len(after.weights) == 2
    assert _equal(after.weights[0], watched.weights[1])
    assert _equal(_copy(resumed), _copy(straight))


def test_the_best_epoch_before_an_interruption_is_not_forgotten(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    control = ScriptedScore((5.0, 1.0, 2.0))
    _train_again(_model(micro, dropout=0.1), few_rows.train, tmp_path / "control", control)
    calls = []

    def best_then_interrupted(model: MultiExitModel) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise StopHereError
        return 5.0

    with pytest.raises(StopHereError):
        _train_again(_model(micro, dropout=0.1), few_rows.train, tmp_path / "broken", best_then_interrupted)
    resumed = _model(micro, dropout=0.1)
    training = _train_again(resumed, few_rows.train, tmp_path / "broken", ScriptedScore((1.0, 2.0)))
    assert training.best_epoch == 1
    assert _equal(_copy(resumed), control.weights[0])


def test_a_finished_training_is_not_repeated(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    first, second = _model(micro), EncoderModel(_model(micro).config)
    _train_again(first, few_rows.train, tmp_path, ScriptedScore((1.0, 2.0, 3.0)))
    with _watched_steps() as steps:
        training = _train_again(second, few_rows.train, tmp_path, ScriptedScore(()))
    assert steps.rates == []
    assert training.selection == (1.0, 2.0, 3.0)
    assert _equal(_copy(first), _copy(second))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        model = _model(micro, dropout=0.1)
        train(model, _loss, few_rows.train, _no_score, _schedule(), _run(tmp_path / name, seed=seed))
        weights.append(_copy(model))
    assert _equal(weights[0], weights[1])
    assert not _equal(weights[0], weights[2])


def test_bfloat16_autocast_trains_float32_weights_close_to_those_of_float32(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    kinds = set()

    def loss(model: MultiExitModel, batch: Batch, labels: Tensor) -> Tensor:
        answer = model(batch)
        kinds.add(answer.logits.dtype)
        return exit_losses(answer.logits, labels, 1.0).sum()

    def score(model: MultiExitModel) -> float:
        return selection_score(model, few_rows.selection, few_rows.task, [0, 1], CPU)

    half = _model(micro)
    training = train(half, loss, few_rows.train, score, _schedule(epochs=2), _run(tmp_path, "bfloat16"))
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in half.state_dict().values()} == {torch.float32}
    assert training.final_loss == pytest.approx(2 * math.log(2), abs=0.1)


@pytest.mark.parametrize("exits", [[0], [1], [0, 1]])
def test_selection_score_is_the_mean_of_the_main_metric_over_the_exits(micro: Backbone, few_rows: TaskData, exits: list[int]) -> None:
    model = _model(micro)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    right = collect(model, few_rows.selection, 7, CPU).logits.argmax(-1) == few_rows.selection.labels
    assert 0 < right.mean() < 1
    reached = selection_score(model.train(), few_rows.selection, few_rows.task, exits, CPU)
    assert reached == pytest.approx(right[exits].mean())


def test_selection_score_of_more_rows_than_one_batch_keeps_each_label_at_its_row(micro: Backbone, few_rows: TaskData) -> None:
    model = _model(micro)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    rows = few_rows.selection
    order = np.random.default_rng(1).integers(0, len(rows), 200)
    tokens = Tokens(tuple(rows.tokens.ids[row] for row in order), tuple(rows.tokens.types[row] for row in order), 0)
    answers = collect(model, replace(rows.rows(order), tokens=tokens), 64, CPU).predictions()[1]
    perfect = replace(rows.rows(order), tokens=tokens, labels=answers.astype(np.float64))
    assert selection_score(model, perfect, few_rows.task, [1], CPU) == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"accumulation": 0}, "accumulation 0"),
        ({"warmup": 1.0}, r"warmup 1\.0"),
        ({"warmup": -0.1}, r"warmup -0\.1"),
        ({"learning_rates": (1e-3, 0.0)}, "wanted positive numbers"),
    ],
)
def test_settings_outside_their_range_are_refused_with_the_value(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe(**change)


def test_a_recipe_takes_what_it_is_not_told_from_the_backbone(micro: Backbone) -> None:
    backbone = replace(micro, learning_rates=(1e-4, 1e-5), epochs=7)
    assert [(s.learning_rate, s.epochs) for s in Recipe().schedules(backbone)] == [(1e-4, 7), (1e-5, 7)]
    (own,) = Recipe(epochs=2, learning_rates=(3e-3,), batch_size=8, accumulation=2, warmup=0.2, weight_decay=0.3, clip=0.4).schedules(
        backbone
    )
    assert own == Schedule(2, 8, 3e-3, 0.2, 0.3, 0.4, 2)
