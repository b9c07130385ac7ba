"""Metrics that are other people's code, through the `evaluate` library: run only for those who allow it (--allow-metric-code)."""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError, first_line

PREFIX = "evaluate:"
"""How a task file names such a metric."""


@dataclass(frozen=True)
class ExternalMetric:
    """A metric of the hub, or a script of the user's."""

    name: str
    """As the task file has it: evaluate:NAME or evaluate:./NAME."""
    digest: str
    """Hash of the user's script; empty for a metric of the hub."""
    folder: Path = Path()
    """Folder that the script's path is relative to."""

    def __repr__(self) -> str:
        """The text that stands for the metric in the fingerprint of a task: it must not change, whatever the class is called."""
        return f"MetricCode(name={self.name!r}, digest={self.digest!r})"


class LoadedMetric(Protocol):
    """What `evaluate.load` returns, as far as it is used here."""

    features: dict[str, object]

    def compute(
        self, *, predictions: list[float], references: list[float]
    ) -> dict[str, object]: ...


def check_evaluate(name: str) -> None:
    """Raises: HarnessError when the library is missing."""
    if importlib.util.find_spec("evaluate") is None:
        raise HarnessError(
            f"metric {name} needs the evaluate library, which is not installed: pip install evaluate"
        )


def load_external_metric(code: ExternalMetric) -> LoadedMetric:
    """Load the metric, whose code runs from here on.

    Raises: HarnessError when the library or the metric is not to be had.
    """
    check_evaluate(code.name)
    place = code.name.removeprefix(PREFIX)
    if not place.startswith(".") and Path(place).exists():
        raise HarnessError(
            f"metric {code.name}: the library would run what lies in ./{place}; write {PREFIX}./{place} if that is meant"
        )
    try:
        import evaluate  # 7 s and all of transformers, for those alone who ask for it

        return cast(
            LoadedMetric,
            evaluate.load(str((code.folder / place).resolve()) if place.startswith(".") else place),
        )
    except Exception as error:  # the metric's own code runs here, and may raise anything; so may a library that lacks another
        raise HarnessError(f"metric {code.name} cannot be loaded: {first_line(error)}") from None


def external_score(
    code: ExternalMetric,
    metric: LoadedMetric,
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    whole: bool,
) -> float:
    """One score of predictions [n] against labels [n]; `whole`: they are class indices.

    Raises: HarnessError when the metric fails, cuts numbers to whole ones, or returns several scores.
    """
    kind = str(metric.features.get("predictions")) if isinstance(metric.features, dict) else ""
    if not whole and "int" in kind:
        raise HarnessError(
            f"metric {code.name} takes whole numbers and would cut the answers of a regression: got {kind}"
        )
    given = [
        (array.astype(np.int64) if whole else array).tolist() for array in (predictions, labels)
    ]
    try:
        found = metric.compute(predictions=given[0], references=given[1])
    except Exception as error:  # as above
        raise HarnessError(f"metric {code.name} failed: {first_line(error)}") from None
    own = Path(code.name.removeprefix(PREFIX)).stem
    value = found.get(own, next(iter(found.values()))) if own in found or len(found) == 1 else None
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise HarnessError(
            f"metric {code.name} returned {str(found)[:80]}, wanted one finite number, or one of the metric's name"
        )
    return float(value)
