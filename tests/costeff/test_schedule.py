"""Tests of COST-EFF's epochs, widths and rounds against the authors' script."""

from dataclasses import replace

import pytest

from baselines.distillation.stages import Distil
from costeff.schedule import EPOCHS, between, epochs_for, pruning_rounds, scaled, smaller
from costeff.slenderize import Slenderize
from harness.models.backbones import BACKBONES
from harness.models.shapes import bert_shape

BASE = BACKBONES["bert-base-uncased"].shape


def test_bert_base_shrinks_to_shares() -> None:
    """The half-size and eighth-size BERT-base have the authors' widths."""
    half, eighth = smaller(BASE, 1 / 2, 1 / 2, 1 / 2), smaller(BASE, 1 / 6, 1 / 12, 1 / 6)
    assert (set(half.heads), set(half.ffn), half.embedding_rank) == ({6}, {1536}, 384)
    assert (set(eighth.heads), set(eighth.ffn), eighth.embedding_rank) == ({2}, {256}, 128)
    assert (half.hidden, half.layers) == (768, 12)


def test_one_unit_of_each_remains() -> None:
    """At least one head, neuron and rank remains."""
    least = smaller(bert_shape(2, 8, 2, 4), 0.01, 0.01, 0.01)
    assert (least.heads, least.ffn, least.embedding_rank) == ((1, 1), (1, 1), 1)


def test_rounds_remove_one_head_each() -> None:
    """Each round removes one head; the other widths fall linearly."""
    end = smaller(BASE, 1 / 2, 1 / 2, 1 / 2)
    assert pruning_rounds(BASE, end) == 6
    shapes = [between(BASE, end, number, 6) for number in range(1, 7)]
    assert [shape.heads[0] for shape in shapes] == [11, 10, 9, 8, 7, 6]
    assert [shape.ffn[0] for shape in shapes] == [2816, 2560, 2304, 2048, 1792, 1536]
    assert [shape.embedding_rank for shape in shapes] == [704, 640, 576, 512, 448, 384]
    assert shapes[-1] == end


def test_rank_one_keeps_the_embedding() -> None:
    """A rank share of 1 leaves the embedding unfactorised."""
    end = smaller(BASE, 1 / 2, 1 / 2, 1)
    assert end.embedding_rank is None
    assert [between(BASE, end, number, 6).embedding_rank for number in (1, 6)] == [None, None]


def test_uneven_layers_finish_together() -> None:
    """Layers of different widths reach their final widths in the same round."""
    start = bert_shape(2, 16, 4, 12)
    end = replace(start, heads=(1, 3), ffn=(2, 12), embedding_rank=4)
    assert pruning_rounds(start, end) == 3
    assert between(start, end, 3, 3) == end
    assert between(start, end, 1, 3) == replace(end, heads=(3, 4), ffn=(9, 12), embedding_rank=12)


def test_keeping_heads_takes_one_round() -> None:
    """Keeping every head takes one round."""
    assert pruning_rounds(BASE, replace(BASE, ffn=(1536,) * 12)) == 1


@pytest.mark.parametrize(
    ("task", "few", "many"),
    [
        ("mrpc", 20, 12),
        ("sst2", 5, 3),
        ("qnli", 5, 3),
        ("mnli", 3, 2),
        ("cola", 20, 12),
        ("qqp", 3, 2),
    ],
)
def test_pruning_epochs_match_authors(task: str, few: int, many: int) -> None:
    """The periods add up to the authors' pruning epochs for 2 and for 6 of 12 heads kept."""
    period = EPOCHS[task].period
    assert [period[0] * 10, period[1] * 6] == pytest.approx([few, many])


def test_epochs_table_is_the_authors() -> None:
    """The table holds the authors' epochs.

    Changing it changes the models for the same settings: raise `Distil.revision` and
    `Slenderize.revision` too."""
    table = {
        task: (row.assistant, row.hidden_share, row.hidden, row.prediction)
        for task, row in EPOCHS.items()
    }
    assert table == {
        "mrpc": (12, 0.5, (20, 12), (10, 5)),
        "sst2": (5, 0.7, (10, 8), (6, 3)),
        "qnli": (5, 0.7, (8, 6), (5, 3)),
        "mnli": (3, 0.7, (5, 3), (3, 2)),
        "cola": (8, 0.5, (20, 10), (10, 5)),
        "qqp": (3, 0.7, (5, 3), (3, 2)),
    }
    assert (Distil.revision, Slenderize.revision) == (1, 1)


def test_recovery_epochs_are_interpolated() -> None:
    """Epochs of recovery are interpolated linearly between the authors' two numbers."""
    epochs = EPOCHS["mrpc"]
    assert [epochs.at(heads / 12, epochs.hidden) for heads in (1, 2, 4, 6, 8, 12)] == pytest.approx(
        [20, 20, 16, 12, 8, 8]
    )


def test_unlisted_task_follows_its_size() -> None:
    """A task without epochs of its own takes those of a task of similar size."""
    assert epochs_for("rte", 2_000) == EPOCHS["mrpc"]
    assert epochs_for("another", 60_000) == EPOCHS["sst2"]
    assert epochs_for("cola", 8_000) == EPOCHS["cola"]
    assert epochs_for("sst2", 67_000) == EPOCHS["sst2"]
    assert epochs_for("sst2", 10_000) == EPOCHS["mrpc"], (
        "a subset of a large task counts as a small task"
    )


@pytest.mark.parametrize(
    ("epochs", "effort", "whole"),
    [(12, 0.3, 4), (5, 0.3, 2), (5, 0.5, 3), (1, 0.3, 1), (5, 0.05, 1), (3, 1.0, 3)],
)
def test_effort_scales_to_whole_epochs(epochs: float, effort: float, whole: int) -> None:
    """Scaled epochs are rounded to whole numbers, at least one."""
    assert scaled(epochs * effort) == whole


def test_interpolated_epochs_survive_rounding() -> None:
    """Floating-point error does not change the rounding of interpolated epochs.

    With half of the heads, 5 x 0.3 is 1.5 and rounds up."""
    epochs = EPOCHS["mrpc"]
    assert scaled(epochs.at(1 / 2, epochs.prediction) * 0.3) == 2
