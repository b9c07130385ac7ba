"""Locks between processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import BaseFileLock, Timeout


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
