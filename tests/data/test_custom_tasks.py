"""Custom tasks: valid files, and a one-line error for each mistake in a file."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.command_line import assert_names, assert_suggests
from support.custom_tasks import NFC, NFD, load, reviews, write_csv, write_task
from support.synthetic import make_exit, make_record, one_line

from harness.data.custom_tasks import (
    KEYS,
    choose_tasks,
    read_task_file,
    read_task_files,
    summary,
    task_of,
)
from harness.data.loading import load_data
from harness.data.tasks import TASKS, Task
from harness.errors import HarnessError, IncompleteError
from harness.evaluation.metrics import METRICS
from harness.records import TaskSummary

# --- valid files


def test_minimal_task_is_read(folder: Path) -> None:
    """A minimal task is read with its labels by name; few training rows cause a remark."""
    data = load(write_task(folder))
    assert data.dev.texts == tuple((text,) for text, _ in reviews(20, 900))
    assert data.dev.labels.tolist() == [float(number % 3 > 0) for number in range(900, 920)]
    assert {name: len(part) for name, part in data.splits().items()} == {
        "train": 100,
        "selection": 100,
        "calibration": 300,
        "dev": 20,
    }
    (remark,) = data.remarks
    assert_names(remark, (100, 400))


def test_paths_are_relative_to_task_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_task(folder)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert len(load(path).dev) == 20


@pytest.mark.parametrize(
    ("changes", "labels", "scale"),
    [
        ({"scale": "5"}, ["0", "2.5", "5"], 5.0),
        ({"range": "[-1, 1.0]"}, ["-1", "0", "1"], 1.0),
        ({"range": "[1, 5]"}, ["1", "3", "5"], 5.0),
    ],
)
def test_regression_has_scale_or_range(
    tmp_path: Path, changes: dict[str, str], labels: list[str], scale: float
) -> None:
    rows = [(f"text {number}", labels[number % 3]) for number in range(450)]
    for name in ("train", "dev"):
        write_csv(tmp_path / f"{name}.csv", rows)
    data = load(
        write_task(
            tmp_path,
            {"labels": None, "regression": "true", "metrics": '["spearman", "pearson"]'} | changes,
        )
    )
    assert (data.task.classes, data.task.scale, data.task.metrics) == (
        1,
        scale,
        ("spearman", "pearson"),
    )
    assert data.dev.labels[:3].tolist() == [float(label) for label in labels]
    held = np.unique(data.selection.labels, return_counts=True)[1]
    assert max(held) - min(held) <= 1  # three strata of 150 rows each


def test_dev_share_comes_from_train(tmp_path: Path) -> None:
    """A share of train becomes dev and has no text in common with the rest.

    Every second text occurs in two rows."""
    rows = [
        (f"claim {number}", f"premise {number // 2}", "yes" if number % 4 else "no")
        for number in range(1_000)
    ]
    write_csv(tmp_path / "train.csv", rows, ("claim", "premise", "liked"))
    changes = {"dev": None, "dev_share": "0.2", "text": '["claim", "premise"]'}
    data = load(write_task(tmp_path, changes))
    assert len(data.dev) in (198, 200)  # groups of two, in two strata
    assert data.dev.labels.mean() == pytest.approx(0.75, abs=0.01)
    parts = [{text for texts in part.texts for text in texts} for part in data.splits().values()]
    assert not any(one & other for index, one in enumerate(parts) for other in parts[:index])
    renamed = load(write_task(tmp_path, changes | {"name": '"other"'}))
    assert renamed.dev.ids.tolist() == data.dev.ids.tolist()
    assert sum(map(len, data.splits().values())) == 1_000


def test_fingerprint_depends_on_task_file(folder: Path) -> None:
    """The fingerprint depends on the content of the task file, but not on `about`."""

    def fingerprint(changes: dict[str, str | None]) -> str:
        return load(write_task(folder, changes)).data_fingerprint

    fingerprints = [
        fingerprint({}),
        fingerprint({"metrics": '"f1"'}),
        fingerprint({"metrics": '["f1", "accuracy"]'}),
        fingerprint({"labels": '["yes", "no"]'}),
        fingerprint({"labels": '["bad", "good"]', "values": '["no", "yes"]'}),
        fingerprint({"dev": '"train.csv"'}),
        fingerprint({"dev": None, "dev_share": "0.1"}),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprint({"about": '"something else"'}) == fingerprints[0]


# --- names of tasks


def test_custom_tasks_replace_the_default(folder: Path) -> None:
    """Custom tasks are added to the named tasks and replace the default ones."""
    custom = read_task_file(write_task(folder))
    assert list(choose_tasks(None, [])) == ["demo-single", "demo-pair"]
    assert list(choose_tasks(None, [custom])) == ["reviews"]
    assert list(choose_tasks(["rte"], [custom])) == ["rte", "reviews"]
    assert list(choose_tasks(["reviews", "demo", "rte", "demo"], [custom])) == [
        "reviews",
        "demo-single",
        "demo-pair",
        "rte",
    ]
    with pytest.raises(HarnessError) as error:
        choose_tasks(["revews"], [custom])
    assert_names(one_line(error), "revews")


def test_duplicate_task_names_are_refused(folder: Path) -> None:
    path = write_task(folder)
    with pytest.raises(HarnessError) as error:
        read_task_files([path, path], allow_code=False)
    assert_names(one_line(error), path, "name", "reviews")


# --- mistakes


MISTAKES: list[tuple[dict[str, str | None], list[object]]] = [
    ({"name": None}, ["name"]),
    ({"name": "3"}, ["name", 3]),
    ({"name": '"../up"'}, ["name", "../up", "a-z"]),
    ({"name": '"Reviews"'}, ["name", "Reviews", "a-z"]),
    ({"name": '"mrpc"'}, ["name", "mrpc"]),
    ({"name": '"glue"'}, ["name", "glue"]),
    ({"lables": '["a", "b"]'}, [("lables", "labels", "dev_share")]),
    ({"train": None}, ["train", ".csv"]),
    ({"train": '"none.csv"'}, ["train", "none.csv"]),
    ({"train": '"train.txt"'}, ["train", "train.txt", ".jsonl"]),
    ({"train": "[1]"}, ["train", "[1]"]),
    ({"dev": None}, ["dev", "dev_share"]),
    ({"dev_share": "0.1"}, ["dev", "dev_share"]),
    ({"dev": None, "dev_share": "1.5"}, [("dev_share", 1.5, 0, 1)]),
    ({"dev": None, "dev_share": "nan"}, ["dev_share", "nan"]),
    ({"dev": None, "dev_share": '"plenty"'}, ["dev_share", "plenty"]),
    ({"text": None}, ["text"]),
    ({"text": "[]"}, ["text", "[]"]),
    ({"text": '["a", "b", "c"]'}, ["text", "['a', 'b', 'c']"]),
    ({"text": '["review", "review"]'}, ["text", "['review', 'review']"]),
    ({"label": '"review"'}, ["label", "review"]),
    ({"label": "true"}, ["label", "True"]),
    ({"labels": None}, ["labels", "regression", "true"]),
    ({"labels": '["no"]'}, ["labels", "['no']"]),
    ({"labels": '["no", "no"]'}, ["labels", "['no', 'no']"]),
    ({"labels": "[0, 1]"}, ["labels", "[0, 1]"]),
    ({"values": '["0"]'}, [("values", "['0']", 2, "labels")]),
    ({"regression": '"yes"'}, [("regression", "yes", "true", "false")]),
    ({"regression": "true"}, ["labels", "['no', 'yes']", "regression", "true"]),
    ({"scale": "5.0"}, ["scale", 5.0, "regression", "true"]),
    ({"labels": None, "regression": "true"}, ["scale", "range"]),
    ({"labels": None, "regression": "true", "scale": "0"}, ["scale", 0]),
    ({"labels": None, "regression": "true", "scale": "5", "range": "[0, 5]"}, ["scale", "range"]),
    ({"labels": None, "regression": "true", "range": "[5, 0]"}, ["range", "[5, 0]"]),
    ({"labels": None, "regression": "true", "range": "[0]"}, ["range", "[0]"]),
    ({"labels": None, "regression": "true", "range": "[nan, 1]"}, ["range", "nan"]),
    (
        {"labels": None, "regression": "true", "scale": "5"},
        ["metrics", "accuracy", "pearson", "spearman"],
    ),
    ({"metrics": None}, ["metrics", "accuracy", "f1", "matthews"]),
    ({"metrics": '"acuracy"'}, [("metrics", "acuracy", "accuracy", "pearson")]),
    (
        {"metrics": '["accuracy", "pearson"]'},
        [("metrics", "pearson", 2, "accuracy", "f1", "matthews")],
    ),
    ({"metrics": "[]"}, ["metrics", "[]"]),
    ({"metrics": '"evaluate:wer"'}, ["metrics", "evaluate:wer", "--allow-metric-code"]),
    ({"metrics": '"__import__(1)"'}, ["metrics", "__import__(1)", "accuracy"]),
]


@pytest.mark.parametrize(
    ("changes", "names"), MISTAKES, ids=[str(changes) for changes, _ in MISTAKES]
)
def test_task_file_mistake_names_the_key(
    folder: Path, changes: dict[str, str | None], names: list[object]
) -> None:
    """A mistake in a task file is reported in one line with file and key."""
    (folder / "train.txt").write_text("x")
    path = write_task(folder, changes)
    with pytest.raises(HarnessError) as error:
        read_task_file(path)
    assert_names(one_line(error), path, *names)
    if "lables" in changes:
        assert_suggests(one_line(error), "labels", KEYS)


def test_same_names_in_two_forms_are_refused(folder: Path) -> None:
    with pytest.raises(HarnessError) as caught:
        read_task_file(write_task(folder, {"labels": f'["{NFC}", "{NFD}"]'}))
    assert_names(one_line(caught), "labels")


def test_f1_of_many_classes_is_macro_f1(tmp_path: Path, folder: Path) -> None:
    task = read_task_file(
        write_task(
            folder, {"labels": '["a", "b", "c"]', "metrics": '["accuracy", "f1", "macro_f1"]'}
        )
    )
    assert task.metrics == ("accuracy", "macro_f1")
    assert read_task_file(write_task(folder, {"metrics": '["f1", "macro_f1"]'})).metrics == (
        "f1",
        "macro_f1",
    )


def test_task_file_must_be_toml(tmp_path: Path) -> None:
    """A file that is missing or not TOML is reported in one line."""
    path = tmp_path / "mytask.toml"
    contents: list[tuple[bytes | None, list[object]]] = [
        (None, ["--task-file", os.strerror(errno.ENOENT)]),
        (b'name = "a"\ntrain = file\n', ["TOML", 2]),
        (b"name = " + b"[" * 5000, ["TOML"]),
        *(
            (f"dev_share = {number}".encode(), [])
            for number in ("1" * 5000, "1" + "0" * 400, "inf")
        ),
        (b'name = "caf\xe9"', ["TOML"]),
    ]
    for content, names in contents:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(HarnessError) as error:
            read_task_file(path)
        assert_names(one_line(error), path, *names)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", reviews(30))
    for changes in ({"dev": '"train.csv"'}, {"dev": None, "dev_share": "0.1"}):
        with pytest.raises(HarnessError) as error:
            load(write_task(tmp_path, changes))
        assert_names(one_line(error), "reviews", (30 if "dev_share" not in changes else 27, 400))
    with pytest.raises(HarnessError) as error:
        load(write_task(tmp_path, {"dev": None, "dev_share": "0.001"}))
    assert_names(one_line(error), "reviews", ("dev_share", 0.001, 30))


def test_linked_rows_are_counted(tmp_path: Path) -> None:
    """If a prompt in the second column links all rows, they are divided, with a remark."""
    rows = "".join(
        f"a text {number}\tthe same question\t{'yn'[number % 2]}\n" for number in range(700)
    )
    (tmp_path / "rows.tsv").write_text(f"one\tother\tlabel\n{rows}")
    changes = {"train": '"rows.tsv"', "dev": None, "dev_share": "0.1", "text": '["one", "other"]'}
    changes |= {"label": '"label"', "labels": '["y", "n"]'}
    data = load(write_task(tmp_path, changes))
    assert [len(part) for part in data.splits().values()] == [230, 100, 300, 70]
    dev, held_out, _ = data.remarks  # the last is about few training rows
    assert_names(dev, "dev", 700, "the same question")
    assert_names(held_out, "selection", "calibration", 630, "the same question")


def test_only_labels_have_restricted_characters(tmp_path: Path) -> None:
    """Texts, which are never printed, may hold any character; labels may not."""
    write_csv(
        tmp_path / "train.csv",
        [(f"text {number}", "a\tx" if number % 2 else "b") for number in range(900)],
    )
    changes = {
        "about": '"""Two\nlines"""',
        "values": '["a\\tx", "b"]',
        "labels": '["caf\u00e9\u00a0\u200d", "b"]',
        "dev": None,
        "dev_share": "0.1",
    }
    assert set(load(write_task(tmp_path, changes)).train.labels) == {0, 1}
    for label in ("a\\u202e", "a\\n", "a\\u2028"):
        with pytest.raises(HarnessError) as error:
            load(write_task(tmp_path, changes | {"labels": f'["{label}", "b"]'}))
        assert_names(one_line(error), tmp_path / "mytask.toml", "labels", "values")


def test_remark_ignores_drawn_rows(tmp_path: Path) -> None:
    """The remark on few training rows counts them before some are drawn."""
    write_csv(tmp_path / "train.csv", reviews(900))
    task = read_task_file(write_task(tmp_path, {"dev": None, "dev_share": "0.1"}))
    assert load_data(task, None, train_rows=20).remarks == ()


def test_class_without_rows_is_remarked(tmp_path: Path) -> None:
    """A class without training rows causes a remark."""
    write_csv(tmp_path / "train.csv", [(f"text {number}", "yes") for number in range(900)])
    (remark,) = load(
        write_task(tmp_path, {"dev": None, "dev_share": "0.1", "labels": '["nay", "yes"]'})
    ).remarks
    assert_names(remark, "nay")


def test_skewed_dev_part_is_remarked(tmp_path: Path) -> None:
    """A dev part of three rows cannot have a class's share of one percent."""
    rows = [(f"text {number}", "yes" if number % 100 else "no") for number in range(1_000)]
    write_csv(tmp_path / "train.csv", rows)
    (remark,) = load(write_task(tmp_path, {"dev": None, "dev_share": "0.002"})).remarks
    assert_names(remark, "dev", 3, ("67%", "yes", "99%"))


