"""TinyBERT's losses between intermediate layers: attention, hidden states, embeddings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.trainings import make_run, make_schedule
from torch import Tensor, nn
from torch.nn import functional

from baselines.encoders.bert_layer import BertLayer
from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.tinybert import (
    IntermediateDistillation,
    IntermediateLosses,
    ProjectedStudent,
    intermediate_loss,
    smaller,
)
from baselines.training.loop import Examples
from harness.data.dataset import TaskData
from harness.models.backbones import Backbone
from harness.models.shapes import EncoderShape

CPU = torch.device("cpu")


def first_examples(data: TaskData) -> Examples:
    """Return the first eight examples."""
    return Examples.of(data.train, torch.arange(8).numpy(), CPU)


def encoder(shape: EncoderShape) -> EncoderModel:
    return EncoderModel(
        ModelConfig(shape, "mean", 2, 1.0, (None,) * (shape.layers - 1) + ("plain",))
    ).eval()


@pytest.fixture
def pair(micro: Backbone) -> tuple[ProjectedStudent, EncoderModel]:
    """A student of 2 layers x 16 and a teacher of 4 layers x 32."""
    teacher = encoder(replace(micro.shape, heads=(4,) * 4, ffn=(64,) * 4))
    return ProjectedStudent(
        encoder(smaller(teacher.config.shape, 1 / 2, 1 / 2, 1 / 2)), 32
    ).eval(), teacher


def expected_terms(
    model: ProjectedStudent, teacher: EncoderModel, examples: Examples
) -> dict[str, Tensor]:
    """Return each term, computed example by example over real tokens.

    States 0, 1, 2 of the student learn from 0, 2, 4 of the teacher; layers 1, 2 from 2, 4.
    """
    batch, student = examples.batch, model.student
    student_states, teacher_states = student(batch).hiddens, teacher(batch).hiddens
    terms = {name: torch.zeros(()) for name in ("attention", "hidden", "embedding")}
    for row, real in enumerate(batch.mask.sum(1).tolist()):
        for state, target in ((0, 0), (1, 2), (2, 4)):
            projection = model.projections[state]
            assert isinstance(projection, nn.Linear)
            gap = (
                (
                    student_states[state][row, :real] @ projection.weight.T
                    + projection.bias
                    - teacher_states[target][row, :real]
                )
                .square()
                .mean()
            )
            terms["embedding" if state == 0 else "hidden"] += gap / len(batch.ids)
            if state > 0:
                one = scores(student, state - 1, student_states[state - 1][row, :real])
                other = scores(teacher, target - 1, teacher_states[target - 1][row, :real])
                terms["attention"] += (one - other).square().mean() / len(batch.ids)
    return terms


def scores(model: EncoderModel, layer: int, hidden: Tensor) -> Tensor:
    """Return products of queries and keys over the root of the head size [h, t, t]."""
    block = model.layers[layer]
    assert isinstance(block, BertLayer)
    size = model.config.shape.head_size
    query, key = (
        functional.linear(hidden, part.weight, part.bias) for part in (block.query, block.key)
    )
    return torch.stack(
        [
            q @ k.T / size**0.5
            for q, k in zip(query.split(size, -1), key.split(size, -1), strict=True)
        ]
    )


@pytest.mark.parametrize(
    "terms",
    [("attention", "hidden", "embedding"), ("attention",), ("hidden",), ("embedding",)],
    ids=str,
)
def test_intermediate_loss_sums_mapped_layers(
    terms: tuple[str, ...], pair: tuple[ProjectedStudent, EncoderModel], few_rows: TaskData
) -> None:
    """The loss is the sum of the enabled terms over the mapped layers."""
    losses = IntermediateLosses(
        **{name: name in terms for name in ("attention", "hidden", "embedding")}
    )
    examples = first_examples(few_rows)
    with torch.no_grad():
        expected = expected_terms(*pair, examples)
        torch.testing.assert_close(
            intermediate_loss(*pair, losses, examples),
            sum((expected[name] for name in terms), torch.zeros(())),
        )


def test_student_and_projections_alone_learn(
    pair: tuple[ProjectedStudent, EncoderModel], few_rows: TaskData
) -> None:
    """Only the student and its projections get gradients."""
    model, teacher = pair
    intermediate_loss(model, teacher, IntermediateLosses(), first_examples(few_rows)).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    untouched = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert untouched == {"student.exits.1.classifier.weight", "student.exits.1.classifier.bias"}
    assert all(
        parameter.grad is None or parameter.grad.isfinite().all()
        for parameter in model.parameters()
    )


@pytest.mark.slow
def test_student_approaches_intermediate_layers(
    micro: Backbone, few_rows: TaskData, tmp_path: Path
) -> None:
    """More epochs bring a student closer to its teacher's intermediate layers."""
    shape = smaller(micro.shape, 2 / 3, 1 / 2, 1 / 2)
    losses = []
    for epochs in (1, 12):
        stage = IntermediateDistillation(
            "general",
            shape,
            IntermediateLosses(),
            None,
            make_schedule(epochs=epochs, learning_rate=3e-3),
        )
        torch.manual_seed(1)
        fresh = stage.fit((), few_rows, micro, make_run(tmp_path / str(epochs)))
        losses.append(fresh.training.final_loss)
        assert isinstance(fresh.model, EncoderModel)
        assert fresh.model.config.shape == shape
    assert losses[1] < 0.7 * losses[0]
