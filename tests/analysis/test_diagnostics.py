"""Doubts about a model that was not trained here, on answers made by hand."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.messages import names_all, names_in_order
from support.synthetic import identified, make_exit, make_record, save_run

from harness.analysis.diagnostics import sanity_checks
from harness.data.tasks import TASKS
from harness.evaluation.metrics import METRICS
from harness.evaluation.trace import Trace
from harness.records import RunRecord
from harness.store.results import ResultsStore


def save(
    store: ResultsStore,
    task: str,
    answers: list[int],
    labels: list[int],
    constant: float,
    steps: int = 0,
) -> RunRecord:
    """A run of one exit whose dev answers are these."""
    classes = TASKS[task].classes
    logits = (
        np.eye(classes)[answers] if classes > 1 else np.array(answers, dtype=np.float64)[:, None]
    )
    scores = {
        metric: float(
            METRICS[metric](np.array(answers, dtype=np.float64), np.array(labels, dtype=np.float64))
        )
        for metric in TASKS[task].metrics
    }
    record = make_record("bert", 1, [make_exit(4, scores, 1.0, 1.0, 1.0)], task=task)
    use = replace(record.stages[0], report=replace(record.stages[0].report, steps=steps))
    record = identified(
        replace(record, stages=(use,), constant_scores=dict.fromkeys(scores, constant))
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


RIGHT = [0, 1, 1, 0, 1, 0, 1, 1, 0, 1]


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    return ResultsStore(tmp_path / "results")


def test_swapped_labels_get_would_be_score(store: ResultsStore) -> None:
    """Swapped labels are named with the score that they would give."""
    wrong = [1 - answer for answer in RIGHT[:-1]] + [1]
    below, swapped = sanity_checks(store, save(store, "sst2", wrong, RIGHT, 0.6))
    assert names_in_order(below, "accuracy", "0.100", "0.600")
    assert names_all(swapped, "0.90", "--labels")


def test_good_or_trained_models_raise_none(store: ResultsStore) -> None:
    """Good predictions raise no doubts, and neither do those of a model that was trained here."""
    assert sanity_checks(store, save(store, "sst2", RIGHT, RIGHT, 0.6)) == []
    assert (
        sanity_checks(
            store, save(store, "sst2", [1 - answer for answer in RIGHT], RIGHT, 0.6, steps=30)
        )
        == []
    )


def test_three_label_order_is_spelled_out(store: ResultsStore) -> None:
    """Three labels in another order are named one by one."""
    labels = [0, 1, 2, 0, 1, 2, 0, 1, 2]
    turned = [(label + 1) % 3 for label in labels]
    *_, other_order = sanity_checks(store, save(store, "mnli", turned, labels, 1 / 3))
    assert labels_in(other_order) == [
        ("entailment", "contradiction"), ("neutral", "entailment"), ("contradiction", "neutral"),
    ]  # fmt: skip
    assert names_in_order(other_order, "1.00", "--labels")
    exchanged = [{0: 2, 1: 1, 2: 0}[label] for label in labels]
    (swapped,) = sanity_checks(store, save(store, "mnli", exchanged, labels, 0.3))
    assert labels_in(swapped) == [("entailment", "contradiction"), ("contradiction", "entailment")]
    assert names_in_order(swapped, "1.00", "--labels")


def labels_in(doubt: str) -> list[tuple[str, str]]:
    """Each label of MNLI that is named, with the one that it is taken for."""
    named = re.findall("entailment|neutral|contradiction", doubt)
    return list(zip(named[::2], named[1::2], strict=True))


def test_single_predicted_class_is_named(store: ResultsStore) -> None:
    """A single predicted class is named, or given as the number of a regression."""
    (named,) = sanity_checks(store, save(store, "sst2", [1] * 10, RIGHT, 0.6))
    assert names_in_order(named, "10", "positive")
    (numbered,) = sanity_checks(store, save(store, "stsb", [3] * 10, RIGHT, 0.0))
    assert names_in_order(numbered, "10", "3")
