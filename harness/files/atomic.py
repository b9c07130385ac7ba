"""Files that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import HarnessError


@contextmanager
def whole(path: Path, shared: bool = False) -> Iterator[Path]:
    """The path of a file beside: what is written to it takes the place of `path`, or of what that links to, and has its permissions when
    the block ends well; when it fails nothing is left.

    `shared`: other processes may write the same file meanwhile.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(
        f".{target.name}.{os.getpid()}.unfinished" if shared else f".{target.name}.unfinished"
    )
    beside.unlink(missing_ok=True)  # of a killed process, or a link that somebody put there
    try:
        yield beside
        if target.exists():
            shutil.copymode(target, beside)
        beside.replace(target)
    finally:
        with suppress(OSError):
            beside.unlink()


UNFINISHED = ".unfinished-"
"""How the name of a run folder begins while it is written."""
UNFINISHED_S = 3600.0
"""Age in seconds after which such a folder belongs to a killed process."""


def check_writable(folder: Path, what: str) -> None:
    """Raises: HarnessError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise HarnessError(
            f"cannot write to the {what} folder {folder}: {error.strerror}"
        ) from None
