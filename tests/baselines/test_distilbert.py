"""DistilBERT: the student, its losses, and what runs once for all tasks and seeds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.drawing import stage_folders
from support.messages import assert_message, names_in_order
from support.synthetic import BERT_WORDS, write_bert
from support.trainings import make_model, make_run, make_schedule, same_weights, weights_of
from torch import Tensor
from torch.nn import functional
from transformers import DistilBertConfig, DistilBertForMaskedLM

from baselines import distilbert
from baselines.bert import Bert
from baselines.distilbert import DistilBert, MaskedLmDistillation
from baselines.distillation import masked_lm, stages
from baselines.distillation.masked_lm import Masked, MaskedLm, mask_tokens, masked_logits
from baselines.distillation.stages import PredictionDistillation
from baselines.distillation.students import every_other, take_layers
from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.encoders.weights import pretrained
from baselines.training.loop import Examples
from baselines.training.losses import cosine_loss
from harness.data.corpus import Corpus
from harness.data.dataset import TaskData
from harness.data.tasks import TASKS
from harness.errors import HarnessError
from harness.measure.macs import piece_costs
from harness.methods.protocol import ExternalInputs
from harness.methods.stages import FitContext, Fitted, FittedStage, Stage
from harness.models.backbones import BACKBONES, Backbone, find_backbone
from harness.models.batches import collate
from harness.models.multi_exit import Batch
from harness.records import StageUse, Training

CPU = torch.device("cpu")
QUICK = DistilBert(pretraining_epochs=1, learning_rates=(1e-3,))


@pytest.fixture
def small_context(context: FitContext) -> FitContext:
    """A context with the smallest corpus allowed."""
    return replace(context, corpus=Corpus(limit=40))


def names(fit: Fitted) -> list[str]:
    return [use.report.name for use in fit.stage.uses()]


# --- the student


@pytest.mark.parametrize(
    ("layers", "share", "kept"),
    [
        (12, 1 / 2, (0, 2, 4, 7, 9, 11)),
        (6, 1 / 2, (0, 2, 5)),
        (6, 1.0, (0, 1, 2, 3, 4, 5)),
        (12, 1 / 3, (0, 4, 7, 11)),
        (3, 0.1, (0,)),
    ],
)
def test_kept_layers_are_spread_evenly(layers: int, share: float, kept: tuple[int, ...]) -> None:
    """Layers are spread evenly from first to last.

    The first case is that of the authors' script (extract_distilbert.py)."""
    assert every_other(layers, share) == kept


def test_student_of_bert_base_matches_paper() -> None:
    """The student of BERT-base has the published parameters and half the MACs.

    66.36 M without pooler and classifier; a layer of BERT-base is 931,135,488 MACs at 128 tokens.
    """
    with torch.device("meta"):
        model = DistilBert(head="plain").build(BACKBONES["bert-base-uncased"], TASKS["sst2"])
    assert model.parameter_count() - (2 * 768 + 2) == 66_362_880
    costs = piece_costs(model)
    assert costs.static(5, 128) == 6 * 931_135_488 + 2 * 768


