"""A recipe: the ranges of its settings, and what it takes from the backbone."""

from dataclasses import replace

import pytest

from baselines.training.recipe import Recipe, Schedule
from harness.models.backbones import Backbone


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"accumulation": 0}, "accumulation 0"),
        ({"warmup": 1.0}, r"warmup 1\.0"),
        ({"warmup": -0.1}, r"warmup -0\.1"),
        ({"learning_rates": (1e-3, 0.0)}, "wanted positive numbers"),
    ],
)
def test_settings_outside_their_range_are_refused_with_the_value(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe(**change)


def test_a_recipe_takes_what_it_is_not_told_from_the_backbone(micro: Backbone) -> None:
    backbone = replace(micro, learning_rates=(1e-4, 1e-5), epochs=7)
    assert [(s.learning_rate, s.epochs) for s in Recipe().schedules(backbone)] == [(1e-4, 7), (1e-5, 7)]
    (own,) = Recipe(epochs=2, learning_rates=(3e-3,), batch_size=8, accumulation=2, warmup=0.2, weight_decay=0.3, clip=0.4).schedules(
        backbone
    )
    assert own == Schedule(2, 8, 3e-3, 0.2, 0.3, 0.4, 2)
