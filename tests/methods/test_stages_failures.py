"""Stages that fail, diverge, are damaged or dropped, or lack disk space."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from support.drawing import Drawing, stage_folders
from support.messages import assert_message
from support.trainings import same_weights, weights_of

from baselines.bert import Bert
from baselines.training.finetune import FineTune
from harness.data.dataset import TaskData
from harness.errors import ExitCode, IncompleteError
from harness.methods import stages
from harness.methods.registry import model_format
from harness.methods.stages import FitContext, FreshFit, StageRun
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import bert_shape


@dataclass(frozen=True)
class Failing(Drawing):
    error: ClassVar[type[BaseException]] = ValueError

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        super().fit(parents, data, backbone, run)
        raise self.error("half way")


def test_full_disk_stops_a_stage(
    context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk stops a stage before it starts."""
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    with pytest.raises(IncompleteError) as caught:
        context.fitted(Drawing(), few_rows, micro)
    assert_message(caught, "0.1", "0.3", "--cache-dir", code=ExitCode.INCOMPLETE)
    assert Drawing.calls == []
    assert stage_folders(context.cache) == []


def test_needed_space_follows_backbone_size(
    context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage needs space for two states and the model of a large backbone.

    BERT-base has 23.4 million word and 84.9 million layer weights of 4 bytes: nine times 0.434 GB
    plus 0.268 GB of reserve is 4.169 GB."""
    base = replace(micro, shape=bert_shape(12, 768, 12, 3072))
    for free in (10**9, 4_168_000_000):
        monkeypatch.setattr(
            stages.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free)
        )
        with pytest.raises(IncompleteError) as caught:
            context.fitted(Drawing(), few_rows, base)
        assert_message(caught, f"{free / 1e9:.1f}", "4.2", "--cache-dir", code=ExitCode.INCOMPLETE)
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_172_000_000))
    context._check_disk(base)


def test_training_writes_within_needed_space(
    context: FitContext, few_rows: TaskData, micro: Backbone, tmp_path: Path
) -> None:
    """A training writes no more than the required space.

    A state holds four models; `MODELS_WRITTEN` counts two states and the fitted model."""
    (schedule,) = Bert(epochs=1).schedules(micro)
    small = replace(micro, shape=bert_shape(2, 128, 4, 512, micro.shape.vocabulary, 64))
    run = StageRun(context.compute, "", "fine-tune", 1, tmp_path)
    fresh = FineTune("fine-tune", (None, "plain"), (1.0,), schedule).fit((), few_rows, small, run)
    state, model = (tmp_path / "train.pt").stat().st_size, 4 * fresh.model.parameter_count()
    assert state / model == pytest.approx(4, abs=0.1)
    assert 2 * state + model == pytest.approx(stages.MODELS_WRITTEN * model, rel=0.02)


def test_full_disk_allows_stage_reuse(
    context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished stage is reused even if the disk is full."""
    context.fitted(Drawing(), few_rows, micro)
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert context.fitted(Drawing(), few_rows, micro).reused


def test_failed_stage_keeps_its_state(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A stage that fails leaves no folder but keeps its state for the next attempt."""
    key = context.key(Failing(), few_rows, micro, ())
    assert key == context.key(Drawing(), few_rows, micro, ())
    with pytest.raises(ValueError, match="half way"):
        context.fitted(Failing(), few_rows, micro)
    assert not (context.cache / "stages" / key).exists()
    assert (Drawing.calls[0].run.scratch / "state").is_file()
    fitted = context.fitted(Drawing(), few_rows, micro)
    assert not fitted.reused
    assert Drawing.calls[1].run.scratch == Drawing.calls[0].run.scratch
    assert stage_folders(context.cache) == [key]


def test_unwritable_model_leaves_no_folder(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A stage whose model cannot be written leaves no folder."""

    def full(model: MultiExitModel, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "a system message")

    formats = SimpleNamespace(save_model=full, load_model=model_format().load_model)
    with pytest.raises(OSError, match="a system message"):
        replace(context, formats=formats).fitted(Drawing(), few_rows, micro)
    assert not (context.cache / "stages" / context.key(Drawing(), few_rows, micro, ())).exists()
    assert not context.fitted(Drawing(), few_rows, micro).reused


def test_damaged_stage_report_is_named(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A damaged stage report is an error that names the stage."""
    fitted = context.fitted(Drawing(), few_rows, micro)
    (fitted.folder / "stage.json").write_text("{")
    with pytest.raises(IncompleteError) as caught:
        context.fitted(Drawing(), few_rows, micro)
    assert_message(caught, fitted.key, code=ExitCode.INCOMPLETE)


def test_missing_stage_model_is_incomplete(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A stage whose model is missing is incomplete."""
    fitted = context.fitted(Drawing(), few_rows, micro)
    (fitted.model_folder / "model.safetensors").unlink()
    with pytest.raises(IncompleteError) as caught:
        _ = fitted.model
    assert_message(caught, fitted.key, code=ExitCode.INCOMPLETE)


def test_cache_may_be_deleted_anytime(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A cache may be deleted at any time."""
    first = context.fitted(Drawing(), few_rows, micro)
    model = first.model
    shutil.rmtree(context.cache)
    again = context.fitted(Drawing(), few_rows, micro)
    assert not again.reused
    assert same_weights(weights_of(again.model), weights_of(model))


@dataclass(frozen=True)
class Diverging(Drawing):
    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        super().fit(parents, data, backbone, run)
        raise stages.DivergedError("drawing: not finite")


def test_diverged_stage_is_remembered(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A diverged stage is marked in the cache and leaves nothing else."""
    for _ in range(2):
        assert context.try_fit(Diverging(), few_rows, micro) is None
        with pytest.raises(stages.DivergedError, match="not finite"):
            context.fitted(Diverging(), few_rows, micro)
    assert len(Drawing.calls) == 1
    folder = context.cache / "stages" / context.key(Diverging(), few_rows, micro, ())
    assert [path.name for path in folder.iterdir()] == ["diverged"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        folder.name,
        f"{folder.name}.lock",
    ]


def test_used_model_is_never_dropped(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A model that some run uses is not dropped.

    A search tries a stage and another run then uses its model, so the search must not delete it."""
    trial = context.try_fit(Drawing(), few_rows, micro)
    used = context.fitted(Drawing(), few_rows, micro)
    assert trial is not None
    trial.drop_model()
    assert used.model_folder.is_dir()


def test_dropped_model_keeps_its_report(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A dropped model leaves its report and is fitted again when it is needed."""
    trial = context.try_fit(Drawing(), few_rows, micro)
    assert trial is not None
    trial.drop_model()
    assert [path.name for path in trial.folder.iterdir()] == ["stage.json"]
    again = context.try_fit(Drawing(), few_rows, micro)
    assert again is not None
    assert again.reused
    assert len(Drawing.calls) == 1
    refitted = context.fitted(Drawing(), few_rows, micro)
    assert not refitted.reused
    assert refitted.model_folder.is_dir()
