"""COST-EFF's epochs, widths and rounds, against the authors' script."""

from dataclasses import replace

import pytest

from baselines.distillation.stages import Distil
from costeff.schedule import EPOCHS, between, epochs_for, rounds_of, scaled, smaller
from costeff.slenderize import Slenderize
from harness.models.backbones import BACKBONES
from harness.models.shapes import bert_shape

BASE = BACKBONES["bert-base-uncased"].shape


def test_half_and_an_eighth_of_bert_base() -> None:
    half, eighth = smaller(BASE, 1 / 2, 1 / 2, 1 / 2), smaller(BASE, 1 / 6, 1 / 12, 1 / 6)
    assert (set(half.heads), set(half.ffn), half.embedding_rank) == ({6}, {1536}, 384)
    assert (set(eighth.heads), set(eighth.ffn), eighth.embedding_rank) == ({2}, {256}, 128)
    assert (half.hidden, half.layers) == (768, 12)


def test_at_least_one_of_everything_stays() -> None:
    least = smaller(bert_shape(2, 8, 2, 4), 0.01, 0.01, 0.01)
    assert (least.heads, least.ffn, least.embedding_rank) == ((1, 1), (1, 1), 1)


def test_a_head_goes_in_each_round_and_the_other_widths_fall_on_a_line() -> None:
    end = smaller(BASE, 1 / 2, 1 / 2, 1 / 2)
    assert rounds_of(BASE, end) == 6
    shapes = [between(BASE, end, number, 6) for number in range(1, 7)]
    assert [shape.heads[0] for shape in shapes] == [11, 10, 9, 8, 7, 6]
    assert [shape.ffn[0] for shape in shapes] == [2816, 2560, 2304, 2048, 1792, 1536]
    assert [shape.embedding_rank for shape in shapes] == [704, 640, 576, 512, 448, 384]
    assert shapes[-1] == end


def test_a_rank_of_1_leaves_the_embedding_as_it_is() -> None:
    end = smaller(BASE, 1 / 2, 1 / 2, 1)
    assert end.embedding_rank is None
    assert [between(BASE, end, number, 6).embedding_rank for number in (1, 6)] == [None, None]


def test_layers_of_different_widths_reach_their_ends_together() -> None:
    start = bert_shape(2, 16, 4, 12)
    end = replace(start, heads=(1, 3), ffn=(2, 12), embedding_rank=4)
    assert rounds_of(start, end) == 3
    assert between(start, end, 3, 3) == end
    assert between(start, end, 1, 3) == replace(end, heads=(3, 4), ffn=(9, 12), embedding_rank=12)


def test_keeping_every_head_is_one_round() -> None:
    assert rounds_of(BASE, replace(BASE, ffn=(1536,) * 12)) == 1


@pytest.mark.parametrize(
    ("task", "few", "many"),
    [("mrpc", 20, 12), ("sst2", 5, 3), ("qnli", 5, 3), ("mnli", 3, 2), ("cola", 20, 12), ("qqp", 3, 2)],
)
def test_periods_times_rounds_are_the_authors_pruning_epochs(task: str, few: int, many: int) -> None:
    """For 2 and for 6 of 12 heads kept."""
    period = EPOCHS[task].period
    assert [period[0] * 10, period[1] * 6] == pytest.approx([few, many])


def test_the_table_is_the_authors() -> None:
    """Changed epochs make other models of the same settings: raise `Distil.revision` and `Slenderize.revision` with it."""
    said = {task: (row.assistant, row.hidden_share, row.hidden, row.prediction) for task, row in EPOCHS.items()}
    assert said == {
        "mrpc": (12, 0.5, (20, 12), (10, 5)),
        "sst2": (5, 0.7, (10, 8), (6, 3)),
        "qnli": (5, 0.7, (8, 6), (5, 3)),
        "mnli": (3, 0.7, (5, 3), (3, 2)),
        "cola": (8, 0.5, (20, 10), (10, 5)),
        "qqp": (3, 0.7, (5, 3), (3, 2)),
    }
    assert (Distil.revision, Slenderize.revision) == (1, 1)


def test_recovery_between_the_authors_two_points_is_on_their_line() -> None:
    epochs = EPOCHS["mrpc"]
    assert [epochs.at(heads / 12, epochs.hidden) for heads in (1, 2, 4, 6, 8, 12)] == pytest.approx([20, 20, 16, 12, 8, 8])


def test_a_task_that_was_not_scripted_takes_the_epochs_of_one_of_its_size() -> None:
    assert epochs_for("rte", 2_000) == EPOCHS["mrpc"]
    assert epochs_for("another", 60_000) == EPOCHS["sst2"]
    assert epochs_for("cola", 8_000) == EPOCHS["cola"]
    assert epochs_for("sst2", 67_000) == EPOCHS["sst2"]
    assert epochs_for("sst2", 10_000) == EPOCHS["mrpc"], "a part of a large task is a small task"


@pytest.mark.parametrize(("epochs", "effort", "whole"), [(12, 0.3, 4), (5, 0.3, 2), (5, 0.5, 3), (1, 0.3, 1), (5, 0.05, 1), (3, 1.0, 3)])
def test_effort_scales_to_whole_epochs_at_least_one(epochs: float, effort: float, whole: int) -> None:
    assert scaled(epochs * effort) == whole


def test_epochs_found_on_the_line_are_not_lost_to_rounding() -> None:
    """At half of the heads 5 x 0.3 is 1.5, whatever the last bits say."""
    epochs = EPOCHS["mrpc"]
    assert scaled(epochs.at(1 / 2, epochs.prediction) * 0.3) == 2
