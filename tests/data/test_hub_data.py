"""Custom tasks whose rows are a data set on the hub, read from the hub's cache."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
from support.command_line import QUICK, RunCli, assert_names, assert_one_line
from support.custom_tasks import load, reviews, write_csv, write_task
from support.synthetic import one_line

from harness.data.custom_tasks import read_task_file
from harness.data.hub_data import CARD
from harness.errors import HarnessError
from harness.files import hub

REVISION = "0123456789abcdef0123456789abcdef01234567"
CLASSES = ["yes", "no"]
"""Classes of the data set, in another order than those of the task."""


def snapshot(cache: Path, revision: str = REVISION) -> Path:
    folder = cache / "datasets--acme--reviews" / "snapshots" / revision
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_split(
    folder: Path,
    split: str,
    rows: Sequence[tuple[str, str | float]],
    feature: datasets.features.features.FeatureType | None = None,
    shards: int = 1,
) -> None:
    """Write a split as Parquet files; labels are classes unless `feature` says otherwise."""
    datasets.disable_progress_bars()
    feature = feature or datasets.ClassLabel(names=CLASSES)
    data = datasets.Dataset.from_dict(
        {
            "review": [text for text, _ in rows],
            "wide": ["unread" for _ in rows],
            "liked": [
                CLASSES.index(str(label)) if label in CLASSES else label for _, label in rows
            ],
        },
        features=datasets.Features(
            {
                "review": datasets.Value("string"),
                "wide": datasets.Value("string"),
                "liked": feature,
            }
        ),
    )
    for shard in range(shards):
        path = folder / "data" / f"{split}-{shard:05}-of-{shards:05}.parquet"
        data.shard(shards, shard, contiguous=True).to_parquet(str(path))


def hub_task(folder: Path, changes: dict[str, str | None] | None = None) -> Path:
    keys = {"hub": '"acme/reviews"', "revision": f'"{REVISION}"', "train": None}
    return write_task(folder, keys | {"dev": '"validation"'} | (changes or {}))


def write_reviews(cache: Path, shards: int = 1) -> Path:
    folder = snapshot(cache)
    write_split(folder, "train", reviews(500), shards=shards)
    write_split(folder, "validation", reviews(20, 900))
    return folder


def test_hub_and_files_give_same_data(tmp_path: Path, hub_cache: Path) -> None:
    """The data set gives the same rows, labels and splits as the same rows in files."""
    write_reviews(hub_cache, shards=3)
    write_csv(tmp_path / "train.csv", reviews(500))
    write_csv(tmp_path / "dev.csv", reviews(20, 900))
    from_files, from_hub = load(write_task(tmp_path)), load(hub_task(tmp_path / "hub_task"))
    assert from_hub.fingerprint == from_files.fingerprint
    assert from_hub.dev.texts == from_files.dev.texts
    assert from_hub.task.custom and from_hub.task.source.is_local()


def test_dev_share_divides_the_train_split(tmp_path: Path, hub_cache: Path) -> None:
    write_reviews(hub_cache)
    data = load(hub_task(tmp_path, {"dev": None, "dev_share": "0.1"}))
    assert (len(data.dev), sum(map(len, data.splits().values()))) == (50, 500)


def test_configuration_is_chosen_by_name(tmp_path: Path, hub_cache: Path) -> None:
    """A configuration has the files that the data set's card lists for it."""
    folder = snapshot(hub_cache)
    for config, start in (("plain", 0), ("other", 5_000)):
        (folder / config).mkdir()
        names = ("review", "liked")
        write_csv(folder / config / "train.csv", reviews(500, start), names)
        write_csv(folder / config / "dev.csv", reviews(20, start + 900), names)
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n"
        f"  - split: train\n    path: {config}/train.csv\n"
        f"  - split: held_out\n    path: {config}/dev.csv\n"
        for config in ("plain", "other")
    )
    (folder / CARD).write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
    task = hub_task(tmp_path, {"config": '"other"', "dev": '"held_out"'})
    assert load(task).dev.texts[0] == ("review 5900",)
    with pytest.raises(HarnessError) as error:
        load(hub_task(tmp_path, {"dev": '"held_out"'}))
    assert_names(one_line(error), "acme/reviews", "plain", "other")


