"""A user's own task: what a task file may say, and one line for each mistake in it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import Table, parquet
from support.custom_tasks import reviews, write_csv, write_task
from support.synthetic import make_exit, make_record, one_line

from harness.data.custom_tasks import choose_tasks, read_task_file, read_task_files, summary, task_of
from harness.data.dataset import TaskData
from harness.data.loading import load_data
from harness.data.tasks import TASKS, Task
from harness.errors import HarnessError, IncompleteError
from harness.records import TaskSummary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train and dev files of 500 and 20 rows."""
    write_csv(tmp_path / "train.csv", reviews(500))
    write_csv(tmp_path / "dev.csv", reviews(20, 900))
    return tmp_path


def load(path: Path) -> TaskData:
    return load_data(read_task_file(path), None)


# --- what a file may say


def test_plain_task_is_read_with_its_labels_by_name(folder: Path) -> None:
    data = load(write_task(folder))
    assert data.dev.texts == tuple((text,) for text, _ in reviews(20, 900))
    assert data.dev.labels.tolist() == [float(number % 3 > 0) for number in range(900, 920)]
    assert {name: len(part) for name, part in data.splits().items()} == {"train": 100, "selection": 100, "calibration": 300, "dev": 20}
    assert data.remarks == ("100 rows are left to train on, 400 of train are held out to select and to calibrate",)


def test_paths_are_relative_to_the_task_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_task(folder)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert len(load(path).dev) == 20


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl", "parquet"])
def test_formats_hold_the_same_rows(tmp_path: Path, ending: str) -> None:
    """Pairs with commas and quotes, whole numbers as labels where the format has numbers."""
    rows = [(f'first, "{number}', f"second {number}", number % 3) for number in range(450)]
    names = ("one", "other", "kind")
    path = tmp_path / f"rows.{ending}"
    if ending == "tsv":
        path.write_text("\n".join("\t".join(map(str, row)) for row in (names, *rows)) + "\n")
    elif ending == "csv":
        write_csv(path, [tuple(map(str, row)) for row in rows], names)
    elif ending == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows) + "\n\n")
    else:
        parquet.write_table(Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]), path)
    changes = {"train": f'"rows.{ending}"', "dev": f'"rows.{ending}"', "text": '["one", "other"]', "label": '"kind"'}
    data = load(write_task(tmp_path, changes | {"labels": '["low", "middle", "high"]', "values": '["0", "1", "2"]'}))
    assert data.dev.texts == tuple(row[:2] for row in rows)
    assert data.dev.labels.tolist() == [row[2] for row in rows]
    assert data.task.labels == ("low", "middle", "high")


def test_a_cell_of_several_lines_is_one_text_and_spaces_around_texts_and_labels_go(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [(" two\nlines ", " yes"), *reviews(450)])
    write_csv(tmp_path / "dev.csv", [(" two\nlines ", " yes")])
    data = load(write_task(tmp_path))
    assert data.dev.texts == (("two\nlines",),)
    assert data.dev.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "labels", "scale", "third"),
    [
        ({"scale": "5"}, ["0", "2.5", "5"], 5.0, 2),
        ({"range": "[-1, 1.0]"}, ["-1", "0", "1"], 1.0, 2),
        ({"range": "[1, 5]"}, ["1", "3", "5"], 5.0, 2),
    ],
)
def test_regression_has_a_scale_or_a_range(tmp_path: Path, changes: dict[str, str], labels: list[str], scale: float, third: int) -> None:
    rows = [(f"text {number}", labels[number % 3]) for number in range(450)]
    for name in ("train", "dev"):
        write_csv(tmp_path / f"{name}.csv", rows)
    data = load(write_task(tmp_path, {"labels": None, "regression": "true", "metrics": '["spearman", "pearson"]'} | changes))
    assert (data.task.classes, data.task.scale, data.task.metrics) == (1, scale, ("spearman", "pearson"))
    assert data.dev.labels[:3].tolist() == [float(label) for label in labels]
    held = np.unique(data.selection.labels, return_counts=True)[1]
    assert max(held) - min(held) <= 1  # three strata of 150 rows each


def test_share_of_train_is_dev_and_shares_no_text(tmp_path: Path) -> None:
    """Each second text stands in two rows."""
    rows = [(f"claim {number}", f"premise {number // 2}", "yes" if number % 4 else "no") for number in range(1_000)]
    write_csv(tmp_path / "train.csv", rows, ("claim", "premise", "liked"))
    changes = {"dev": None, "dev_share": "0.2", "text": '["claim", "premise"]'}
    data = load(write_task(tmp_path, changes))
    assert len(data.dev) in (198, 200)  # groups of two, in two strata
    assert data.dev.labels.mean() == pytest.approx(0.75, abs=0.01)
    parts = [{text for texts in part.texts for text in texts} for part in data.splits().values()]
    assert not any(one & other for place, one in enumerate(parts) for other in parts[:place])
    again = load(write_task(tmp_path, changes | {"name": '"other"'}))
    assert again.dev.ids.tolist() == data.dev.ids.tolist()
    assert sum(map(len, data.splits().values())) == 1_000


