"""Fixtures for tests of methods and their training."""

import pytest
import torch

from harness.methods.compute import Compute
from harness.methods.registry import model_format
from harness.methods.stages import FitContext


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> FitContext:
    """One cache for tests that only read fitted models."""
    return FitContext(
        2,
        Compute(torch.device("cpu"), "float32", threads=1),
        tmp_path_factory.mktemp("shared"),
        model_format(),
    )