def test_equal_regression_labels_are_remarked(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [(f"text {number}", "3.0") for number in range(900)])
    write_csv(tmp_path / "dev.csv", [("a text", "3.0")])
    changes = {"labels": None, "regression": "true", "scale": "5.0", "metrics": '"pearson"'}
    assert_names(load(write_task(tmp_path, changes)).remarks[-1], 3, "correlations")


# --- tasks in records


def test_record_describes_only_custom_tasks(folder: Path) -> None:
    """A record describes a custom task; a built-in one needs no description."""
    task = read_task_file(write_task(folder, {"metrics": '["f1", "accuracy"]'}))
    assert summary(task) == TaskSummary(
        ("no", "yes"), ("f1", "accuracy"), 1.0, 1, ("review",), "liked", ("no", "yes")
    )
    assert summary(TASKS["mrpc"]) is None
    record = make_record("bert", 1, [make_exit(4, {"f1": 0.5}, 1.0, 1.0, 1.0)], task="reviews")
    task_summary = TaskSummary((), ("pearson",), 4.0)
    read = task_of(replace(record, own_task=task_summary))
    assert (read.name, read.classes, read.metrics, read.scale) == ("reviews", 1, ("pearson",), 4.0)
    with pytest.raises(HarnessError) as error:
        task_of(record)
    assert_names(one_line(error), "reviews", *TASKS)
    with pytest.raises(IncompleteError) as error:
        task_of(replace(record, own_task=TaskSummary((), ("evaluate:wer",), 4.0)))
    assert_names(one_line(error), record.short_id, "evaluate:wer", *METRICS)


def test_custom_task_is_local(folder: Path) -> None:
    task: Task = read_task_file(write_task(folder))
    assert (task.custom, task.source.texts, task.source.is_local()) == (True, 1, True)
    assert (task.external_metrics, task.phrases) == ((), False)


def test_recorded_task_has_no_rows() -> None:
    """The record of a custom task holds the number of texts per row, but no path of its rows."""
    record = make_record("bert", 1, [make_exit(4, {"f1": 0.5}, 1.0, 1.0, 1.0)], task="reviews")
    task = task_of(replace(record, own_task=TaskSummary(("no", "yes"), ("f1",), 1.0, texts=2)))
    assert (task.source.texts, task.source.is_local()) == (2, False)
    with pytest.raises(HarnessError) as error:
        load_data(task, None)
    assert_names(one_line(error), "reviews", "--task-file")
