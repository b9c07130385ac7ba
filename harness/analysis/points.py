"""The points at which a method is reported: one of its exits, or a point on its curve."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Exit:
    """The model truncated after a layer."""

    layer: int
    """Number of layers that run, from 1."""

    def __str__(self) -> str:
        return f"exit {self.layer}"


@dataclass(frozen=True)
class LastExit:
    """The last exit, after whichever layer, for figures over several tasks or methods."""

    def __str__(self) -> str:
        return "last exit"


@dataclass(frozen=True)
class AllExits:
    """The mean over all exits."""

    def __str__(self) -> str:
        return "mean of exits"


@dataclass(frozen=True)
class BudgetShare:
    """The threshold that is best on calibration within a share of the reference's MACs."""

    share: str
    """A name of `operating_points.BUDGETS`, such as 1/2."""

    def __str__(self) -> str:
        return f"MACs <= {self.share}"


@dataclass(frozen=True)
class Dynamic:
    """The threshold that is best on calibration within a budget; each seed has its own."""

    policy: str

    def __str__(self) -> str:
        return self.policy


Point = Exit | LastExit | AllExits | BudgetShare | Dynamic
