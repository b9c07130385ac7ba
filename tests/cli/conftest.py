"""What several tests of the command line share."""

from pathlib import Path

import pytest

from harness.cli.data import OFFLINE_VARIABLES


@pytest.fixture
def online(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub; whatever a command does to stay offline ends with the test."""
    for name in OFFLINE_VARIABLES:
        monkeypatch.setenv(name, "0")
    return hub_cache
