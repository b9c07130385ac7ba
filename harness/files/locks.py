"""Locks between processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import BaseFileLock, Timeout


@contextmanager
def held(lock: BaseFileLock, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A lock between processes, held within; `waiting` is called once when another holds it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
