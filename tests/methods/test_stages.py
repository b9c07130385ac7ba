"""The cache of fitted stages: keys, reuse, seeds, parents."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from support.drawing import Drawing, stage_folders
from support.messages import names_all
from support.synthetic import without_seconds
from support.trainings import same_weights, weights_of

from baselines.bert import Bert
from baselines.deebert import DeeBert
from baselines.pabee import Pabee
from harness.data import demo
from harness.data.dataset import TaskData
from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.methods.compute import Compute
from harness.methods.registry import load_method, model_format
from harness.methods.stages import FitContext, Fitted, FittedStage, seed_all
from harness.models.backbones import Backbone
from harness.models.shapes import bert_shape
from harness.progress import Progress
from harness.records import StageUse, WeightsReport

HERE = Path(__file__).parent
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Redrawing(Drawing):
    revision: ClassVar[int] = 2


def test_second_call_reuses_the_stage(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A second call reuses the stage without fitting."""
    first, second = (context.fitted(Drawing(), few_rows, micro) for _ in range(2))
    assert len(Drawing.calls) == 1
    assert (first.reused, second.reused) == (False, True)
    assert first.key == second.key
    assert first.stored == second.stored
    assert same_weights(weights_of(first.model), weights_of(second.model))
    assert not second.model.training


