"""Reading of text files and of the TOML files that users write: task files and grids."""

import csv
import io
import tomllib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from harness.errors import HarnessError, reason
from harness.files.typed_json import check_value

N = TypeVar("N", int, float)


def read_lines(path: Path, advice: str = "") -> list[str]:
    r"""Return the lines of a UTF-8 file, which may start with a byte-order mark.

    Only \n and \r\n end a line; Unicode's other line separators may occur within a text.
    Raises: HarnessError, ending in `advice`, if the file cannot be read or is not UTF-8 text.
    """
    try:
        return decode_lines(path.read_bytes(), str(path))
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {reason(error)}{advice}") from None


def decode_lines(content: bytes, origin: str) -> list[str]:
    """Return the lines of UTF-8 text as `read_lines` does; `origin` names it in the error."""
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise HarnessError(f"{origin} is not UTF-8 text: {error}") from None


def read_toml(path: Path, option: str) -> dict[str, object]:
    """Return the keys and values of a file, which may start with a byte-order mark.

    Integers have at most 64 bits, as TOML requires, and all other numbers are finite.
    Raises: HarnessError naming the option if the file cannot be read, is not TOML, or holds a value
    that no option accepts.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise HarnessError(f"{option}: cannot read {path}: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{option}: {path} is not TOML: {error}") from None
    try:
        return {
            key: check_value(value, f"{option}: {path}: key {ascii(key)[1:-1]}", texts=False)
            for key, value in values.items()
        }
    except ValueError as error:
        raise HarnessError(str(error)) from None


def option_text(value: object) -> str:
    """Return the value of a setting as --set spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return join_quoted([option_text(item) for item in value])
    return "none" if value is None else str(value)


def same_text(name: str) -> str:
    """Return a name without surrounding spaces in Unicode's composed form (NFC).

    An accented letter can be written as one character or as two, which look the same.
    """
    return unicodedata.normalize("NFC", name.strip())


def split_quoted(text: str) -> list[str]:
    """Split a text at commas outside double quotes, as in a line of a CSV file."""
    lines = list(csv.reader([text.replace("\n", " ")], skipinitialspace=True))
    return lines[0] if lines else []


def join_quoted(names: Iterable[str]) -> str:
    """Return a text that `split_quoted` splits into these names."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def parse_number(kind: type[N], text: str) -> N:
    """Return the number that a text spells, without Python's underscores between digits.

    Raises: ValueError if it does not spell a number of this kind.
    """
    if "_" in text:
        raise ValueError(f"{text!r} is not a number")
    return kind(text)
