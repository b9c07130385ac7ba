"""The fine-tuning settings that all methods share."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from harness.errors import HarnessError
from harness.files.digests import added_field
from harness.methods.protocol import ExternalInputs
from harness.models.backbones import Backbone


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of fine-tuning (Devlin et al., NAACL 2019, appendix A.3; authors' code)."""

    epochs: int | None = None
    """Number of epochs, of which the best on `selection` is kept; None: the backbone's number."""
    batch_size: int | None = None
    """Examples per optimiser step; None: the backbone's number."""
    learning_rates: tuple[float, ...] | None = None
    """Learning rates to try on `selection` with one fixed seed; None: the backbone's list.
    The best one is used by all seeds."""
    warmup: float = 0.1
    """Fraction of the steps over which the learning rate rises linearly from 0,
    before it decays linearly to 0."""
    weight_decay: float = 0.01
    """Weight decay of AdamW, not applied to biases and norms."""
    clip: float = 1.0
    """Largest norm of the gradient; larger ones are clipped."""
    tolerance: float = 0.1
    """Difference in label units below which predictions of a regression agree (patience).
    0.1 is our choice for STS-B's scale of 0 to 5. In the code of PABEE's authors the default is 0,
    and none of their scripts changes it. A method with one exit does not use it."""
    policy: ClassVar[str | None] = None
    """Exit policy of the method's paper; None for a model with one exit."""
    accumulation: int = 1
    """Number of forward passes per batch, to save memory; the gradient is the whole batch's."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value outside its range."""
        for name, number in {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "accumulation": self.accumulation,
        }.items():
            if number is not None and number < 1:
                raise ValueError(f"{name} {number}: expected 1 or more")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup {self.warmup}: expected a fraction from 0 to below 1")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay {self.weight_decay}: expected 0 or more")
        if min(self.clip, self.tolerance) <= 0:
            raise ValueError(
                f"clip {self.clip}, tolerance {self.tolerance}: expected positive numbers"
            )
        if any(rate <= 0 for rate in self.learning_rates or ()):
            raise ValueError(f"learning_rates {self.learning_rates}: expected positive numbers")

    def external_inputs(self) -> ExternalInputs:
        """Return no inputs: fine-tuning learns from the task's examples only."""
        return ExternalInputs()

    def resolved(self, backbone: Backbone) -> Self:
        """Return the recipe with None fields set to the backbone's values.

        Raises: HarnessError if the method needs several exits but the backbone has one layer.
        """
        if self.policy is not None and backbone.shape.layers < 2:
            raise HarnessError(
                f"{type(self).__name__} needs exits before the last layer, "
                f"but backbone {backbone.name} has only one layer"
            )
        return replace(
            self,
            epochs=self.epochs or backbone.epochs,
            batch_size=self.batch_size or backbone.batch_size,
            learning_rates=self.learning_rates or backbone.learning_rates,
        )

    def schedules(self, backbone: Backbone) -> tuple["Schedule", ...]:
        """Return one schedule for each learning rate to try."""
        resolved = self.resolved(backbone)
        assert resolved.epochs and resolved.batch_size and resolved.learning_rates
        return tuple(
            Schedule(
                epochs=resolved.epochs,
                batch_size=resolved.batch_size,
                learning_rate=rate,
                warmup=resolved.warmup,
                weight_decay=resolved.weight_decay,
                clip=resolved.clip,
                accumulation=resolved.accumulation,
            )
            for rate in dict.fromkeys(resolved.learning_rates)
        )


@dataclass(frozen=True)
class Schedule:
    """Settings of one training, all of them set; part of its stage's key."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    accumulation: int
    decay: bool = added_field(True)
    """Whether the learning rate decays to 0 after the warm-up or stays constant."""

    def steps(self, rows: int) -> int:
        """Return the number of optimiser steps in one epoch."""
        return math.ceil(rows / self.batch_size)

    def examples(self, rows: int, steps: int | None = None) -> int:
        """Return the number of examples of all epochs, or of this many optimiser steps."""
        return self.epochs * rows if steps is None else steps * self.batch_size
