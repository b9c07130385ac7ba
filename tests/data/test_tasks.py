"""Row counts, the majority-class baseline, fingerprints, and names of tasks and groups."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.command_line import assert_names, assert_suggests
from support.glue_files import Row, load_tsv, pairs, singles, write_tsv
from support.synthetic import one_line

from harness.data import demo
from harness.data.dataset import Tokens
from harness.data.loading import load_data
from harness.data.tasks import GROUPS, TASKS, find_tasks
from harness.errors import HarnessError
from harness.models.backbones import BACKBONES

# --- train_rows and limit


@pytest.mark.parametrize("count", [0, 601, 10_000])
def test_train_rows_error_names_both_numbers(tmp_path: Path, count: int) -> None:
    """The error names the requested rows and those of the training part."""
    with pytest.raises(HarnessError) as error:
        load_tsv(tmp_path, "cola", singles(1_000), rows=count)
    assert_names(one_line(error), (f"cola={count}", 600))


def test_limit_keeps_first_rows(tmp_path: Path) -> None:
    rows = singles(1_000)
    full = load_tsv(tmp_path, "cola", rows, rows[:50])
    limited = load_tsv(tmp_path, "cola", rows, rows[:50], limit=120)
    for name, part in limited.splits().items():
        assert part.ids.tolist() == full.splits()[name].ids[:120].tolist()
    assert {name: len(part) for name, part in limited.splits().items()} == {
        "train": 120,
        "selection": 100,
        "calibration": 120,
        "dev": 50,
    }


# --- the majority-class baseline


def test_baseline_predicts_train_majority(tmp_path: Path) -> None:
    """The baseline predicts the majority class of train and is scored on dev."""
    train = [
        (texts, "0" if number % 4 else "1") for number, (texts, _) in enumerate(singles(1_000))
    ]
    dev = [((f"dev {number}",), "0" if number < 3 else "1") for number in range(10)]
    assert load_tsv(tmp_path, "sst2", train, dev).constant_scores() == {"accuracy": 0.3}
    assert load_tsv(tmp_path, "cola", train, dev).constant_scores() == {"matthews": 0.0}


def test_mrpc_baseline_predicts_positive_class(tmp_path: Path) -> None:
    """The baseline's F1 on MRPC is that of always predicting the positive class."""
    train: list[Row] = [((f"a {i}", f"b {i}"), "1" if i % 3 else "0") for i in range(1_000)]
    dev: list[Row] = [((f"c {i}", f"d {i}"), "1" if i < 6 else "0") for i in range(10)]
    scores = load_tsv(tmp_path, "mrpc", train, dev).constant_scores()
    assert scores == pytest.approx({"f1": 2 * 0.6 / 1.6, "accuracy": 0.6}, abs=1e-12)


def test_regression_baseline_never_correlates(tmp_path: Path) -> None:
    rows = [((f"a {i}", f"b {i}"), f"{i % 50 / 10}") for i in range(1_000)]
    assert load_tsv(tmp_path, "stsb", rows, rows[:30]).constant_scores() == {
        "pearson": 0.0,
        "spearman": 0.0,
    }


# --- fingerprints


def characters(texts: Sequence[tuple[str, ...]], max_length: int) -> Tokens:
    """Encode each letter as a token."""
    ids = tuple(
        np.array([ord(letter) for letter in " ".join(row)[:max_length]], dtype=np.int32)
        for row in texts
    )
    return Tokens(ids, tuple(np.zeros_like(row) for row in ids), 0)


def test_fingerprint_ignores_path_and_format(tmp_path: Path) -> None:
    """The fingerprint depends on the rows, but not on the file's path and line ends."""
    rows = pairs(700)
    first = load_tsv(tmp_path / "a", "rte", rows)
    for split, rows_of_split in (("train", rows), ("dev", rows[:2])):
        write_tsv(tmp_path / "b", "rte", split, rows_of_split, newline="\r\n", end="")
    second = load_data(TASKS["rte"], tmp_path / "b")
    assert first.encoded(characters, 16).fingerprint == second.encoded(characters, 16).fingerprint
    assert first.data_fingerprint == second.data_fingerprint
    assert first.split_fingerprint == second.split_fingerprint


