"""The cache folder: its contents and how they are removed."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from support.command_line import RunCli, assert_one_line
from support.messages import figures, names_all
from support.stored_runs import DYNAMIC, store_run
from support.synthetic import everything_under, make_stage

from harness.errors import ExitCode
from harness.files.typed_json import to_json
from harness.store.stage_cache import (
    DIVERGED,
    MODEL,
    STORED,
    WANTED,
    Stored,
    entries,
    remove,
    stage_folder,
    stage_scratch,
)

pytestmark = pytest.mark.usefixtures("own_folders")

USED, UNUSED, UNFINISHED = "a" * 16, "b" * 16, "c" * 16


def write_stage(cache: Path, key: str, size: int, days: float = 0.0) -> Path:
    """Write a fitted stage whose model has `size` bytes."""
    folder = stage_folder(cache, key)
    (folder / MODEL).mkdir(parents=True)
    report = replace(make_stage(f"stage-{key[0]}").report, key=key)
    (folder / STORED).write_text(to_json(Stored(report, None)))
    (folder / MODEL / "model.safetensors").write_bytes(b"0" * size)
    (folder / WANTED).touch()
    for path in (*folder.rglob("*"), folder):
        os.utime(path, times=(time.time() - 86_400 * days,) * 2)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with a used stage, an old unused one, an unfinished one, and encoded examples."""
    folder = tmp_path / "cache"
    write_stage(folder, USED, 3000)
    write_stage(folder, UNUSED, 2000, days=10)
    stage_scratch(stage_folder(folder, UNFINISHED)).mkdir()
    (stage_scratch(stage_folder(folder, UNFINISHED)) / "train.pt").write_bytes(b"0" * 9000)
    (folder / "rows").mkdir()
    (folder / "rows" / "e0.npz").write_bytes(b"0" * 500)
    uses = (replace(DYNAMIC.stages[0], report=replace(DYNAMIC.stages[0].report, key=USED)),)
    store_run(tmp_path / "results", replace(DYNAMIC, stages=uses))
    return folder


def listed(run_cli: RunCli, cache: Path) -> list[tuple[str, str, int]]:
    result = run_cli("cache", "list", "--cache-dir", str(cache), "--format", "json")
    assert (result.code, result.err) == (0, "")
    return [(row["what"], row["key"], row["runs"]) for row in json.loads(result.out)]


def test_entries_are_listed_largest_first(run_cli: RunCli, cache: Path) -> None:
    """All entries are listed, largest first."""
    assert listed(run_cli, cache) == [
        ("unfinished stage", UNFINISHED, 0),
        ("stage-a", USED, 1),
        ("stage-b", UNUSED, 0),
        ("rows", "e0", 0),
    ]
    text = run_cli("cache", "list", "--cache-dir", str(cache)).out
    assert "10" in next(line for line in text.splitlines() if UNUSED in line)
    assert next(line for line in text.splitlines() if USED in line).endswith(
        f"{DYNAMIC.spec.task} {DYNAMIC.spec.method}"
    )


def test_empty_cache_holds_nothing(run_cli: RunCli, tmp_path: Path) -> None:
    """An empty or missing cache has no entries."""
    result = run_cli("cache", "list", "--cache-dir", str(tmp_path / "none"))
    assert result.code == 0
    assert names_all(result.out, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (("--unused",), {USED}),
        (("--older-than", "5"), {USED, UNFINISHED, "e0"}),
        (("--unused", "--older-than", "5"), {USED, UNFINISHED, "e0"}),
        (("--all",), set()),
    ],
)
def test_prune_removes_selected_entries(
    run_cli: RunCli, cache: Path, options: tuple[str, ...], kept: set[str]
) -> None:
    """The selected entries are removed, and the rest is kept."""
    where = ("--cache-dir", str(cache))
    before = everything_under(cache)
    dry = run_cli("cache", "prune", *options, *where, "--dry-run")
    assert everything_under(cache) == before
    result = run_cli("cache", "prune", *options, *where)
    assert result.code == 0
    assert figures(result.out) == figures(dry.out)
    for output in (result.out, dry.out):
        assert {
            key for key in (USED, UNUSED, UNFINISHED, "e0") if not names_all(output, key)
        } == kept
    assert {key for _, key, _ in listed(run_cli, cache)} == kept


def test_stage_in_use_stays(run_cli: RunCli, cache: Path) -> None:
    """A stage that a process is working on is kept."""
    folder = stage_folder(cache, UNFINISHED)
    with FileLock(folder.with_suffix(".lock")):
        in_use, *_ = run_cli("cache", "prune", "--all", "--cache-dir", str(cache)).out.splitlines()
    assert names_all(in_use, UNFINISHED)
    assert listed(run_cli, cache) == [("unfinished stage", UNFINISHED, 0)]
    removed, _ = run_cli("cache", "prune", "--all", "--cache-dir", str(cache)).out.splitlines()
    assert names_all(removed, UNFINISHED)
    assert removed.partition(UNFINISHED)[0] != in_use.partition(UNFINISHED)[0]
    assert listed(run_cli, cache) == []


