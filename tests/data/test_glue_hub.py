"""GLUE from the hub's cache equals the TSV files; an unreachable hub is one quick error."""

import time
from pathlib import Path

import huggingface_hub.constants
import pytest
from support.command_line import assert_names
from support.glue_files import HUB_NAMES, glue_rows, write_glue, write_parquet
from support.synthetic import one_line

from harness.data.corpus import Corpus
from harness.data.loading import load_data
from harness.data.tasks import GROUPS, TASKS
from harness.errors import HarnessError
from harness.files import hub
from harness.models.backbones import find_backbone

SPLITS = {
    "train": "train",
    "dev": "validation",
    "dev_matched": "validation_matched",
    "dev_mismatched": "validation_mismatched",
}


@pytest.mark.parametrize("task", GROUPS["glue"])
def test_hub_and_files_give_same_rows(task: str, tmp_path: Path, hub_cache: Path) -> None:
    parts = {
        name: glue_rows(task, 1_000 * index, 450 if index == 0 else 9)
        for index, name in enumerate(TASKS[task].source.rows)
    }
    for name, rows in parts.items():
        write_glue(tmp_path / "tsv", task, name, rows)
        hub_rows = (
            [((*texts[:-1], texts[-1] + " "), label) for texts, label in rows]
            if task == "sst2"
            else rows
        )
        write_parquet(hub_cache, task, SPLITS[name], hub_rows)
    from_files, from_hub = load_data(TASKS[task], tmp_path / "tsv"), load_data(TASKS[task], None)
    assert from_hub.data_fingerprint == from_files.data_fingerprint
    assert from_hub.split_fingerprint == from_files.split_fingerprint
    for name, part in from_files.splits().items():
        hub_part = from_hub.splits()[name]
        assert (part.texts, part.labels.tolist(), part.ids.tolist()) == (
            hub_part.texts,
            hub_part.labels.tolist(),
            hub_part.ids.tolist(),
        )
    assert ("mismatched" in from_hub.splits()) == (task == "mnli")


def test_labels_are_matched_by_name(hub_cache: Path) -> None:
    """Labels are matched by their names, whatever numbers the hub gives them."""
    reordered = ["contradiction", "entailment", "neutral"]
    for split in ("train", "validation_matched", "validation_mismatched"):
        write_parquet(hub_cache, "mnli", split, glue_rows("mnli", 0, 450), names=reordered)
    assert load_data(TASKS["mnli"], None).dev.labels.tolist() == [0, 1, 2] * 150


def test_unexpected_classes_are_refused(hub_cache: Path) -> None:
    """The error for unexpected classes names the hub's classes and the task's."""
    for split in ("train", "validation"):
        write_parquet(
            hub_cache,
            "rte",
            split,
            glue_rows("rte", 0, 4),
            names=[*(HUB_NAMES["rte"] or ()), "neutral"],
        )
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["rte"], None)
    assert_names(one_line(error), "rte")
    classes = [
        word.strip(",;.")
        for word in one_line(error).split()
        if word.startswith(("entailment", "not_entailment", "neutral"))
    ]
    assert classes == ["entailment", "not_entailment", "neutral", "entailment", "not_entailment"], (
        "the hub's, then the task's"
    )


def test_damaged_parquet_is_refused(hub_cache: Path) -> None:
    for split in ("train", "validation"):
        folder = write_parquet(hub_cache, "rte", split, glue_rows("rte", 0, 4))
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["rte"], None)
    assert_names(one_line(error), "rte", "train", "--data-dir")


def test_sharded_split_is_read_completely(hub_cache: Path) -> None:
    """A split in several files is read completely, and is missing if one of them is."""
    rows = glue_rows("rte", 0, 450)
    folder = write_parquet(hub_cache, "rte", "train", rows, shards=3)
    write_parquet(hub_cache, "rte", "validation", rows[:9])
    data = load_data(TASKS["rte"], None)
    assert sum(len(part) for name, part in data.splits().items() if name != "dev") == 450
    (folder / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["rte"], None)
    assert_names(one_line(error), "nyu-mll/glue", "--data-dir")


@pytest.mark.parametrize("offline", [False, True])
def test_unreachable_hub_names_data_dir(
    hub_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: bool,
) -> None:
    """An unreachable hub is soon reported in one line that names --data-dir."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    started = time.monotonic()
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["mnli"], None)
    assert_names(one_line(error), "nyu-mll/glue", "--data-dir")
    assert ("tests have no network" in one_line(error)) == (not offline), (
        "the reason is given if a request was sent"
    )
    assert time.monotonic() - started < 10


def test_offline_sends_no_request(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, cached data are read and no request is sent."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a request was sent")

    for split in ("train", "validation"):
        write_parquet(hub_cache, "rte", split, glue_rows("rte", 0, 450))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "probe_hub", refuse)
    assert len(load_data(TASKS["rte"], None).dev) == 450
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["cola"], None)
    assert_names(one_line(error), "nyu-mll/glue", "--data-dir")


def test_unresponsive_hub_is_tried_once(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not respond is tried once, for all tasks and backbones."""
    probes = []

    def probe(*_: object, **__: object) -> None:
        probes.append(1)
        time.sleep(30)

    monkeypatch.setattr(hub, "probe_hub", probe)
    monkeypatch.setattr(hub, "PROBE_S", 0.1)
    started = time.monotonic()
    for task in GROUPS["glue"]:
        with pytest.raises(HarnessError) as error:
            load_data(TASKS[task], None)
        assert_names(one_line(error), "nyu-mll/glue", 0.1, "--data-dir")
    with pytest.raises(HarnessError) as error:
        find_backbone("google-bert/bert-base-cased")
    assert_names(one_line(error), "google-bert/bert-base-cased", 0.1)
    assert time.monotonic() - started < 10
    assert len(probes) == 1


def test_download_uses_the_pinned_revision(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data that are not cached are downloaded once, in the pinned revision."""
    snapshot_download, requests = hub.snapshot_download, []

    def download(repository: str, **options: object) -> str:
        if options.get("local_files_only"):
            return str(snapshot_download(repository, **options))
        requests.append((repository, options["revision"], options["allow_patterns"]))
        for split in ("train", "validation"):
            folder = write_parquet(hub_cache, "rte", split, glue_rows("rte", 0, 450))
        return str(folder.parent)

    monkeypatch.setattr(hub, "probe_hub", lambda *_, **__: None)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert len(load_data(TASKS["rte"], None).dev) == 450
    assert requests == [
        (
            "nyu-mll/glue",
            "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
            ["rte/train-*.parquet", "rte/validation-*.parquet"],
        )
    ]
    load_data(TASKS["rte"], None)
    assert len(requests) == 1


def test_corpus_comes_from_the_cache(hub_cache: Path) -> None:
    """Without a data folder, the corpus has the texts of the cached tasks."""
    for split in ("train", "validation"):
        write_parquet(
            hub_cache, "rte", split, glue_rows("rte", 0 if split == "train" else 1_000, 450)
        )
    corpus = Corpus(tasks=GROUPS["glue"]).data
    texts = {text for part in (corpus.train, corpus.selection) for (text,) in part.texts}
    training = load_data(TASKS["rte"], None).train
    assert texts == {text for row in training.texts for text in row}
