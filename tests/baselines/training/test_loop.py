"""The training loop: epochs, best epoch, resuming after an interruption, score on selection."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from support.messages import assert_message, names_in_order
from support.trainings import (
    make_model,
    make_run,
    make_schedule,
    no_score,
    plain_loss,
    same_weights,
    watched_steps,
    weights_of,
)
from torch import Tensor, nn

from baselines.encoders.encoder import EncoderModel
from baselines.training.loop import Examples, selection_score, train
from baselines.training.losses import exit_losses
from harness.data.dataset import Split, TaskData, Tokens
from harness.data.tasks import TASKS
from harness.errors import ExitCode, IncompleteError
from harness.measure.inference import collect
from harness.methods.stages import DivergedError
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel
from harness.progress import Progress
from harness.records import Training

CPU = torch.device("cpu")


class ScriptedScore:
    """A score with values chosen by the test, which records the weights at each call."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = list(scores)
        self.weights: list[dict[str, Tensor]] = []

    def __call__(self, model: MultiExitModel) -> float:
        self.weights.append(weights_of(model))
        return self.scores[len(self.weights) - 1]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.2, 0.9, 0.5), 2),
        ((0.9, 0.2, 0.5), 1),
        ((0.1, 0.2, 0.5), 3),
        ((0.5, 0.7, 0.7), 2),
        ((-1.0, -0.5, -2.0), 2),
    ],
)
def test_best_epoch_keeps_its_weights(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, scores: tuple[float, ...], best: int
) -> None:
    """The weights of the best epoch are kept, of the first one in a tie."""
    model, score = make_model(micro), ScriptedScore(scores)
    training = train(
        model, plain_loss, few_rows.train, score, make_schedule(epochs=3), make_run(tmp_path)
    )
    assert training.best_epoch == best
    assert training.selection == scores
    assert same_weights(weights_of(model), score.weights[best - 1])
    assert not same_weights(score.weights[0], score.weights[1])


