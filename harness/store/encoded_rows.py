"""Encoded dev examples, cached so that `harness time` does not need the task's files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.dataset import Split, Tokens
from harness.errors import IncompleteError
from harness.files.arrays import read_arrays
from harness.files.atomic import atomic_write


@dataclass(frozen=True)
class RowsKey:
    """Everything that the encoded examples depend on."""

    data: str
    """Fingerprint of the rows of the task's files."""
    backbone: str
    """Fingerprint of the backbone, whose tokenizer made the word pieces."""
    max_length: int
    limit: int | None

    def path(self, cache: Path) -> Path:
        """Return the path of the file, whether or not it exists."""
        key = (
            f"RowsKey(data={self.data!r}, backbone={self.backbone!r}, "
            f"max_length={self.max_length}, limit={self.limit})"
        )
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return cache / "rows" / f"{digest}.npz"


def save_encoded_rows(cache: Path, key: RowsKey, dev: Split) -> None:
    """Save the examples without their texts, unless the file exists.

    Raises: IncompleteError if the file cannot be written.
    """
    path = key.path(cache)
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, shared=True) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                ids=dev.ids,
                labels=dev.labels,
                lengths=dev.tokens.lengths,
                pieces=np.concatenate(dev.tokens.ids),
                types=np.concatenate(dev.tokens.types),
            )
    except OSError as error:
        raise IncompleteError(
            f"cannot save the encoded dev examples in the cache: {error.strerror}"
        ) from None


def load_encoded_rows(cache: Path, key: RowsKey) -> Split | None:
    """Return the examples with empty texts, or None if they are not cached.

    Raises: IncompleteError if the file is damaged.
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
            f"cannot read {path}: {error}; delete it and give --data-dir"
        ) from None
    return Split(ids, ((),) * len(ids), labels, Tokens(pieces, types, 0))
