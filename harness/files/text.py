"""Reading of text files."""

from pathlib import Path

from harness.errors import HarnessError, reason


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
