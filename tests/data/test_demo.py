"""The rows of the demo tasks, and the accuracy of three methods on them."""

from collections import Counter

import numpy as np
import pytest
from support.command_line import assert_names

from harness.__main__ import main
from harness.data import demo
from harness.data.demo import DemoRow, demo_rows, demo_vocabulary
from harness.evaluation.curves import exit_indices, exit_macs
from harness.evaluation.policies import Entropy, Patience, Policy
from harness.records import RunRecord
from harness.store.results import ResultsStore

TASKS = tuple(demo.LABELS)
METHODS = ("bert", "deebert", "pabee")


DECISIVE = {*demo._GOOD, *demo._BAD, *demo._LIKED, *demo._DISLIKED, *demo._GLAD, *demo._SAD, "not"}


def decisive_words(row: DemoRow) -> tuple[str, ...]:
    """Return the words that bear on the label, sorted."""
    return tuple(sorted(word for word in " ".join(row.texts).split() if word in DECISIVE))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_rows_are_stable_and_distinct(task: str) -> None:
    """Rows are the same on every call, and none occurs twice."""
    rows = demo_rows(task, "train")
    assert rows == demo_rows(task, "train")
    assert len({row.texts for row in rows}) == len(rows) == demo.SPLIT_SIZES["train"]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_dev_shares_no_text_with_train(task: str) -> None:
    train, dev = (
        {text for row in demo_rows(task, split) for text in row.texts} for split in ("train", "dev")
    )
    assert not train & dev


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "dev"])
def test_labels_are_balanced_by_hardness(task: str, split: str) -> None:
    """Labels are balanced among easy rows and among hard rows."""
    counts = Counter((row.hard, row.label) for row in demo_rows(task, split))
    for hard in (False, True):
        assert len({counts[hard, label] for label in demo.LABELS[task]}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_words_decide_only_easy_rows(task: str) -> None:
    """The words without their order decide easy rows, but not hard ones."""
    rows = demo_rows(task, "train")
    counts = Counter((row.hard, decisive_words(row), row.label) for row in rows)
    bags = {hard: {words for kind, words, _ in counts if kind == hard} for hard in (False, True)}
    for words in bags[False]:
        assert len([label for label in demo.LABELS[task] if counts[False, words, label]]) == 1
    best = sum(
        max(counts[True, words, label] for label in demo.LABELS[task]) for words in bags[True]
    )
    assert best / sum(row.hard for row in rows) < 0.6


@pytest.mark.slow
def test_vocabulary_has_every_word_once() -> None:
    vocabulary = demo_vocabulary()
    words = {
        word
        for task in TASKS
        for split in ("train", "dev")
        for row in demo_rows(task, split)
        for word in " ".join(row.texts).split()
    }
    assert words <= set(vocabulary)
    assert len(vocabulary) == len(set(vocabulary))


@pytest.mark.slow
def test_unknown_task_or_split_is_refused() -> None:
    for task, split, unknown, known in (
        ("demo-trio", "train", "demo-trio", TASKS),
        ("demo-pair", "test", "test", demo.SPLIT_SIZES),
    ):
        with pytest.raises(ValueError, match=unknown) as caught:
            demo_rows(task, split)
        assert_names(str(caught.value), unknown, *known)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultsStore:
    """Results of the grid of `make demo`, on one thread and without timing."""
    folder = tmp_path_factory.mktemp("demo")
    dirs = ("--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache"))
    assert main(["run", "--precision", "fp32", "--threads", "1", "--no-latency", "-q", *dirs]) == 0
    return ResultsStore(folder / "results")


@pytest.fixture(scope="module")
def runs(store: ResultsStore) -> dict[tuple[str, str], RunRecord]:
    records, problems = store.records()
    assert not problems
    return {(record.spec.task, record.spec.method): record for record in records}


def accuracies(record: RunRecord) -> list[float]:
    return [measured.scores["accuracy"] for measured in record.exits]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_last_exit_learns_the_task(
    runs: dict[tuple[str, str], RunRecord], task: str, method: str
) -> None:
    assert accuracies(runs[task, method])[-1] >= 0.90


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", ["deebert", "pabee"])
def test_last_exit_beats_the_first(
    runs: dict[tuple[str, str], RunRecord], task: str, method: str
) -> None:
    first, *_, last = accuracies(runs[task, method])
    assert first <= last - 0.10


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("method", "policy", "thresholds"),
    [
        ("deebert", Entropy(), (0.3, 0.4, 0.5, 0.6)),  # in nats, at most ln 2 = 0.69
        ("pabee", Patience(), (1.0,)),  # one agreement
    ],
    ids=["deebert", "pabee"],
)
def test_easy_rows_exit_earlier(
    store: ResultsStore,
    runs: dict[tuple[str, str], RunRecord],
    task: str,
    method: str,
    policy: Policy,
    thresholds: tuple[float, ...],
) -> None:
    """Easy rows exit earlier by the policy of each method.

    Measured on demo-pair and demo-single: deebert saves 1.21 and 0.79 layers, pabee 0.24 and 0.45.
    """
    hard = np.array([row.hard for row in demo_rows(task, "dev")])
    record = runs[task, method]
    assert record.policy == policy.name
    trace = store.trace(record)
    exits = exit_indices(policy, trace.logits, np.array(thresholds))
    layers, macs = (
        trace.exit_layers[exits],
        exit_macs(record.costs, trace)[exits, np.arange(len(hard))],
    )
    assert layers[:, ~hard].mean() < layers[:, hard].mean() - 0.1
    assert macs[:, ~hard].mean() < macs[:, hard].mean()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_methods_differ_except_shared_exit(
    store: ResultsStore, runs: dict[tuple[str, str], RunRecord], task: str
) -> None:
    """deebert shares its last exit with bert; all other exits differ."""
    bert, deebert, pabee = (store.trace(runs[task, method]).logits for method in METHODS)
    assert np.array_equal(bert[-1], deebert[-1])
    assert np.abs(deebert - pabee).max(axis=(1, 2)).min() > 0.01
    assert np.abs(bert[-1] - pabee[-1]).max() > 0.01
