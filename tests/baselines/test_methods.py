"""BERT, DeeBERT and PABEE: exits, losses and regressions."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.fixed import FIXED, fixed_data
from support.messages import assert_message
from support.trainings import same_weights
from torch import Tensor

from baselines.bert import Bert
from baselines.deebert import DeeBert
from baselines.encoders.encoder import EncoderModel
from baselines.encoders.weights import exit_heads
from baselines.pabee import Pabee
from baselines.training import finetune
from baselines.training.finetune import AddExits, FineTune
from baselines.training.loop import Loss, Score, train
from baselines.training.recipe import Recipe, Schedule
from harness.data.dataset import Split, TaskData, Tokens
from harness.data.tasks import Task
from harness.errors import HarnessError
from harness.evaluation.curves import exit_indices
from harness.evaluation.metrics import pearson
from harness.evaluation.policies import Patience
from harness.measure.inference import collect
from harness.methods.stages import FitContext, FreshFit, StageRun, seed_all
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel
from harness.records import Training

CPU = torch.device("cpu")

ONE_RATE: dict[str, Recipe] = {
    "bert": Bert(learning_rates=(1e-3,), epochs=1),
    "deebert": DeeBert(
        learning_rates=(1e-3,), epochs=1, teacher=Bert(learning_rates=(1e-3,), epochs=1)
    ),
    "pabee": Pabee(learning_rates=(1e-3,), epochs=1),
}


def _tensors(model: MultiExitModel, beginning: str = "") -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if name.startswith(beginning)}


def _model(context: FitContext, method: Recipe, data: TaskData, backbone: Backbone) -> EncoderModel:
    model = method.fit(data, backbone, context).stage.model
    assert isinstance(model, EncoderModel)
    return model


@pytest.mark.parametrize(
    ("name", "exits"),
    [("bert", (None, None, "dense")), ("deebert", ("dense",) * 3), ("pabee", ("shared",) * 3)],
)
def test_fitted_model_has_method_exits(
    shared: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    name: str,
    exits: tuple[str | None, ...],
) -> None:
    """A fitted model has the exits and the config of `build`."""
    model = _model(shared, ONE_RATE[name], few_rows, micro)
    build = ONE_RATE[name].build(micro, few_rows.task)
    assert model.config == build.config
    assert model.config.exits == exits
    assert not same_weights(_tensors(model), _tensors(build))


@pytest.mark.parametrize("name", ["bert", "deebert", "pabee"])
def test_fit_uses_named_stages(
    shared: FitContext, few_rows: TaskData, micro: Backbone, name: str
) -> None:
    """The stages of a fit are those in the method's revisions."""
    fitted = ONE_RATE[name].fit(few_rows, micro, shared)
    assert {use.report.name for use in fitted.stage.uses()} == set(ONE_RATE[name].revisions())
    assert fitted.trials == ()


