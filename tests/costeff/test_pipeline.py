"""Tests of the whole COST-EFF pipeline on a very small backbone."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.fixed import FIXED, fixed_data
from support.messages import assert_message

from baselines.bert import Bert
from baselines.distillation.stages import Distil, Exits, Targets
from baselines.encoders.encoder import EncoderModel
from baselines.encoders.weights import load_model, save_model
from baselines.training.recipe import Schedule
from costeff.pipeline import COSTEFF, COSTEFF_8X, CostEff
from costeff.schedule import Epochs
from costeff.slenderize import (
    HIDDEN_TARGETS,
    IMPORTANCE_TARGETS,
    RECOVERY_TARGETS,
    Slenderize,
)
from costeff.width_budget import encoder_macs
from harness.data.dataset import TaskData
from harness.data.tasks import TASKS
from harness.errors import HarnessError
from harness.measure.inference import collect
from harness.measure.macs import piece_costs
from harness.methods.compute import Compute
from harness.methods.registry import model_format
from harness.methods.stages import FitContext, Fitted, FittedStage, Stage
from harness.models.backbones import BACKBONES, Backbone

SMALL = CostEff(
    teacher=Bert(epochs=1, learning_rates=(1e-3,)),
    prediction_rates=(1.0,),
    effort=0.01,
    taylor_share=0.5,
)
"""A method with the fewest epochs and no search."""

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> FitContext:
    return FitContext(
        1, Compute(CPU, "float32", threads=1), tmp_path_factory.mktemp("cache"), model_format()
    )


@pytest.fixture(scope="module")
def fitted(shared: FitContext, few_rows: TaskData, micro: Backbone) -> Fitted:
    return SMALL.fit(few_rows, micro, shared)


@pytest.mark.parametrize(
    ("method", "millions", "giga"),
    [(COSTEFF, 54.98, 5.625), (COSTEFF_8X, 13.92, 1.271)],
    ids=["2x", "8x"],
)
def test_bert_base_sizes_match_paper(method: CostEff, millions: float, giga: float) -> None:
    """The sizes on BERT-base are the published ones."""
    with torch.device("meta"):
        model = method.build(BACKBONES["bert-base-uncased"], TASKS["sst2"])
        costs = piece_costs(model)
    macs = (
        costs.embedding.at(128)
        + sum(layer.at(128) for layer in costs.layers)
        + sum(head.at(128) for head in costs.exits if head)
    )
    assert model.parameter_count() / 1e6 == pytest.approx(millions, abs=0.005)
    assert macs / 1e9 == pytest.approx(giga, abs=0.0005)


def test_stages_follow_papers_order(fitted: Fitted, micro: Backbone) -> None:
    """The stages run in the paper's order and end with the requested shape."""
    names = [use.report.name for use in fitted.stage.uses()]
    assert names == [
        "fine-tune",
        "assistant-hidden",
        "assistant",
        "slenderize",
        "recover-hidden",
        "recover",
    ]
    assert set(names) == set(SMALL.revisions())
    model = fitted.stage.model
    assert isinstance(model, EncoderModel)
    assert model.config.shape == SMALL.shape(micro)
    assert model.exit_layers == [1, 2, 3]
    assert model.parameter_count() == SMALL.build(micro, TASKS["demo-pair"]).parameter_count()


def test_fitted_model_survives_saving(fitted: Fitted, few_rows: TaskData, tmp_path: Path) -> None:
    """A saved and loaded model has the same predictions."""
    model = fitted.stage.model
    save_model(model, tmp_path)
    one, other = (collect(each, few_rows.dev, 16, CPU) for each in (model, load_model(tmp_path)))
    assert np.array_equal(one.logits, other.logits)


