"""Errors that a user can mend, each shown in one line, and the exit codes of the command line."""

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a `harness` process returns to its caller."""

    OK = 0
    REGRESSION = 1
    """Only `harness check` returns this, and only for a regression."""
    USER = 2
    """The user's input: options, names, data, files."""
    INCOMPLETE = 3
    """A cell is missing or failed, the disk is full, a record is corrupt."""
    NOT_COMPARABLE = 4
    BUG = 70
    INTERRUPTED = 130


class HarnessError(Exception):
    """A mistake in the user's input. The message is one line: what was got, what is allowed, what to do."""

    exit_code = ExitCode.USER


class IncompleteError(HarnessError):
    """Something that should be there is missing, failed or corrupt."""

    exit_code = ExitCode.INCOMPLETE


class NotComparableError(HarnessError):
    """Two results that must not be put side by side."""

    exit_code = ExitCode.NOT_COMPARABLE


def reason(error: Exception) -> str:
    """What went wrong, without the path that an OSError's own text repeats."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def unknown(kind: str, name: str, known: Iterable[str]) -> HarnessError:
    """The error for a name that is in no table: the near matches first, then all names."""
    names = sorted(set(known))
    near = close_to(name, names)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return HarnessError(f"unknown {kind} {name!r}: {hint}known: {', '.join(names)}")


def close_to(name: str, known: Iterable[str]) -> list[str]:
    """Names that may have been meant: the same in other letters, else up to three that look alike."""
    names = sorted(known)
    return [other for other in names if other.lower() == name.lower()] or difflib.get_close_matches(
        name, names, n=3, cutoff=0.5
    )