def test_stage_keeps_its_training_report(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A stage keeps the report of its training."""
    report = context.fitted(Drawing(), few_rows, micro).stored.report
    assert (report.name, report.rows, report.steps, report.seconds, report.final_loss) == (
        "drawing",
        48,
        4,
        0.5,
        0.25,
    )
    assert (report.selection, report.best_epoch) == ((0.5, 0.75), 2)
    assert report.key == context.key(Drawing(), few_rows, micro, ())


def test_stage_leaves_only_its_folder(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A stage leaves its folder and nothing else."""
    fitted = context.fitted(Drawing(), few_rows, micro)
    assert fitted.folder == context.cache / "stages" / fitted.key
    assert stage_folders(context.cache) == [fitted.key]
    assert sorted(path.name for path in fitted.folder.iterdir()) == [
        "model",
        "stage.json",
        "wanted",
    ]
    assert sorted(path.name for path in fitted.model_folder.iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    (call,) = Drawing.calls
    assert call.scratch_was_there
    assert not call.run.scratch.exists()


def _other_rows(data: TaskData) -> TaskData:
    return replace(data, train=replace(data.train.rows(np.arange(47)), tokens=data.train.tokens))


KEY_CHANGES: dict[
    str,
    Callable[
        [FitContext, Drawing, TaskData, Backbone], tuple[FitContext, Drawing, TaskData, Backbone]
    ],
] = {
    "settings": lambda c, s, d, b: (c, replace(s, setting=0.25), d, b),
    "name": lambda c, s, d, b: (c, replace(s, name="other"), d, b),
    "revision": lambda c, s, d, b: (c, Redrawing(), d, b),
    "seed": lambda c, s, d, b: (c.with_seed(2), s, d, b),
    "training rows": lambda c, s, d, b: (c, s, _other_rows(d), b),
    "held-out rows": lambda c, s, d, b: (
        c,
        s,
        replace(d, selection=d.selection.rows(np.arange(40))),
        b,
    ),
    "texts and labels": lambda c, s, d, b: (c, s, replace(d, data_fingerprint="other"), b),
    "task": lambda c, s, d, b: (c, s, replace(d, task=TASKS["demo-single"]), b),
    "maximum length": lambda c, s, d, b: (c, s, d.encoded(b.encode, 31), b),
    "backbone shape": lambda c, s, d, b: (
        c,
        s,
        d,
        replace(b, shape=bert_shape(3, 32, 4, 65, b.shape.vocabulary, 64)),
    ),
    "backbone pooling": lambda c, s, d, b: (c, s, d, replace(b, pooling="cls")),
    "precision": lambda c, s, d, b: (
        replace(c, compute=replace(c.compute, precision="bfloat16")),
        s,
        d,
        b,
    ),
    "threads": lambda c, s, d, b: (replace(c, compute=replace(c.compute, threads=2)), s, d, b),
    "device": lambda c, s, d, b: (
        replace(c, compute=replace(c.compute, device=torch.device("cuda"))),
        s,
        d,
        b,
    ),
}


@pytest.mark.parametrize("what", KEY_CHANGES)
def test_key_changes_with_each_input(
    context: FitContext, few_rows: TaskData, micro: Backbone, what: str
) -> None:
    """The key changes with every input that the result depends on."""
    stage = Drawing()
    other_context, other_stage, data, backbone = KEY_CHANGES[what](context, stage, few_rows, micro)
    assert other_context.key(other_stage, data, backbone, ()) != context.key(
        stage, few_rows, micro, ()
    )


def test_key_changes_with_parents_order(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The key changes with the parents and their order."""
    one, two = (context.fitted(Drawing(setting), few_rows, micro) for setting in (1.0, 2.0))
    keys = [
        context.key(Drawing(), few_rows, micro, parents)
        for parents in ((), (one,), (two,), (one, two), (two, one))
    ]
    assert len(set(keys)) == 5


def test_key_ignores_irrelevant_inputs(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The key does not change with inputs that do not affect the result."""
    key = context.key(Drawing(), few_rows, micro, ())
    elsewhere = replace(
        context,
        cache=context.cache / "elsewhere",
        label="another cell",
        compute=replace(context.compute, tracker="tensorboard"),
    )
    renamed = replace(micro, name="other", learning_rates=(1.0,), epochs=9, licence="other")
    assert elsewhere.key(Drawing(), few_rows, renamed, ()) == key
    unlabelled = replace(few_rows, dev=replace(few_rows.dev, labels=np.full(48, np.nan)))
    assert context.key(Drawing(), unlabelled, micro, ()) == key


@pytest.mark.parametrize("length", [8, 32, 64])
def test_key_ignores_earlier_encoding(
    context: FitContext, few_rows: TaskData, micro: Backbone, length: int
) -> None:
    """The key does not depend on what the backbone has encoded before."""
    unused, used = replace(micro), replace(micro)
    used.encode([("a film", "a book")], length)
    assert context.key(Drawing(), few_rows, used, ()) == context.key(
        Drawing(), few_rows, unused, ()
    )


def test_reloaded_data_gives_same_key(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Data that are loaded again give the same key."""
    again = load_data(TASKS["demo-pair"], None, limit=48).encoded(micro.encode, 32)
    assert context.key(Drawing(), again, micro, ()) == context.key(Drawing(), few_rows, micro, ())


def test_stage_seeds_itself_from_key(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A stage is seeded from the run's seed and its own key."""
    fits = [
        at.fitted(Drawing(setting), few_rows, micro)
        for at in (context, context.with_seed(2))
        for setting in (1.0, 2.0)
    ]
    assert len({call.run.seed for call in Drawing.calls}) == 4
    assert not any(
        same_weights(weights_of(fits[0].model), weights_of(other.model)) for other in fits[1:]
    )


def test_seeding_fixes_every_generator() -> None:
    """Seeding fixes torch, numpy and Python."""
    import random

    draws = []
    for seed, key in ((1, "a"), (1, "a"), (1, "b"), (2, "a")):
        derived = seed_all(seed, key)
        draws.append((derived, random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1]
    assert all(len({draw[index] for draw in draws}) == 3 for index in range(4))


def test_result_ignores_earlier_draws(
    context: FitContext, few_rows: TaskData, micro: Backbone, tmp_path: Path
) -> None:
    """A result does not depend on earlier random draws."""
    first = context.fitted(Drawing(), few_rows, micro)
    torch.rand(17)
    other = replace(context, cache=tmp_path / "other")
    other.fitted(Drawing(9.0), few_rows, micro)
    assert same_weights(
        weights_of(first.model), weights_of(other.fitted(Drawing(), few_rows, micro).model)
    )


def _fits_of(
    methods: tuple[str, ...], context: FitContext, data: TaskData, backbone: Backbone
) -> dict[str, Fitted]:
    return {name: load_method(name).fit(data, backbone, context) for name in methods}


def test_results_ignore_method_order(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Results do not depend on the order of methods or on the cache."""
    caches = {
        order: _fits_of(
            order, replace(context, cache=context.cache / "-".join(order)), few_rows, micro
        )
        for order in (("bert", "deebert", "pabee"), ("pabee", "deebert", "bert"), ("deebert",))
    }
    reference = caches["bert", "deebert", "pabee"]
    for order, fits in caches.items():
        for name in order:
            assert fits[name].stage.key == reference[name].stage.key
            assert without_seconds(fits[name].trials) == without_seconds(reference[name].trials)
            assert same_weights(
                weights_of(fits[name].stage.model), weights_of(reference[name].stage.model)
            ), (order, name)


def test_methods_share_common_stages(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Methods share the stages that they have in common."""
    bert, deebert, pabee = (
        method.fit(few_rows, micro, context).stage
        for method in (Bert(), DeeBert(learning_rates=(1e-3,)), Pabee())
    )
    assert [use.report.name for use in deebert.uses()] == ["fine-tune", "deebert-exits"]
    assert [use.reused for use in deebert.uses()] == [True, False]
    assert deebert.uses()[0].report == bert.stored.report
    assert [use.report.name for use in pabee.uses()] == ["pabee-joint"]
    assert len(stage_folders(context.cache)) == 3


def test_parents_are_copied_for_stage(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A stage receives copies of its parents."""
    first = context.fitted(Drawing(1.0), few_rows, micro)
    model = first.model
    last = context.fitted(Drawing(2.0), few_rows, micro, (first,))
    ((parent,),) = (call.parents for call in Drawing.calls if call.parents)
    assert parent is not model
    assert same_weights(weights_of(model), weights_of(parent))
    assert {v.data_ptr() for v in parent.parameters()}.isdisjoint(
        v.data_ptr() for v in model.parameters()
    )
    assert last.parents == (first,)


def test_uses_list_stages_in_order(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The uses list every stage once, in the order they ran."""
    root = context.fitted(Drawing(1.0, "root"), few_rows, micro)
    left, right = (
        context.fitted(Drawing(2.0, name), few_rows, micro, (root,)) for name in ("left", "right")
    )
    last = context.fitted(Drawing(3.0, "last"), few_rows, micro, (left, right))
    assert [use.report.name for use in last.uses()] == ["root", "left", "right", "last"]
    assert last.uses()[-1] == StageUse(last.stored.report, reused=False)


def test_weights_come_from_first_stage(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The weights are those that the first stage loaded."""
    root = context.fitted(Drawing(1.0), few_rows, micro)
    last = context.fitted(Drawing(2.0), few_rows, micro, (root,))
    assert last.stored.weights is None
    assert last.weights() == root.weights() == WeightsReport(3, ("left",), ("fresh",))


@dataclass(frozen=True)
class Inputs:
    """Inputs for fitting the same stage in another process, made without fixtures."""

    cache: Path
    stage: Drawing
    progress: Progress

    def fitted(self) -> FittedStage:
        shape = bert_shape(3, 8, 1, 8, vocabulary=len(demo.demo_vocabulary()), positions=64)
        backbone = Backbone("own", shape, "mean", "random", "none", (1e-3,))
        data = load_data(TASKS["demo-pair"], None, limit=4).encoded(backbone.encode, 16)
        context = FitContext(
            1, Compute(CPU, "float32", 1, self.progress), self.cache, model_format()
        )
        return context.fitted(self.stage, data, backbone)


def fit_in_a_child(cache: str, touch: str, until: str) -> None:
    fitted = Inputs(Path(cache), Drawing(touch=touch, until=until), Progress(-1)).fitted()
    print(json.dumps([fitted.key, fitted.reused, len(Drawing.calls)]))


@pytest.mark.slow
def test_second_process_waits_for_stage(tmp_path: Path) -> None:
    """One of two processes with the same key fits, and the other reports that it is waiting.

    The child's fit ends when this process has reported that."""
    started, waited, lines = tmp_path / "started", tmp_path / "waited", []

    class Recorded(Progress):
        def info(self, line: str) -> None:
            lines.append(line)
            waited.touch()

    folders = [str(folder) for folder in (HERE.parents[1], HERE.parent, HERE)]
    program = f"import sys; sys.path[:0] = {folders!r}; from test_stages import fit_in_a_child; "
    program += f"fit_in_a_child({str(tmp_path / 'cache')!r}, {str(started)!r}, {str(waited)!r})"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with child:
        deadline = time.monotonic() + 60
        while not started.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        fitted = Inputs(
            tmp_path / "cache", Drawing(touch=str(started), until=str(waited)), Recorded()
        ).fitted()
        output, _ = child.communicate(timeout=60)
    assert json.loads(output) == [fitted.key, False, 1]
    assert fitted.reused
    assert Drawing.calls == []
    assert [names_all(line, "drawing") for line in lines] == [True]
