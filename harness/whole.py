"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path, shared: bool = False) -> Iterator[Path]:
    """The path of a file beside: what is written to it takes the place of `path` when the block ends well; when it fails nothing is left.

    `shared`: other processes may write the same file meanwhile.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.unfinished" if shared else f".{path.name}.unfinished")
    try:
        yield beside
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink()
