"""Checks of what a message names, independent of its wording."""

import re

import pytest
from support.synthetic import one_line

from harness.errors import ExitCode, HarnessError


def names_all(text: str, *names: object) -> bool:
    """Return whether the text contains each of these as a whole word."""
    return all(re.search(_word(name), text) for name in names)


def names_in_order(text: str, *names: object) -> bool:
    """Return whether the text contains each of these as a whole word, in this order.

    A message gives first the value it got, then what is allowed, then what to do.
    """
    return re.search(".*?".join(map(_word, names)), text, re.DOTALL) is not None


def figures(text: str) -> list[float]:
    """Return the numbers in a text in order; thousands may be written as 1,000."""
    found = re.findall(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|\.\d)", text)
    return [float(number.replace(",", "")) for number in found]


def assert_message(
    caught: pytest.ExceptionInfo[HarnessError], *names: object, code: ExitCode = ExitCode.USER
) -> str:
    """Assert that the message is one line with these whole words in order, and return it.

    `code` is the exit code of the command line.
    """
    message = one_line(caught)
    assert message
    assert caught.value.exit_code == code, message
    assert names_in_order(message, *names), (message, names)
    return message


def _word(name: object) -> str:
    return rf"(?<!\w)(?<!\d\.){re.escape(str(name))}(?!\w)(?!\.\d)"
