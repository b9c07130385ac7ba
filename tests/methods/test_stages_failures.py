"""Stages that fail, diverge, are damaged, dropped or have no room."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from support.drawing import Drawing, stage_folders
from support.trainings import same_weights, weights_of

from baselines.bert import Bert
from baselines.training.finetune import FineTune
from harness.data.dataset import TaskData
from harness.errors import ExitCode, IncompleteError
from harness.methods import stages
from harness.methods.registry import model_format
from harness.methods.stages import FreshFit, StageRun, Work
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import bert_shape


@dataclass(frozen=True)
class Failing(Drawing):
    error: ClassVar[type[BaseException]] = ValueError

    def fit(self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun) -> FreshFit:
        super().fit(parents, data, backbone, run)
        raise self.error("half way")


def test_a_full_disk_stops_a_stage_before_it_begins(
    work: Work, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    with pytest.raises(IncompleteError, match=r"0\.1 GB free, a stage needs 0\.3 GB") as caught:
        work.fitted(Drawing(), few_rows, micro)
    assert caught.value.exit_code == ExitCode.INCOMPLETE
    assert "--cache-dir" in str(caught.value)
    assert Drawing.calls == []
    assert stage_folders(work.cache) == []


def test_room_is_asked_for_two_states_and_the_model_of_a_large_backbone(
    work: Work, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BERT-base: 23.4 million word and 84.9 million layer weights of 4 bytes, nine times 0.434 GB, and 0.268 GB to spare: 4.169 GB."""
    base = replace(micro, shape=bert_shape(12, 768, 12, 3072))
    for free in (10**9, 4_168_000_000):
        monkeypatch.setattr(stages.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with pytest.raises(IncompleteError, match=r"GB free, a stage needs 4\.2 GB"):
            work.fitted(Drawing(), few_rows, base)
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_172_000_000))
    work._check_disk(base)


def test_a_training_writes_no_more_than_the_disk_is_asked_for(work: Work, few_rows: TaskData, micro: Backbone, tmp_path: Path) -> None:
    """A state holds four models; two states and the fitted model are what `MODELS_WRITTEN` counts."""
    (schedule,) = Bert(epochs=1).schedules(micro)
    small = replace(micro, shape=bert_shape(2, 128, 4, 512, micro.shape.vocabulary, 64))
    run = StageRun(work.compute, "", "fine-tune", 1, tmp_path)
    fresh = FineTune("fine-tune", (None, "plain"), (1.0,), schedule).fit((), few_rows, small, run)
    state, model = (tmp_path / "train.pt").stat().st_size, 4 * fresh.model.parameter_count()
    assert state / model == pytest.approx(4, abs=0.1)
    assert 2 * state + model == pytest.approx(stages.MODELS_WRITTEN * model, rel=0.02)


def test_a_full_disk_does_not_keep_a_finished_stage_from_being_reused(
    work: Work, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.fitted(Drawing(), few_rows, micro)
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert work.fitted(Drawing(), few_rows, micro).reused


def test_a_stage_that_fails_leaves_no_folder_and_its_state_for_the_next_try(work: Work, few_rows: TaskData, micro: Backbone) -> None:
    key = work.key(Failing(), few_rows, micro, ())
    assert key == work.key(Drawing(), few_rows, micro, ())
    with pytest.raises(ValueError, match="half way"):
        work.fitted(Failing(), few_rows, micro)
    assert not (work.cache / "stages" / key).exists()
    assert (Drawing.calls[0].run.scratch / "state").is_file()
    fitted = work.fitted(Drawing(), few_rows, micro)
    assert not fitted.reused
    assert Drawing.calls[1].run.scratch == Drawing.calls[0].run.scratch
    assert stage_folders(work.cache) == [key]


def test_a_stage_whose_model_cannot_be_written_leaves_no_folder(work: Work, few_rows: TaskData, micro: Backbone) -> None:
    def full(model: MultiExitModel, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    formats = SimpleNamespace(save_model=full, load_model=model_format().load_model)
    with pytest.raises(OSError, match="No space left"):
        replace(work, formats=formats).fitted(Drawing(), few_rows, micro)
    assert not (work.cache / "stages" / work.key(Drawing(), few_rows, micro, ())).exists()
    assert not work.fitted(Drawing(), few_rows, micro).reused


def test_a_damaged_report_of_a_stage_is_incomplete_and_named(work: Work, few_rows: TaskData, micro: Backbone) -> None:
    fitted = work.fitted(Drawing(), few_rows, micro)
    (fitted.folder / "stage.json").write_text("{")
    with pytest.raises(IncompleteError, match=f"stage {fitted.key} is not JSON"):
        work.fitted(Drawing(), few_rows, micro)


def test_a_stage_whose_model_is_gone_is_incomplete(work: Work, few_rows: TaskData, micro: Backbone) -> None:
    fitted = work.fitted(Drawing(), few_rows, micro)
    (fitted.model_folder / "model.safetensors").unlink()
    with pytest.raises(IncompleteError, match=fitted.key):
        _ = fitted.model


def test_a_cache_may_be_deleted_at_any_time(work: Work, few_rows: TaskData, micro: Backbone) -> None:
    first = work.fitted(Drawing(), few_rows, micro)
    model = first.model
    shutil.rmtree(work.cache)
    again = work.fitted(Drawing(), few_rows, micro)
    assert not again.reused
    assert same_weights(weights_of(again.model), weights_of(model))


@dataclass(frozen=True)
class Diverging(Drawing):
    def fit(self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun) -> FreshFit:
        super().fit(parents, data, backbone, run)
        raise stages.DivergedError("drawing: the loss is nan")


def test_a_diverged_stage_is_remembered_and_leaves_nothing_else(work: Work, few_rows: TaskData, micro: Backbone) -> None:
    for _ in range(2):
        assert work.tried(Diverging(), few_rows, micro) is None
        with pytest.raises(stages.DivergedError, match="the loss is nan"):
            work.fitted(Diverging(), few_rows, micro)
    assert len(Drawing.calls) == 1
    folder = work.cache / "stages" / work.key(Diverging(), few_rows, micro, ())
    assert [path.name for path in folder.iterdir()] == ["diverged"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_a_model_that_some_run_uses_is_not_dropped(work: Work, few_rows: TaskData, micro: Backbone) -> None:
    """A search tries a stage, another run then uses its model: the end of the search must not take it away."""
    tried = work.tried(Drawing(), few_rows, micro)
    used = work.fitted(Drawing(), few_rows, micro)
    assert tried is not None
    tried.drop_model()
    assert used.model_folder.is_dir()


def test_of_a_dropped_model_the_report_stays_until_somebody_wants_the_model(work: Work, few_rows: TaskData, micro: Backbone) -> None:
    tried = work.tried(Drawing(), few_rows, micro)
    assert tried is not None
    tried.drop_model()
    assert [path.name for path in tried.folder.iterdir()] == ["stage.json"]
    again = work.tried(Drawing(), few_rows, micro)
    assert again is not None
    assert again.reused
    assert len(Drawing.calls) == 1
    wanted = work.fitted(Drawing(), few_rows, micro)
    assert not wanted.reused
    assert wanted.model_folder.is_dir()
