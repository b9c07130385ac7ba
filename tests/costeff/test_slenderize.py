"""Tests of the pruning rounds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.trainings import make_run

from baselines.distillation.stages import Exits, Targets, distillation
from baselines.distillation.teacher import Teacher
from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.training.loop import Examples, Loss
from baselines.training.recipe import Schedule
from costeff import slenderize
from costeff.schedule import between, smaller
from costeff.slenderize import (
    Allocation,
    Slenderize,
    period_rows,
    switch_loss,
    taylor_batches,
)
from costeff.width_budget import layer_macs
from harness.data.dataset import Split, TaskData
from harness.methods.compute import Compute
from harness.methods.stages import FreshFit, StageRun
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape

PLAN = Schedule(
    epochs=1,
    batch_size=16,
    learning_rate=1e-3,
    warmup=0.1,
    weight_decay=0.01,
    clip=1.0,
    accumulation=1,
)


class Killed(BaseException):
    pass


def _stage(micro: Backbone, rounds: int = 2) -> Slenderize:
    return Slenderize(
        "slenderize",
        smaller(micro.shape, 1 / 2, 1 / 2, 1 / 2),
        None,
        rounds,
        1.0,
        0.5,
        0.5,
        1.12,
        False,
        "layer",
        True,
        PLAN,
    )


def _fit(stage: Slenderize, micro: Backbone, rows: TaskData, scratch: Path) -> FreshFit:
    torch.manual_seed(3)
    start, teacher = (
        EncoderModel(ModelConfig(micro.shape, "mean", 2, 1.0, ("plain",) * 3)) for _ in range(2)
    )
    start.load_state_dict(teacher.state_dict())
    scratch.mkdir(exist_ok=True)
    return stage.fit(
        (start, teacher),
        rows,
        micro,
        StageRun(Compute(torch.device("cpu"), "float32", 1), "cell", "stage", 5, scratch),
    )


def _config(fit: FreshFit) -> ModelConfig:
    assert isinstance(fit.model, EncoderModel)
    return fit.model.config


def test_rounds_have_shape_and_rate(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round has its own shape and learning rate."""
    seen = []
    train = slenderize.train

    def recorded(model: EncoderModel, *arguments: object, **named: str) -> object:
        schedule = arguments[3]
        assert isinstance(schedule, Schedule)
        seen.append((model.config.shape, schedule.learning_rate))
        return train(model, *arguments, **named)

    monkeypatch.setattr(slenderize, "train", recorded)
    stage = _stage(micro)
    fit = _fit(stage, micro, few_rows, tmp_path / "a")
    assert [shape for shape, _ in seen] == [micro.shape, between(micro.shape, stage.shape, 1, 2)], (
        "training comes before each pruning step"
    )
    assert _config(fit).shape == stage.shape
    assert [rate for _, rate in seen] == pytest.approx([1e-3, 1.12e-3])
    assert fit.training.steps == 2 * PLAN.steps(len(few_rows.train))


