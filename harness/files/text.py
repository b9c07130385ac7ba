"""Reading of text files and of the TOML files that users write: task files and grids."""

import tomllib
from pathlib import Path

from harness.errors import HarnessError, reason
from harness.files.typed_json import check_value


def read_lines(path: Path, advice: str = "") -> list[str]:
    r"""Return the lines of a UTF-8 file, which may start with a byte-order mark.

    Only \n and \r\n end a line; Unicode's other line separators may occur within a text.
    Raises: HarnessError, ending in `advice`, if the file cannot be read or is not UTF-8 text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {reason(error)}{advice}") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path} is not UTF-8 text: {error}") from None


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