def test_fingerprint_depends_on_all_content(tmp_path: Path) -> None:
    """The fingerprint changes with any text, label, part or length."""
    rows, dev = pairs(700), pairs(720)[700:]

    def changed(
        part: list[Row], row: int, texts: tuple[str, ...] | None = None, label: str | None = None
    ) -> list[Row]:
        old_texts, old_label = part[row]
        return [*part[:row], (texts or old_texts, label or old_label), *part[row + 1 :]]

    def fingerprint(
        name: str,
        train: list[Row],
        dev: list[Row],
        length: int = 16,
        count: int | None = None,
        limit: int | None = None,
    ) -> str:
        return (
            load_tsv(tmp_path / name, "rte", train, dev, count, limit)
            .encoded(characters, length)
            .fingerprint
        )

    fingerprints = [
        fingerprint("same", rows, dev),
        fingerprint("text", changed(rows, 13, ("premise 13", "another")), dev),
        fingerprint("swap", changed(rows, 13, rows[13][0][::-1]), dev),
        fingerprint("label", changed(rows, 14, label="entailment"), dev),
        fingerprint("dev text", rows, changed(dev, 0, ("other", "texts"))),
        fingerprint("dev label", rows, changed(dev, 0, label="entailment")),
        fingerprint("fewer", rows[:-1], dev),
        fingerprint("length", rows, dev, length=17),
        fingerprint("drawn", rows, dev, count=250),
        fingerprint("limit", rows, dev, limit=10),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprint("again", rows, dev) == fingerprints[0]


def test_fingerprint_depends_on_each_part(tmp_path: Path) -> None:
    """The fingerprint changes if rows change their part."""
    data = load_tsv(tmp_path, "rte", pairs(700))
    moved = replace(data, selection=data.calibration, calibration=data.selection)
    assert moved.fingerprint != data.fingerprint


def test_fingerprint_distinguishes_train_from_dev(tmp_path: Path) -> None:
    """The data fingerprint changes if the first row of dev moves to the end of train."""
    rows = pairs(720)
    first, second = (
        load_tsv(tmp_path / str(train_rows), "rte", rows[:train_rows], rows[train_rows:])
        for train_rows in (700, 701)
    )
    assert first.data_fingerprint != second.data_fingerprint


def test_encoded_rows_keep_their_order(tmp_path: Path) -> None:
    """Encoded rows keep their order, and the maximum length is stored."""
    data = load_tsv(tmp_path, "cola", singles(700)).encoded(characters, 12)
    assert data.max_length == 12
    for part in data.splits().values():
        assert ["".join(map(chr, row)) for row in part.tokens.ids] == [
            text[:12] for (text,) in part.texts
        ]
        assert part.tokens.lengths.tolist() == [12] * len(part)


# --- the demo tasks


@pytest.mark.parametrize("task", GROUPS["demo"])
def test_demo_tasks_have_held_out_parts(task: str) -> None:
    """The demo tasks need no data folder, and parts of them are held out."""
    data = load_data(TASKS[task], None)
    assert len(data.dev) == demo.SPLIT_SIZES["dev"]
    for part, share, least in ((data.selection, 0.05, 100), (data.calibration, 0.1, 300)):
        wanted = max(share * demo.SPLIT_SIZES["train"], least)
        # the groups of demo-pair have about 12 rows, and there are 2 labels
        assert abs(wanted - len(part)) <= 24
    assert TASKS[task].labels == demo.LABELS[task]


@pytest.mark.parametrize(
    ("task", "data", "split", "encoded"),
    [
        ("demo-single", "004ecd2f05a36551", "9a5bf4fffa397c5f", "885d7ce4a1aa8837"),
        ("demo-pair", "8724b2d157e9818b", "2a97f6441c35d88b", "be22c2e866d1f60d"),
    ],
)
def test_demo_fingerprints_never_change(task: str, data: str, split: str, encoded: str) -> None:
    """Stored runs and cached stages are found by fingerprints, so they must not change."""
    loaded = load_data(TASKS[task], None)
    assert (loaded.data_fingerprint, loaded.split_fingerprint) == (data, split)
    assert loaded.encoded(BACKBONES["tiny"].encode, 128).fingerprint == encoded


# --- names


def test_groups_expand_without_repetition() -> None:
    glue = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
    assert [task.name for task in find_tasks(["glue"])] == glue
    union = [
        "rte",
        "demo-single",
        "demo-pair",
        "cola",
        "sst2",
        "mrpc",
        "stsb",
        "qqp",
        "mnli",
        "qnli",
        "wnli",
    ]
    assert [task.name for task in find_tasks(["rte", "demo", "glue", "rte"])] == union


@pytest.mark.parametrize(
    ("name", "near"),
    [("mprc", "mrpc"), ("sst-2", "sst2"), ("gleu", "glue"), ("demo-pairs", "demo-pair")],
)
def test_unknown_task_suggests_the_nearest(name: str, near: str) -> None:
    """The error for an unknown task lists near matches first, then all names."""
    with pytest.raises(HarnessError) as error:
        find_tasks(["cola", name])
    message = one_line(error)
    assert_names(message, name, *TASKS, *GROUPS)
    assert_suggests(message, near, (*TASKS, *GROUPS))


def test_groups_and_tasks_are_consistent() -> None:
    """Every group holds known tasks, and the fields of every task agree."""
    assert {member for members in GROUPS.values() for member in members} <= set(TASKS)
    for name, task in TASKS.items():
        assert task.name == name
        assert task.about
        assert task.metrics
        assert len(task.labels) == len(task.values) == len(set(task.values))
        assert task.classes == (len(task.labels) or 1)
        assert task.regression == (task.labels == ())
