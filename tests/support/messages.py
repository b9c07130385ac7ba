"""What a message must name, whatever its wording."""

import re

import pytest
from support.synthetic import one_line

from harness.errors import ExitCode, HarnessError


def names_all(text: str, *names: object) -> bool:
    """Whether each of these stands in the text as a word of its own."""
    return all(re.search(_word(name), text) for name in names)


def names_in_order(text: str, *names: object) -> bool:
    """Whether each of these stands in the text as a word of its own, in this order: what was got
    comes before what is allowed, and that before what to do."""
    return re.search(".*?".join(map(_word, names)), text, re.DOTALL) is not None


def figures(text: str) -> list[float]:
    """The numbers in a text, in their order, with thousands written as 1,000."""
    found = re.findall(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|\.\d)", text)
    return [float(number.replace(",", "")) for number in found]


def assert_says(
    caught: pytest.ExceptionInfo[HarnessError], *names: object, code: ExitCode = ExitCode.USER
) -> str:
    """The message, which is one line with each of these as a word of its own, in this order;
    `code` is what the command line would return."""
    said = one_line(caught)
    assert said
    assert caught.value.exit_code == code, said
    assert names_in_order(said, *names), (said, names)
    return said


def _word(name: object) -> str:
    return rf"(?<!\w)(?<!\d\.){re.escape(str(name))}(?!\w)(?!\.\d)"
