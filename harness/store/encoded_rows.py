"""A run's encoded dev rows in the cache folder, so that `harness time` does not need the task's files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.dataset import Split, Tokens
from harness.errors import IncompleteError
from harness.files.arrays import read_arrays
from harness.files.atomic import whole


@dataclass(frozen=True)
class RowsKey:
    """What the encoded rows depend on."""

    data: str
    """Fingerprint of the files' rows."""
    backbone: str
    """Fingerprint of the backbone, whose tokenizer made the word pieces."""
    max_length: int
    limit: int | None

    def path(self, cache: Path) -> Path:
        """Where they are, or would be."""
        key = f"RowsKey(data={self.data!r}, backbone={self.backbone!r}, max_length={self.max_length}, limit={self.limit})"
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return cache / "rows" / f"{digest}.npz"


def keep_rows(cache: Path, key: RowsKey, dev: Split) -> None:
    """Write the rows, without their texts, unless they are there.

    Raises: IncompleteError when the disk is full.
    """
    path = key.path(cache)
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path, shared=True) as beside, beside.open("wb") as file:
            np.savez_compressed(
                file,
                ids=dev.ids,
                labels=dev.labels,
                lengths=dev.tokens.lengths,
                pieces=np.concatenate(dev.tokens.ids),
                types=np.concatenate(dev.tokens.types),
            )
    except OSError as error:
        raise IncompleteError(f"cannot keep the dev rows in the cache: {error.strerror}") from None


def kept_rows(cache: Path, key: RowsKey) -> Split | None:
    """The rows, with empty texts; None when they are not there.

    Raises: IncompleteError when the file is damaged.
    """
    path = key.path(cache)
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path)
        ends = np.cumsum(arrays["lengths"].astype(np.int64))[:-1]
        pieces, types = (
            tuple(np.split(arrays[name].astype(np.int32), ends)) for name in ("pieces", "types")
        )
        ids, labels = arrays["ids"].astype(np.int64), arrays["labels"].astype(np.float64)
    except (ValueError, KeyError) as error:
        raise IncompleteError(
            f"{path} cannot be read: {error}; delete it and give --data-dir"
        ) from None
    return Split(ids, ((),) * len(ids), labels, Tokens(pieces, types, 0))
