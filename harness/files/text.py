"""The lines of a text file."""

from pathlib import Path

from harness.errors import HarnessError, reason


def lines_of(path: Path, advice: str = "") -> list[str]:
    """The lines of a UTF-8 file, a byte-order mark allowed. Only line feeds, or carriage returns with one, end a line: what else Unicode
    calls a line's end may stand in a text.

    Raises: HarnessError, with the advice, when the file cannot be read or is not UTF-8 text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {reason(error)}{advice}") from None
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path} is not UTF-8 text: {error}") from None
