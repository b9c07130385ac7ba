"""Optimiser steps: learning rate, rows, gradients, and which weights change."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.trainings import (
    FREE,
    make_model,
    make_run,
    make_schedule,
    no_score,
    plain_loss,
    watched_steps,
    weights_of,
)
from torch import Tensor, nn

from baselines.training.loop import Examples, train
from baselines.training.recipe import Schedule
from harness.data.dataset import Split, TaskData, Tokens
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel


def _first(rows: Split, count: int) -> Split:
    tokens = Tokens(rows.tokens.ids[:count], rows.tokens.types[:count], 0)
    return replace(rows.rows(np.arange(count)), tokens=tokens)


@pytest.mark.parametrize(
    ("warmup", "decay", "factors"),
    [
        (0.0, True, [1.0, 1.0, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]),
        (0.2, True, [1 / 2, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (0.5, True, [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1.0, 1.0, 4 / 5, 3 / 5, 2 / 5, 1 / 5]),
        (0.0, False, [1.0] * 10),
        (0.2, False, [1 / 2, *[1.0] * 9]),
    ],
)
def test_rate_warms_up_then_decays(
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
    warmup: float,
    decay: bool,
    factors: list[float],
) -> None:
    """The learning rate rises over the warm-up, then decays to zero or stays constant."""
    schedule = make_schedule(
        epochs=2, batch_size=10, warmup=warmup, learning_rate=1e-4, decay=decay
    )
    with watched_steps() as steps:
        training = train(
            make_model(micro), plain_loss, few_rows.train, no_score, schedule, make_run(tmp_path)
        )
    assert training.steps == 10
    assert [rate for rate, _ in steps.rates] == pytest.approx([1e-4 * factor for factor in factors])
    assert all(one == other for one, other in steps.rates)


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulation", "expected"),
    [
        (48, 16, 1, 3),
        (48, 32, 1, 2),
        (48, 64, 1, 1),
        (48, 32, 2, 2),
        (48, 16, 4, 3),
        (45, 16, 4, 3),
        (41, 16, 4, 3),
        (7, 16, 4, 1),
    ],
)
def test_schedule_counts_optimiser_steps(
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
    rows: int,
    batch_size: int,
    accumulation: int,
    expected: int,
) -> None:
    """The schedule counts as many steps as the optimiser makes."""
    schedule = make_schedule(batch_size=batch_size, accumulation=accumulation)
    assert schedule.steps(rows) == expected
    with watched_steps() as steps:
        training = train(
            make_model(micro),
            plain_loss,
            _first(few_rows.train, rows),
            no_score,
            schedule,
            make_run(tmp_path),
        )
    assert len(steps.rates) == training.steps == expected
    assert training.rows == rows


def _gradients_of_one_step(
    backbone: Backbone, rows: Split, schedule: Schedule, folder: Path
) -> list[Tensor]:
    with watched_steps() as steps:
        train(make_model(backbone), plain_loss, rows, no_score, schedule, make_run(folder))
    (gradients,) = steps.gradients
    return gradients


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulation"),
    [(48, 48, 2), (48, 48, 3), (40, 48, 2), (24, 48, 4), (29, 48, 4)],
    ids=[
        "two halves",
        "three thirds",
        "a short batch at the end",
        "fewer batches than are accumulated",
        "both",
    ],
)
def test_accumulated_gradients_equal_one_batch(
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
    rows: int,
    batch_size: int,
    accumulation: int,
) -> None:
    """Accumulated gradients equal those of one batch."""
    split = _first(few_rows.train, rows)
    undivided = make_schedule(batch_size=batch_size)
    expected = _gradients_of_one_step(micro, split, undivided, tmp_path / "undivided")
    reached = _gradients_of_one_step(
        micro, split, replace(undivided, accumulation=accumulation), tmp_path / "parts"
    )
    largest = max(gradient.abs().max().item() for gradient in expected)
    for got, gradient in zip(reached, expected, strict=True):
        torch.testing.assert_close(got, gradient, atol=1e-5 * largest, rtol=1e-4)


def test_batch_gradient_averages_rows(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """The gradient of a batch is that of the mean loss over its rows."""
    reached = _gradients_of_one_step(micro, few_rows.train, make_schedule(batch_size=48), tmp_path)
    model = make_model(micro)
    for row in range(48):
        example = Examples.of(few_rows.train, np.array([row]), torch.device("cpu"))
        (plain_loss(model, example) / 48).backward()
    parameters = [p for p in model.parameters() if p.ndim > 1] + [
        p for p in model.parameters() if p.ndim <= 1
    ]
    for got, parameter in zip(reached, parameters, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(got, parameter.grad, atol=1e-6, rtol=1e-3)


def test_weight_decay_shrinks_matrices_only(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """Weight decay shrinks matrices and leaves biases and norms unchanged."""
    model = make_model(micro)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    before = weights_of(model)

    def flat(model: MultiExitModel, examples: Examples) -> Tensor:
        return 0.0 * sum(parameter.sum() for parameter in model.parameters())

    schedule = make_schedule(batch_size=48, learning_rate=0.1, weight_decay=0.2)
    with watched_steps() as steps:
        train(model, flat, few_rows.train, no_score, schedule, make_run(tmp_path))
    assert steps.decays == [[0.2, 0.0]]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name] * (0.98 if value.ndim > 1 else 1.0))


@pytest.mark.parametrize("clip", [0.01, FREE])
def test_clipping_keeps_gradient_direction(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, clip: float
) -> None:
    """Gradients are clipped to the largest norm and keep their direction."""
    unclipped = _gradients_of_one_step(
        micro, few_rows.train, make_schedule(batch_size=48), tmp_path / "unclipped"
    )
    clipped = _gradients_of_one_step(
        micro, few_rows.train, make_schedule(batch_size=48, clip=clip), tmp_path / "clipped"
    )
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in unclipped))
    assert norm > 0.05
    factor = min(clip / norm, 1.0)
    for got, original in zip(clipped, unclipped, strict=True):
        torch.testing.assert_close(got, factor * original, atol=1e-7, rtol=1e-3)


def test_frozen_parameters_stay_unchanged(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """Frozen parameters stay unchanged and the others change."""
    model = make_model(micro, dropout=0.1)
    model.requires_grad_(False)
    model.exits["1"].requires_grad_(True)
    before = weights_of(model)
    with watched_steps() as steps:
        train(
            model,
            plain_loss,
            few_rows.train,
            no_score,
            make_schedule(epochs=2, weight_decay=0.5),
            make_run(tmp_path),
        )
    trained = len(list(model.exits["1"].parameters()))
    assert {sum(len(group) for group in groups) for groups in steps.sizes} == {trained}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("exits.1."), name
