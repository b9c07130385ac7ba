"""What makes the answers of a model that was not trained here look wrong: worse than a constant, one class, labels in another order."""

from itertools import permutations

import numpy as np

from harness.data.custom_tasks import task_of
from harness.data.tasks import Task
from harness.evaluation.metrics import METRICS, Array
from harness.records import RunRecord
from harness.store.results import ResultsStore

MOST_CLASSES = 5
"""Orders of more labels than these are not tried: there are too many, and one of them fits by chance."""

BETTER_BY = 0.05
"""Another order of the labels is named when it scores better by more than this."""


def sanity_checks(store: ResultsStore, record: RunRecord) -> list[str]:
    """Sentences about the last exit on dev; none for a model that a stage of ours has trained: its labels cannot be in another order.

    Raises: IncompleteError when the trace cannot be read.
    """
    if any(use.report.steps for use in record.stages):
        return []
    task, dev = task_of(record), store.trace(record)
    answers = dev.predictions()[-1].astype(np.float64)
    metric = task.metrics[0]
    own, constant = record.exits[-1].scores[metric], record.constant_scores[metric]
    said = []
    if own < constant:
        said.append(f"{metric} {own:.3f} is below the constant answer's {constant:.3f}")
    if len(set(answers)) == 1:
        said.append(f"all {len(answers)} rows get one answer, {_name(task, answers[0])}")
    if not task.regression and len(task.labels) <= MOST_CLASSES:
        said += _other_order(task, answers, dev.labels, own)
    return said


def _other_order(task: Task, answers: Array, labels: Array, own: float) -> list[str]:
    """The order of the labels that scores best, when it is not the model's."""
    orders = list(permutations(range(len(task.labels))))
    renamed = np.array(orders, dtype=np.float64)[:, answers.astype(int)]  # [orders, n]
    reached = METRICS[task.metrics[0]](renamed, labels)
    best = int(reached.argmax())
    if reached[best] <= own + BETTER_BY:
        return []
    moved = [
        (task.labels[place], task.labels[other])
        for place, other in enumerate(orders[best])
        if place != other
    ]
    how = "swapped" if len(moved) == 2 else "in another order"
    which = (
        ""
        if len(task.labels) == 2
        else f" ({', '.join(f'{given} read as {meant}' for given, meant in moved)})"
    )
    return [
        f"with labels {how}{which} it would score {reached[best]:.2f}: do they stand in the model's order (--labels)?"
    ]


def _name(task: Task, answer: float) -> str:
    return f"{answer:g}" if task.regression else task.labels[int(answer)]
