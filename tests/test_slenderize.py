"""The rounds of pruning."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import costeff.slenderize
from baselines.encoder import EncoderModel, ModelConfig
from baselines.training import Schedule
from costeff.budget import layer_macs
from costeff.distill import Exits
from costeff.schedule import between, smaller
from costeff.slenderize import Slenderize
from harness.backbones import Backbone
from harness.model import MultiExitModel
from harness.stages import Compute, FreshFit, StageRun
from harness.tasks import TaskData

PLAN = Schedule(epochs=1, batch_size=16, learning_rate=1e-3, warmup=0.1, weight_decay=0.01, clip=1.0, accumulation=1)


class Killed(BaseException):
    pass


def _stage(micro: Backbone, rounds: int = 2) -> Slenderize:
    return Slenderize(
        "slenderize", smaller(micro.shape, 1 / 2, 1 / 2, 1 / 2), None, rounds, 1.0, 0.5, 0.5, 1.12, False, "layer", True, PLAN
    )


def _fit(stage: Slenderize, micro: Backbone, rows: TaskData, scratch: Path) -> FreshFit:
    torch.manual_seed(3)
    start, teacher = (EncoderModel(ModelConfig(replace(micro.shape, dropout=0.0), "mean", 2, 1.0, ("plain",) * 3)) for _ in range(2))
    start.load_state_dict(teacher.state_dict())
    scratch.mkdir(exist_ok=True)
    return stage.fit((start, teacher), rows, micro, StageRun(Compute(torch.device("cpu"), "float32", 1), "cell", "stage", 5, scratch))


def _config(fit: FreshFit) -> ModelConfig:
    assert isinstance(fit.model, EncoderModel)
    return fit.model.config


def test_each_round_has_its_shape_and_its_learning_rate(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    train = costeff.slenderize.train

    def watched(model: EncoderModel, *arguments: object, **named: str) -> object:
        schedule = arguments[3]
        assert isinstance(schedule, Schedule)
        seen.append((model.config.shape, schedule.learning_rate))
        return train(model, *arguments, **named)

    monkeypatch.setattr(costeff.slenderize, "train", watched)
    stage = _stage(micro)
    fit = _fit(stage, micro, few_rows, tmp_path / "a")
    start = replace(micro.shape, dropout=0.0)
    assert [shape for shape, _ in seen] == [between(start, stage.shape, number, 2) for number in (1, 2)]
    assert [rate for _, rate in seen] == pytest.approx([1e-3, 1.12e-3])
    assert fit.training.steps == 2 * PLAN.steps(len(few_rows.train))


@pytest.mark.parametrize("where", ["taylor_importance", "train"])
def test_a_killed_stage_goes_on_in_its_round_to_the_same_weights(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    stage, calls = _stage(micro), []
    undisturbed = _fit(stage, micro, few_rows, tmp_path / "straight")
    plain: Callable[..., object] = getattr(costeff.slenderize, where)

    def killed_in_round_2(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return plain(*arguments, **named)

    monkeypatch.setattr(costeff.slenderize, where, killed_in_round_2)
    with pytest.raises(Killed):
        _fit(stage, micro, few_rows, tmp_path / "broken")
    again = _fit(stage, micro, few_rows, tmp_path / "broken")
    assert len(calls) == {"taylor_importance": 3, "train": 4}[where]  # importance of a finished round is not measured again
    wanted = undisturbed.model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.model.state_dict().items())


def test_with_global_allocation_layers_differ_within_the_same_macs(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    stage = replace(_stage(micro), allocation="global")
    shape = _config(_fit(stage, micro, few_rows, tmp_path / "a")).shape
    assert len(set(zip(shape.heads, shape.ffn, strict=True))) > 1
    assert layer_macs(shape) <= layer_macs(stage.shape)
    assert shape.embedding_rank == stage.shape.embedding_rank


def test_exits_can_be_put_on_as_pruning_begins(micro: Backbone, few_rows: TaskData, tmp_path: Path) -> None:
    stage = replace(_stage(micro, rounds=1), exits=Exits("cls", 1, "concatenate"))
    model: MultiExitModel = _fit(stage, micro, few_rows, tmp_path / "a").model
    assert model.exit_layers == [1, 2, 3]
    assert isinstance(model, EncoderModel)
    assert model.config.pooling == "cls"