def test_second_width_reuses_teacher(
    fitted: Fitted, shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Fitting another width reuses teacher and assistant."""
    other = replace(SMALL, heads=1 / 4, ffn=1 / 4, rank=1 / 4).fit(few_rows, micro, shared)
    assert [use.reused for use in other.stage.uses()] == [True, True, True, False, False, False]


def test_fixed_run_keeps_its_numbers(tmp_path: Path) -> None:
    """The final losses of a small fixed run do not change.

    The numbers are our own. A change that moves them must raise a stage's revision, so that cached
    stages and stored runs are not reused."""
    recipe = Bert(epochs=2, batch_size=8, learning_rates=(3e-3,))
    method = CostEff(
        teacher=recipe,
        batch_size=8,
        learning_rates=(3e-3,),
        prediction_rates=(1.0,),
        effort=0.25,
        taylor_share=0.5,
    )
    context = FitContext(1, Compute(CPU, "float32", threads=1), tmp_path, model_format())
    fit = method.fit(fixed_data(), FIXED, context)
    losses = {use.report.name: use.report.final_loss for use in fit.stage.uses()}
    assert (Distil.revision, Slenderize.revision) == (1, 1)
    assert losses == pytest.approx(
        {
            "fine-tune": 0.683526,
            "assistant-hidden": 6.286091,
            "assistant": 2.087526,
            "slenderize": 1.004304,
            "recover-hidden": 0.293665,
            "recover": 2.352540,
        },
        abs=1e-3,
    )


# --- ablations: each changes only the fields that it names


Plan = dict[str, tuple[Stage, tuple[str, ...]]]
"""Stage name -> the stage, and the names of its parents."""


@dataclass(frozen=True)
class Recorder(FitContext):
    """A context that fits the teacher and records all other stages and their parents."""

    stages: Plan = field(default_factory=dict)

    def fitted(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...] = (),
    ) -> FittedStage:
        if not parents:
            return super().fitted(stage, data, backbone)
        self.stages[stage.name] = stage, tuple(parent.stored.report.name for parent in parents)
        stored = replace(
            parents[0].stored, report=replace(parents[0].stored.report, name=stage.name)
        )
        return replace(parents[0], stored=stored)


def _plan(method: CostEff, data: TaskData, backbone: Backbone, shared: FitContext) -> Plan:
    context = Recorder(shared.seed, shared.compute, shared.cache, shared.formats)
    method.fit(data, backbone, context)
    assert {*context.stages, "fine-tune"} == set(method.revisions())
    return context.stages


ORDER = {
    "assistant-hidden": ("fine-tune",),
    "assistant": ("assistant-hidden", "fine-tune"),
    "slenderize": ("assistant", "assistant"),
    "recover-hidden": ("slenderize", "assistant"),
    "recover": ("recover-hidden", "assistant"),
}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"equilibrium": False}, {name: {"equilibrium": False} for name in ORDER}),
        ({"importance": "last exit"}, {"slenderize": {"last_exit_only": True}}),
        ({"allocation": "global"}, {"slenderize": {"allocation": "global"}}),
        ({"rounds": "one"}, {"slenderize": {"at_once": True}}),
    ],
    ids=["no equilibrium", "importance of the last exit", "global allocation", "one shot"],
)
def test_switch_changes_named_fields(
    shared: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    change: dict[str, str],
    changed: dict[str, dict[str, object]],
) -> None:
    """A switch changes only the fields that it names.

    The 4 heads of micro become 2 in 2 rounds; a period of this task is 2 epochs."""
    full = replace(SMALL, effort=1.0)
    default, other = (
        _plan(method, few_rows, micro, shared) for method in (full, replace(full, **change))
    )
    assert {name: parents for name, (_, parents) in default.items()} == ORDER
    assert other == {
        name: (replace(stage, **changed.get(name, {})), parents)
        for name, (stage, parents) in default.items()
    }


def test_full_effort_follows_authors_plan(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """At full effort the stages are the authors' for MRPC.

    From 12 heads to 6 with their 2e-5, the epochs are 4, 12, six periods of 2, 12 and 5, and the
    learning rates 2e-5, 2e-5, 1e-5, 3e-5 and 2e-5."""
    wide = replace(
        micro, shape=replace(micro.shape, head_size=4, heads=(12,) * 3), learning_rates=(2e-5,)
    )
    method = CostEff(teacher=Bert(epochs=1, learning_rates=(2e-5,)), prediction_rates=(1.0,))
    stages = {name: stage for name, (stage, _) in _plan(method, few_rows, wide, shared).items()}
    trained = {
        name: (stage.schedule.epochs, stage.schedule.learning_rate)
        for name, stage in stages.items()
    }
    pruning = stages["slenderize"]
    assert trained == {
        "assistant-hidden": (4, 2e-5),
        "assistant": (12, 2e-5),
        "slenderize": (1, 1e-5),
        "recover-hidden": (12, pytest.approx(3e-5)),
        "recover": (5, 2e-5),
    }
    assert (
        pruning.rounds,
        pruning.period,
        pruning.hidden_share,
        pruning.growth,
        pruning.taylor_share,
    ) == (6, 2.0, 0.5, 1.12, 1.0)
    assert (set(pruning.shape.heads), set(pruning.shape.ffn), pruning.shape.embedding_rank) == (
        {6},
        {32},
        16,
    )
    assert {name: stages[name].targets for name in stages if name != "slenderize"} == {
        "assistant-hidden": Targets(hidden=1.0),
        "assistant": Targets(soft=0.5, hard=0.5),
        "recover-hidden": Targets(hidden=1.0),
        "recover": Targets(hidden=1.0, soft=1.0),
    }
    assert Targets(1.0, 0.9, 0.1) == IMPORTANCE_TARGETS
    assert (Targets(1.0), Targets(1.0, 1.0)) == (HIDDEN_TARGETS, RECOVERY_TARGETS)
    assert [stage.exits is not None for stage in stages.values()] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_assistant_rate_is_searched_first(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The learning rate of the assistant is searched."""
    method = replace(SMALL, learning_rates=(1e-6, 3e-3))
    fit = method.fit(few_rows, micro, shared)
    trials = {trial.value: trial for trial in fit.trials if trial.stage == "assistant"}
    assert set(trials) == {1e-6, 3e-3}
    (chosen,) = [rate for rate, trial in trials.items() if trial.chosen]
    assert trials[chosen].score == max(trial.score for trial in trials.values())
    assert [use.report.name for use in fit.stage.uses()] == ["fine-tune", *ORDER]


def test_recovery_rate_search_shares_seed(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The learning rate of recovery is searched with one seed for all.

    The candidates are multiples of the assistant's 1e-3; seed 2 searches nothing itself."""
    method = replace(SMALL, prediction_rates=(1e-4, 3.0))
    first, second = (
        method.fit(few_rows, micro, context) for context in (shared, shared.with_seed(2))
    )
    for fit in (first, second):
        trials = {trial.value: trial for trial in fit.trials if trial.stage == "recover"}
        assert sorted(trials) == pytest.approx([1e-7, 3e-3])
        (chosen,) = [trial for trial in trials.values() if trial.chosen]
        assert chosen.score == max(trial.score or 0 for trial in trials.values())
        assert [use.report.name for use in fit.stage.uses()] == ["fine-tune", *ORDER]
    assert [trial.score for trial in first.trials] == [trial.score for trial in second.trials]
    assert not any(use.reused for use in second.stage.uses())


FASTER = replace(SMALL, learning_rates=(2e-3,))
"""A method whose assistant has another learning rate than the teacher's 1e-3."""


def test_teacher_replaces_missing_assistant(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Without an assistant the teacher teaches a student with fresh exits.

    The learning rates are the same: an assistant is fitted only to choose its rate."""
    default, other = (
        _plan(method, few_rows, micro, shared)
        for method in (FASTER, replace(FASTER, exits_from="pruning"))
    )
    exits = Exits("mean", 1, "concatenate")
    assert other == {
        **{name: default[name] for name in ("assistant-hidden", "assistant")},
        "slenderize": (replace(default["slenderize"][0], exits=exits), ("fine-tune", "fine-tune")),
        "recover-hidden": (default["recover-hidden"][0], ("slenderize", "fine-tune")),
        "recover": (default["recover"][0], ("recover-hidden", "fine-tune")),
    }


def test_late_exits_learn_like_assistant(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Exits added after compression are trained like the assistant's.

    The learning rates are the same; gradients of a single exit are not averaged."""
    default, other = (
        _plan(method, few_rows, micro, shared)
        for method in (FASTER, replace(FASTER, exits_from="recovery"))
    )
    late = replace(default["assistant"][0], name="exits", exits=Exits("mean", 1, "concatenate"))
    single = {
        name: replace(default[name][0], equilibrium=False)
        for name in ("slenderize", "recover-hidden", "recover")
    }
    assert other == {
        **{name: default[name] for name in ("assistant-hidden", "assistant")},
        "slenderize": (single["slenderize"], ("fine-tune", "fine-tune")),
        "recover-hidden": (single["recover-hidden"], ("slenderize", "fine-tune")),
        "recover": (single["recover"], ("recover-hidden", "fine-tune")),
        "exits": (late, ("recover", "fine-tune")),
    }


def test_late_exit_search_shares_seed(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The learning rate of late exits is searched with one seed for all."""
    method = replace(SMALL, learning_rates=(1e-6, 3e-3), exits_from="recovery")
    first, second = (
        method.fit(few_rows, micro, context) for context in (shared, shared.with_seed(2))
    )
    for fit in (first, second):
        trials = {trial.value: trial for trial in fit.trials if trial.stage == "exits"}
        assert set(trials) == {1e-6, 3e-3}
    assert [trial.score for trial in first.trials] == [trial.score for trial in second.trials]


def test_every_setting_reaches_its_stage(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Every setting reaches its stage.

    From 12 heads to 2 the authors' epochs are 20 and 10; no setting has its default value."""
    wide = replace(micro, shape=replace(micro.shape, head_size=4, heads=(12,) * 3))
    teacher = Bert(
        epochs=1,
        batch_size=24,
        learning_rates=(4e-4,),
        warmup=0.2,
        weight_decay=0.03,
        clip=0.7,
        accumulation=2,
    )
    method = CostEff(
        heads=1 / 6,
        teacher=teacher,
        batch_size=16,
        learning_rates=(1e-3,),
        pruning_rate=0.3,
        hidden_rate=0.7,
        prediction_rates=(0.4,),
        growth=1.5,
        taylor_share=0.5,
        last_states=2,
        combine="average",
        pooling="cls",
    )
    stages = {name: stage for name, (stage, _) in _plan(method, few_rows, wide, shared).items()}

    def schedule(epochs: int, rate: float) -> Schedule:
        return Schedule(
            epochs, 16, pytest.approx(rate), warmup=0.2, weight_decay=0.03, clip=0.7, accumulation=2
        )

    assert {name: stage.schedule for name, stage in stages.items()} == {
        "assistant-hidden": schedule(4, 4e-4),
        "assistant": schedule(12, 1e-3),
        "slenderize": schedule(1, 3e-4),
        "recover-hidden": schedule(20, 7e-4),
        "recover": schedule(10, 4e-4),
    }
    pruning = stages["slenderize"]
    assert (pruning.growth, pruning.taylor_share, pruning.rounds) == (1.5, 0.5, 10)
    assert stages["assistant-hidden"].exits == Exits("cls", 2, "average")
    assert CostEff.policy == "entropy"


def test_epochs_table_replaces_authors(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A custom table of epochs replaces the authors'."""
    custom = Epochs(
        assistant=7, period=(3.0, 3.0), hidden_share=0.2, hidden=(9, 9), prediction=(8, 8)
    )
    stages = {
        name: stage
        for name, (stage, _) in _plan(
            replace(SMALL, effort=1, epochs_table=custom), few_rows, micro, shared
        ).items()
    }
    trained = {name: stage.schedule.epochs for name, stage in stages.items()}
    assert trained == {
        "assistant-hidden": 2,
        "assistant": 7,
        "slenderize": 1,
        "recover-hidden": 9,
        "recover": 8,
    }
    assert (stages["slenderize"].period, stages["slenderize"].hidden_share) == (3.0, 0.2)


def test_irrelevant_settings_share_a_run(micro: Backbone) -> None:
    """Settings without effect do not make a different run.

    Combining a single hidden state has no effect, and there are no more hidden states than those of
    the layers and the embedding."""
    assert CostEff(combine="average").resolved(micro) == CostEff().resolved(micro)
    assert CostEff(last_states=9).resolved(micro) == CostEff(last_states=4).resolved(micro)


@pytest.mark.parametrize(
    "change",
    [
        {"equilibrium": False},
        {"importance": "last exit"},
        {"rounds": "one"},
        {"exits_from": "pruning"},
        {"exits_from": "recovery"},
        {"allocation": "global"},
        {"last_states": 2},
    ],
    ids=str,
)
def test_every_variant_runs_to_end(
    shared: FitContext, few_rows: TaskData, micro: Backbone, change: dict[str, str]
) -> None:
    """Every variant runs to the end.

    The effect of a switch on a stage is tested with the stages."""
    fit = replace(SMALL, **change).fit(few_rows, micro, shared)
    assert [use.report.name for use in fit.stage.uses()][-1] == (
        "exits" if change == {"exits_from": "recovery"} else "recover"
    )
    assert fit.stage.model.exit_layers == [1, 2, 3]
    assert np.isfinite(collect(fit.stage.model, few_rows.dev, 16, CPU).logits).all()


def test_regression_runs_to_its_end(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A regression task runs to the end.

    Predictions are in label units; both prediction losses are mean squared errors."""
    data = replace(
        few_rows,
        task=TASKS["stsb"],
        train=replace(few_rows.train, labels=np.arange(48) / 10),
        data_fingerprint="0 to 5",
    )
    fit = SMALL.fit(data, micro, shared)
    trace = collect(fit.stage.model, data.dev, 16, CPU)
    assert trace.logits.shape == (3, len(data.dev), 1)
    assert np.isfinite(trace.logits).all()
    assert all(math.isfinite(use.report.final_loss) for use in fit.stage.uses())


# --- widths for a ratio


@pytest.mark.parametrize("ratio", [1.5, 2.0, 4.0])
def test_widths_reach_parameter_ratio(micro: Backbone, ratio: float) -> None:
    """The widths reach the parameter ratio and hardly exceed it."""
    task = TASKS["mrpc"]
    full = CostEff(heads=1, ffn=1, rank=1).build(micro, task)
    original = EncoderModel(replace(full.config, shape=micro.shape)).parameter_count()
    small = CostEff(parameter_ratio=ratio).build(micro, task).parameter_count()
    assert ratio <= original / small < 1.35 * ratio  # micro has only 4 heads: steps are coarse


@pytest.mark.parametrize("rank", [0.25, 1.0])
def test_widths_reach_mac_ratio(rank: float) -> None:
    """The widths reach the MAC ratio on BERT-base, whatever the rank."""
    base = BACKBONES["bert-base-uncased"]
    shape = CostEff(mac_ratio=4.0, rank=rank).shape(base)
    assert 4.0 <= encoder_macs(base.shape) / encoder_macs(shape) < 4.03
    assert shape.embedding_rank == (192 if rank < 1 else None)
    assert CostEff(mac_ratio=4.0, rank=rank).resolved(base).shape(base) == shape


def test_unreachable_ratio_is_refused(micro: Backbone) -> None:
    """A ratio that no width can reach raises an error."""
    with pytest.raises(HarnessError) as caught:
        CostEff(parameter_ratio=1000).resolved(micro)
    assert_message(caught, "micro", 1000)


def test_two_ratios_are_refused() -> None:
    with pytest.raises(ValueError, match=r"parameter_ratio.*mac_ratio"):
        CostEff(parameter_ratio=2, mac_ratio=2)
