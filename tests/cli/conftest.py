"""Fixtures for tests of the command line."""

from pathlib import Path

import pytest

from harness.cli.data import OFFLINE_VARIABLES


@pytest.fixture
def online(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; a command's offline settings are undone after the test."""
    for name in OFFLINE_VARIABLES:
        monkeypatch.setenv(name, "0")
    return hub_cache