def test_values_may_be_class_numbers(tmp_path: Path, hub_cache: Path) -> None:
    """Values that are numbers are the numbers of the data set's classes."""
    write_reviews(hub_cache)
    data = load(hub_task(tmp_path, {"values": '["1", "0"]'}))
    named = load(hub_task(tmp_path))
    assert data.dev.labels.tolist() == named.dev.labels.tolist()


def test_missing_label_is_refused(tmp_path: Path, hub_cache: Path) -> None:
    """The class -1, which stands for a missing label, is refused with its row."""
    folder = write_reviews(hub_cache)
    write_split(folder, "validation", [("fine", "yes"), ("unlabelled", -1)])
    with pytest.raises(HarnessError) as error:
        load(hub_task(tmp_path))
    assert_names(one_line(error), "acme/reviews", "validation", "line 2", "liked")


def test_single_precision_labels_keep_their_digits(tmp_path: Path, hub_cache: Path) -> None:
    folder = snapshot(hub_cache)
    for split, count in (("train", 500), ("validation", 20)):
        rows = [(f"{split} {number}", 3.8) for number in range(count)]
        write_split(folder, split, rows, datasets.Value("float32"))
    regression = {
        "labels": None, "regression": "true", "scale": "5.0", "metrics": '"pearson"',
    }  # fmt: skip
    assert set(load(hub_task(tmp_path, regression)).dev.labels.tolist()) == {3.8}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"dev": '"valid"'}, ("valid", "validation")),
        ({"text": '"revew"'}, ("revew", "review")),
        ({"label": '"wide"'}, ("unread", "yes")),
    ],
)
def test_unknown_names_are_refused(
    tmp_path: Path, hub_cache: Path, changes: dict[str, str | None], names: tuple[str, ...]
) -> None:
    write_reviews(hub_cache)
    with pytest.raises(HarnessError) as error:
        load(hub_task(tmp_path, changes))
    assert_names(one_line(error), "acme/reviews", *names)


