"""Tests of the whole COST-EFF pipeline on a very small backbone."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.fixed import FIXED, fixed_data
from support.messages import assert_message
from support.small_costeff import CPU, SMALL

from baselines.bert import Bert
from baselines.distillation.stages import Distil
from baselines.encoders.encoder import EncoderModel
from baselines.encoders.weights import load_model, save_model
from costeff.pipeline import COSTEFF, COSTEFF_8X, CostEff
from costeff.slenderize import (
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
from harness.methods.stages import FitContext, Fitted
from harness.models.backbones import BACKBONES, Backbone


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
