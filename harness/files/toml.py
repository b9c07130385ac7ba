"""TOML files that users write: task files and grids."""

import tomllib
from pathlib import Path

from harness.errors import HarnessError, reason
from harness.files.typed_json import checked


def read_toml(path: Path, option: str) -> dict[str, object]:
    """The keys and values of a file, a byte-order mark allowed. Whole numbers have 64 bits, as TOML has them, others are finite.

    Raises: HarnessError naming the option when it cannot be read, is not TOML, or holds what no option takes.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise HarnessError(f"{option}: cannot read {path}: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{option}: {path} is not TOML: {error}") from None
    try:
        return {
            key: checked(value, f"{option}: {path}: key {ascii(key)[1:-1]}", texts=False)
            for key, value in values.items()
        }
    except ValueError as error:
        raise HarnessError(str(error)) from None