def test_encoder_equals_library_distilbert(tmp_path: Path) -> None:
    """The encoder and the masked-LM head equal the library's DistilBERT.

    The random weights are in files that the library wrote."""
    torch.manual_seed(3)
    config = DistilBertConfig(
        vocab_size=len(BERT_WORDS),
        dim=12,
        n_heads=3,
        n_layers=2,
        hidden_dim=20,
        max_position_embeddings=40,
    )
    library = DistilBertForMaskedLM(config).eval()
    for parameter in library.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = write_bert(tmp_path / "distil")
    library.save_pretrained(folder)
    backbone = find_backbone(str(folder))
    model, report = pretrained(
        backbone, ModelConfig(backbone.shape, "cls", 2, 1.0, (None, "plain"), masked_lm=True)
    )
    mask = torch.arange(9) < torch.tensor([9, 5, 2])[:, None]
    ids = torch.randint(5, len(BERT_WORDS), (3, 9)).masked_fill(~mask, 0)
    batch = Batch(ids, torch.ones_like(ids), mask)  # token types are ignored
    with torch.no_grad():
        expected = library(ids, mask.long(), output_hidden_states=True)
        found = model.eval()(batch)
        words = masked_logits(model, found.hiddens[-1], Masked(batch, mask, ids[mask]))
    for hidden, expected_hidden in zip(found.hiddens, expected.hidden_states, strict=True):
        torch.testing.assert_close(hidden[mask], expected_hidden[mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(words, expected.logits[mask], atol=1e-5, rtol=1e-5)
    assert report.left_out == ()
    assert report.fresh == ("exits.1.classifier.bias", "exits.1.classifier.weight")


def test_student_starts_from_teacher_layers(micro: Backbone) -> None:
    """The student starts from the teacher's layers and its embedding of a single text."""
    config = ModelConfig(micro.shape, "mean", 2, 1.0, (None, None, "plain"), masked_lm=True)
    teacher = EncoderModel(config).eval()
    student = take_layers(teacher, (0, 2)).eval()
    assert student.config.shape.token_types == 0
    assert same_weights(weights_of(student.layers[1]), weights_of(teacher.layers[2]))
    assert student.masked_lm is not None and teacher.masked_lm is not None
    assert same_weights(weights_of(student.masked_lm), weights_of(teacher.masked_lm))
    ids = torch.randint(5, 30, (2, 7))
    batch = Batch(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
    with torch.no_grad():
        one, other = student(batch).hiddens, teacher(batch).hiddens
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])


# --- losses


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[EncoderModel, Examples], Tensor]]:
    """The losses with which the stages train."""
    losses: list[Callable[[EncoderModel, Examples], Tensor]] = []

    def train(
        model: EncoderModel, loss: Callable[[EncoderModel, Examples], Tensor], *_: object
    ) -> Training:
        losses.append(loss)
        return Training(1, 1, 0.0, 0.0, (), 1)

    for module in (stages, distilbert):
        monkeypatch.setattr(module, "train", train)
    return losses