def test_killed_removal_is_finished_later(cache: Path) -> None:
    """The remains of a killed removal can be removed later."""
    folder = stage_folder(cache, UNUSED)
    folder.rename(folder.with_name(f".removed-{UNUSED}"))
    (leftover,) = [entry for entry in entries(cache, []) if entry.kind == "leftover"]
    assert remove(leftover)
    assert not any(
        path.name.startswith(".removed")
        for path in (cache / "stages").iterdir()
        if path.suffix != ".lock"
    )
    (cache / "stages" / f".removed-{UNUSED}.unfinished").mkdir()
    os.utime(cache / "stages" / f".removed-{UNUSED}.unfinished", (time.time() - 4000,) * 2)
    assert [entry.kind for entry in entries(cache, [])].count("leftover") == 1


def test_other_files_and_links_are_kept(run_cli: RunCli, cache: Path, tmp_path: Path) -> None:
    """Other files are left alone, and links are removed without their targets."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    stages = cache / "stages"
    (stages / "notes.txt").write_text("a note")
    (stages / ("d" * 16)).symlink_to(elsewhere)
    (stages / ("e" * 16)).symlink_to(tmp_path / "nowhere")
    (stages / UNUSED / "link").symlink_to(tmp_path / "nowhere")
    assert len(listed(run_cli, cache)) == 5
    result = run_cli("cache", "prune", "--all", "--cache-dir", str(cache))
    assert (result.code, result.err) == (0, "")
    assert listed(run_cli, cache) == []
    assert sorted(path.name for path in stages.iterdir() if path.suffix != ".lock") == [
        "e" * 16,
        "notes.txt",
    ]
    assert (elsewhere / "mine.txt").read_text() == "mine"


def test_vanishing_stage_is_not_listed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that disappears while it is listed is skipped.

    Another process prunes it after the folder was listed and before its files were read."""
    rglob = Path.rglob

    def remove_while_listing(self: Path, pattern: str) -> Iterator[Path]:
        found = list(rglob(self, pattern))
        shutil.rmtree(self, ignore_errors=True)
        return iter(found)

    monkeypatch.setattr(Path, "rglob", remove_while_listing)
    # Only the rows are a file and not a folder whose content could disappear.
    assert [entry.kind for entry in entries(cache, [])] == ["rows"]


def test_old_unfinished_file_is_leftover(run_cli: RunCli, cache: Path) -> None:
    """An unfinished file becomes a leftover after an hour.

    Before that it may still be in progress."""
    old, recent = (cache / "rows" / f".e{number}.npz.77.unfinished" for number in (1, 2))
    for file in (old, recent):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    assert [entry.paths for entry in entries(cache, []) if entry.kind == "leftover"] == [(old,)]
    assert run_cli("cache", "prune", "--all", "--cache-dir", str(cache)).code == 0
    assert not old.exists()
    assert recent.exists()


def test_diverged_and_damaged_are_distinguished(cache: Path) -> None:
    """Diverged and damaged stages have their own kinds."""
    (stage_folder(cache, USED) / DIVERGED).touch()
    (stage_folder(cache, UNUSED) / STORED).write_text("{")
    kinds = {entry.key: entry.kind for entry in entries(cache, [])}
    assert (kinds[USED], kinds[UNUSED]) == ("diverged stage", "damaged stage")


@pytest.mark.parametrize("options", [(), ("--all", "--unused"), ("--all", "--older-than", "3")])
def test_prune_demands_a_choice(run_cli: RunCli, cache: Path, options: tuple[str, ...]) -> None:
    """Pruning without a choice of entries is refused."""
    result = run_cli("cache", "prune", *options, "--cache-dir", str(cache))
    assert_one_line(result, ExitCode.USER, ("--all", "--unused", "--older-than"))


def test_nothing_is_unused_without_runs(run_cli: RunCli, cache: Path) -> None:
    """Pruning unused entries is refused if there are no runs.

    A misspelt results folder says nothing about what is used."""
    before = everything_under(cache)
    result = run_cli(
        "cache", "prune", "--unused", "--cache-dir", str(cache), "--results-dir", "resutls"
    )
    assert_one_line(result, ExitCode.USER, ("resutls", "--results-dir", "--all"))
    assert everything_under(cache) == before


def test_unreadable_run_blocks_pruning_unused(run_cli: RunCli, cache: Path, tmp_path: Path) -> None:
    """Nothing unused is removed while a run cannot be read."""
    (path,) = (tmp_path / "results").rglob("record.json")
    path.write_text("{")
    before = everything_under(cache)
    result = run_cli("cache", "prune", "--unused", "--cache-dir", str(cache))
    assert result.code == 3
    assert everything_under(cache) == before
