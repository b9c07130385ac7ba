"""The settings that all methods of fine-tuning share."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from harness.errors import HarnessError
from harness.methods.protocol import ExternalInputs
from harness.models.backbones import Backbone


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of fine-tuning, common to the methods (Devlin et al., NAACL 2019, appendix A.3, and the authors' codes)."""

    epochs: int | None = None
    """Passes over the training rows, the best on `selection` is kept; None: the backbone's own number."""
    batch_size: int | None = None
    """Rows per optimiser step; None: the backbone's own number."""
    learning_rates: tuple[float, ...] | None = None
    """Tried on `selection` with one fixed seed, the best used by all seeds; None: the backbone's own list."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises from 0, before it falls to 0, both linearly."""
    weight_decay: float = 0.01
    """AdamW's, not on biases and norms."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    tolerance: float = 0.1
    """Regression: patience calls answers that differ by less, in label units, agreement. 0.1 is our choice, on STS-B's 0 to 5 (the
    default of PABEE's authors' code is 0, and no script of theirs sets one); a method with one exit does not use it."""
    policy: ClassVar[str | None] = None
    """The exit policy that the method's paper uses; None for one exit."""
    accumulation: int = 1
    """Forward passes that a batch is cut into, for a small memory; the gradient is that of the whole batch."""

    def __post_init__(self) -> None:
        """Raises: ValueError for a value outside its range."""
        for name, number in {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "accumulation": self.accumulation,
        }.items():
            if number is not None and number < 1:
                raise ValueError(f"{name} {number}: wanted 1 or more")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup {self.warmup}: wanted a share from 0 to below 1")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay {self.weight_decay}: wanted 0 or more")
        if min(self.clip, self.tolerance) <= 0:
            raise ValueError(
                f"clip {self.clip}, tolerance {self.tolerance}: wanted positive numbers"
            )
        if any(rate <= 0 for rate in self.learning_rates or ()):
            raise ValueError(f"learning_rates {self.learning_rates}: wanted positive numbers")

    def external_inputs(self) -> ExternalInputs:
        """Nothing: fine-tuning knows the task's rows alone."""
        return ExternalInputs()

    def resolved(self, backbone: Backbone) -> Self:
        """With the backbone's own values where a field is None.

        Raises: HarnessError when the method needs exits before the last and the backbone has a single layer.
        """
        if self.policy is not None and backbone.shape.layers < 2:
            raise HarnessError(
                f"{type(self).__name__} needs exits before the last one: backbone {backbone.name} has a single layer"
            )
        return replace(
            self,
            epochs=self.epochs or backbone.epochs,
            batch_size=self.batch_size or backbone.batch_size,
            learning_rates=self.learning_rates or backbone.learning_rates,
        )

    def schedules(self, backbone: Backbone) -> tuple["Schedule", ...]:
        """One schedule for each learning rate to try."""
        ready = self.resolved(backbone)
        assert ready.epochs and ready.batch_size and ready.learning_rates
        return tuple(
            Schedule(
                epochs=ready.epochs,
                batch_size=ready.batch_size,
                learning_rate=rate,
                warmup=ready.warmup,
                weight_decay=ready.weight_decay,
                clip=ready.clip,
                accumulation=ready.accumulation,
            )
            for rate in dict.fromkeys(ready.learning_rates)
        )


@dataclass(frozen=True)
class Schedule:
    """A recipe with everything settled: what one training follows, and part of its stage's key."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    accumulation: int
    decay: bool = True
    """Whether the learning rate falls to 0 after the warm-up; False: it stays."""

    def steps(self, rows: int) -> int:
        """Optimiser steps of one epoch."""
        return math.ceil(rows / self.batch_size)