@pytest.mark.parametrize("where", ["taylor_importance", "train"])
def test_killed_stage_resumes_its_round(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A killed stage resumes in its round and ends with the same weights."""
    stage, calls = _stage(micro), []
    uninterrupted = _fit(stage, micro, few_rows, tmp_path / "straight")
    plain: Callable[..., object] = getattr(slenderize, where)

    def kill_in_round_2(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return plain(*arguments, **named)

    monkeypatch.setattr(slenderize, where, kill_in_round_2)
    with pytest.raises(Killed):
        _fit(stage, micro, few_rows, tmp_path / "broken")
    torch.manual_seed(4711)
    again = _fit(stage, micro, few_rows, tmp_path / "broken")
    assert len(calls) == 3, "finished rounds are not repeated"
    assert again.training.steps == uninterrupted.training.steps
    wanted = uninterrupted.model.state_dict()
    assert all(
        torch.equal(tensor, wanted[name]) for name, tensor in again.model.state_dict().items()
    )


def test_kept_rounds_do_not_grow(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """Only the last round's model and the training reports are kept."""
    _fit(_stage(micro, rounds=2), micro, few_rows, tmp_path / "a")
    kept = sorted(
        path.relative_to(tmp_path / "a").as_posix()
        for path in (tmp_path / "a").rglob("*")
        if path.is_file()
    )
    assert kept == [
        "round-1/training.json",
        "round-2/config.json",
        "round-2/model.safetensors",
        "round-2/training.json",
    ]


@pytest.mark.parametrize(
    ("period", "passes", "rows"),
    [(0.5, 1, 24), (1.0, 1, 48), (2.0, 2, 48), (2.5, 2, 60)],
    ids=["part", "one", "two", "two and a half"],
)
def test_long_period_splits_into_epochs(
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    period: float,
    passes: int,
    rows: int,
) -> None:
    """A period of several epochs is trained in whole epochs, so an interruption costs only one."""
    seen = []
    train = slenderize.train

    def recorded(
        model: EncoderModel,
        loss: Loss,
        split: Split,
        score: None,
        schedule: Schedule,
        *arguments: object,
        **named: str,
    ) -> object:
        seen.append((schedule.epochs, len(split)))
        return train(model, loss, split, score, schedule, *arguments, **named)

    monkeypatch.setattr(slenderize, "train", recorded)
    fit = _fit(replace(_stage(micro, rounds=1), period=period), micro, few_rows, tmp_path / "a")
    assert seen == [(passes, rows)]
    assert fit.training.rows == min(48, rows), "rows counts distinct rows"


def test_student_differs_before_first_pruning(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first pruning step the student already differs from its teacher.

    A student equal to its teacher has no gradient of the soft and hidden losses, and so no
    scores."""
    seen = []
    score = slenderize.taylor_importance

    def recorded(model: EncoderModel, loss: Loss, rows: Split, *arguments: object) -> object:
        soft = distillation(
            Targets(hidden=1.0),
            Teacher(teacher, rows, make_run(tmp_path / "teacher"), hiddens=True),
            1.0,
        )
        seen.append(
            soft(model.eval(), Examples.of(rows, np.arange(16), torch.device("cpu"))).item()
        )
        return score(model, loss, rows, *arguments)

    monkeypatch.setattr(slenderize, "taylor_importance", recorded)
    torch.manual_seed(3)
    teacher = EncoderModel(ModelConfig(micro.shape, "mean", 2, 1.0, ("plain",) * 3))
    _fit(_stage(micro, rounds=1), micro, few_rows, tmp_path / "a")
    assert seen[0] > 1e-4


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"equilibrium": False},
        {"last_exit_only": True},
        {"allocation": "global"},
        {"at_once": True},
        {"taylor_share": 1.0},
    ],
    ids=str,
)
def test_each_switch_changes_the_result(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, change: dict[str, object]
) -> None:
    """Each switch changes the weights for the same seed; no change leaves them equal."""
    plain, other = (
        torch.cat(
            [
                tensor.flatten()
                for tensor in _fit(stage, micro, few_rows, tmp_path / name)
                .model.state_dict()
                .values()
            ]
        )
        for name, stage in (("plain", _stage(micro)), ("other", replace(_stage(micro), **change)))
    )
    assert torch.equal(plain, other) == (change == {})


def test_one_shot_prunes_after_first_period(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `at_once` everything is pruned after the first period, and later periods only train."""
    seen: list[tuple[EncoderShape, float]] = []
    train = slenderize.train

    def recorded(
        model: EncoderModel,
        loss: Loss,
        rows: Split,
        score: None,
        schedule: Schedule,
        *arguments: object,
        **named: str,
    ) -> object:
        seen.append((model.config.shape, schedule.learning_rate))
        return train(model, loss, rows, score, schedule, *arguments, **named)

    monkeypatch.setattr(slenderize, "train", recorded)
    stage = replace(_stage(micro), at_once=True)
    fit = _fit(stage, micro, few_rows, tmp_path / "a")
    assert seen == [(micro.shape, pytest.approx(1e-3)), (stage.shape, pytest.approx(1.12e-3))]
    assert _config(fit).shape == stage.shape
    assert fit.training.steps == 2 * PLAN.steps(len(few_rows.train))


@pytest.mark.parametrize(("allocation", "factor"), [("layer", 1 / 3), ("global", 1)])
def test_importance_averages_within_layers(
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allocation: Allocation,
    factor: float,
) -> None:
    """Gradients are averaged for importance within layers, but not with global allocation.

    With equilibrium the gradient of an exit's loss at the first of three layers is a third of the
    one without, and at the last layer it is the same, so scores of layers are not comparable."""
    seen: dict[bool, float] = {}
    score = slenderize.taylor_importance

    for equilibrium in (True, False):

        def recorded(*arguments: object, equilibrium: bool = equilibrium) -> object:
            scores = score(*arguments)
            seen.setdefault(equilibrium, scores.neurons[0].sum().item())
            return scores

        monkeypatch.setattr(slenderize, "taylor_importance", recorded)
        slow = replace(PLAN, learning_rate=1e-9)
        stage = replace(
            _stage(micro, rounds=1), equilibrium=equilibrium, schedule=slow, allocation=allocation
        )
        _fit(stage, micro, few_rows, tmp_path / str(equilibrium))
    assert seen[True] == pytest.approx(seen[False] * factor, rel=0.02)


def test_global_allocation_keeps_macs(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """With global allocation layers differ in width within the same MACs."""
    stage = replace(_stage(micro), allocation="global")
    shape = _config(_fit(stage, micro, few_rows, tmp_path / "a")).shape
    assert len(set(zip(shape.heads, shape.ffn, strict=True))) > 1
    assert layer_macs(shape) <= layer_macs(stage.shape)
    assert shape.embedding_rank == stage.shape.embedding_rank


def test_exits_may_start_with_pruning(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    """Exits can be added when pruning starts."""
    stage = replace(_stage(micro, rounds=1), exits=Exits("cls", 1, "concatenate"))
    model: MultiExitModel = _fit(stage, micro, few_rows, tmp_path / "a").model
    assert model.exit_layers == [1, 2, 3]
    assert isinstance(model, EncoderModel)
    assert model.config.pooling == "cls"


def test_second_loss_follows_the_first() -> None:
    """The second loss replaces the first after the given number of steps."""
    one, other = (lambda *_: torch.tensor(1.0)), (lambda *_: torch.tensor(2.0))
    loss = switch_loss(one, other, 3)
    assert [loss(None, Examples(None, None, None, step)).item() for step in (0, 1, 2, 2, 3, 4)] == [
        1,
        1,
        1,
        1,
        2,
        2,
    ]


@pytest.mark.parametrize("period", [0.25, 0.3, 1.0, 2.0])
def test_periods_continue_through_passes(few_rows: TaskData, period: float) -> None:
    """Consecutive periods continue through shuffled passes over the rows.

    Periods that add up to four passes use every row four times, up to rounding, and each period has
    its share of the rows."""
    rows = few_rows.train
    parts = [period_rows(rows, period, number).ids for number in range(1, round(4 / period) + 1)]
    assert {len(part) for part in parts} == {round(period * len(rows))}
    counts = np.unique(np.concatenate(parts), return_counts=True)[1]
    assert len(counts) == len(rows)
    assert counts.max() - counts.min() <= 1
    first = period_rows(rows, period, 1)
    assert [row.tolist() for row in first.tokens.ids] == [
        rows.tokens.ids[index].tolist()
        for index in [int(np.flatnonzero(rows.ids == id_)[0]) for id_ in first.ids]
    ]


@pytest.mark.parametrize(("share", "batches"), [(1.0, 6), (0.5, 3), (0.01, 1)])
def test_importance_uses_its_share(few_rows: TaskData, share: float, batches: int) -> None:
    """Importance uses its share of the rows."""
    found = taylor_batches(few_rows.train, share, 8, seed=1)
    assert len(found) == batches
    assert len(set(np.concatenate(found).tolist())) == 8 * batches
    assert not all(map(np.array_equal, found, taylor_batches(few_rows.train, share, 8, seed=2)))
