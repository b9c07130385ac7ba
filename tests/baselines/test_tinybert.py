"""TinyBERT: the student's shape, the layer mapping, the switches, and what runs once."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.messages import assert_message, names_in_order
from support.synthetic import write_bert
from support.trainings import make_run, make_schedule, same_weights, weights_of
from torch import Tensor
from torch.nn import functional

from baselines import tinybert
from baselines.bert import Bert
from baselines.distillation import masked_lm, stages
from baselines.distillation.augmentation import AUGMENTATION_REVISION
from baselines.distillation.stages import PredictionDistillation
from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.tinybert import (
    TINYBERT,
    TINYBERT_6L,
    TINYBERT_HALF,
    TINYBERT_PAPER,
    IntermediateDistillation,
    IntermediateLosses,
    ProjectedStudent,
    TinyBert,
    intermediate_loss,
    layer_map,
    smaller,
)
from baselines.training.loop import Examples, train
from baselines.training.recipe import Schedule
from baselines.training.steps import limit_steps
from harness.data.corpus import Corpus
from harness.data.dataset import TaskData
from harness.data.tasks import TASKS
from harness.errors import HarnessError
from harness.measure.macs import piece_costs
from harness.methods.protocol import ExternalInputs
from harness.methods.stages import FitContext, Fitted
from harness.models.backbones import BACKBONES, Backbone, find_backbone
from harness.models.shapes import bert_shape
from harness.records import Training

CPU = torch.device("cpu")
QUICK = TinyBert(
    layers=2 / 3,
    width=1 / 2,
    ffn=1 / 2,
    general_epochs=1,
    intermediate_steps=2,
    prediction_steps=2,
    augmentation=2,
    learning_rates=(1e-3,),
)


@pytest.fixture
def small_context(context: FitContext) -> FitContext:
    """A context with the smallest corpus allowed."""
    return replace(context, corpus=Corpus(limit=40))


def names(fit: Fitted) -> list[str]:
    return [use.report.name for use in fit.uses()]


# --- the student's shape


@pytest.mark.parametrize(
    ("method", "backbone", "layers", "hidden", "ffn"),
    [
        (TINYBERT, "bert-base-uncased", 4, 312, 1200),
        (TINYBERT_6L, "bert-base-uncased", 6, 768, 3072),
        (TINYBERT, "minilm", 2, 156, 600),
        (TINYBERT_HALF, "minilm", 4, 192, 768),
    ],
)
def test_presets_are_shares_of_backbone(
    method: TinyBert, backbone: str, layers: int, hidden: int, ffn: int
) -> None:
    """The shapes of presets are shares of the backbone's."""
    found = BACKBONES[backbone]
    shape = smaller(found.shape, method.layers, method.width, method.ffn)
    assert (shape.layers, shape.hidden, set(shape.ffn), set(shape.heads)) == (
        layers,
        hidden,
        {ffn},
        {12},
    )
    assert shape.head_size * 12 == hidden


@pytest.mark.parametrize(
    ("method", "millions", "gmacs"), [(TINYBERT, 14.35, 0.624), (TINYBERT_6L, 66.96, 5.587)]
)
def test_bert_base_presets_match_paper(method: TinyBert, millions: float, gmacs: float) -> None:
    """Presets of BERT-base have the published parameters and MACs.

    The counts are for two labels, with the pooler, at 128 tokens."""
    with torch.device("meta"):
        model = method.build(BACKBONES["bert-base-uncased"], TASKS["sst2"])
    assert model.parameter_count() / 1e6 == pytest.approx(millions, abs=0.006)
    layers = len(model.layers)
    assert piece_costs(model).static(layers - 1, 128) / 1e9 == pytest.approx(gmacs, abs=0.0006)


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        (4, 12, (3, 6, 9, 12)),
        (6, 12, (2, 4, 6, 8, 10, 12)),
        (4, 6, (1, 3, 4, 6)),
        (2, 6, (3, 6)),
        (3, 3, (1, 2, 3)),
    ],
)
def test_layer_map_spreads_evenly(student: int, teacher: int, layers: tuple[int, ...]) -> None:
    """The teacher's layers are spread evenly, and the last learns from the last.

    The first two cases are the paper's, 3m and 2m."""
    assert layer_map(student, teacher) == layers


