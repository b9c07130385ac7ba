"""Atomic writing, where a file appears complete or not at all, and locks between processes."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, Timeout

from harness.errors import HarnessError


@contextmanager
def atomic_write(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary file in the same folder that replaces `path` when the block succeeds.

    If `path` is a link, its target is replaced. The permissions of an existing file are kept.
    If the block fails, the temporary file is removed. Set `shared` if other processes may write
    the same file at the same time.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(
        f".{target.name}.{os.getpid()}.unfinished" if shared else f".{target.name}.unfinished"
    )
    temporary.unlink(missing_ok=True)  # left by a killed process, or a planted link
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink()


UNFINISHED = ".unfinished-"
"""Prefix of the name of a run or model folder while it is being written."""
STALE_AFTER_S = 3600.0
"""Age in seconds after which an unfinished file or folder must come from a killed process."""


def check_writable(folder: Path, what: str) -> None:
    """Raise HarnessError if nothing can be written to the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise HarnessError(
            f"cannot write to the {what} folder {folder}: {error.strerror}"
        ) from None


@contextmanager
def hold_lock(lock: BaseFileLock, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock during the block; call `waiting` once if another process holds it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
