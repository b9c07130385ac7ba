"""Reading numpy archives safely."""

import io
import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import reason

LARGEST_BYTES = 2**30
"""An archive of arrays that unpacks to more is refused: MNLI's largest trace has three million."""

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
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        TypeError,
        MemoryError,
        *BROKEN,
    ) as error:
        raise ValueError(reason(error)) from None
    wrong = [
        name
        for name, array in arrays.items()
        if not (isinstance(array, np.ndarray) and array.dtype.kind in "fi")
    ]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: no arrays of numbers")
    return arrays
