"""Sanity checks of a model that was not trained here, on predictions made by hand."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.messages import names_all, names_in_order
from support.synthetic import identified, make_exit, make_record, save_run

from harness.analysis.diagnostics import backbone_checks, sanity_checks
from harness.data.tasks import TASKS
from harness.evaluation.metrics import METRICS
from harness.evaluation.trace import Trace
from harness.records import RANDOM_WEIGHTS, RunRecord
from harness.store.results import ResultsStore


def save(
    store: ResultsStore,
    task: str,
    predictions: list[int],
    labels: list[int],
    baseline: float,
    steps: int = 0,
) -> RunRecord:
    """Save a run with a single exit and these predictions on dev."""
    classes = TASKS[task].classes
    logits = (
        np.eye(classes)[predictions]
        if classes > 1
        else np.array(predictions, dtype=np.float64)[:, None]
    )
    scores = {
        metric: float(
            METRICS[metric](
                np.array(predictions, dtype=np.float64), np.array(labels, dtype=np.float64)
            )
        )
        for metric in TASKS[task].metrics
    }
    record = make_record("bert", 1, [make_exit(4, scores, 1.0, 1.0, 1.0)], task=task)
    use = replace(record.stages[0], report=replace(record.stages[0].report, steps=steps))
    record = identified(
        replace(record, stages=(use,), constant_scores=dict.fromkeys(scores, baseline))
    )
    rows = len(labels)
    trace = Trace(
        np.arange(rows),
        logits[None].astype(np.float32),
        np.array(labels, dtype=np.float64),
        np.full(rows, 9),
        np.array([4]),
    )
    return save_run(store, record, dict.fromkeys(("dev", "selection", "calibration"), trace))


LABELS = [0, 1, 1, 0, 1, 0, 1, 1, 0, 1]


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    return ResultsStore(tmp_path / "results")


def test_swapped_labels_show_corrected_score(store: ResultsStore) -> None:
    """Swapped labels are reported with the score in the right order."""
    wrong = [1 - label for label in LABELS[:-1]] + [1]
    below, swapped = sanity_checks(store, save(store, "sst2", wrong, LABELS, 0.6))
    assert names_in_order(below, "accuracy", "0.100", "0.600")
    assert names_all(swapped, "0.90", "--labels")


def test_good_or_trained_models_are_silent(store: ResultsStore) -> None:
    """Good predictions give no warning; the labels of a model trained here are not permuted."""
    assert sanity_checks(store, save(store, "sst2", LABELS, LABELS, 0.6)) == []
    swapped = [1 - label for label in LABELS]
    assert sanity_checks(store, save(store, "sst2", swapped, LABELS, -0.1, steps=30)) == []


@pytest.mark.parametrize(("baseline", "count"), [(0.9, 1), (0.8, 1), (0.7, 0)])
def test_trained_model_is_compared_with_majority_class(
    store: ResultsStore, baseline: float, count: int
) -> None:
    """A trained model that scores no more than the majority-class baseline has a warning."""
    wrong = [1 - label for label in LABELS[:2]] + LABELS[2:]
    warnings = sanity_checks(store, save(store, "sst2", wrong, LABELS, baseline, steps=30))
    assert len(warnings) == count
    assert all(names_all(warning, "accuracy", "majority-class") for warning in warnings)


@pytest.mark.parametrize(("task", "count"), [("sst2", 1), ("demo-single", 0)])
def test_random_weights_on_a_real_task_are_named(
    store: ResultsStore, task: str, count: int
) -> None:
    record = save(store, task, LABELS, LABELS, 0.1, steps=30)
    weights = replace(record.weights, fresh=(RANDOM_WEIGHTS,))
    warnings = backbone_checks(replace(record, weights=weights))
    assert len(warnings) == count
    assert all(names_all(warning, record.spec.backbone) for warning in warnings)


def test_three_label_order_is_spelled_out(store: ResultsStore) -> None:
    """Three labels in another order are named one by one."""
    labels = [0, 1, 2, 0, 1, 2, 0, 1, 2]
    rotated = [(label + 1) % 3 for label in labels]
    *_, other_order = sanity_checks(store, save(store, "mnli", rotated, labels, 1 / 3))
    assert labels_in(other_order) == [
        ("entailment", "contradiction"), ("neutral", "entailment"), ("contradiction", "neutral"),
    ]  # fmt: skip
    assert names_in_order(other_order, "1.00", "--labels")
    swapped_predictions = [{0: 2, 1: 1, 2: 0}[label] for label in labels]
    (swapped,) = sanity_checks(store, save(store, "mnli", swapped_predictions, labels, 0.3))
    assert labels_in(swapped) == [("entailment", "contradiction"), ("contradiction", "entailment")]
    assert names_in_order(swapped, "1.00", "--labels")


def labels_in(warning: str) -> list[tuple[str, str]]:
    """Return each label of MNLI that is named, with the label that it is read as."""
    named = re.findall("entailment|neutral|contradiction", warning)
    return list(zip(named[::2], named[1::2], strict=True))


def test_single_predicted_class_is_named(store: ResultsStore) -> None:
    """A single predicted class is named, or given as the number of a regression."""
    (named,) = sanity_checks(store, save(store, "sst2", [1] * 10, LABELS, 0.6))
    assert names_in_order(named, "10", "positive")
    (numbered,) = sanity_checks(store, save(store, "stsb", [3] * 10, LABELS, 0.0))
    assert names_in_order(numbered, "10", "3")


def test_values_outside_label_range_are_counted(store: ResultsStore) -> None:
    """Predicted values outside the labels' range are counted."""
    labels = list(range(6))
    (warning,) = sanity_checks(store, save(store, "stsb", [-4, 1, 2, 3, 4, 9], labels, 0.0))
    assert names_in_order(warning, 2, 6, 0, 5, -4, 9)
    assert sanity_checks(store, save(store, "stsb", labels, labels, 0.0)) == []
