"""COST-EFF from its teacher to the end, on a very small backbone."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.bert import Bert
from baselines.encoder import EncoderModel
from baselines.weights import load_model, save_model
from costeff.budget import encoder_macs
from costeff.distill import Exits
from costeff.pipeline import COSTEFF, COSTEFF_8X, CostEff
from harness.backbones import BACKBONES, Backbone
from harness.errors import HarnessError
from harness.flops import piece_costs
from harness.inference import collect
from harness.methods import model_format
from harness.stages import Compute, Fitted, FittedStage, Stage, Work
from harness.tasks import TASKS, TaskData

SMALL = CostEff(teacher=Bert(epochs=1, learning_rates=(1e-3,)), effort=0.01, taylor_share=0.5)
"""The fewest epochs."""

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(1, Compute(CPU, "float32", threads=1), tmp_path_factory.mktemp("cache"), model_format())


@pytest.fixture(scope="module")
def fitted(shared: Work, few_rows: TaskData, micro: Backbone) -> Fitted:
    return SMALL.fit(few_rows, micro, shared)


@pytest.mark.parametrize(("method", "millions", "giga"), [(COSTEFF, 54.98, 5.625), (COSTEFF_8X, 13.92, 1.271)], ids=["2x", "8x"])
def test_sizes_on_bert_base_are_the_published_ones(method: CostEff, millions: float, giga: float) -> None:
    with torch.device("meta"):
        model = method.untrained(BACKBONES["bert-base-uncased"], TASKS["sst2"])
        costs = piece_costs(model)
    macs = costs.embedding.at(128) + sum(layer.at(128) for layer in costs.layers) + sum(leave.at(128) for leave in costs.exits if leave)
    assert model.parameter_count() / 1e6 == pytest.approx(millions, abs=0.005)
    assert macs / 1e9 == pytest.approx(giga, abs=0.0005)


def test_stages_run_in_the_papers_order_and_end_in_the_wanted_shape(fitted: Fitted, micro: Backbone) -> None:
    names = [use.report.name for use in fitted.stage.uses()]
    assert names == ["fine-tune", "assistant-hidden", "assistant", "slenderize", "recover-hidden", "recover"]
    assert set(names) == set(SMALL.revisions())
    model = fitted.stage.model
    assert isinstance(model, EncoderModel)
    assert model.config.shape == SMALL.shape(micro)
    assert model.exit_layers == [1, 2, 3]
    assert model.parameter_count() == SMALL.untrained(micro, TASKS["demo-pair"]).parameter_count()


def test_the_fitted_model_is_saved_and_loaded_with_the_same_answers(fitted: Fitted, few_rows: TaskData, tmp_path: Path) -> None:
    model = fitted.stage.model
    save_model(model, tmp_path)
    one, other = (collect(each, few_rows.dev, 16, CPU) for each in (model, load_model(tmp_path)))
    assert np.array_equal(one.logits, other.logits)


def test_a_second_width_reuses_teacher_and_assistant(fitted: Fitted, shared: Work, few_rows: TaskData, micro: Backbone) -> None:
    other = replace(SMALL, heads=1 / 4, ffn=1 / 4, rank=1 / 4).fit(few_rows, micro, shared)
    assert [use.reused for use in other.stage.uses()] == [True, True, True, False, False, False]


# --- ablations: each changes what it names and nothing else


Plan = dict[str, tuple[Stage, tuple[str, ...]]]
"""Stage name -> the stage, and the names of those that it stands on."""


@dataclass(frozen=True)
class Recorder(Work):
    """Fits the teacher, and of the other stages notes what they are and what they stand on."""

    stages: Plan = field(default_factory=dict)

    def fitted(self, stage: Stage, data: TaskData, backbone: Backbone, parents: tuple[FittedStage, ...] = ()) -> FittedStage:
        if not parents:
            return super().fitted(stage, data, backbone)
        self.stages[stage.name] = stage, tuple(parent.stored.report.name for parent in parents)
        stored = replace(parents[0].stored, report=replace(parents[0].stored.report, name=stage.name))
        return replace(parents[0], stored=stored)


def _plan(method: CostEff, data: TaskData, backbone: Backbone, shared: Work) -> Plan:
    work = Recorder(shared.seed, shared.compute, shared.cache, shared.formats)
    method.fit(data, backbone, work)
    assert {*work.stages, "fine-tune"} == set(method.revisions())
    return work.stages


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
        ({"rounds": "one"}, {"slenderize": {"rounds": 1, "period": 2 * 2.0}}),
    ],
    ids=["no equilibrium", "importance of the last exit", "global allocation", "one shot"],
)
def test_a_switch_changes_the_fields_that_it_names(
    shared: Work, few_rows: TaskData, micro: Backbone, change: dict[str, str], changed: dict[str, dict[str, object]]
) -> None:
    """micro's 4 heads become 2 in 2 rounds; a period of the unscripted task is 2 passes."""
    whole = replace(SMALL, effort=1.0)
    plain, other = (_plan(method, few_rows, micro, shared) for method in (whole, replace(whole, **change)))
    assert {name: parents for name, (_, parents) in plain.items()} == ORDER
    assert other == {name: (replace(stage, **changed.get(name, {})), parents) for name, (stage, parents) in plain.items()}


