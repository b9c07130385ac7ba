"""What the tests share: a very small backbone, a few demo rows, no network."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from harness import demo
from harness.backbones import Backbone, bert_shape
from harness.methods import model_format
from harness.stages import Compute, Work
from harness.tasks import TASKS, TaskData, load_data

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that opens a connection to another machine fails."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("tests have no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps the first precision it was given for the life of the process."""
    yield
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def micro() -> Backbone:
    """3 layers x 32, 4 heads, FFN 64, random weights, the demo's vocabulary."""
    return Backbone(
        "micro",
        bert_shape(3, 32, 4, 64, vocabulary=len(demo.demo_vocabulary()), positions=64),
        pooling="mean",
        source="random",
        licence="none needed",
        learning_rates=(1e-3,),
        epochs=1,
    )


@pytest.fixture(scope="session")
def few_rows(micro: Backbone) -> TaskData:
    """48 rows per split of demo-pair, encoded."""
    return load_data(TASKS["demo-pair"], None, limit=48).encoded(micro.encode, 32)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """float32 on one thread of the CPU, seed 1, an empty cache."""
    compute = Compute(torch.device("cpu"), "float32", threads=1)
    return Work(1, compute, tmp_path / "cache", model_format())
