"""Sanity checks of models.

They detect random weights on a real task and a score that is not above the majority-class
baseline's. In models that were not trained here they also detect a single predicted class,
predictions outside the range of the labels, and permuted labels.
"""

from itertools import permutations

import numpy as np

from harness.data.custom_tasks import task_of
from harness.data.tasks import Task
from harness.evaluation.metrics import METRICS, Array
from harness.records import RANDOM_WEIGHTS, RunRecord
from harness.store.results import ResultsStore

MAX_LABELS = 5
"""Permutations of more labels are not tried: there are too many, and one of them fits by chance."""

MIN_GAIN = 0.05
"""A permutation of the labels is reported if it improves the score by more than this."""


def sanity_checks(store: ResultsStore, record: RunRecord) -> list[str]:
    """Return a warning for each check that the last exit fails on dev.

    The labels of a model that was trained here cannot be permuted: its predictions are not checked.

    Raises: IncompleteError if the trace cannot be read.
    """
    task = task_of(record)
    metric = task.metrics[0]
    score, baseline = record.exits[-1].scores[metric], record.constant_scores[metric]
    warnings = []
    if record.trained:
        if score <= baseline:
            warnings.append(f"the last exit's {metric} is not above the majority-class baseline's")
        return warnings
    dev = store.trace(record)
    predictions = dev.predictions()[-1].astype(np.float64)
    if score < baseline:
        warnings.append(
            f"{metric} {score:.3f} is below the majority-class baseline's {baseline:.3f}"
        )
    if len(set(predictions)) == 1:
        warnings.append(
            f"all {len(predictions)} predictions are the same, {_label(task, predictions[0])}"
        )
    low, high = task.label_range
    outside = int(((predictions < low) | (predictions > high)).sum()) if task.regression else 0
    if outside:
        warnings.append(
            f"{outside:,} of {len(predictions):,} predictions lie outside the labels' range "
            f"{low:g} to {high:g} (from {predictions.min():.3g} to {predictions.max():.3g})"
        )
    if not task.regression and len(task.labels) <= MAX_LABELS:
        warnings += _permuted_labels(task, predictions, dev.labels, score)
    return warnings


def backbone_checks(record: RunRecord) -> list[str]:
    """Return a warning if the run's backbone is random and its task is not a demo task."""
    if RANDOM_WEIGHTS not in record.weights.fresh or task_of(record).is_demo:
        return []
    return [random_weights_warning(record.spec.backbone)]


def random_weights_warning(backbone: str) -> str:
    """Return the warning about a random backbone on a task that is not a demo task."""
    return (
        f"backbone {backbone} has random weights and is meant for the demo tasks only: "
        "give a pre-trained --backbone"
    )


def _permuted_labels(task: Task, predictions: Array, labels: Array, score: float) -> list[str]:
    """Return a warning if the best permutation of the labels scores clearly more than `score`."""
    orders = list(permutations(range(len(task.labels))))
    renamed = np.array(orders, dtype=np.float64)[:, predictions.astype(int)]  # [orders, n]
    reached = METRICS[task.metrics[0]](renamed, labels)
    best = int(reached.argmax())
    if reached[best] <= score + MIN_GAIN:
        return []
    moved = [
        (task.labels[index], task.labels[other])
        for index, other in enumerate(orders[best])
        if index != other
    ]
    change = "swapped" if len(moved) == 2 else "permuted"
    pairs = (
        ""
        if len(task.labels) == 2
        else f" ({', '.join(f'{given} read as {meant}' for given, meant in moved)})"
    )
    return [
        f"with labels {change}{pairs} it would score {reached[best]:.2f}: "
        "check that they are in the model's order (--labels)"
    ]


def _label(task: Task, prediction: float) -> str:
    return f"{prediction:g}" if task.regression else task.labels[int(prediction)]
