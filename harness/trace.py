"""The trace: the logits of every exit on every row of a split, from one pass of the model."""

import io
import lzma
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import IncompleteError, reason

LARGEST_BYTES = 2**30
"""An archive of arrays that unpacks to more is refused: MNLI's largest trace has three million."""

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """Rows stand in the order of the data, whatever the batches were."""

    ids: NDArray[np.int64]
    """[n] row number in the split's file."""
    logits: NDArray[np.float32]
    """[e, n, c]; for regression c = 1 and the value is in label units."""
    labels: NDArray[np.float64]
    """[n] class index, or the value in label units."""
    lengths: NDArray[np.int64]
    """[n] real tokens, special ones included, padding not."""
    exit_layers: NDArray[np.int64]
    """[e] layers run before each exit, from 1, increasing."""

    def __post_init__(self) -> None:
        """Raises: ValueError when shapes disagree or a logit is not finite."""
        exits, rows = self.logits.shape[:2]
        shapes = {"ids": self.ids.shape, "labels": self.labels.shape, "lengths": self.lengths.shape}
        wrong = {name: shape for name, shape in shapes.items() if shape != (rows,)}
        if self.logits.ndim != 3 or wrong or self.exit_layers.shape != (exits,):
            raise ValueError(f"a trace of {exits} exits and {rows} rows does not fit {wrong or self.exit_layers.shape}")
        if not np.isfinite(self.logits).all():
            raise ValueError("a logit of the trace is not finite")

    def predictions(self) -> Floats:
        """[e, n] class index of the largest logit, or the value itself for regression."""
        return predictions(self.logits)


def predictions(logits: Floats) -> Floats:
    """[..., c] logits -> [...] class index (as a float), or the value itself when c = 1."""
    if logits.shape[-1] == 1:
        return logits[..., 0]
    return logits.argmax(-1).astype(np.float64)


def trace_bytes(trace: Trace) -> bytes:
    """The trace as a compressed npz archive."""
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


BROKEN = (zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What the archive's formats raise; bz2 has no error of its own."""


def read_arrays(path: Path) -> dict[str, NDArray[np.float64]]:
    """All arrays of an npz archive; nothing in the file can run code (allow_pickle is off).

    Raises: ValueError when the file is missing, damaged, too large, or holds something else than arrays.
    """
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as files:
            unpacked = sum(file.file_size for file in files.infolist())
        if unpacked > LARGEST_BYTES:
            raise ValueError(f"it unpacks to {unpacked} bytes, wanted up to {LARGEST_BYTES}")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, MemoryError, *BROKEN) as error:
        raise ValueError(reason(error)) from None
    wrong = [name for name, array in arrays.items() if not (isinstance(array, np.ndarray) and array.dtype.kind in "fi")]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: no arrays of numbers")
    return arrays


def read_trace(path: Path) -> Trace:
    """Read a trace back; nothing in the file can run code (allow_pickle is off).

    Raises: IncompleteError when the file is missing, damaged, or not a trace.
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
        raise IncompleteError(f"trace {path} cannot be read: {error}; delete its run folder and run it again") from None
