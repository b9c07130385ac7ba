"""Doubts about a model that was not trained here, on answers made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.synthetic import identified, make_exit, make_record, save_run

from harness.analysis.diagnostics import doubts
from harness.data.tasks import TASKS
from harness.evaluation.metrics import METRICS
from harness.evaluation.trace import Trace
from harness.records import RunRecord
from harness.store.results import ResultsStore


def save(store: ResultsStore, task: str, answers: list[int], labels: list[int], constant: float, steps: int = 0) -> RunRecord:
    """A run of one exit whose dev answers are these."""
    classes = TASKS[task].classes
    logits = np.eye(classes)[answers] if classes > 1 else np.array(answers, dtype=np.float64)[:, None]
    scores = {
        metric: float(METRICS[metric](np.array(answers, dtype=np.float64), np.array(labels, dtype=np.float64)))
        for metric in TASKS[task].metrics
    }
    record = make_record("bert", 1, [make_exit(4, scores, 1.0, 1.0, 1.0)], task=task)
    use = replace(record.stages[0], report=replace(record.stages[0].report, steps=steps))
    record = identified(replace(record, stages=(use,), constant_scores=dict.fromkeys(scores, constant)))
    rows = len(labels)
    trace = Trace(np.arange(rows), logits[None].astype(np.float32), np.array(labels, dtype=np.float64), np.full(rows, 9), np.array([4]))
    return save_run(store, record, dict.fromkeys(("dev", "selection", "calibration"), trace))


RIGHT = [0, 1, 1, 0, 1, 0, 1, 1, 0, 1]


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    return ResultsStore(tmp_path / "results")


def test_swapped_labels_are_named_with_the_score_that_they_would_give(store: ResultsStore) -> None:
    wrong = [1 - answer for answer in RIGHT[:-1]] + [1]
    assert doubts(store, save(store, "sst2", wrong, RIGHT, 0.6)) == [
        "accuracy 0.100 is below the constant answer's 0.600",
        "with labels swapped it would score 0.90: do they stand in the model's order (--labels)?",
    ]


def test_good_answers_raise_no_doubts_and_neither_do_those_of_a_model_trained_here(store: ResultsStore) -> None:
    assert doubts(store, save(store, "sst2", RIGHT, RIGHT, 0.6)) == []
    assert doubts(store, save(store, "sst2", [1 - answer for answer in RIGHT], RIGHT, 0.6, steps=30)) == []


def test_three_labels_in_another_order_are_named_one_by_one(store: ResultsStore) -> None:
    labels = [0, 1, 2, 0, 1, 2, 0, 1, 2]
    turned = [(label + 1) % 3 for label in labels]
    said = doubts(store, save(store, "mnli", turned, labels, 1 / 3))
    assert said[-1] == (
        "with labels in another order (entailment read as contradiction, neutral read as entailment, contradiction read as neutral) "
        "it would score 1.00: do they stand in the model's order (--labels)?"
    )
    exchanged = [{0: 2, 1: 1, 2: 0}[label] for label in labels]
    said = doubts(store, save(store, "mnli", exchanged, labels, 0.3))
    assert said == [
        "with labels swapped (entailment read as contradiction, contradiction read as entailment) it would score 1.00: "
        "do they stand in the model's order (--labels)?"
    ]


def test_one_class_is_said_with_its_name_or_number(store: ResultsStore) -> None:
    assert doubts(store, save(store, "sst2", [1] * 10, RIGHT, 0.6)) == ["all 10 rows get one answer, positive"]
    assert doubts(store, save(store, "stsb", [3] * 10, RIGHT, 0.0)) == ["all 10 rows get one answer, 3"]
