"""A teacher's outputs are those of its model, and are computed once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.trainings import make_model, make_run

from baselines.distillation import teacher as module
from baselines.distillation.teacher import Teacher
from baselines.encoders.encoder import EncoderModel
from baselines.training.loop import Examples
from harness.data.dataset import Split, TaskData
from harness.models.backbones import Backbone

CPU = torch.device("cpu")
BATCHES = [np.array([5, 40, 11]), np.array([0]), np.arange(47, 30, -1)]


@pytest.fixture
def rows(few_rows: TaskData) -> Split:
    """48 examples whose ids are not their positions."""
    return replace(few_rows.train, ids=few_rows.train.ids[::-1] * 3 + 7)


def calls_of(model: EncoderModel) -> list[int]:
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "too large to keep"])
def test_teacher_predicts_in_evaluation_mode(
    micro: Backbone, rows: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    """Predictions are those of the model in evaluation mode."""
    monkeypatch.setattr(module, "KEPT_BYTES", 2**30 if keep else 100)
    model = make_model(micro, dropout=0.5).train()
    teacher, calls = Teacher(model, rows, make_run(tmp_path), hiddens=True), calls_of(model)
    for index in BATCHES:
        examples = Examples.of(rows, index, CPU)
        got = teacher(examples)
        with torch.no_grad():
            wanted = model.eval()(examples.batch)
        torch.testing.assert_close(got.logits, wanted.logits, atol=1e-5, rtol=1e-5)
        assert len(got.hiddens) == len(wanted.hiddens)
        for one, other in zip(got.hiddens, wanted.hiddens, strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(
                one[examples.batch.mask], other[examples.batch.mask], atol=1e-5, rtol=1e-5
            )
            assert not one.requires_grad
            assert one.isfinite().all(), (
                "padding has weight 0, which gives 0 only for finite values"
            )
    assert len(calls) == (3 if keep else 6), "3 calls are the test's own"


def test_partial_rows_get_kept_predictions(micro: Backbone, rows: Split, tmp_path: Path) -> None:
    """Outputs for part of the examples equal those for all of them.

    A pruning period has some of the examples, perhaps some twice, in its own order.
    """
    teacher = Teacher(make_model(micro), rows, make_run(tmp_path), hiddens=False)
    complete = teacher(Examples.of(rows, np.arange(48), CPU))
    part = rows.rows(np.array([9, 3, 9, 20]))
    assert torch.equal(
        teacher(Examples.of(part, np.array([3, 1, 2]), CPU)).logits, complete.logits[:, [20, 3, 9]]
    )


def test_teacher_runs_once_per_rows(micro: Backbone, rows: Split, tmp_path: Path) -> None:
    """The same teacher is not run twice on the same examples, or for fewer outputs.

    It is run again for more outputs, other examples, other weights or another precision."""

    def calls_for(
        rows: Split, hiddens: bool, precision: str = "float32", change: float = 0.0
    ) -> int:
        model = make_model(micro)
        with torch.no_grad():
            next(model.parameters()).add_(change)
        calls = calls_of(model)
        Teacher(model, rows, make_run(tmp_path, precision), hiddens)
        return len(calls)

    once = calls_for(rows, False, change=0.5)
    assert once > 0
    assert calls_for(rows, False, change=0.5) == 0
    assert calls_for(rows, True, change=0.5) > 0
    assert calls_for(rows, False, change=0.5) == 0
    for other in (
        calls_for(rows.rows(np.arange(40)), False, change=0.5),
        calls_for(rows, False, change=0.25),
        calls_for(rows, False, "bfloat16", change=0.25),
    ):
        assert other > 0


def test_teacher_uses_training_precision(micro: Backbone, rows: Split, tmp_path: Path) -> None:
    """Predictions have the precision of training."""
    teacher = Teacher(make_model(micro), rows, make_run(tmp_path, "bfloat16"), hiddens=True)
    outputs = teacher(Examples.of(rows, np.arange(4), CPU))
    assert {outputs.logits.dtype, *(hidden.dtype for hidden in outputs.hiddens)} == {torch.bfloat16}


def test_other_pooling_is_another_teacher(micro: Backbone, rows: Split, tmp_path: Path) -> None:
    """Equal tensors with another pooling are another teacher."""
    model = make_model(micro)
    other = EncoderModel(
        replace(model.config, pooling="cls" if model.config.pooling == "mean" else "mean")
    )
    other.load_state_dict(model.state_dict())
    examples = Examples.of(rows, BATCHES[0], CPU)
    one, two = (
        Teacher(each, rows, make_run(tmp_path), hiddens=False)(examples).logits
        for each in (model, other)
    )
    assert not torch.allclose(one, two)
