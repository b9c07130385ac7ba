"""Suggestions for names that are not known."""

import pytest

from harness.data.tasks import known_tasks, task_groups
from harness.errors import similar_names
from harness.evaluation.metrics import METRICS

TASKS = [*known_tasks(), *task_groups()]
FIELDS = ["accumulation", "batch_size", "clip", "epochs", "learning_rates", "warmup"]
FIELDS += ["weight_decay"]


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("SST-2", TASKS, ["sst2"]),
        ("sts_b", TASKS, ["stsb"]),
        ("MNLI", TASKS, ["mnli"]),
        ("sst", TASKS, ["sst2"]),
        ("lr", FIELDS, ["learning_rates"]),
        ("wd", FIELDS, ["weight_decay"]),
        ("batchsize", FIELDS, ["batch_size"]),
        ("learning_rate", FIELDS, ["learning_rates"]),
        ("epoch", FIELDS, ["epochs"]),
        ("warmpu", FIELDS, ["warmup"]),
        ("acc", METRICS, ["accuracy"]),
        ("f1_macro", METRICS, ["macro_f1"]),
        ("x", FIELDS, []),
        ("", FIELDS, []),
        ("--", FIELDS, []),
    ],
)
def test_likely_names_are_suggested(name: str, known: list[str], meant: list[str]) -> None:
    """Spelling, order of words, abbreviations and slips lead to the known name."""
    assert similar_names(name, known) == meant
