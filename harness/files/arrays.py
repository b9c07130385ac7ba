"""Safe reading of numpy archives."""

import io
import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import reason

MAX_BYTES = 2**30
"""Largest unpacked size of an archive in bytes; MNLI's largest trace needs three million."""

DAMAGED_ARCHIVE = (zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""Exceptions of the archive formats for damaged data; bz2 has none of its own."""


def read_arrays(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return all arrays of an npz archive without running code from the file (allow_pickle is off).

    Raises: ValueError if the file is missing, damaged or too large, or if an array is not numeric.
    """
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as files:
            unpacked = sum(file.file_size for file in files.infolist())
        if unpacked > MAX_BYTES:
            raise ValueError(f"it unpacks to {unpacked} bytes; the limit is {MAX_BYTES}")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        TypeError,
        MemoryError,
        *DAMAGED_ARCHIVE,
    ) as error:
        raise ValueError(reason(error)) from None
    not_numeric = [
        name
        for name, array in arrays.items()
        if not (isinstance(array, np.ndarray) and array.dtype.kind in "fi")
    ]
    if not_numeric:
        raise ValueError(f"not an array of numbers: {', '.join(not_numeric)}")
    return arrays