# --- predictions


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_last_phase_learns_predictions(
    soft: bool,
    task: str,
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last phase learns the teacher's predictions or the labels."""
    losses: list[Callable[[EncoderModel, Examples], Tensor]] = []

    def train(
        model: EncoderModel, loss: Callable[[EncoderModel, Examples], Tensor], *_: object
    ) -> Training:
        losses.append(loss)
        return Training(1, 1, 0.0, 0.0, (), 1)

    monkeypatch.setattr(stages, "train", train)
    data = replace(few_rows, task=TASKS[task])
    shape = smaller(micro.shape, 2 / 3, 1 / 2, 1 / 2)
    config = ModelConfig(
        micro.shape, "mean", data.task.classes, data.task.scale, (None, None, "dense")
    )
    teacher = EncoderModel(config).eval()
    fit = PredictionDistillation(
        "prediction", shape, "dense", float(soft), 1.0, None, make_schedule()
    ).fit((teacher,), data, micro, make_run(tmp_path / "s"))
    student = fit.model.eval()
    assert isinstance(student, EncoderModel)
    examples = Examples.of(data.train, torch.arange(8).numpy(), CPU)
    with torch.no_grad():
        logits, teacher_logits, labels = (
            student(examples.batch).logits[-1],
            teacher(examples.batch).logits[-1],
            examples.labels,
        )
        if task == "stsb":
            expected = (
                ((logits[:, 0] - (teacher_logits[:, 0] if soft else labels)) / 5).square().mean()
            )
        else:
            given = (
                teacher_logits.softmax(-1) if soft else functional.one_hot(labels.long(), 2).float()
            )
            expected = -(given * logits.log_softmax(-1)).sum(-1).mean()
        torch.testing.assert_close(losses[0](student, examples), expected)


@pytest.mark.parametrize(
    ("steps", "rows", "epochs"),
    [(1, 16, 1), (2, 32, 2), (3, 48, 3), (6, 48, 6), (7, 48, 7), (11, 48, 1), (100, 48, 10)],
)
def test_step_bound_makes_equal_epochs(
    few_rows: TaskData, steps: int, rows: int, epochs: int
) -> None:
    """A bound on steps is met exactly, in equal epochs.

    Of 48 examples, 16 a step, each is used equally often, to within one."""
    schedule = make_schedule(epochs=3)
    found = limit_steps(few_rows.train, schedule, steps)
    assert (len(found.rows), found.schedule.epochs, len(found.parts)) == (rows, epochs, epochs)
    assert sum(schedule.steps(len(part)) for part in found.parts) == steps
    counts = Counter(id_ for part in found.parts for id_ in part.ids.tolist())
    assert set(counts) == set(found.rows.ids.tolist())
    assert max(counts.values()) - min(counts.values()) <= 1
    again = limit_steps(few_rows.train, schedule, steps)
    assert [part.ids.tolist() for part in again.parts] == [
        part.ids.tolist() for part in found.parts
    ]


def test_unbounded_epochs_have_all_rows(few_rows: TaskData) -> None:
    """Without a bound every epoch has all rows."""
    found = limit_steps(few_rows.train, make_schedule(epochs=3), None)
    assert found.parts == (few_rows.train,) * 3
    assert found.schedule.epochs == 3


# --- the method


def test_phases_chain_and_share_pretraining(
    small_context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Each phase starts from the one before, and pre-training runs once."""
    fits = [QUICK.fit(few_rows, micro, replace(small_context, seed=seed)) for seed in (2, 3)]
    assert [names(fit) for fit in fits] == [
        ["masked-lm", "general", "fine-tune", "intermediate", "prediction"]
    ] * 2
    keys = [[use.report.key for use in fit.uses()] for fit in fits]
    assert keys[0][:2] == keys[1][:2]
    assert all(len({one, other}) == 2 for one, other in list(zip(*keys, strict=True))[2:])
    assert (fits[0].stage.weights().loaded, len(fits[0].stage.weights().fresh)) == (0, 1)
    bert = Bert(learning_rates=QUICK.teacher.learning_rates).fit(
        few_rows, micro, replace(small_context, seed=2)
    )
    assert bert.stage.key == keys[0][2]
    rows = [use.report.rows for use in fits[0].uses()]
    assert rows[3:] == [64, 64]  # two steps of 32 augmented examples, more than the task has


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"general": False}, ["masked-lm", "fine-tune", "intermediate", "prediction"]),
        (
            {"attention": False, "hidden": False, "embedding": False},
            ["masked-lm", "fine-tune", "prediction"],
        ),
        ({"augmentation": 0}, ["general", "fine-tune", "intermediate", "prediction"]),
        (
            {"prediction": False},
            ["masked-lm", "general", "fine-tune", "intermediate", "prediction"],
        ),
        ({"attention": False}, ["masked-lm", "general", "fine-tune", "intermediate", "prediction"]),
        ({"hidden": False}, ["masked-lm", "general", "fine-tune", "intermediate", "prediction"]),
        ({"embedding": False}, ["masked-lm", "general", "fine-tune", "intermediate", "prediction"]),
    ],
    ids=str,
)
def test_each_switch_changes_its_stages(
    small_context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    change: dict[str, bool],
    stages: list[str],
) -> None:
    """Each switch changes only the stages that depend on it."""
    method = replace(QUICK, **change)
    fit = method.fit(few_rows, micro, small_context)
    assert names(fit) == stages
    default = QUICK.fit(few_rows, micro, small_context)
    assert not same_weights(weights_of(fit.stage.model), weights_of(default.stage.model))
    same = {use.report.key for use in fit.uses()} & {use.report.key for use in default.uses()}
    kept = {use.report.name for use in fit.uses() if use.report.key in same}
    before = {
        "general": {"masked-lm"},
        "augmentation": {"general"},
        "prediction": {"masked-lm", "general", "intermediate"},
    }
    assert kept == {"fine-tune"} | before.get(next(iter(change)), {"masked-lm"})


@dataclass
class LossCall:
    """Arguments of one call of the intermediate loss."""

    inside: IntermediateLosses
    training: tuple[bool, bool]
    """Whether the student and the teacher were in training mode."""
    rows: list[tuple[int, ...]]


@pytest.fixture
def loss_calls(monkeypatch: pytest.MonkeyPatch) -> list[LossCall]:
    """The calls of every step."""
    found: list[LossCall] = []

    def watched(
        model: ProjectedStudent,
        teacher: EncoderModel,
        inside: IntermediateLosses,
        examples: Examples,
    ) -> Tensor:
        batch = examples.batch
        rows = [tuple(row[mask].tolist()) for row, mask in zip(batch.ids, batch.mask, strict=True)]
        found.append(LossCall(inside, (model.student.training, teacher.training), rows))
        return intermediate_loss(model, teacher, inside, examples)

    monkeypatch.setattr(tinybert, "intermediate_loss", watched)
    return found


@pytest.mark.parametrize("term", ["attention", "hidden", "embedding"])
def test_disabled_term_is_never_learned(
    term: str,
    loss_calls: list[LossCall],
    small_context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
) -> None:
    """A disabled term is used in no phase, and the teacher is never in training mode."""
    replace(QUICK, **{term: False}).fit(few_rows, micro, small_context)
    assert {call.inside for call in loss_calls} == {
        IntermediateLosses(**{name: name != term for name in ("attention", "hidden", "embedding")})
    }
    assert {call.training for call in loss_calls} == {(True, False)}


@pytest.mark.slow
def test_augmented_rows_reach_the_loss(
    loss_calls: list[LossCall], small_context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    original = {tuple(row.tolist()) for row in few_rows.train.tokens.ids}
    reached = []
    for copies in (0, 2):
        replace(QUICK, general=False, intermediate_steps=10, augmentation=copies).fit(
            few_rows, micro, small_context
        )
        reached.append({row for call in loss_calls for row in call.rows})
        loss_calls.clear()
    assert reached[0] == original
    assert len(reached[1] - original) > len(original)


def test_learning_rates_follow_authors(
    small_context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate is constant in intermediate-layer distillation on the task, and decays elsewhere.

    The authors' code has schedule "none" there, and warm-up and decay in the other phases."""
    found: dict[str, Schedule] = {}

    def watched(*arguments: Any) -> Training:
        schedule, run = arguments[-2:]
        found[run.stage] = schedule
        return train(*arguments)

    for module in (tinybert, stages):
        monkeypatch.setattr(module, "train", watched)
    replace(QUICK, general_rate=3e-3, general_batch=8, intermediate_rate=2e-3).fit(
        few_rows, micro, small_context
    )
    rates = {
        name: (one.learning_rate, one.batch_size, one.warmup, one.decay)
        for name, one in found.items()
    }
    assert rates == {
        "general": (3e-3, 8, 0.1, True),
        "intermediate": (2e-3, 32, 0.0, False),
        "prediction": (1e-3, 32, 0.1, True),
    }


def test_paper_preset_has_papers_schedule() -> None:
    """The preset of the paper has the paper's schedule.

    Section 4.2 and the authors' README have 20 passes over the augmented examples, then 3, and 256
    examples a step of general distillation."""
    method = TINYBERT_PAPER
    assert (method.general_epochs, method.general_batch, method.general_rate) == (3, 256, 5e-5)
    assert (method.intermediate_steps, method.intermediate_epochs, method.intermediate_rate) == (
        None,
        20,
        5e-5,
    )
    assert (method.prediction_steps, method.epochs, method.learning_rates) == (
        None,
        3,
        (1e-5, 2e-5, 3e-5),
    )
    assert (method.augmentation, method.replaced, method.candidates) == (20, 0.4, 15)
    assert replace(TINYBERT, head="plain").build(BACKBONES["minilm"], TASKS["sst2"]).config == (
        replace(method, head="plain").build(BACKBONES["minilm"], TASKS["sst2"]).config
    )


def test_inaccurate_head_is_remarked(
    small_context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inaccurate masked-LM head is noted in the record if words are replaced."""
    poor, none = (
        method.fit(few_rows, micro, small_context)
        for method in (QUICK, replace(QUICK, augmentation=0))
    )
    accuracy = max(poor.uses()[0].report.selection)
    (remark,) = poor.remarks
    assert names_in_order(remark, "augmentation", f"{accuracy:.3f}", "0.30")
    assert none.remarks == ()
    monkeypatch.setattr(masked_lm, "MIN_MASKED_ACCURACY", 0.0)
    assert QUICK.fit(few_rows, micro, small_context).remarks == ()


def test_unneeded_corpus_is_not_read(
    context: FitContext, few_rows: TaskData, micro: Backbone, tmp_path: Path
) -> None:
    """Without general distillation and augmentation the corpus is not read."""
    method = replace(QUICK, general=False, augmentation=0)
    assert [each.external_inputs() for each in (method, QUICK, replace(QUICK, general=False))] == [
        ExternalInputs(),
        ExternalInputs(True, True),
        ExternalInputs(True, True),
    ]
    fit = method.fit(few_rows, micro, replace(context, corpus=Corpus((tmp_path / "absent",))))
    assert fit.stage.model.exit_layers == [2]


def test_regression_runs_to_its_end(
    small_context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """A regression is fitted with finite losses."""
    labels = torch.arange(48).numpy() / 10
    data = replace(
        few_rows,
        task=TASKS["stsb"],
        train=replace(few_rows.train, labels=labels),
        data_fingerprint="0 to 5",
    )
    fit = QUICK.fit(data, micro, small_context)
    assert all(use.report.final_loss < 100 for use in fit.stage.uses())


def test_published_student_replaces_general_distillation(
    small_context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A published student replaces general distillation."""
    small = replace(micro, name="small", shape=bert_shape(2, 16, 4, 24, micro.shape.vocabulary, 64))
    monkeypatch.setitem(BACKBONES, "small", small)
    method = replace(QUICK, checkpoint="small")
    fit = method.fit(few_rows, micro, small_context)
    assert names(fit) == ["masked-lm", "start", "fine-tune", "intermediate", "prediction"]
    assert isinstance(fit.stage.model, EncoderModel)
    assert fit.stage.model.config.shape == small.shape
    monkeypatch.setitem(
        BACKBONES,
        "small",
        replace(small, shape=bert_shape(2, 16, 2, 24, micro.shape.vocabulary, 64)),
    )
    with pytest.raises(HarnessError) as caught:
        method.resolved(micro)
    assert_message(caught, 2, "micro", 4)
    foreign = find_backbone(str(write_bert(tmp_path / "foreign")))
    monkeypatch.setitem(
        BACKBONES,
        "small",
        replace(small, shape=bert_shape(2, 16, 2, 24, micro.shape.vocabulary, 64)),
    )
    with pytest.raises(HarnessError) as caught:
        method.fit(few_rows, foreign, small_context)
    assert_message(caught, "small", "foreign")


def test_fixed_run_keeps_its_numbers(
    small_context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """One small fixed run keeps its numbers, which are our own.

    They change only with a stage's revision or the demo's texts."""
    method = replace(
        QUICK, intermediate_steps=6, prediction_steps=6, teacher=Bert(learning_rates=(1e-3,))
    )
    fit = method.fit(few_rows, micro, small_context)
    assert (
        IntermediateDistillation.revision,
        PredictionDistillation.revision,
        AUGMENTATION_REVISION,
    ) == (2, 1, 2)
    losses = {use.report.name: use.report.final_loss for use in fit.uses()}
    assert losses == pytest.approx(
        {
            "masked-lm": 3.580554,
            "general": 4.666869,
            "fine-tune": 0.662052,
            "intermediate": 4.140733,
            "prediction": 0.653073,
        },
        abs=1e-3,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 0.0},
        {"width": 1.5},
        {"ffn": -1.0},
        {"replaced": 0.0},
        {"augmentation": -1},
        {"candidates": 0},
        {"general_epochs": 0},
        {"intermediate_epochs": 0},
        {"intermediate_steps": -1},
        {"prediction_steps": -1},
        {"general_rate": 0.0},
        {"intermediate_rate": 0.0},
        {"checkpoint": "/a/folder"},
    ],
    ids=str,
)
def test_out_of_range_values_are_refused(change: dict[str, float]) -> None:
    """Values out of range are refused."""
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(TinyBert(), **change)