def test_what_the_file_says_is_part_of_what_a_run_depends_on(folder: Path) -> None:
    def fingerprint(changes: dict[str, str | None]) -> str:
        return load(write_task(folder, changes)).data_fingerprint

    found = [
        fingerprint({}),
        fingerprint({"metrics": '"f1"'}),
        fingerprint({"metrics": '["f1", "accuracy"]'}),
        fingerprint({"labels": '["yes", "no"]'}),
        fingerprint({"labels": '["bad", "good"]', "values": '["no", "yes"]'}),
        fingerprint({"dev": '"train.csv"'}),
        fingerprint({"dev": None, "dev_share": "0.1"}),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint({"about": '"something else"'}) == found[0]


# --- its name among others


def test_own_tasks_come_with_those_that_are_named_and_instead_of_the_default(folder: Path) -> None:
    own = read_task_file(write_task(folder))
    assert list(choose_tasks(None, [])) == ["demo-single", "demo-pair"]
    assert list(choose_tasks(None, [own])) == ["reviews"]
    assert list(choose_tasks(["rte"], [own])) == ["rte", "reviews"]
    assert list(choose_tasks(["reviews", "demo", "rte", "demo"], [own])) == ["reviews", "demo-single", "demo-pair", "rte"]
    with pytest.raises(HarnessError, match="unknown task 'revews'"):
        choose_tasks(["revews"], [own])


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    path = write_task(folder)
    with pytest.raises(HarnessError, match=r"mytask\.toml: name 'reviews'"):
        read_task_files([path, path], allow_code=False)


# --- mistakes


MISTAKES: list[tuple[dict[str, str | None], list[str]]] = [
    ({"name": None}, ["key name is missing"]),
    ({"name": "3"}, ["key name", "'3'"]),
    ({"name": '"../up"'}, ["key name", "'../up'", "a-z"]),
    ({"name": '"Reviews"'}, ["key name", "'Reviews'", "a-z"]),
    ({"name": '"mrpc"'}, ["key name", "'mrpc'", "built-in"]),
    ({"name": '"glue"'}, ["key name", "'glue'", "built-in"]),
    ({"lables": '["a", "b"]'}, ["unknown key 'lables'", "did you mean label"]),
    ({"train": None}, ["key train is missing", ".csv"]),
    ({"train": '"none.csv"'}, ["key train", "none.csv", "no file"]),
    ({"train": '"train.txt"'}, ["key train", "train.txt", ".jsonl"]),
    ({"train": "[1]"}, ["key train", "[1]"]),
    ({"dev": None}, ["neither dev nor dev_share", "dev_share = 0.1"]),
    ({"dev_share": "0.1"}, ["both dev and dev_share"]),
    ({"dev": None, "dev_share": "1.5"}, ["key dev_share", "1.5", "between 0 and 1"]),
    ({"dev": None, "dev_share": "nan"}, ["key dev_share", "nan"]),
    ({"dev": None, "dev_share": '"many"'}, ["key dev_share", "'many'"]),
    ({"text": None}, ["key text is missing"]),
    ({"text": "[]"}, ["key text", "[]"]),
    ({"text": '["a", "b", "c"]'}, ["key text", "one or two"]),
    ({"text": '["review", "review"]'}, ["key text", "each once"]),
    ({"label": '"review"'}, ["key label", "'review'"]),
    ({"label": "true"}, ["key label", "'True'"]),
    ({"labels": None}, ["key labels is missing", "regression = true"]),
    ({"labels": '["no"]'}, ["key labels", "two or more"]),
    ({"labels": '["no", "no"]'}, ["key labels", "each once"]),
    ({"labels": "[0, 1]"}, ["key labels", "[0, 1]", "names"]),
    ({"values": '["0"]'}, ["key values", "2, one for each"]),
    ({"regression": '"yes"'}, ["key regression", "true or false"]),
    ({"regression": "true"}, ["key labels", "regression = true"]),
    ({"scale": "5.0"}, ["key scale", "regression = true"]),
    ({"labels": None, "regression": "true"}, ["neither scale nor range"]),
    ({"labels": None, "regression": "true", "scale": "0"}, ["key scale", "above 0"]),
    ({"labels": None, "regression": "true", "scale": "5", "range": "[0, 5]"}, ["scale and range"]),
    ({"labels": None, "regression": "true", "range": "[5, 0]"}, ["key range", "smaller number first"]),
    ({"labels": None, "regression": "true", "range": "[0]"}, ["key range", "two numbers"]),
    ({"labels": None, "regression": "true", "range": "[nan, 1]"}, ["key range"]),
    ({"labels": None, "regression": "true", "scale": "5"}, ["accuracy is not for a regression", "pearson, spearman"]),
    ({"metrics": None}, ["key metrics is missing", "accuracy"]),
    ({"metrics": '"acuracy"'}, ["unknown metric 'acuracy'", "did you mean accuracy"]),
    ({"metrics": '["accuracy", "pearson"]'}, ["pearson is not for 2 classes", "accuracy, f1, matthews"]),
    ({"metrics": '"f1"', "labels": '["a", "b", "c"]'}, ["f1 is not for 3 classes", "accuracy"]),
    ({"metrics": "[]"}, ["key metrics"]),
    ({"metrics": '"evaluate:wer"'}, ["evaluate:wer", "--allow-metric-code"]),
    ({"metrics": '"__import__(1)"'}, ["unknown metric"]),
]


@pytest.mark.parametrize(("changes", "said"), MISTAKES, ids=[str(changes) for changes, _ in MISTAKES])
def test_mistake_in_a_task_file_is_one_line_with_file_and_key(folder: Path, changes: dict[str, str | None], said: list[str]) -> None:
    (folder / "train.txt").write_text("x")
    path = write_task(folder, changes)
    with pytest.raises(HarnessError) as error:
        read_task_file(path)
    line = one_line(error)
    assert str(path) in line
    assert all(word in line for word in said), line


def test_file_that_is_no_toml_or_not_there_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mytask.toml"
    with pytest.raises(HarnessError, match=r"--task-file: cannot read .*mytask\.toml: No such file"):
        read_task_file(path)
    path.write_text('name = "a"\ntrain = file\n')
    with pytest.raises(HarnessError, match=r"mytask\.toml is not TOML: .*line 2") as error:
        read_task_file(path)
    one_line(error)
    path.write_text(f"name = {'[' * 5000}")
    with pytest.raises(HarnessError, match=r"mytask\.toml is not TOML"):
        read_task_file(path)
    for number in ("1" * 5000, "1" + "0" * 400, "inf"):
        path.write_text(f"dev_share = {number}")
        with pytest.raises(HarnessError, match=r"mytask\.toml") as error:
            read_task_file(path)
        one_line(error)
    path.write_bytes(b'name = "caf\xe9"')
    with pytest.raises(HarnessError, match=r"mytask\.toml is not TOML"):
        read_task_file(path)


ROWS: list[tuple[str, str, list[str]]] = [
    ("train.csv", "review,liked\na,yes\nb,maybe\n", ["line 3", "label 'maybe'", "no, yes"]),
    ("train.csv", "review,liked\na,yes\nb\n", ["line 3", "got 1 columns, wanted 2"]),
    ("train.csv", "review,likd\na,yes\n", ["unknown column 'liked'", "did you mean likd"]),
    ("train.csv", "review,review,liked\na,b,yes\n", ["'review'", "2 times"]),
    ("train.csv", 'review,liked\n"a"b,yes\n', ["line 2"]),
    ("train.csv", "review,liked\n", ["no rows"]),
    ("train.csv", "", ["unknown column"]),
    ("train.tsv", "review\tliked\na\tb\tyes\n", ["line 2", "got 3 columns, wanted 2"]),
    ("train.jsonl", '{"review": "a", "liked": "yes"}\n{"review": 3, "liked": "yes"}\n', ["line 2", "'review'", "int '3'", "wanted a text"]),
    ("train.jsonl", '{"review": "a", "liked": null}\n', ["line 1", "'liked'", "nothing"]),
    ("train.jsonl", '{"review": "a", "liked": ["yes"]}\n', ["line 1", "'liked'", "list"]),
    ("train.jsonl", '{"review": "a"}\n', ["line 1", "unknown column 'liked'"]),
    ("train.jsonl", '{"review": "a", "liked": true}\n', ["line 1", "label 'true'", "no, yes"]),
    ("train.jsonl", '{"review": "a",\n', ["line 1", "not JSON"]),
    ("train.jsonl", "[1]\n", ["line 1", "wanted an object"]),
    ("train.parquet", "review,liked\n", ["cannot be read as Parquet"]),
]


@pytest.mark.parametrize(("name", "content", "said"), ROWS, ids=[f"{name}-{content[:40]!r}" for name, content, _ in ROWS])
def test_mistake_in_a_data_file_is_one_line_with_file_and_line(folder: Path, name: str, content: str, said: list[str]) -> None:
    (folder / name).write_text(content)
    with pytest.raises(HarnessError) as error:
        load(write_task(folder, {"train": f'"{name}"'}))
    line = one_line(error)
    assert str(folder / name) in line
    assert all(word in line for word in said), line


def test_files_that_are_not_utf8_and_labels_outside_the_range_are_one_line(folder: Path) -> None:
    (folder / "latin.csv").write_bytes("review,liked\ncaf\u00e9,yes\n".encode("latin-1"))
    with pytest.raises(HarnessError, match=r"latin\.csv is not UTF-8"):
        load(write_task(folder, {"train": '"latin.csv"'}))
    write_csv(folder / "numbers.csv", [("a", "0.5"), ("b", "-0.5")])
    changes = {"train": '"numbers.csv"', "labels": None, "regression": "true", "metrics": '"pearson"', "range": "[0.25, 1.0]"}
    with pytest.raises(HarnessError, match=r"numbers\.csv line 3: label '-0\.5', wanted a number from 0\.25 to 1"):
        load(write_task(folder, changes))


def test_too_few_rows_are_said_with_both_numbers(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", reviews(30))
    for changes in ({"dev": '"train.csv"'}, {"dev": None, "dev_share": "0.1"}):
        with pytest.raises(HarnessError, match=r"task reviews: train has \d\d independent rows, wanted more than 400"):
            load(write_task(tmp_path, changes))
    with pytest.raises(HarnessError, match=r"dev_share 0\.001 of 30 rows leaves no row for dev"):
        load(write_task(tmp_path, {"dev": None, "dev_share": "0.001"}))


def test_rows_that_all_share_a_text_are_said_to(tmp_path: Path) -> None:
    """A prompt in a second column links all rows: none of them can be dev's while others are train's."""
    rows = "".join(f"a text {number}\tthe same question\t{'yn'[number % 2]}\n" for number in range(700))
    (tmp_path / "rows.tsv").write_text(f"one\tother\tlabel\n{rows}")
    changes = {"train": '"rows.tsv"', "dev": None, "dev_share": "0.1", "text": '["one", "other"]'}
    changes |= {"label": '"label"', "labels": '["y", "n"]'}
    with pytest.raises(HarnessError, match="rows that share a text stay together, here up to 700, and where they are more than a tenth"):
        load(write_task(tmp_path, changes))


def test_texts_that_are_not_shown_may_be_anything(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [(f"text {number}", "a\tx" if number % 2 else "b") for number in range(900)])
    changes = {
        "about": '"""Two\nlines"""',
        "values": '["a\\tx", "b"]',
        "labels": '["caf\u00e9\u00a0\u200d", "b"]',
        "dev": None,
        "dev_share": "0.1",
    }
    assert set(load(write_task(tmp_path, changes)).train.labels) == {0, 1}
    for label in ("a\\u202e", "a\\n", "a\\u2028"):
        with pytest.raises(HarnessError, match=r"key labels: got .* wanted names that show on a line"):
            load(write_task(tmp_path, changes | {"labels": f'["{label}", "b"]'}))


def test_few_rows_to_train_on_are_those_before_some_are_drawn(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", reviews(900))
    task = read_task_file(write_task(tmp_path, {"dev": None, "dev_share": "0.1"}))
    assert load_data(task, None, train_rows=20).remarks == ()


def test_a_class_without_a_row_to_train_on_is_said(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [(f"text {number}", "yes") for number in range(900)])
    assert load(write_task(tmp_path, {"dev": None, "dev_share": "0.1"})).remarks == ("no row to train on has label no",)


# --- what a record keeps


def test_record_describes_an_own_task_and_a_built_in_one_needs_no_description(folder: Path) -> None:
    task = read_task_file(write_task(folder, {"metrics": '["f1", "accuracy"]'}))
    assert summary(task) == TaskSummary(("no", "yes"), ("f1", "accuracy"), 1.0, texts=1)
    assert summary(TASKS["mrpc"]) is None
    record = make_record("bert", 1, [make_exit(4, {"f1": 0.5}, 1.0, 1.0, 1.0)], task="reviews")
    described = TaskSummary((), ("pearson",), 4.0)
    read = task_of(replace(record, own_task=described))
    assert (read.name, read.classes, read.metrics, read.scale) == ("reviews", 1, ("pearson",), 4.0)
    with pytest.raises(HarnessError, match="unknown task 'reviews'"):
        task_of(record)
    with pytest.raises(IncompleteError, match="unknown metric 'evaluate:wer'"):
        task_of(replace(record, own_task=TaskSummary((), ("evaluate:wer",), 4.0)))


def test_an_own_task_has_no_source_of_its_own_code(folder: Path) -> None:
    task: Task = read_task_file(write_task(folder))
    assert (task.source, task.code, task.phrases) == (None, (), False)
