"""Files of a custom task."""

from pathlib import Path

import pytest
from support.custom_tasks import reviews, write_csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a train file of 500 rows and a dev file of 20."""
    write_csv(tmp_path / "train.csv", reviews(500))
    write_csv(tmp_path / "dev.csv", reviews(20, 900))
    return tmp_path