def test_deebert_last_exit_equals_bert(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """DeeBERT's last exit equals BERT's, to the last bit."""
    bert = collect(_model(shared, ONE_RATE["bert"], few_rows, micro), few_rows.dev, 16, CPU)
    deebert = collect(_model(shared, ONE_RATE["deebert"], few_rows, micro), few_rows.dev, 16, CPU)
    assert np.array_equal(deebert.logits[-1], bert.logits[0])
    assert not np.array_equal(deebert.logits[0], bert.logits[0])


def test_deebert_trains_new_exits_only(
    shared: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """DeeBERT trains only the new exits."""
    first, second = (
        _model(shared, ONE_RATE[name], few_rows, micro) for name in ("bert", "deebert")
    )
    for beginning in ("embedding.", "layers.", "exits.2."):
        assert same_weights(_tensors(first, beginning), _tensors(second, beginning))
    last = exit_heads(first)[0].pooler
    assert last is not None
    for head in exit_heads(second)[:-1]:
        assert head.pooler is not None
        assert not torch.equal(head.pooler.weight, last.weight)
        assert head.classifier.bias.abs().min() > 0


@dataclass
class Seen:
    """Arguments and initial states of each training."""

    models: list[EncoderModel]
    trained: list[set[str]]
    start: list[dict[str, Tensor]]
    rows: list[Split]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    noted = Seen([], [], [], [])

    def watched(
        model: EncoderModel,
        loss: Loss,
        rows: Split,
        score: Score,
        schedule: Schedule,
        run: StageRun,
    ) -> Training:
        noted.models.append(model)
        noted.trained.append(
            {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        )
        noted.start.append({name: value.clone() for name, value in model.state_dict().items()})
        noted.rows.append(rows)
        return train(model, loss, rows, score, schedule, run)

    monkeypatch.setattr(finetune, "train", watched)
    return noted


def test_deebert_poolers_start_from_last(
    context: FitContext, few_rows: TaskData, micro: Backbone, seen: Seen
) -> None:
    """DeeBERT's new poolers start from the last exit's; its classifiers are fresh."""
    ONE_RATE["deebert"].fit(few_rows, micro, context)
    _, start = seen.start
    for kind in ("weight", "bias"):
        assert all(
            torch.equal(start[f"exits.{exit_}.pooler.{kind}"], start[f"exits.2.pooler.{kind}"])
            for exit_ in (0, 1)
        )
    assert len({float(start[f"exits.{exit_}.classifier.weight"].sum()) for exit_ in (0, 1, 2)}) == 3
    everything, new = seen.trained
    assert everything == {name for name, _ in seen.models[0].named_parameters()}
    assert new == {name for name in start if name.startswith(("exits.0.", "exits.1."))}


@pytest.mark.parametrize("name", ["bert", "deebert", "pabee"])
def test_methods_train_on_training_rows(
    context: FitContext, few_rows: TaskData, micro: Backbone, seen: Seen, name: str
) -> None:
    """Methods train only on training rows."""
    ONE_RATE[name].fit(few_rows, micro, context)
    assert all(rows is few_rows.train for rows in seen.rows)


@pytest.mark.parametrize(("name", "weights"), [("bert", (1.0,)), ("pabee", (1 / 6, 2 / 6, 3 / 6))])
def test_exit_loss_weights_match_papers(
    context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    weights: tuple[float, ...],
) -> None:
    """Weights of the exits' losses are those of the papers."""
    stages: list[FineTune] = []
    plain = FineTune.fit

    def watched(
        self: FineTune,
        parents: tuple[MultiExitModel, ...],
        data: TaskData,
        backbone: Backbone,
        run: StageRun,
    ) -> FreshFit:
        stages.append(self)
        return plain(self, parents, data, backbone, run)

    monkeypatch.setattr(FineTune, "fit", watched)
    ONE_RATE[name].fit(few_rows, micro, context)
    (stage,) = stages
    assert stage.weights == pytest.approx(weights)


def _first_loss(
    context: FitContext, method: Recipe, data: TaskData, backbone: Backbone
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the loss of an epoch at a negligible learning rate, the logits and the labels."""
    still = replace(backbone, shape=replace(backbone.shape, dropout=0.0))
    fitted = method.fit(data, still, context)
    trace = collect(fitted.stage.model, data.train, 16, CPU)
    return fitted.stage.stored.report.final_loss, trace.logits.astype(np.float64), trace.labels


def _cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return cross-entropies [e] by the definition."""
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(probabilities[:, np.arange(len(labels)), labels.astype(int)]).mean(-1)


def test_losses_match_the_papers(context: FitContext, few_rows: TaskData, micro: Backbone) -> None:
    """The minimised losses are those of the papers.

    At a learning rate of 1e-12 the mean loss of an epoch equals the final model's loss."""
    still = {"learning_rates": (1e-12,), "epochs": 1, "batch_size": 16}
    spread = replace(micro, name="spread")
    bert = Bert(**still)
    loss, logits, labels = _first_loss(context, bert, few_rows, spread)
    assert loss == pytest.approx(_cross_entropies(logits, labels)[0], abs=1e-6)
    loss, logits, labels = _first_loss(context, Pabee(**still), few_rows, spread)
    assert loss == pytest.approx(
        float(np.average(_cross_entropies(logits, labels), weights=(1, 2, 3))), abs=1e-6
    )
    loss, logits, labels = _first_loss(context, DeeBert(**still, teacher=bert), few_rows, spread)
    assert loss == pytest.approx(_cross_entropies(logits, labels)[:2].sum(), abs=1e-6)


@pytest.mark.parametrize("name", ["deebert", "pabee"])
def test_single_layer_has_no_early_exit(micro: Backbone, name: str) -> None:
    """A backbone of one layer cannot have exits before the last."""
    single = replace(micro, shape=replace(micro.shape, heads=(4,), ffn=(64,)))
    with pytest.raises(HarnessError) as caught:
        ONE_RATE[name].resolved(single)
    assert_message(caught, type(ONE_RATE[name]).__name__, "micro")
    Bert().resolved(single)


@pytest.fixture(scope="module")
def similarity(few_rows: TaskData) -> TaskData:
    """A regression task with labels from 0 to 5.

    Each example has 12 words, 7 or 8; the label is five times the share of 7.
    """
    task = Task("similarity", (), (), ("pearson", "spearman"), None, scale=5.0)
    draw = np.random.default_rng(6)

    def scored(split: Split) -> Split:
        sevens = draw.integers(0, 13, len(split))
        ids = tuple(np.where(np.arange(12) < count, 7, 8).astype(np.int32) for count in sevens)
        return replace(
            split,
            labels=5 * sevens / 12,
            tokens=Tokens(ids, tuple(np.zeros_like(row) for row in ids), 0),
        )

    splits = {name: scored(split) for name, split in few_rows.splits().items()}
    return replace(few_rows, task=task, data_fingerprint="similarity", **splits)


def test_pabee_scales_squared_errors(
    context: FitContext, similarity: TaskData, micro: Backbone
) -> None:
    """PABEE minimises squared errors in units of the scale."""
    method = Pabee(learning_rates=(1e-12,), epochs=1, batch_size=16)
    loss, logits, labels = _first_loss(context, method, similarity, micro)
    assert logits.shape == (3, 48, 1)
    errors = ((logits[..., 0] / 5 - labels / 5) ** 2).mean(-1)
    assert loss == pytest.approx(float(np.average(errors, weights=(1, 2, 3))), abs=1e-6)


def test_pabee_regression_exits_by_patience(
    context: FitContext, similarity: TaskData, micro: Backbone
) -> None:
    """PABEE learns a regression in label units, and examples exit by patience."""
    method = Pabee(learning_rates=(5e-3,), epochs=5, batch_size=8)
    fitted = method.fit(similarity, micro, context)
    trace = collect(fitted.stage.model, similarity.train, 16, CPU)
    predictions = trace.predictions()[-1]
    assert pearson(predictions.astype(np.float64), trace.labels) > 0.9
    assert predictions.mean() == pytest.approx(trace.labels.mean(), abs=1.0)
    selection = fitted.stage.stored.report.selection
    assert len(selection) == 5
    assert all(-1 <= score <= 1 for score in selection)
    change = np.abs(np.diff(trace.predictions(), axis=0)[0])
    tolerance = float(np.median(change)) + 1e-7
    (exits,) = exit_indices(Patience(tolerance=tolerance), trace.logits, np.array([1.0]))
    assert exits.tolist() == np.where(change < tolerance, 1, 2).tolist()
    assert set(exits) == {1, 2}


def test_regression_selection_uses_first_metric(
    context: FitContext, similarity: TaskData, micro: Backbone
) -> None:
    """Selection of a regression uses its first metric."""
    fitted = Bert(learning_rates=(1e-3,), epochs=2).fit(similarity, micro, context)
    report = fitted.stage.stored.report
    trace = collect(fitted.stage.model, similarity.selection, 16, CPU)
    expected = np.corrcoef(trace.predictions()[0], trace.labels)[0, 1]
    assert (
        max(report.selection)
        == report.selection[report.best_epoch - 1]
        == pytest.approx(expected, abs=1e-4)
    )


def test_deebert_fits_a_regression(
    context: FitContext, similarity: TaskData, micro: Backbone
) -> None:
    """DeeBERT fits a regression too."""
    trace = collect(
        _model(context, ONE_RATE["deebert"], similarity, micro), similarity.dev, 16, CPU
    )
    assert trace.logits.shape == (3, 48, 1)


def test_fixed_run_keeps_its_numbers(context: FitContext, tmp_path: Path) -> None:
    """One small fixed run keeps its numbers, which are our own.

    They change only if a stage's revision is raised, which makes new stages and runs."""
    data, backbone = fixed_data(), FIXED
    schedule = Schedule(
        epochs=3,
        batch_size=8,
        learning_rate=3e-3,
        warmup=0.1,
        weight_decay=0.01,
        clip=1.0,
        accumulation=1,
    )

    def fit(stage: FineTune | AddExits, *parents: MultiExitModel) -> FreshFit:
        seed = seed_all(1, stage.name)
        scratch = tmp_path / stage.name
        scratch.mkdir()
        return stage.fit(
            parents, data, backbone, StageRun(context.compute, "a cell", stage.name, seed, scratch)
        )

    bert = fit(FineTune("fine-tune", (None, None, "dense"), (1.0,), schedule))
    deebert = fit(AddExits("deebert-exits", "dense", schedule), bert.model)
    pabee = fit(FineTune("pabee-joint", ("shared",) * 3, (1 / 6, 2 / 6, 3 / 6), schedule))
    reached = [fresh.training.final_loss for fresh in (bert, deebert, pabee)]
    assert (FineTune.revision, AddExits.revision) == (2, 2)
    assert reached == pytest.approx([0.660318, 1.377090, 0.674731], abs=1e-4)
