"""Errors that a user can fix, each shown in one line, and the exit codes of the command line."""

import difflib
import re
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of a `harness` process."""

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
    """A mistake in the user's input.

    The message is one line that says what was given, what is allowed and what to do.
    """

    exit_code = ExitCode.USER


class IncompleteError(HarnessError):
    """A run, file or other part of the results that is missing, failed or corrupt."""

    exit_code = ExitCode.INCOMPLETE


class NotComparableError(HarnessError):
    """Two results that must not be compared with each other."""

    exit_code = ExitCode.NOT_COMPARABLE


def reason(error: Exception) -> str:
    """Return the error message without the file path that OSError repeats."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def unknown(kind: str, name: str, known: Iterable[str]) -> HarnessError:
    """Return the error for an unknown name: it suggests similar names and lists the known ones."""
    names = sorted(set(known))
    similar = similar_names(name, names)
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    return HarnessError(f"unknown {kind} {name!r}: {hint}known: {', '.join(names)}")


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that are most likely meant, at most three.

    They are those that differ only in case and punctuation or in the order of their words, else
    those that the name abbreviates by its beginning or by initials (`acc`, `lr`), else those that
    look similar.
    """
    names = sorted(known)
    given = _words(name)
    same = [
        other
        for other in names
        if "".join(_words(other)) == "".join(given) or sorted(_words(other)) == sorted(given)
    ]
    if same:
        return same
    short = "".join(given)
    abbreviated = [
        other
        for other in names
        if len(short) > 1
        and ("".join(_words(other)).startswith(short) or _initials(_words(other)) == short)
    ]
    return abbreviated[:3] or difflib.get_close_matches(name, names, n=3, cutoff=0.5)


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case."""
    return re.findall(r"[^\W_]+", name.lower())


def _initials(words: list[str]) -> str:
    return "".join(word[0] for word in words)
