"""Short training runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from baselines.training.loop import Examples
from baselines.training.losses import exit_losses
from baselines.training.recipe import Schedule
from harness.methods.compute import Compute
from harness.methods.stages import StageRun
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel

FREE = 1e9
"""Bound on the gradient norm that is never reached."""


def make_schedule(**changes: float) -> Schedule:
    """Return one epoch without warm-up, accumulation or gradient clipping."""
    schedule = Schedule(
        epochs=1,
        batch_size=16,
        learning_rate=1e-3,
        warmup=0.0,
        weight_decay=0.01,
        clip=FREE,
        accumulation=1,
    )
    return replace(schedule, **changes)


def make_run(scratch: Path, precision: str = "float32", seed: int = 5) -> StageRun:
    """Return a stage run on one CPU thread with its own scratch folder."""
    scratch.mkdir(exist_ok=True)
    return StageRun(
        Compute(torch.device("cpu"), precision, threads=1), "a cell", "a stage", seed, scratch
    )


def make_model(
    backbone: Backbone,
    dropout: float = 0.0,
    exits: tuple[Head | None, ...] = (None, "dense", "dense"),
) -> EncoderModel:
    """Return a model with the same random weights on every call."""
    torch.manual_seed(9)
    return EncoderModel(
        ModelConfig(replace(backbone.shape, dropout=dropout), "mean", 2, 1.0, exits)
    )


def plain_loss(model: MultiExitModel, examples: Examples) -> Tensor:
    """Return the sum of all exits' cross-entropies."""
    return exit_losses(model(examples.batch).logits, examples.labels, 1.0).sum()


def no_score(model: MultiExitModel) -> float:
    return 0.0


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


class Steps:
    """Parameters of the optimiser at each step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.decays: list[list[float]] = []
        self.gradients: list[list[Tensor]] = []
        self.sizes: list[list[list[int]]] = []

    def __call__(self, optimiser: torch.optim.Optimizer, *_: object) -> None:
        groups = optimiser.param_groups
        self.rates.append([group["lr"] for group in groups])
        self.decays.append([group["weight_decay"] for group in groups])
        self.sizes.append([[parameter.ndim for parameter in group["params"]] for group in groups])
        self.gradients.append(
            [p.grad.clone() for group in groups for p in group["params"] if p.grad is not None]
        )


@contextmanager
def watched_steps() -> Iterator[Steps]:
    steps = Steps()
    handle = register_optimizer_step_pre_hook(steps)
    try:
        yield steps
    finally:
        handle.remove()