def test_without_an_assistant_the_teacher_teaches_a_student_with_fresh_exits(shared: Work, few_rows: TaskData, micro: Backbone) -> None:
    plain, other = (_plan(method, few_rows, micro, shared) for method in (SMALL, replace(SMALL, exits_from="pruning")))
    exits = Exits("mean", 1, "concatenate")
    assert other == {
        "slenderize": (replace(plain["slenderize"][0], exits=exits), ("fine-tune", "fine-tune")),
        "recover-hidden": (plain["recover-hidden"][0], ("slenderize", "fine-tune")),
        "recover": (plain["recover"][0], ("recover-hidden", "fine-tune")),
    }


def test_exits_after_compression_learn_as_the_assistants_do(shared: Work, few_rows: TaskData, micro: Backbone) -> None:
    plain, other = (_plan(method, few_rows, micro, shared) for method in (SMALL, replace(SMALL, exits_from="recovery")))
    late = replace(plain["assistant"][0], name="exits", exits=Exits("mean", 1, "concatenate"))
    assert other == {
        "slenderize": (plain["slenderize"][0], ("fine-tune", "fine-tune")),
        "recover-hidden": (plain["recover-hidden"][0], ("slenderize", "fine-tune")),
        "recover": (plain["recover"][0], ("recover-hidden", "fine-tune")),
        "exits": (late, ("recover", "fine-tune")),
    }


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
def test_every_variant_runs_to_its_end_with_other_answers(
    fitted: Fitted, shared: Work, few_rows: TaskData, micro: Backbone, change: dict[str, str]
) -> None:
    model = replace(SMALL, **change).fit(few_rows, micro, shared).stage.model
    assert model.exit_layers == [1, 2, 3]
    plain, other = (collect(each, few_rows.dev, 16, CPU).logits for each in (fitted.stage.model, model))
    assert np.isfinite(other).all()
    assert not np.array_equal(plain, other)


# --- widths for a ratio


@pytest.mark.parametrize("ratio", [1.5, 2.0, 4.0])
def test_widths_reach_the_ratio_of_parameters_and_hardly_more(micro: Backbone, ratio: float) -> None:
    task = TASKS["mrpc"]
    full = CostEff(heads=1, ffn=1, rank=1).untrained(micro, task)
    whole = EncoderModel(replace(full.config, shape=micro.shape)).parameter_count()
    small = CostEff(parameter_ratio=ratio).untrained(micro, task).parameter_count()
    assert ratio <= whole / small < 1.35 * ratio  # micro has only 4 heads: steps are coarse


def test_widths_reach_the_ratio_of_macs_on_bert_base() -> None:
    base = BACKBONES["bert-base-uncased"]
    shape = CostEff(mac_ratio=4.0).shape(base)
    assert 4.0 <= encoder_macs(base.shape) / encoder_macs(shape) < 4.03
    assert CostEff(mac_ratio=4.0).settled(base).shape(base) == shape


def test_a_ratio_that_width_cannot_reach_is_refused(micro: Backbone) -> None:
    with pytest.raises(HarnessError, match="cannot be made 1000 times smaller"):
        CostEff(parameter_ratio=1000).settled(micro)


def test_two_ratios_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted one of them"):
        CostEff(parameter_ratio=2, mac_ratio=2)
