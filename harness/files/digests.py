"""Hashes of texts and files."""

import hashlib
from collections.abc import Iterable
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def digest(parts: Iterable[str]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 hash of a sequence of texts."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part.encode() + b"\0")
    return sha256.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def added_field(default: T) -> T:
    """Declare a dataclass field that was added after results had been stored.

    At its default value it is neither hashed nor written, so that earlier hashes stay valid and
    earlier versions can read the files.
    """
    return field(default=default, metadata={"added": True})


def written_fields(value: "DataclassInstance") -> dict[str, object]:
    """Return the fields of a dataclass, nested ones too, as they are hashed and written."""
    return {
        one.name: _written(item)
        for one in fields(value)
        for item in [getattr(value, one.name)]
        if not (one.metadata.get("added") and item == one.default)
    }


def _written(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return written_fields(value)
    if isinstance(value, dict):
        return {name: _written(item) for name, item in value.items()}
    return tuple(map(_written, value)) if isinstance(value, list | tuple) else value
