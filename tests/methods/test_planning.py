"""Plans list the stages that a method fits."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from harness.data.dataset import TaskData
from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.errors import HarnessError
from harness.methods.compute import Compute
from harness.methods.planning import PlannedStage, PlanningContext
from harness.methods.protocol import Method
from harness.methods.registry import load_method, model_format
from harness.methods.settings import configure, parse_setting
from harness.methods.stages import FitContext
from harness.models.backbones import find_backbone

TINY = find_backbone("tiny")
QUICK = {
    "bert": [],
    "deebert": [],
    "pabee": [],
    "costeff": ["costeff.effort=0.1"],
    "tinybert": [
        "tinybert.intermediate_steps=4", "tinybert.prediction_steps=4",
        "tinybert.general_epochs=1", "tinybert.augmentation=2",
    ],
    "distilbert": ["distilbert.pretraining_epochs=1"],
}  # fmt: skip
"""Method -> settings with which it is fitted quickly."""


@pytest.fixture(scope="module")
def data() -> TaskData:
    loaded = load_data(TASKS["demo-single"], None, limit=32)
    return loaded.encoded(TINY.encode, 32)


def contexts(cache: Path, seed: int) -> tuple[PlanningContext, FitContext]:
    shared = (seed, Compute(torch.device("cpu"), "float32", threads=1), cache, model_format())
    return PlanningContext(*shared), FitContext(*shared)


def plan(method: Method, data: TaskData, context: PlanningContext) -> list[PlannedStage]:
    method.fit(data, TINY, context)
    return list(context.planned.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_plan_lists_every_fitted_stage(name: str, data: TaskData, tmp_path: Path) -> None:
    """A plan has the stages of a fit, by name, and none once they are cached; it writes nothing."""
    settings = [*QUICK[name], "all.epochs=1", "all.learning_rates=1e-4,2e-4"]
    method = configure([name], [parse_setting(text) for text in settings])[name].resolved(TINY)
    before: set[Path] = set()
    for seed in (1, 2):
        planning, fitting = contexts(tmp_path, seed)
        planned = plan(method, data, planning)
        assert set(tmp_path.rglob("*")) == before
        method.fit(data, TINY, fitting)
        after = set(tmp_path.rglob("*"))
        names = [
            json.loads(path.read_text(encoding="utf-8"))["report"]["name"]
            for path in after - before
            if path.name == "stage.json"
        ]
        again, _ = contexts(tmp_path, seed)
        assert plan(method, data, again) == []
        # without accurate word predictions, distil becomes distil-cosine
        names = [one.removesuffix("-cosine") for one in names]
        assert Counter(names) == Counter(stage.name for stage in planned)
        assert set(tmp_path.rglob("*")) == after
        before = after


def test_plan_writes_nothing(data: TaskData, tmp_path: Path) -> None:
    """A plan creates no files, and counts the tokens of all epochs and learning rates."""
    planning, _ = contexts(tmp_path, 1)
    settings = [parse_setting("all.epochs=3"), parse_setting("all.learning_rates=1e-4,2e-4")]
    method = configure(["deebert"], settings)["deebert"].resolved(TINY)
    planned = plan(method, data, planning)
    assert list(tmp_path.iterdir()) == []
    tokens = 3 * int(data.train.tokens.lengths.sum())
    assert [(stage.name, stage.tokens) for stage in planned] == [
        ("fine-tune", tokens), ("fine-tune", tokens),
        ("deebert-exits", tokens), ("deebert-exits", tokens),
    ]  # fmt: skip


def test_planned_stage_has_no_model(data: TaskData, tmp_path: Path) -> None:
    planning, _ = contexts(tmp_path, 1)
    fitted = load_method("bert").resolved(TINY).fit(data, TINY, planning)
    with pytest.raises(HarnessError, match="fine-tune"):
        _ = fitted.stage.model