def test_trained_model_evaluates_on_cpu(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """The trained model is in evaluation mode on the CPU."""
    model = make_model(micro)
    train(model, plain_loss, few_rows.train, no_score, make_schedule(), make_run(tmp_path))
    assert {module.training for module in model.modules()} == {False}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_every_epoch_runs_in_training_mode(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """Every epoch trains in training mode, even after a score in evaluation mode."""
    modes = []

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        modes.append(model.training)
        return plain_loss(model, examples)

    def score(model: MultiExitModel) -> float:
        model.eval()
        return 0.0

    train(
        make_model(micro), loss, few_rows.train, score, make_schedule(epochs=3), make_run(tmp_path)
    )
    assert modes == [True] * 9


def test_epochs_see_every_row_once(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """Every epoch sees every row once, with its label, in a new order."""
    rows = replace(few_rows.train, labels=np.arange(48) / 64)
    seen: list[list[float]] = []

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        batch, labels, numbers, _ = examples
        for ids, mask, label, number in zip(batch.ids, batch.mask, labels, numbers, strict=True):
            index = round(label.item() * 64)
            assert number == rows.ids[index]
            assert ids[mask].tolist() == rows.tokens.ids[index].tolist()
        seen.append(labels.tolist())
        return plain_loss(model, examples._replace(labels=labels.round()))

    train(make_model(micro), loss, rows, no_score, make_schedule(epochs=2), make_run(tmp_path))
    epochs = [list(chain.from_iterable(batches)) for batches in (seen[:3], seen[3:])]
    assert all(sorted(epoch) == rows.labels.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_loss_gets_step_after_interruption(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """A loss receives the step, also after an interruption.

    There are two epochs of 3 steps of 2 forward passes; the second epoch is interrupted."""
    steps: list[int] = []

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        steps.append(examples.step)
        if steps == [0, 0, 1, 1, 2, 2, 3]:
            raise StopHereError
        return plain_loss(model, examples)

    for _ in range(2):
        with suppress(StopHereError):
            train(
                make_model(micro),
                loss,
                few_rows.train,
                no_score,
                make_schedule(epochs=2, accumulation=2),
                make_run(tmp_path),
            )
    assert steps == [0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5]


def test_final_loss_averages_last_epoch(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """The final loss is the mean over the last epoch."""
    values = iter((9.0, 8.0, 7.0, 4.0, 3.0, 5.0))

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        value = plain_loss(model, examples)
        return value - value.detach() + next(values)

    training = train(
        make_model(micro),
        loss,
        few_rows.train,
        no_score,
        make_schedule(epochs=2),
        make_run(tmp_path),
    )
    assert training.final_loss == pytest.approx(4.0)


@pytest.mark.parametrize("content", [b"", b"PK torn", None])
def test_damaged_state_restarts_training(
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
    content: bytes | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A damaged state is named and training starts again.

    None stands for a state from another version, which lacks a part."""
    complete = train(
        make_model(micro),
        plain_loss,
        few_rows.train,
        no_score,
        make_schedule(epochs=2),
        make_run(tmp_path / "complete"),
    )
    run = make_run(tmp_path / "torn")
    run = replace(run, compute=replace(run.compute, progress=Progress()))
    if content is None:
        torch.save({"losses": [1.0]}, run.scratch / "train.pt")
    else:
        (run.scratch / "train.pt").write_bytes(content)
    again = train(
        make_model(micro), plain_loss, few_rows.train, no_score, make_schedule(epochs=2), run
    )
    assert again.final_loss == complete.final_loss
    assert str(run.scratch / "train.pt") in capsys.readouterr().err


def test_infinite_logits_are_a_divergence(micro: Backbone, few_rows: TaskData) -> None:
    """Logits that are not finite are a divergence.

    One step at a huge rate leaves finite but huge weights: the loss was finite, the logits are
    not."""
    model = make_model(micro)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1e30)
    with pytest.raises(DivergedError) as caught:
        selection_score(model, few_rows.selection, TASKS["demo-pair"], [0], CPU)
    assert_message(caught, "selection", "--set all.learning_rates", code=ExitCode.INCOMPLETE)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_infinite_loss_stops_with_step(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, value: float
) -> None:
    """A loss that is not finite stops training with an error that names step and learning rate."""
    calls = []

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        calls.append(1)
        return plain_loss(model, examples) * (value if len(calls) == 5 else 1.0)

    with pytest.raises(IncompleteError) as caught:
        train(
            make_model(micro),
            loss,
            few_rows.train,
            no_score,
            make_schedule(epochs=2, learning_rate=3e-4),
            make_run(tmp_path),
        )
    epoch, batch = 2, 2
    assert_message(
        caught,
        "a stage",
        value,
        epoch,
        batch,
        0.0003,
        "--set all.learning_rates",
        code=ExitCode.INCOMPLETE,
    )


def test_training_learns_simple_rule(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """Training learns a label that is the first word."""
    ids = tuple(
        np.where(np.arange(len(row)) == 0, 5 + label, row).astype(np.int32)
        for row, label in zip(few_rows.train.tokens.ids, few_rows.train.labels, strict=True)
    )
    rows = replace(few_rows.train, tokens=replace(few_rows.train.tokens, ids=ids))
    model, later_is_better = make_model(micro), ScriptedScore(range(8))
    training = train(
        model,
        plain_loss,
        rows,
        later_is_better,
        make_schedule(epochs=8, batch_size=8, learning_rate=5e-3),
        make_run(tmp_path),
    )
    assert training.final_loss < 0.3
    assert (collect(model, rows, 16, CPU).predictions() == rows.labels).all()


class StopHereError(Exception):
    pass


def _interrupt_in(epoch: int) -> Callable[[MultiExitModel], float]:
    """Return a score that raises in the given epoch.

    In earlier epochs it is the epoch's number, so that the last one is the best."""
    calls = []

    def score(model: MultiExitModel) -> float:
        calls.append(1)
        if len(calls) == epoch:
            raise StopHereError
        return float(len(calls))

    return score


def _train_again(
    model: EncoderModel, rows: Split, folder: Path, score: Callable[[MultiExitModel], float]
) -> Training:
    silent = make_run(folder)
    run = replace(silent, compute=replace(silent.compute, progress=Progress()))
    return train(
        model, plain_loss, rows, score, make_schedule(epochs=3, warmup=0.3, accumulation=2), run
    )


def test_interrupted_training_resumes_exactly(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted training resumes and ends with bit-identical weights."""
    model, watched = make_model(micro, dropout=0.1), ScriptedScore((1.0, 2.0, 3.0))
    uninterrupted = _train_again(model, few_rows.train, tmp_path / "uninterrupted", watched)
    with pytest.raises(StopHereError):
        _train_again(
            make_model(micro, dropout=0.1), few_rows.train, tmp_path / "broken", _interrupt_in(2)
        )
    torch.manual_seed(12345)
    assert "a stage" not in capsys.readouterr().err
    resumed, after = EncoderModel(model.config), ScriptedScore((2.0, 3.0))
    training = _train_again(resumed, few_rows.train, tmp_path / "broken", after)
    assert names_in_order(capsys.readouterr().err, "a stage", 0.001, 1, 3)
    assert replace(training, seconds=0.0) == replace(uninterrupted, seconds=0.0)
    assert len(after.weights) == 2
    assert same_weights(after.weights[0], watched.weights[1])
    assert same_weights(weights_of(resumed), weights_of(model))


def test_best_epoch_survives_interruption(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """The best epoch before an interruption is kept."""
    control = ScriptedScore((5.0, 1.0, 2.0))
    _train_again(make_model(micro, dropout=0.1), few_rows.train, tmp_path / "control", control)
    calls = []

    def best_then_interrupted(model: MultiExitModel) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise StopHereError
        return 5.0

    with pytest.raises(StopHereError):
        _train_again(
            make_model(micro, dropout=0.1),
            few_rows.train,
            tmp_path / "broken",
            best_then_interrupted,
        )
    resumed = make_model(micro, dropout=0.1)
    training = _train_again(resumed, few_rows.train, tmp_path / "broken", ScriptedScore((1.0, 2.0)))
    assert training.best_epoch == 1
    assert same_weights(weights_of(resumed), control.weights[0])


def test_finished_training_is_not_repeated(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """A finished training is not repeated."""
    first, second = make_model(micro), EncoderModel(make_model(micro).config)
    _train_again(first, few_rows.train, tmp_path, ScriptedScore((1.0, 2.0, 3.0)))
    with watched_steps() as steps:
        training = _train_again(second, few_rows.train, tmp_path, ScriptedScore(()))
    assert steps.rates == []
    assert training.selection == (1.0, 2.0, 3.0)
    assert same_weights(weights_of(first), weights_of(second))


def test_seed_fixes_the_weights(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """The same seed gives the same weights, another seed gives others."""
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        model = make_model(micro, dropout=0.1)
        train(
            model,
            plain_loss,
            few_rows.train,
            no_score,
            make_schedule(),
            make_run(tmp_path / name, seed=seed),
        )
        weights.append(weights_of(model))
    assert same_weights(weights[0], weights[1])
    assert not same_weights(weights[0], weights[2])


def test_bfloat16_training_stays_close(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """bfloat16 autocast trains float32 weights that stay close to those of float32 training."""
    dtypes = set()

    def loss(model: MultiExitModel, examples: Examples) -> Tensor:
        output = model(examples.batch)
        dtypes.add(output.logits.dtype)
        return exit_losses(output.logits, examples.labels, 1.0).sum()

    def score(model: MultiExitModel) -> float:
        return selection_score(model, few_rows.selection, few_rows.task, [0, 1], CPU)

    trained = {}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        dtypes.clear()
        # without a reset it keeps the first precision it was given
        AcceleratorState._reset_state(reset_partial_state=True)
        trained[precision] = model = make_model(micro)
        train(
            model,
            loss,
            few_rows.train,
            score,
            make_schedule(epochs=2),
            make_run(tmp_path / precision, precision),
        )
        assert dtypes == {dtype}
        assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    start = make_model(micro).state_dict()
    full, half = (trained[precision].state_dict() for precision in ("float32", "bfloat16"))
    moved = torch.cat([(full[name] - start[name]).flatten() for name in start])
    difference = torch.cat([(full[name] - half[name]).flatten() for name in start])
    assert 0 < difference.norm() < moved.norm() / 4


@pytest.mark.parametrize("exits", [[0], [1], [0, 1]])
def test_selection_score_averages_exits(
    micro: Backbone, few_rows: TaskData, exits: list[int]
) -> None:
    """The selection score is the main metric averaged over the exits."""
    model = make_model(micro)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    correct = (
        collect(model, few_rows.selection, 7, CPU).logits.argmax(-1) == few_rows.selection.labels
    )
    assert 0 < correct.mean() < 1
    reached = selection_score(model.train(), few_rows.selection, few_rows.task, exits, CPU)
    assert reached == pytest.approx(correct[exits].mean())


def test_selection_score_keeps_row_labels(micro: Backbone, few_rows: TaskData) -> None:
    """The selection score keeps labels and rows aligned over several batches."""
    model = make_model(micro)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    rows = few_rows.selection
    order = np.random.default_rng(1).integers(0, len(rows), 200)
    tokens = Tokens(
        tuple(rows.tokens.ids[row] for row in order),
        tuple(rows.tokens.types[row] for row in order),
        0,
    )
    predictions = collect(model, replace(rows.rows(order), tokens=tokens), 64, CPU).predictions()[1]
    perfect = replace(rows.rows(order), tokens=tokens, labels=predictions.astype(np.float64))
    assert selection_score(model, perfect, few_rows.task, [1], CPU) == 1.0
