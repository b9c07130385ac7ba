"""Settings applied to methods, as --set does."""

from collections.abc import Sequence

import pytest
from support.messages import assert_message

from harness.errors import HarnessError
from harness.methods.settings import configure, parse_setting


def with_settings(names: Sequence[str], *settings: str) -> dict[str, object]:
    """Return the methods of these names with settings in the form of --set."""
    return dict(configure(names, [parse_setting(text) for text in settings]))


def refused(names: Sequence[str], *settings: str) -> str:
    """Return the one-line error message."""
    with pytest.raises(HarnessError) as error:
        with_settings(names, *settings)
    return assert_message(error)