@pytest.mark.parametrize(
    "weights", [(5.0, 2.0, 1.0), (1.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 2.0)]
)
def test_word_loss_is_weighted_sum(
    caught: list[Callable[[EncoderModel, Examples], Tensor]],
    weights: tuple[float, float, float],
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
) -> None:
    """The pre-training loss is the weighted sum of three formulas.

    They are T^2 cross-entropy of softened predictions, cross-entropy of the words, and 1 - cosine
    of the last hidden states."""
    teacher = EncoderModel(
        ModelConfig(micro.shape, "mean", 2, 1.0, (None, None, "plain"), masked_lm=True)
    ).eval()
    fit = MaskedLmDistillation("distil", (0, 2), *weights, 2.0, make_schedule()).fit(
        (teacher,), few_rows, micro, make_run(tmp_path / "s")
    )
    student = fit.model
    assert isinstance(student, EncoderModel)
    student.eval()
    examples = Examples.of(few_rows.train, torch.arange(8).numpy(), CPU)
    torch.manual_seed(4)
    value = caught[0](student, examples)
    torch.manual_seed(4)
    masked = mask_tokens(examples.batch, masked_lm.Pieces.of(micro))
    x, y = student(masked.batch).hiddens[-1], teacher(masked.batch).hiddens[-1]
    student_logits, teacher_logits = (
        masked_logits(student, x, masked),
        masked_logits(teacher, y, masked),
    )
    p, q = (teacher_logits / 2).softmax(-1), (student_logits / 2).softmax(-1)
    soft = -4 * (p * q.log()).sum(-1).mean()
    hard = -student_logits.softmax(-1)[range(len(masked.targets)), masked.targets].log().mean()
    real = examples.batch.mask
    angle = 1 - ((x * y).sum(-1) / x.norm(dim=-1) / y.norm(dim=-1))[real].mean()
    torch.testing.assert_close(
        value, weights[0] * soft + weights[1] * hard + weights[2] * angle, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_fine_tuning_mixes_teacher_and_labels(
    caught: list[Callable[[EncoderModel, Examples], Tensor]],
    task: str,
    micro: Backbone,
    few_rows: TaskData,
    tmp_path: Path,
) -> None:
    """The loss mixes the teacher's predictions and the labels."""
    data = replace(few_rows, task=TASKS[task])
    start, classes, scale = make_model(micro), data.task.classes, data.task.scale
    teacher = EncoderModel(
        ModelConfig(micro.shape, "mean", classes, scale, (None, None, "dense"))
    ).eval()
    fit = PredictionDistillation(
        "taught", micro.shape, "dense", 0.25, 2.0, None, make_schedule()
    ).fit((start, teacher), data, micro, make_run(tmp_path / "s"))
    student, index = fit.model.eval(), torch.arange(8).numpy()
    assert isinstance(student, EncoderModel)
    examples = Examples.of(data.train, index, CPU)
    with torch.no_grad():
        student_logits, teacher_logits = (
            student(examples.batch).logits[-1],
            teacher(collate(data.train.tokens, index)).logits[-1],
        )
        if task == "stsb":
            soft, hard = (
                ((student_logits - teacher_logits) / 5).square().mean(),
                ((student_logits[:, 0] - examples.labels) / 5).square().mean(),
            )
        else:
            p, q = (teacher_logits / 2).softmax(-1), (student_logits / 2).softmax(-1)
            soft, hard = (
                -4 * (p * q.log()).sum(-1).mean(),
                functional.cross_entropy(student_logits, examples.labels.long()),
            )
        torch.testing.assert_close(
            caught[0](student, examples), 0.25 * soft + 0.75 * hard, atol=1e-5, rtol=1e-5
        )


# --- the method


def test_pretraining_runs_once_for_all(
    small_context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """Pre-training runs once for all tasks and seeds."""
    other_task = replace(few_rows, data_fingerprint="other")
    fits = [
        QUICK.fit(data, micro, replace(small_context, seed=seed))
        for data, seed in ((few_rows, 2), (few_rows, 3), (other_task, 2))
    ]
    assert [names(fit) for fit in fits] == [["masked-lm", "distil-cosine", "fine-tune"]] * 3
    keys = [[use.report.key for use in fit.stage.uses()] for fit in fits]
    assert keys[0][:2] == keys[1][:2] == keys[2][:2]
    assert len({key[2] for key in keys}) == 3
    assert len(stage_folders(small_context.cache)) == 5


def test_inaccurate_head_is_not_distilled(
    small_context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predictions of an inaccurate masked-LM head are not used.

    The record has the stage's name and the accuracy."""
    fitted = QUICK.fit(few_rows, micro, small_context)
    monkeypatch.setattr(masked_lm, "MIN_MASKED_ACCURACY", 0.0)
    rich = QUICK.fit(few_rows, micro, small_context)

    def distilled(fit: Fitted) -> StageUse:
        return fit.stage.uses()[1]

    assert (distilled(fitted).report.name, distilled(fitted).report.selection) == (
        "distil-cosine",
        (),
    )
    assert (distilled(rich).report.name, len(distilled(rich).report.selection)) == ("distil", 1)
    accuracy = max(fitted.stage.uses()[0].report.selection)
    (remark,) = fitted.remarks
    assert names_in_order(remark, f"{accuracy:.3f}", "0.30")
    assert rich.remarks == ()
    assert 0 <= fitted.stage.uses()[0].report.selection[0] < 0.3


def test_settings_set_weights_and_temperature(
    small_context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and temperature, all different, are those of the settings."""
    monkeypatch.setattr(masked_lm, "MIN_MASKED_ACCURACY", 0.0)
    stages_fitted: list[MaskedLmDistillation | PredictionDistillation] = []

    def watched(context: FitContext, stage: Stage, *rest: Any) -> FittedStage:
        if isinstance(stage, MaskedLmDistillation | PredictionDistillation):
            stages_fitted.append(stage)
        return fitted(context, stage, *rest)

    fitted = FitContext.fitted
    monkeypatch.setattr(FitContext, "fitted", watched)
    teacher = Bert(learning_rates=(1e-3,))
    method = replace(
        QUICK,
        soft=3.0,
        masked=0.5,
        cosine=0.7,
        temperature=1.5,
        task_soft=0.2,
        teacher=teacher,
        pretraining_batch=16,
    )
    method.fit(few_rows, micro, small_context)
    pretraining, prediction = stages_fitted
    assert isinstance(pretraining, MaskedLmDistillation)
    assert (
        pretraining.soft,
        pretraining.masked,
        pretraining.cosine,
        pretraining.temperature,
        pretraining.kept,
    ) == (
        3.0,
        0.5,
        0.7,
        1.5,
        (0, 2),
    )
    schedule = pretraining.schedule
    assert (schedule.epochs, schedule.batch_size, schedule.learning_rate) == (
        1,
        16,
        2e-4,
    )
    assert isinstance(prediction, PredictionDistillation)
    assert (prediction.soft, prediction.temperature, prediction.steps) == (0.2, 1.5, None)


def test_masked_lm_teacher_is_frozen(
    small_context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masked-LM teacher is frozen and without dropout."""
    states: set[tuple[bool, bool]] = set()

    def watched(student_states: Tensor, teacher_states: Tensor, mask: Tensor) -> Tensor:
        states.add((student_states.requires_grad, teacher_states.requires_grad))
        return cosine_loss(student_states, teacher_states, mask)

    modes: set[bool] = set()

    def watched_logits(model: EncoderModel, hidden: Tensor, masked: Masked) -> Tensor:
        if hidden.requires_grad is False and torch.is_grad_enabled() is False:
            modes.add(model.training)
        return masked_logits(model, hidden, masked)

    monkeypatch.setattr(distilbert, "cosine_loss", watched)
    monkeypatch.setattr(distilbert, masked_logits.__name__, watched_logits)
    monkeypatch.setattr(masked_lm, "MIN_MASKED_ACCURACY", 0.0)
    QUICK.fit(few_rows, micro, small_context)
    assert states == {(True, False)}
    assert modes == {False}


def test_no_pretraining_reads_no_corpus(
    context: FitContext, few_rows: TaskData, micro: Backbone, tmp_path: Path
) -> None:
    """Without pre-training the corpus is not read."""
    method = replace(QUICK, pretraining=False)
    assert (method.external_inputs(), QUICK.external_inputs()) == (
        ExternalInputs(),
        ExternalInputs(corpus=True),
    )
    unreadable = replace(context, corpus=Corpus((tmp_path / "absent",)))
    fit = method.fit(few_rows, micro, unreadable)
    assert names(fit) == ["start", "fine-tune"]
    assert fit.stage.model.exit_layers == [2]
    assert (fit.stage.weights().loaded, len(fit.stage.weights().fresh)) == (0, 1)


def test_teacher_is_the_reference_stage(
    context: FitContext, few_rows: TaskData, micro: Backbone
) -> None:
    """The teacher of fine-tuning is the reference's own stage."""
    plain = replace(QUICK, pretraining=False)
    bert = Bert(learning_rates=(1e-3,))
    student = replace(plain, teacher=bert).fit(few_rows, micro, context)
    assert names(student) == ["start", "fine-tune", "fine-tune-taught"]
    assert bert.fit(few_rows, micro, context).stage.key in [
        use.report.key for use in student.stage.uses()
    ]
    fine_tuned = plain.fit(few_rows, micro, context)
    assert not same_weights(weights_of(fine_tuned.stage.model), weights_of(student.stage.model))


def test_fixed_run_keeps_its_numbers(
    small_context: FitContext, few_rows: TaskData, micro: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One small fixed run keeps its numbers, which are our own.

    They change only with a stage's revision or the demo's texts."""
    monkeypatch.setattr(masked_lm, "MIN_MASKED_ACCURACY", 0.0)
    fit = replace(QUICK, teacher=Bert(learning_rates=(1e-3,))).fit(few_rows, micro, small_context)
    assert (MaskedLm.revision, MaskedLmDistillation.revision, PredictionDistillation.revision) == (
        2,
        2,
        1,
    )
    losses = {use.report.name: use.report.final_loss for use in fit.stage.uses()}
    assert losses == pytest.approx(
        {
            "masked-lm": 3.780132,
            "distil": 103.107964,
            "fine-tune": 0.662052,
            "fine-tune-taught": 1.703214,
        },
        abs=1e-3,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 0.0},
        {"layers": 1.5},
        {"checkpoint": "/a/folder"},
        {"pretraining_epochs": 0},
        {"pretraining_batch": 0},
        {"pretraining_rate": 0.0},
        {"temperature": 0.0},
        {"soft": -1.0},
        {"soft": 0.0, "masked": 0.0, "cosine": 0.0},
        {"task_soft": 1.5},
    ],
    ids=str,
)
def test_out_of_range_values_are_refused(change: dict[str, float]) -> None:
    """Values out of range are refused."""
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(DistilBert(), **change)


# --- a published student


def test_published_student_is_only_fine_tuned(
    context: FitContext,
    few_rows: TaskData,
    micro: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A published student keeps its shape and is only fine-tuned.

    Its vocabulary must be the backbone's."""
    small = replace(
        micro,
        name="small",
        shape=replace(micro.shape, heads=(2,), ffn=(16,), head_size=16, token_types=0),
    )
    monkeypatch.setitem(BACKBONES, "small", small)
    unreadable = replace(context, corpus=Corpus((tmp_path / "absent",)))
    method = replace(QUICK, checkpoint="small")
    fit = method.fit(few_rows, micro, unreadable)
    assert names(fit) == ["start", "fine-tune"]
    model = fit.stage.model
    assert isinstance(model, EncoderModel)
    assert model.config.shape == small.shape
    assert method.build(micro, few_rows.task).parameter_count() == model.parameter_count()
    foreign = find_backbone(str(write_bert(tmp_path / "foreign")))
    with pytest.raises(HarnessError) as caught:
        method.fit(few_rows, foreign, unreadable)
    assert_message(caught, "small", "foreign")
