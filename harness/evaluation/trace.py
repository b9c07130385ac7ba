"""The trace: logits of every exit for every example of a split, from one pass of the model."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import IncompleteError
from harness.files.arrays import read_arrays

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """Logits of all exits on a split, with the examples in the order of the data."""

    ids: NDArray[np.int64]
    """[n] row numbers in the split's file."""
    logits: NDArray[np.float32]
    """[e, n, c]; for regression c = 1 and the values are in label units."""
    labels: NDArray[np.float64]
    """[n] class indices, or values in label units."""
    lengths: NDArray[np.int64]
    """[n] tokens per example, including special tokens but not padding."""
    exit_layers: NDArray[np.int64]
    """[e] number of layers run before each exit, from 1, increasing."""

    def __post_init__(self) -> None:
        """Raise ValueError if shapes disagree or a logit is not finite."""
        exits, examples = self.logits.shape[:2]
        shapes = {"ids": self.ids.shape, "labels": self.labels.shape, "lengths": self.lengths.shape}
        mismatched = {name: shape for name, shape in shapes.items() if shape != (examples,)}
        if self.logits.ndim != 3 or mismatched or self.exit_layers.shape != (exits,):
            raise ValueError(
                f"{exits} exits and {examples} examples do not match the array shapes "
                f"{mismatched or self.exit_layers.shape}"
            )
        if not np.isfinite(self.logits).all():
            raise ValueError("a logit of the trace is not finite")

    def predictions(self) -> Floats:
        """Return predictions [e, n]: class indices, or values for regression."""
        return predictions(self.logits)


def predictions(logits: Floats) -> Floats:
    """Return predictions [...] from logits [..., c]: class indices (floats), or values if c = 1."""
    if logits.shape[-1] == 1:
        return logits[..., 0]
    return logits.argmax(-1).astype(np.float64)


def trace_bytes(trace: Trace) -> bytes:
    """Return the trace as a compressed npz archive."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ids=trace.ids,
        logits=trace.logits,
        labels=trace.labels,
        lengths=trace.lengths,
        exit_layers=trace.exit_layers,
    )
    return buffer.getvalue()


def read_trace(path: Path) -> Trace:
    """Read a trace back without running code from the file (allow_pickle is off).

    Raises: IncompleteError if the file is missing, damaged or not a trace.
    """
    try:
        arrays = read_arrays(path)
        return Trace(
            ids=arrays["ids"].astype(np.int64),
            logits=arrays["logits"].astype(np.float32),
            labels=arrays["labels"],
            lengths=arrays["lengths"].astype(np.int64),
            exit_layers=arrays["exit_layers"].astype(np.int64),
        )
    except (ValueError, KeyError) as error:
        raise IncompleteError(
            f"trace {path} cannot be read: {error}; delete its run folder and run it again"
        ) from None
