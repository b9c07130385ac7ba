"""Stages of distillation: losses, switches and initial students."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.trainings import make_run, make_schedule

from baselines.distillation.stages import Distil, Exits, Targets, distillation, student_and_teacher
from baselines.distillation.teacher import Teacher
from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.training.loop import Examples
from baselines.training.losses import exit_losses, hidden_loss, soft_losses
from harness.data.dataset import TaskData
from harness.models.backbones import Backbone
from harness.models.batches import collate
from harness.records import WeightsReport


def _model(backbone: Backbone, seed: int, exits: int = 3) -> EncoderModel:
    torch.manual_seed(seed)
    layers = backbone.shape.layers
    return EncoderModel(
        ModelConfig(backbone.shape, "mean", 2, 1.0, (None,) * (layers - exits) + ("plain",) * exits)
    ).eval()


@pytest.mark.parametrize(
    "targets",
    [
        Targets(hidden=1.0),
        Targets(soft=1.0),
        Targets(hard=1.0),
        Targets(soft=0.5, hard=0.5),
        Targets(hidden=1.0, soft=0.9, hard=0.1),
        Targets(hidden=1.0, soft=0.9, hard=0.1, last_exit_only=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("teacher_exits", [1, 3])
def test_loss_is_weighted_sum_of_parts(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, targets: Targets, teacher_exits: int
) -> None:
    """The loss is the weighted sum of its parts."""
    student, teacher = _model(micro, 1), _model(micro, 2, teacher_exits)
    examples = Examples.of(few_rows.train, np.arange(8), torch.device("cpu"))
    batch, labels = examples.batch, examples.labels
    taught = Teacher(teacher, few_rows.train, make_run(tmp_path), hiddens=True)
    with torch.no_grad():
        got = distillation(targets, taught, 1.0)(student, examples)
        student_state, teacher_state = student(batch), teacher(batch)
        first = 2 if targets.last_exit_only else 0
        taught_logits = teacher_state.logits[first:] if teacher_exits == 3 else teacher_state.logits
        wanted = targets.hidden * hidden_loss(
            student_state.hiddens, teacher_state.hiddens, batch.mask
        )
        wanted += targets.soft * soft_losses(student_state.logits[first:], taught_logits, 1.0).sum()
        wanted += targets.hard * exit_losses(student_state.logits[first:], labels, 1.0).sum()
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_self_taught_student_has_no_loss(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """The hidden loss of a student that is its own teacher is 0."""
    model = _model(micro, 1)
    loss = distillation(
        Targets(hidden=1.0), Teacher(model, few_rows.train, make_run(tmp_path), hiddens=True), 1.0
    )
    with torch.no_grad():
        assert loss(
            model, Examples.of(few_rows.train, np.arange(8), torch.device("cpu"))
        ).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"equilibrium": False},
        {"targets": Targets(soft=1.0)},
        {"exits": Exits("cls", 1, "average")},
    ],
    ids=str,
)
def test_each_switch_changes_the_result(
    micro: Backbone, few_rows: TaskData, tmp_path: Path, change: dict[str, object]
) -> None:
    """Each switch changes the result of the same seed; no change gives an equal result."""
    stage = Distil(
        "a stage", Targets(soft=0.5, hard=0.5), Exits("mean", 1, "average"), True, make_schedule()
    )
    trained = []
    for name, one in (("plain", stage), ("other", replace(stage, **change))):
        torch.manual_seed(3)
        model = one.fit(
            (_model(micro, 1, exits=1), _model(micro, 2, exits=1)),
            few_rows,
            micro,
            make_run(tmp_path / name),
        ).model
        trained.append(torch.cat([tensor.flatten() for tensor in model.state_dict().values()]))
    assert torch.equal(*trained) == (change == {})


def test_student_starts_at_pretrained_weights(
    micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a teacher alone the student starts at the pretrained weights."""
    teacher, start, loaded = _model(micro, 1, exits=1), _model(micro, 2), []
    report = WeightsReport(5, (), ())

    def load(backbone: Backbone, config: ModelConfig) -> tuple[EncoderModel, WeightsReport]:
        loaded.append((backbone, config.exits, config.pooling))
        return start, report

    monkeypatch.setattr("baselines.distillation.stages.pretrained", load)
    models = student_and_teacher((teacher,), Exits("cls", 1, "concatenate"), micro)
    assert (models.student, models.teacher, models.weights) == (start, teacher, report)
    assert loaded == [(micro, ("plain",) * 3, "cls")]


def test_fresh_exits_keep_the_encoder(micro: Backbone, few_rows: TaskData) -> None:
    """Fresh exits are added to the same encoder."""
    start = _model(micro, 1, exits=1)
    fresh = Exits("cls", 2, "average").on(start).eval()
    batch = collate(few_rows.train.tokens, np.arange(8))
    with torch.no_grad():
        for one, other in zip(start(batch).hiddens, fresh(batch).hiddens, strict=True):
            assert torch.equal(one, other)
    assert fresh.exit_layers == [1, 2, 3]
    assert (fresh.config.pooling, fresh.config.last_states, fresh.config.combine) == (
        "cls",
        2,
        "average",
    )
