"""The search for a learning rate on selection, which all seeds share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.messages import assert_message
from support.synthetic import without_seconds
from support.trainings import same_weights

from baselines.bert import Bert
from baselines.deebert import DeeBert
from baselines.pabee import Pabee
from baselines.training.recipe import Recipe
from harness.data.dataset import Split, TaskData, Tokens
from harness.errors import ExitCode, IncompleteError
from harness.measure.inference import collect
from harness.methods.stages import SEARCH_SEED, FitContext
from harness.models.backbones import Backbone

CPU = torch.device("cpu")
RATES = (1e-3, 3e-3)

TWO_RATES: dict[str, Recipe] = {
    "bert": Bert(learning_rates=RATES, epochs=2),
    "deebert": DeeBert(
        learning_rates=RATES, epochs=2, teacher=Bert(learning_rates=(1e-3,), epochs=1)
    ),
    "pabee": Pabee(learning_rates=RATES, epochs=2),
}


@pytest.mark.parametrize("name", ["bert", "deebert", "pabee"])
def test_selection_chooses_learning_rate(
    shared: FitContext, few_rows: TaskData, micro: Backbone, name: str
) -> None:
    """The learning rate is the one whose best epoch scores highest on selection."""
    method = TWO_RATES[name]
    fitted = method.fit(few_rows, micro, shared)
    by_hand = []
    for rate in RATES:
        single_rate = replace(method, learning_rates=(rate,)).fit(
            few_rows, micro, shared.with_seed(SEARCH_SEED)
        )
        trace = collect(single_rate.stage.model, few_rows.selection, 16, CPU)
        correct = (trace.predictions() == trace.labels).mean(-1)
        by_hand.append(float(correct[:-1].mean() if name == "deebert" else correct.mean()))
    assert [trial.score for trial in fitted.trials] == pytest.approx(by_hand)
    assert [trial.value for trial in fitted.trials] == list(RATES)
    assert {(trial.stage, trial.field) for trial in fitted.trials} == {
        (fitted.stage.stored.report.name, "learning_rate")
    }
    best = by_hand.index(max(by_hand))
    assert [trial.chosen for trial in fitted.trials] == [index == best for index in range(2)]


def test_chosen_rate_is_fitted(
    context: FitContext, shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The chosen rate is the one that is fitted."""
    fitted = TWO_RATES["bert"].fit(few_rows, micro, shared)
    (chosen,) = [trial.value for trial in fitted.trials if trial.chosen]
    single_rate = replace(TWO_RATES["bert"], learning_rates=(chosen,)).fit(
        few_rows, micro, context.with_seed(shared.seed)
    )
    assert fitted.stage.key == single_rate.stage.key
    assert same_weights(fitted.stage.model.state_dict(), single_rate.stage.model.state_dict())


def test_search_keeps_one_model(
    context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the chosen rate's model is kept, and the search is not repeated."""
    first = TWO_RATES["bert"].fit(few_rows, micro, context)
    models = list((context.cache / "stages").glob("*/model"))
    assert models == [first.stage.model_folder]
    assert len(list((context.cache / "stages").glob("*/stage.json"))) == 2
    monkeypatch.setattr("baselines.training.finetune.train", None)
    again = TWO_RATES["bert"].fit(few_rows, micro, context)
    assert (again.trials, again.stage.reused) == (first.trials, True)
    monkeypatch.undo()
    (other_rate,) = [trial.value for trial in first.trials if not trial.chosen]
    refit = replace(TWO_RATES["bert"], learning_rates=(other_rate,)).fit(few_rows, micro, context)
    assert not refit.stage.reused
    assert refit.stage.model_folder.is_dir()


def test_diverging_rate_is_failed_trial(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A rate that diverges is a failed trial."""
    fitted = replace(TWO_RATES["bert"], learning_rates=(1e30, 1e-3), clip=1e30).fit(
        few_rows, micro, context
    )
    failed, chosen = fitted.trials
    assert (failed.value, failed.score, failed.seconds, failed.chosen) == (1e30, None, None, False)
    assert chosen.chosen
    assert chosen.score is not None


def test_all_diverging_rates_are_named(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """If every rate diverges, the error names all of them."""
    with pytest.raises(IncompleteError) as caught:
        replace(TWO_RATES["bert"], learning_rates=(1e30, 1e29), clip=1e30).fit(
            few_rows, micro, context
        )
    assert_message(caught, "fine-tune", "1e+30", "1e+29", code=ExitCode.INCOMPLETE)


@pytest.mark.parametrize("name", ["bert", "deebert", "pabee"])
def test_seeds_share_one_search(
    shared: FitContext, few_rows: TaskData, micro: Backbone, name: str
) -> None:
    """All seeds share the search of one fixed seed."""
    fits = {
        seed: TWO_RATES[name].fit(few_rows, micro, shared.with_seed(seed))
        for seed in (SEARCH_SEED, 2, 3)
    }
    assert len({fitted.trials for fitted in fits.values()}) == 1
    assert len({fitted.stage.key for fitted in fits.values()}) == 3


@pytest.mark.parametrize("name", ["bert", "deebert", "pabee"])
def test_fitting_ignores_dev_and_calibration(
    context: FitContext, shared: FitContext, few_rows: TaskData, micro: Backbone, name: str
) -> None:
    """Fitting never reads dev or calibration.

    Blanking their texts, tokens and labels changes nothing; ids stay, since the key has them."""

    def blank(split: Split) -> Split:
        return Split(split.ids, ((),) * len(split), np.full(len(split), np.nan), Tokens((), (), 0))

    blanked = replace(few_rows, dev=blank(few_rows.dev), calibration=blank(few_rows.calibration))
    plain = TWO_RATES[name].fit(few_rows, micro, shared)
    refit = TWO_RATES[name].fit(blanked, micro, context.with_seed(shared.seed))
    assert without_seconds(refit.trials) == without_seconds(plain.trials)
    assert same_weights(refit.stage.model.state_dict(), plain.stage.model.state_dict())
