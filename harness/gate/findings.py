"""The result of `harness check`: figures that differ from the baseline, and a verdict on each."""

from dataclasses import dataclass
from enum import StrEnum

from harness.errors import ExitCode
from harness.evaluation.statistics import RESAMPLES


class Verdict(StrEnum):
    """How a figure compares with the baseline's."""

    REGRESSION = "regression"
    NOT_COMPARABLE = "not comparable"
    MISSING = "missing"
    CHANGED = "changed"
    """The figure is better, or worse within the allowed margin."""
    NOT_COMPARED = "not compared"


CODES = {
    Verdict.REGRESSION: ExitCode.REGRESSION,
    Verdict.NOT_COMPARABLE: ExitCode.NOT_COMPARABLE,
    Verdict.MISSING: ExitCode.INCOMPLETE,
}
"""Verdicts that fail a check, the most severe first."""


@dataclass(frozen=True)
class Limits:
    """Margins within which a worse figure is not a regression."""

    score: float = 0.005
    """Largest drop of a score that is allowed whatever its bootstrap interval."""
    exits: float = 0.02
    """Largest allowed total-variation distance between the distributions of examples over exits,
    if the environments differ; in equal environments none is allowed."""
    latency: float | None = 0.10
    """Largest allowed relative drop of a latency ratio; None: latency is not compared."""
    resamples: int = RESAMPLES
    """Number of bootstrap resamples."""


@dataclass(frozen=True)
class Finding:
    """A figure that differs from the baseline's."""

    what: str
    verdict: Verdict
    old: str
    """The baseline's value."""
    new: str
    note: str = ""

    @property
    def absent(self) -> bool:
        """Whether a cell of the baseline has no stored run."""
        return self.what == "run" and self.new == "none"

    def __str__(self) -> str:
        return f"{self.what}: {self.old} -> {self.new}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class CellCheck:
    """The findings on one run of the baseline."""

    cell: str
    compared: int
    """Number of figures compared."""
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that fail the check."""
        return tuple(finding for finding in self.findings if finding.verdict in CODES)
