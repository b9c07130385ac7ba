"""Files that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path, shared: bool = False) -> Iterator[Path]:
    """The path of a file beside: what is written to it takes the place of `path`, or of what that links to, and has its permissions when
    the block ends well; when it fails nothing is left.

    `shared`: other processes may write the same file meanwhile.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{os.getpid()}.unfinished" if shared else f".{target.name}.unfinished")
    beside.unlink(missing_ok=True)  # of a killed process, or a link that somebody put there
    try:
        yield beside
        if target.exists():
            shutil.copymode(target, beside)
        beside.replace(target)
    finally:
        with suppress(OSError):
            beside.unlink()
