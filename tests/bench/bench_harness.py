"""Speed of what users wait for: `make bench`. On a shared machine, times are no test."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from baselines.encoders.encoder import EncoderModel
from baselines.training.finetune import model_config
from harness.data.dataset import TaskData
from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.evaluation.curves import sweep, thresholds_from
from harness.evaluation.policies import Entropy
from harness.measure.inference import collect, predict_early
from harness.measure.macs import piece_costs
from harness.models.backbones import BACKBONES
from harness.models.batches import collate
from harness.report.overview import render
from harness.store.results import ResultsStore

TINY = BACKBONES["tiny"]
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> TaskData:
    return load_data(TASKS["demo-pair"], None).encoded(TINY.encode, 64)


@pytest.fixture(scope="module")
def model() -> EncoderModel:
    torch.manual_seed(0)
    return EncoderModel(model_config(TINY, TASKS["demo-pair"], ("shared",) * 4)).eval()


def test_yardstick(benchmark: BenchmarkFixture) -> None:
    """The yardstick of the other benchmarks: work of the libraries, without our code."""
    random = np.random.default_rng(0)
    left, right = (
        torch.from_numpy(random.normal(size=(256, 256)).astype(np.float32)) for _ in range(2)
    )
    values = random.normal(size=(50, 4000))

    def work() -> float:
        return float((left @ right).sum()) + float(np.sort(values, axis=1)[:, 0].sum())

    benchmark(work)


def test_collect_500_rows(benchmark: BenchmarkFixture, model: EncoderModel, data: TaskData) -> None:
    trace = benchmark(collect, model, data.dev, 32, torch.device("cpu"))
    assert trace.logits.shape == (4, len(data.dev), 2)


def test_sweep_of_one_curve(
    benchmark: BenchmarkFixture, model: EncoderModel, data: TaskData
) -> None:
    trace, costs = collect(model, data.dev, 32, torch.device("cpu")), piece_costs(model)
    curve = benchmark(
        sweep, Entropy(), trace, costs, ("accuracy",), thresholds_from(Entropy(), trace)
    )
    assert curve.left.sum(1).tolist() == [len(data.dev)] * len(curve.thresholds)


@pytest.mark.parametrize("rows", [1, 32])
def test_predict_early_without_early_exits(
    benchmark: BenchmarkFixture, model: EncoderModel, data: TaskData, rows: int
) -> None:
    batch = collate(data.dev.tokens, np.arange(rows))
    predictions = benchmark(predict_early, model, batch, Entropy(), 0.0)
    assert predictions.exits.tolist() == [3] * rows


def test_report_of_one_task(benchmark: BenchmarkFixture) -> None:
    """Report the committed runs on MRPC."""
    store = ResultsStore(RESULTS)
    records = [record for record in store.records()[0] if record.spec.task == "mrpc"]
    assert "| bert" in benchmark(render, store, records, "bert", "markdown")
