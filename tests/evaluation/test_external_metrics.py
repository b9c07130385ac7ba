"""External metrics: the values they are given and the scores they return."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.custom_tasks import reviews, write_csv, write_task
from support.messages import assert_message

from harness.errors import HarnessError
from harness.evaluation.external_metrics import ExternalMetric, external_score, load_external_metric
from harness.store.results import ResultsStore

METRIC = ExternalMetric("evaluate:wer", "")


class Library:
    """A metric that returns what a test wants."""

    def __init__(self, found: dict[str, object], kind: str = "Value('int64')") -> None:
        self.found = found
        self.features: dict[str, object] = {"predictions": kind}
        self.given: list[list[float]] = []

    def compute(self, *, predictions: list[float], references: list[float]) -> dict[str, object]:
        self.given = [predictions, references]
        return self.found


PREDICTIONS, LABELS = np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0])


def test_classes_are_given_as_integers() -> None:
    """Classes are passed as integers, and the score is selected by its name."""
    library = Library({"wer": np.float64(0.25), "other": 3})
    assert external_score(METRIC, library, PREDICTIONS, LABELS, classification=True) == 0.25
    assert library.given == [[1, 0, 1], [1, 1, 1]]
    assert all(type(value) is int for values in library.given for value in values)
    assert (
        external_score(METRIC, Library({"anything": 2}), PREDICTIONS, LABELS, classification=True)
        == 2.0
    )


def test_integer_metric_refuses_regression() -> None:
    """Predictions of a regression are not truncated to integers.

    The library's features would silently turn 0.9 into 0."""
    with pytest.raises(HarnessError) as caught:
        external_score(METRIC, Library({"wer": 1.0}), PREDICTIONS / 2, LABELS, classification=False)
    assert_message(caught, "evaluate:wer", "int64")
    library = Library({"wer": 1.0}, "Value('float32')")
    external_score(METRIC, library, PREDICTIONS / 2, LABELS, classification=False)
    assert library.given[0] == [0.5, 0.0, 0.5]


@pytest.mark.parametrize(
    "found", [{}, {"a": 1.0, "b": 2.0}, {"wer": None}, {"wer": [1.0]}, {"wer": float("nan")}]
)
def test_only_one_finite_score_is_taken(found: dict[str, object]) -> None:
    """A result without exactly one finite score is refused."""
    with pytest.raises(HarnessError) as error:
        external_score(METRIC, Library(found), PREDICTIONS, LABELS, classification=True)
    assert_message(error, "evaluate:wer", found)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that installs an `evaluate` module whose `load` has the given body."""

    def install(body: str) -> None:
        (tmp_path / "evaluate.py").write_text(f"def load(place):\n    {body}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "evaluate", raising=False)

    return install


def test_folder_named_like_metric_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Callable[[str], None]
) -> None:
    """A folder that happens to have a metric's name is not run.

    A data folder `glue` in the working directory would be taken for the hub's metric of that name.
    """
    library("raise AssertionError(place)")
    (tmp_path / "glue").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError) as caught:
        load_external_metric(ExternalMetric("evaluate:glue", ""))
    assert_message(caught, "evaluate:glue", "./glue", "evaluate:./glue")


def test_unloadable_metric_is_one_line(tmp_path: Path, library: Callable[[str], None]) -> None:
    """A metric that cannot be loaded is reported in one line."""
    library("raise FileNotFoundError('no module script\\nat all')")
    with pytest.raises(HarnessError) as error:
        load_external_metric(replace(METRIC, folder=tmp_path))
    assert "at all" not in assert_message(error, "evaluate:wer", "no module script")


def test_missing_dependency_is_one_line(tmp_path: Path, library: Callable[[str], None]) -> None:
    """A missing dependency of the library is reported in one line."""
    library("pass")
    (tmp_path / "evaluate.py").write_text("import a_library_that_is_not_there\n")
    with pytest.raises(HarnessError) as caught:
        load_external_metric(replace(METRIC, folder=tmp_path))
    assert_message(caught, "evaluate:wer", "a_library_that_is_not_there")


SCRIPT = """
import datasets
import evaluate

class Agreement(evaluate.Metric):
    def _info(self):
        values = {name: datasets.Value("int64") for name in ("predictions", "references")}
        features = datasets.Features(values)
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="", features=features
        )

    def _compute(self, predictions, references):
        equal = sum(one == other for one, other in zip(predictions, references))
        return {"agreement": equal / len(references)}
"""


@pytest.mark.slow
def test_metric_script_runs_in_library(tmp_path: Path) -> None:
    """A script is run by the real library, and its scores equal accuracy.

    It runs in a separate process with its own caches."""
    path = write_task(tmp_path / "own", {"metrics": '["accuracy", "evaluate:./agreement.py"]'})
    write_csv(path.parent / "train.csv", reviews(500))
    write_csv(path.parent / "dev.csv", reviews(40, 900))
    (path.parent / "agreement.py").write_text(SCRIPT)
    words = [
        "run",
        "--task-file",
        str(path),
        "--methods",
        "bert",
        "--epochs",
        "1",
        "--limit",
        "40",
        "--threads",
        "1",
        "--no-latency",
    ]
    folders = ["--results-dir", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "harness", *words, *folders]
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HARNESS_OFFLINE": "1"}
    refused = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, "--allow-metric-code" in refused.stderr) == (2, True)
    child = subprocess.run(
        [*command, "--allow-metric-code"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    (record,), _ = ResultsStore(tmp_path / "results").records()
    reached = record.exits[-1].scores
    assert reached["evaluate:./agreement.py"] == pytest.approx(reached["accuracy"])
    assert record.constant_scores["evaluate:./agreement.py"] == pytest.approx(
        record.constant_scores["accuracy"]
    )
