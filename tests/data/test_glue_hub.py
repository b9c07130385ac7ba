"""GLUE from the hub's cache: the same rows as the TSV files', and one line, soon, where it is out of reach."""

import time
from pathlib import Path

import huggingface_hub.constants
import pytest
from support.glue_files import HUB_NAMES, glue_rows, write_glue, write_parquet
from support.synthetic import one_line

from harness.data import glue_hub
from harness.data.corpus import Corpus
from harness.data.loading import load_data
from harness.data.tasks import GROUPS, TASKS
from harness.errors import HarnessError
from harness.files import hub
from harness.models.backbones import find_backbone

SPLITS = {"train": "train", "dev": "validation", "dev_matched": "validation_matched", "dev_mismatched": "validation_mismatched"}


@pytest.mark.parametrize("task", GROUPS["glue"])
def test_hub_and_files_give_the_same_rows(task: str, tmp_path: Path, hub_cache: Path) -> None:
    parts = {name: glue_rows(task, 1_000 * place, 450 if place == 0 else 9) for place, name in enumerate(TASKS[task].source.files)}
    for name, rows in parts.items():
        write_glue(tmp_path / "tsv", task, name, rows)
        spaced = [((*texts[:-1], texts[-1] + " "), label) for texts, label in rows] if task == "sst2" else rows
        write_parquet(hub_cache, task, SPLITS[name], spaced)
    ours, hubs = load_data(TASKS[task], tmp_path / "tsv"), load_data(TASKS[task], None)
    assert hubs.data_fingerprint == ours.data_fingerprint
    assert hubs.split_fingerprint == ours.split_fingerprint
    for name, part in ours.splits().items():
        other = hubs.splits()[name]
        assert (part.texts, part.labels.tolist(), part.ids.tolist()) == (other.texts, other.labels.tolist(), other.ids.tolist())
    assert ("mismatched" in hubs.splits()) == (task == "mnli")


def test_labels_are_matched_by_their_names_whatever_numbers_the_hub_gives_them(hub_cache: Path) -> None:
    turned = ["contradiction", "entailment", "neutral"]
    for split in ("train", "validation_matched", "validation_mismatched"):
        write_parquet(hub_cache, "mnli", split, glue_rows("mnli", 0, 450), names=turned)
    assert load_data(TASKS["mnli"], None).dev.labels.tolist() == [0, 1, 2] * 150


def test_other_classes_than_the_tasks_are_refused_with_both(hub_cache: Path) -> None:
    for split in ("train", "validation"):
        write_parquet(hub_cache, "rte", split, glue_rows("rte", 0, 4), names=[*(HUB_NAMES["rte"] or ()), "neutral"])
    with pytest.raises(HarnessError, match=r"rte.*entailment, not_entailment, neutral, wanted entailment, not_entailment") as error:
        load_data(TASKS["rte"], None)
    one_line(error)


def test_a_parquet_file_that_is_none_is_one_line(hub_cache: Path) -> None:
    for split in ("train", "validation"):
        folder = write_parquet(hub_cache, "rte", split, glue_rows("rte", 0, 4))
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["rte"], None)
    assert "--data-dir" in one_line(error)


def test_a_split_in_several_files_is_read_whole_or_counts_as_missing(hub_cache: Path) -> None:
    rows = glue_rows("rte", 0, 450)
    folder = write_parquet(hub_cache, "rte", "train", rows, shards=3)
    write_parquet(hub_cache, "rte", "validation", rows[:9])
    data = load_data(TASKS["rte"], None)
    assert sum(len(part) for name, part in data.splits().items() if name != "dev") == 450
    (folder / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(HarnessError, match="neither cached nor to be had"):
        load_data(TASKS["rte"], None)


@pytest.mark.parametrize("offline", [False, True])
def test_hub_out_of_reach_is_one_line_that_names_the_way_out(
    hub_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: bool,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    started = time.monotonic()
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["mnli"], None)
    said = one_line(error)
    assert all(word in said for word in ("nyu-mll/glue", "--data-dir", "offline" if offline else "tests have no network"))
    assert time.monotonic() - started < 10


def test_offline_never_asks_the_network_and_cached_data_serve(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    for split in ("train", "validation"):
        write_parquet(hub_cache, "rte", split, glue_rows("rte", 0, 450))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "ask_hub", asked)
    assert len(load_data(TASKS["rte"], None).dev) == 450
    with pytest.raises(HarnessError, match="offline"):
        load_data(TASKS["cola"], None)


def test_a_hub_that_never_answers_is_given_up_and_asked_once(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def sleeps(*_: object, **__: object) -> None:
        asked.append(1)
        time.sleep(30)

    monkeypatch.setattr(hub, "ask_hub", sleeps)
    monkeypatch.setattr(hub, "PROBE_S", 0.1)
    started = time.monotonic()
    for task in GROUPS["glue"]:
        with pytest.raises(HarnessError, match=r"no answer within 0\.1 s; give --data-dir"):
            load_data(TASKS[task], None)
    with pytest.raises(HarnessError, match=r"bert-base-cased.*no answer within 0\.1 s; give a local folder"):
        find_backbone("google-bert/bert-base-cased")
    assert time.monotonic() - started < 10
    assert len(asked) == 1


def test_what_is_not_cached_is_fetched_in_the_pinned_revision(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, wanted = glue_hub.snapshot_download, []

    def download(repository: str, **words: object) -> str:
        if words.get("local_files_only"):
            return str(real(repository, **words))
        wanted.append((repository, words["revision"], words["allow_patterns"]))
        for split in ("train", "validation"):
            folder = write_parquet(hub_cache, "rte", split, glue_rows("rte", 0, 450))
        return str(folder.parent)

    monkeypatch.setattr(hub, "ask_hub", lambda *_, **__: None)
    monkeypatch.setattr(glue_hub, "snapshot_download", download)
    assert len(load_data(TASKS["rte"], None).dev) == 450
    assert wanted == [("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", ["rte/train-*.parquet", "rte/validation-*.parquet"])]
    load_data(TASKS["rte"], None)
    assert len(wanted) == 1


def test_corpus_without_a_folder_is_of_what_the_cache_holds(hub_cache: Path) -> None:
    for split in ("train", "validation"):
        write_parquet(hub_cache, "rte", split, glue_rows("rte", 0 if split == "train" else 1_000, 450))
    found = Corpus(tasks=GROUPS["glue"]).data
    texts = {text for part in (found.train, found.selection) for (text,) in part.texts}
    training = load_data(TASKS["rte"], None).train
    assert texts == {text for row in training.texts for text in row}
