"""COST-EFF's epochs, widths and rounds, against the authors' script."""

from dataclasses import replace

import pytest

from costeff.schedule import EPOCHS, between, epochs_for, rounds_of, scaled, smaller
from harness.backbones import BACKBONES, bert_shape

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


def test_layers_of_different_widths_reach_their_ends_together() -> None:
    start = bert_shape(2, 16, 4, 12)
    end = replace(start, heads=(1, 3), ffn=(2, 12), embedding_rank=4)
    assert rounds_of(start, end) == 3
    assert between(start, end, 3, 3) == end
    assert between(start, end, 1, 3) == replace(end, heads=(3, 4), ffn=(9, 12), embedding_rank=12)


def test_keeping_every_head_is_one_round() -> None:
    assert rounds_of(BASE, replace(BASE, ffn=(1536,) * 12)) == 1


@pytest.mark.parametrize(
    ("task", "kept", "prune"), [("mrpc", 2, 20), ("mrpc", 6, 12), ("sst2", 2, 5), ("sst2", 6, 3), ("mnli", 2, 3), ("cola", 6, 12)]
)
def test_periods_times_rounds_are_the_authors_pruning_epochs(task: str, kept: int, prune: int) -> None:
    assert EPOCHS[task].period * (12 - kept) == pytest.approx(prune)


def test_recovery_between_the_authors_two_points_is_on_their_line() -> None:
    epochs = EPOCHS["mrpc"]
    assert [epochs.at(heads / 12, epochs.hidden) for heads in (1, 2, 4, 6, 12)] == pytest.approx([20, 20, 16, 12, 12])


def test_a_task_that_was_not_scripted_takes_the_epochs_of_one_of_its_size() -> None:
    assert epochs_for("rte", 2_000) == EPOCHS["mrpc"]
    assert epochs_for("another", 60_000) == EPOCHS["sst2"]
    assert epochs_for("cola", 60_000) == EPOCHS["cola"]


@pytest.mark.parametrize(("epochs", "effort", "whole"), [(12, 0.3, 4), (5, 0.3, 2), (1, 0.3, 1), (5, 0.05, 1), (3, 1.0, 3)])
def test_effort_scales_to_whole_epochs_at_least_one(epochs: float, effort: float, whole: int) -> None:
    assert scaled(epochs * effort) == whole