def test_another_cached_revision_is_never_used(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reviews(hub_cache)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    other = "f" * 40
    with pytest.raises(HarnessError) as error:
        load(hub_task(tmp_path, {"revision": f'"{other}"'}))
    assert_names(one_line(error), "acme/reviews", other[:7], "offline")


def test_missing_shard_is_noticed(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_reviews(hub_cache, shards=3)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert len(load(hub_task(tmp_path)).dev) == 20
    (folder / "data" / "train-00001-of-00003.parquet").unlink()
    assert_not_cached(hub_task(tmp_path))


def assert_not_cached(task: Path) -> None:
    assert not read_task_file(task).source.is_local()
    with pytest.raises(HarnessError) as error:
        load(task)
    assert_names(one_line(error), "acme/reviews", REVISION[:7], "cached")


def test_interrupted_download_is_not_used(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are never left out silently where a download ended between two files."""

    complete = hub.snapshot_download

    def interrupted(repository: str, **options: object) -> str:
        if options.get("local_files_only"):
            return str(complete(repository, **options))
        write_split(snapshot(hub_cache), "validation", reviews(20, 900))
        raise OSError("the connection was lost")

    monkeypatch.setattr(hub, "probe_hub", lambda *_, **__: None)
    monkeypatch.setattr(hub, "snapshot_download", interrupted)
    assert_not_cached(hub_task(tmp_path))
    write_reviews(hub_cache)
    monkeypatch.setattr(hub, "snapshot_download", complete)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert_not_cached(hub_task(tmp_path))


def test_other_files_do_not_serve(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the files that was downloaded for another task is not taken for all of them."""
    folder = write_reviews(hub_cache)
    complete = hub.snapshot_download
    monkeypatch.setattr(hub, "probe_hub", lambda *_, **__: None)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(folder))
    hub.download_files("acme/reviews", REVISION, [CARD, "data/*"], ".gitattributes")
    monkeypatch.setattr(hub, "snapshot_download", complete)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert len(load(hub_task(tmp_path, {"files": '["data/*"]'})).dev) == 20
    assert_not_cached(hub_task(tmp_path))


def test_class_names_may_be_numbers(tmp_path: Path, hub_cache: Path) -> None:
    """Class names come before class numbers, which may be in another order."""
    folder = snapshot(hub_cache)
    feature = datasets.ClassLabel(names=["1", "0"])
    for split, count in (("train", 500), ("validation", 20)):
        rows = [(f"{split} {number}", number % 2) for number in range(count)]
        write_split(folder, split, rows, feature)
    data = load(hub_task(tmp_path, {"labels": '["0", "1"]'}))
    assert data.dev.labels.tolist() == [1, 0] * 10


def test_words_for_missing_values_are_texts(tmp_path: Path, hub_cache: Path) -> None:
    """A CSV file on the hub gives the rows that the same file gives as the user's."""
    words = ("NA", "None", "null", "nan", "N/A", "")
    for folder in (tmp_path, snapshot(hub_cache)):
        write_csv(folder / "train.csv", [*reviews(500), *((word, "no") for word in words)])
        write_csv(folder / "validation.csv", reviews(20, 900))
    files = write_task(tmp_path, {"dev": '"validation.csv"'})
    assert load(hub_task(tmp_path / "hub_task")).fingerprint == load(files).fingerprint


def test_card_cannot_name_other_files(tmp_path: Path, hub_cache: Path) -> None:
    """The rows are those of the pinned revision, whatever the card names."""
    write_csv(tmp_path / "outside.csv", reviews(500))
    folder = write_reviews(hub_cache)
    (folder / CARD).write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        f"    path: {tmp_path / 'outside.csv'}\n---\n",
        encoding="utf-8",
    )
    with pytest.raises(HarnessError) as error:
        load(hub_task(tmp_path))
    assert_names(one_line(error), "acme/reviews", tmp_path / "outside.csv")


def test_too_few_files_are_hinted_at(tmp_path: Path, hub_cache: Path) -> None:
    """Files that leave out a split of the configuration are an error with a hint."""
    write_split(snapshot(hub_cache), "train", reviews(500))
    with pytest.raises(HarnessError) as error:
        load(hub_task(tmp_path, {"files": '["data/train-*"]'}))
    assert_names(one_line(error), "acme/reviews", "validation", "files")


def test_download_has_revision_and_patterns(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the wanted files of the pinned revision are downloaded, and the card with them."""
    requests = []

    def download(repository: str, **options: object) -> str:
        requests.append((repository, options["revision"], options["allow_patterns"]))
        return str(write_reviews(hub_cache))

    monkeypatch.setattr(hub, "probe_hub", lambda *_, **__: None)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert len(load(hub_task(tmp_path, {"files": '["data/*.parquet"]'})).dev) == 20
    assert requests == [("acme/reviews", REVISION, [CARD, "data/*.parquet"])]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"revision": None}, ("revision", "missing", "40")),
        ({"revision": '"main"'}, ("revision", "main", "40")),
        ({"hub": '"https://hub/acme"'}, ("hub", "OWNER/NAME")),
        ({"hub": None, "train": '"train.csv"'}, ("revision", "hub")),
        ({"dev": None}, ("dev", "dev_share", "split")),
        ({"config": "1"}, ("config",)),
        ({"files": "[]"}, ("files",)),
    ],
)
def test_invalid_keys_are_refused(
    tmp_path: Path, changes: dict[str, str | None], names: tuple[str, ...]
) -> None:
    with pytest.raises(HarnessError) as error:
        read_task_file(hub_task(tmp_path, changes))
    assert_names(one_line(error), "mytask.toml", *names)


def test_fetch_counts_the_rows(
    tmp_path: Path,
    hub_cache: Path,
    own_folders: None,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HARNESS_BACKBONE")
    task = str(hub_task(tmp_path))
    result = run_cli("fetch", "--task-file", task)
    assert_one_line(result, 3, ["acme/reviews", REVISION[:7]])
    write_reviews(hub_cache)
    result = run_cli("fetch", "--task-file", task)
    assert_names(result.out, "reviews", "cached", "train 500", "dev 20")


def test_run_stores_a_record(
    tmp_path: Path, hub_cache: Path, own_folders: None, run_cli: RunCli
) -> None:
    """A hub task is run, and its record can be read without the data set."""
    folder = write_reviews(hub_cache)
    result = run_cli("run", "--methods", "bert", "--task-file", str(hub_task(tmp_path)), *QUICK)
    assert result.code == 0
    (folder / "data" / "train-00000-of-00001.parquet").unlink()
    assert_names(run_cli("report", "--tasks", "reviews", "--results-dir", "results").out, "reviews")
