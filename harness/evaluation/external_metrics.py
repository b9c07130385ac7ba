"""External metrics, loaded through the `evaluate` library.

They are third-party code, which runs only with --allow-metric-code.
"""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError, first_line

PREFIX = "evaluate:"
"""Prefix of an external metric's name in a task file."""


@dataclass(frozen=True)
class ExternalMetric:
    """A metric from the hub, or a user's own script."""

    name: str
    """Name as in the task file: evaluate:NAME or evaluate:./NAME."""
    digest: str
    """Hash of the user's script; empty for a metric from the hub."""
    folder: Path = Path()
    """Folder that the script's path is relative to."""

    def __repr__(self) -> str:
        """Return the text that is hashed into a task's fingerprint, and so must not change."""
        return f"MetricCode(name={self.name!r}, digest={self.digest!r})"


class LoadedMetric(Protocol):
    """The part of an object returned by `evaluate.load` that is used here."""

    features: dict[str, object]

    def compute(
        self, *, predictions: list[float], references: list[float]
    ) -> dict[str, object]: ...


def check_evaluate(name: str) -> None:
    """Raise HarnessError if the evaluate library is not installed."""
    if importlib.util.find_spec("evaluate") is None:
        raise HarnessError(
            f"metric {name} needs the evaluate library, which is missing: pip install evaluate"
        )


def load_external_metric(metric: ExternalMetric) -> LoadedMetric:
    """Load a metric, which runs its code.

    The path of a script is relative to the metric's folder.
    Raises: HarnessError if the library or the metric cannot be loaded.
    """
    check_evaluate(metric.name)
    source = metric.name.removeprefix(PREFIX)
    if not source.startswith(".") and Path(source).exists():
        raise HarnessError(
            f"metric {metric.name}: the evaluate library would run the local ./{source} instead of "
            f"the hub's metric; if you mean the local one, write {PREFIX}./{source}"
        )
    try:
        import evaluate  # takes 7 s and loads all of transformers

        return cast(
            LoadedMetric,
            evaluate.load(
                str((metric.folder / source).resolve()) if source.startswith(".") else source
            ),
        )
    except Exception as error:  # the metric's code, or a missing dependency, may raise anything
        raise HarnessError(f"metric {metric.name} cannot be loaded: {first_line(error)}") from None


def external_score(
    metric: ExternalMetric,
    loaded: LoadedMetric,
    predictions: NDArray[np.float64],
    labels: NDArray[np.float64],
    classification: bool,
) -> float:
    """Return the score of predictions [n] against labels [n].

    With `classification` both are class indices. Raises: HarnessError if the metric fails, would
    truncate the values of a regression to integers, or does not return one finite score.
    """
    kind = str(loaded.features.get("predictions")) if isinstance(loaded.features, dict) else ""
    if not classification and "int" in kind:
        raise HarnessError(
            f"metric {metric.name} takes {kind}, which would truncate the predictions of a "
            "regression: use a metric that takes floats"
        )
    given = [
        (array.astype(np.int64) if classification else array).tolist()
        for array in (predictions, labels)
    ]
    try:
        found = loaded.compute(predictions=given[0], references=given[1])
    except Exception as error:  # as above
        raise HarnessError(f"metric {metric.name} failed: {first_line(error)}") from None
    name = Path(metric.name.removeprefix(PREFIX)).stem
    value = (
        found.get(name, next(iter(found.values()))) if name in found or len(found) == 1 else None
    )
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise HarnessError(
            f"metric {metric.name} returned {str(found)[:80]}; it must return one finite number, "
            f"alone or under the name {name}"
        )
    return float(value)
