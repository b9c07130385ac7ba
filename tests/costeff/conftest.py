"""A context that COST-EFF's tests share."""

import pytest
from support.small_costeff import CPU

from harness.methods.compute import Compute
from harness.methods.registry import model_format
from harness.methods.stages import FitContext


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> FitContext:
    return FitContext(
        1, Compute(CPU, "float32", threads=1), tmp_path_factory.mktemp("cache"), model_format()
    )
