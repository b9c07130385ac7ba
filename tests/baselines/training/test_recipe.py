"""The recipe: ranges of its settings and defaults from the backbone."""

from dataclasses import replace

import pytest
from support.messages import names_in_order

from baselines.training.recipe import Recipe, Schedule
from harness.models.backbones import Backbone


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"epochs": 0}, [1]),
        ({"batch_size": 0}, [1]),
        ({"accumulation": 0}, [1]),
        ({"warmup": 1.0}, [0, 1]),
        ({"warmup": -0.1}, [0, 1]),
        ({"learning_rates": (1e-3, 0.0)}, []),
    ],
)
def test_out_of_range_settings_are_refused(change: dict[str, object], allowed: list[int]) -> None:
    """A setting outside its range is refused with its value."""
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=name) as caught:
        Recipe(**change)
    assert names_in_order(str(caught.value), name, value, *allowed)


def test_recipe_defaults_to_backbone(micro: Backbone) -> None:
    """A recipe takes settings of None from the backbone."""
    backbone = replace(micro, learning_rates=(1e-4, 1e-5), epochs=7)
    assert [(s.learning_rate, s.epochs) for s in Recipe().schedules(backbone)] == [
        (1e-4, 7),
        (1e-5, 7),
    ]
    (custom,) = Recipe(
        epochs=2,
        learning_rates=(3e-3,),
        batch_size=8,
        accumulation=2,
        warmup=0.2,
        weight_decay=0.3,
        clip=0.4,
    ).schedules(backbone)
    assert custom == Schedule(2, 8, 3e-3, 0.2, 0.3, 0.4, 2)
