"""Stages that each setting of COST-EFF plans, and their fields."""

from dataclasses import dataclass, field, replace

import pytest
from support.small_costeff import SMALL

from baselines.bert import Bert
from baselines.distillation.stages import Exits, Targets
from baselines.training.recipe import Schedule
from costeff.pipeline import CostEff
from costeff.schedule import Epochs
from costeff.slenderize import (
    HIDDEN_TARGETS,
    IMPORTANCE_TARGETS,
    RECOVERY_TARGETS,
)
from harness.data.dataset import TaskData
from harness.methods.stages import FitContext, FittedStage, Stage
from harness.models.backbones import Backbone

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


FASTER = replace(SMALL, learning_rates=(2e-3,))
"""A method whose assistant has another learning rate than the teacher's 1e-3."""


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
