"""What the tests share: a very small backbone, a few demo rows, no network; the command line as a function; short trainings."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NoReturn

import datasets
import gate_runs
import huggingface_hub.constants
import pytest
import torch
from drawing import Drawing
from synthetic import make_exit, make_record, random_trace, save_run
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from baselines.encoder import EncoderModel, Head, ModelConfig
from baselines.losses import exit_losses
from baselines.training import Examples, Schedule
from harness import demo, reach
from harness.__main__ import main
from harness.backbones import Backbone
from harness.methods import model_format
from harness.model import MultiExitModel
from harness.records import RunRecord
from harness.shapes import bert_shape
from harness.stages import Compute, StageRun, Work
from harness.store import ResultsStore
from harness.tasks import TASKS, TaskData, load_data
from harness.trace import Trace

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_calls() -> None:
    Drawing.calls.clear()


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


# --- the command line


RUN = ["run", "--methods", "bert", "--tasks", "demo-pair", "--limit", "8", "--threads", "1", "--no-latency"]


class Answer(NamedTuple):
    """What a command returns and says."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


Say = Callable[..., Answer]


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults of the user's machine must not matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HARNESS_DATA_DIR", "HARNESS_CACHE_DIR", "HARNESS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty one, of the hub's client and of `datasets`."""
    folder = tmp_path / "hub"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    reach.forget()
    yield folder
    reach.forget()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def call(*words: str) -> Answer:
        code = main(list(words))
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


SINGLE, DYNAMIC, REGRESSION = (
    replace(make_record("bert", 1, [make_exit(4, {"accuracy": 0.75}, 400.0, 4.0, 4.0)]), run_id="51e0" + "0" * 12),
    replace(
        make_record("deebert", 1, [make_exit(layer, {"accuracy": 0.7}, 100.0 * layer, layer, layer) for layer in (2, 4)], "entropy"),
        run_id="d1e0" + "0" * 12,
    ),
    replace(
        make_record(
            "pabee",
            1,
            [make_exit(layer, {"pearson": 0.7, "spearman": 0.6}, 100.0 * layer, layer, layer) for layer in (2, 4)],
            "patience",
            task="stsb",
        ),
        run_id="4e90" + "0" * 12,
    ),
)


def store_run(folder: Path, record: RunRecord, classes: int = 2) -> None:
    layers = [exit_.layer for exit_ in record.exits]
    traces = {split: random_trace(seed, layers, classes=classes) for seed, split in enumerate(("dev", "selection", "calibration"))}
    save_run(ResultsStore(folder), record, traces)


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    """No runs yet."""
    return ResultsStore(tmp_path / "results")


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """A results folder with a single-exit run, a dynamic one and a regression."""
    folder = tmp_path / "stored"
    for record, classes in ((SINGLE, 2), (DYNAMIC, 2), (REGRESSION, 1)):
        store_run(folder, record, classes)
    return str(folder)


# --- trainings


FREE = 1e9
"""A bound on the gradient's norm that is never reached."""


def make_schedule(**changes: float) -> Schedule:
    """One epoch without warm-up, accumulation or a bound on the gradient."""
    plain = Schedule(epochs=1, batch_size=16, learning_rate=1e-3, warmup=0.0, weight_decay=0.01, clip=FREE, accumulation=1)
    return replace(plain, **changes)


def make_run(scratch: Path, precision: str = "float32", seed: int = 5) -> StageRun:
    """On one thread of the CPU, in a scratch folder of its own."""
    scratch.mkdir(exist_ok=True)
    return StageRun(Compute(torch.device("cpu"), precision, threads=1), "a cell", "a stage", seed, scratch)


def make_model(backbone: Backbone, dropout: float = 0.0, exits: tuple[Head | None, ...] = (None, "dense", "dense")) -> EncoderModel:
    """The same random weights on every call."""
    torch.manual_seed(9)
    return EncoderModel(ModelConfig(replace(backbone.shape, dropout=dropout), "mean", 2, 1.0, exits))


def plain_loss(model: MultiExitModel, examples: Examples) -> Tensor:
    """The cross-entropies of all exits, summed."""
    return exit_losses(model(examples.batch).logits, examples.labels, 1.0).sum()


def no_score(model: MultiExitModel) -> float:
    return 0.0


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


class Steps:
    """What the optimiser was given at each step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.decays: list[list[float]] = []
        self.gradients: list[list[Tensor]] = []
        self.sizes: list[list[list[int]]] = []

    def __call__(self, optimiser: torch.optim.Optimizer, *_: object) -> None:
        groups = optimiser.param_groups
        self.rates.append([group["lr"] for group in groups])
        self.decays.append([group["weight_decay"] for group in groups])
        self.sizes.append([[parameter.ndim for parameter in group["params"]] for group in groups])
        self.gradients.append([p.grad.clone() for group in groups for p in group["params"] if p.grad is not None])


@contextmanager
def watched_steps() -> Iterator[Steps]:
    steps = Steps()
    handle = register_optimizer_step_pre_hook(steps)
    try:
        yield steps
    finally:
        handle.remove()


@pytest.fixture
def baseline(tmp_path: Path, say: Say) -> str:
    """Of one run."""
    gate_runs.save(tmp_path / "old", gate_runs.record(), gate_runs.trace())
    path = str(tmp_path / "baseline.json")
    assert say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).code == 0
    return path


@pytest.fixture
def check(tmp_path: Path, baseline: str, say: Say) -> gate_runs.Check:
    """Checks another run against the baseline: exit code and what it says."""

    def call(run: RunRecord, dev: Trace, *words: str) -> tuple[int, str]:
        gate_runs.save(tmp_path / "new", run, dev)
        answer = say("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"), *words)
        assert answer.err == ""
        return answer.code, answer.out

    return call
