"""What is in the cache folder, and making room in it."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from support.command_line import Say, assert_one_line
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

USED, LOOSE, OPEN = "a" * 16, "b" * 16, "c" * 16


def write_stage(cache: Path, key: str, size: int, days: float = 0.0) -> Path:
    """A fitted stage whose model has so many bytes."""
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
    """A stage of a stored run, one of none that is ten days old, one that is being fitted, and encoded rows."""
    folder = tmp_path / "cache"
    write_stage(folder, USED, 3000)
    write_stage(folder, LOOSE, 2000, days=10)
    stage_scratch(stage_folder(folder, OPEN)).mkdir()
    (stage_scratch(stage_folder(folder, OPEN)) / "train.pt").write_bytes(b"0" * 9000)
    (folder / "rows").mkdir()
    (folder / "rows" / "e0.npz").write_bytes(b"0" * 500)
    uses = (replace(DYNAMIC.stages[0], report=replace(DYNAMIC.stages[0].report, key=USED)),)
    store_run(tmp_path / "results", replace(DYNAMIC, stages=uses))
    return folder


def listed(say: Say, cache: Path) -> list[tuple[str, str, int]]:
    answer = say("cache", "list", "--cache-dir", str(cache), "--format", "json")
    assert (answer.code, answer.err) == (0, "")
    return [(row["what"], row["key"], row["runs"]) for row in json.loads(answer.out)]


def test_entries_are_listed_largest_first(say: Say, cache: Path) -> None:
    """Everything is listed, the largest first."""
    assert listed(say, cache) == [
        ("unfinished stage", OPEN, 0),
        ("stage-a", USED, 1),
        ("stage-b", LOOSE, 0),
        ("rows", "e0", 0),
    ]
    text = say("cache", "list", "--cache-dir", str(cache)).out
    assert "10" in next(line for line in text.splitlines() if LOOSE in line)
    assert next(line for line in text.splitlines() if USED in line).endswith(
        f"{DYNAMIC.spec.task} {DYNAMIC.spec.method}"
    )


def test_empty_cache_holds_nothing(say: Say, tmp_path: Path) -> None:
    """An empty or absent cache holds nothing."""
    answer = say("cache", "list", "--cache-dir", str(tmp_path / "none"))
    assert answer.code == 0
    assert names_all(answer.out, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "stay"),
    [
        (("--unused",), {USED}),
        (("--older-than", "5"), {USED, OPEN, "e0"}),
        (("--unused", "--older-than", "5"), {USED, OPEN, "e0"}),
        (("--all",), set()),
    ],
)
def test_prune_removes_what_options_say(
    say: Say, cache: Path, words: tuple[str, ...], stay: set[str]
) -> None:
    """What is asked for goes, and the rest stays."""
    where = ("--cache-dir", str(cache))
    before = everything_under(cache)
    dry = say("cache", "prune", *words, *where, "--dry-run")
    assert everything_under(cache) == before
    answer = say("cache", "prune", *words, *where)
    assert answer.code == 0
    assert figures(answer.out) == figures(dry.out)
    for said in (answer.out, dry.out):
        assert {key for key in (USED, LOOSE, OPEN, "e0") if not names_all(said, key)} == stay
    assert {key for _, key, _ in listed(say, cache)} == stay


def test_stage_in_use_stays(say: Say, cache: Path) -> None:
    """A stage that a process works on stays."""
    folder = stage_folder(cache, OPEN)
    with FileLock(folder.with_suffix(".lock")):
        in_use, *_ = say("cache", "prune", "--all", "--cache-dir", str(cache)).out.splitlines()
    assert names_all(in_use, OPEN)
    assert listed(say, cache) == [("unfinished stage", OPEN, 0)]
    removed, _ = say("cache", "prune", "--all", "--cache-dir", str(cache)).out.splitlines()
    assert names_all(removed, OPEN)
    assert removed.partition(OPEN)[0] != in_use.partition(OPEN)[0]
    assert listed(say, cache) == []


def test_killed_removal_is_finished_later(cache: Path) -> None:
    """What a killed removal left goes with the next one."""
    folder = stage_folder(cache, LOOSE)
    folder.rename(folder.with_name(f".removed-{LOOSE}"))
    (left,) = [entry for entry in entries(cache, []) if entry.kind == "leftover"]
    assert remove(left)
    assert not any(
        path.name.startswith(".removed")
        for path in (cache / "stages").iterdir()
        if path.suffix != ".lock"
    )
    (cache / "stages" / f".removed-{LOOSE}.unfinished").mkdir()
    os.utime(cache / "stages" / f".removed-{LOOSE}.unfinished", (time.time() - 4000,) * 2)
    assert [entry.kind for entry in entries(cache, [])].count("leftover") == 1


def test_foreign_files_and_links_are_spared(say: Say, cache: Path, tmp_path: Path) -> None:
    """What is no stage is let be, and links go without what they point to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    stages = cache / "stages"
    (stages / "notes.txt").write_text("a note")
    (stages / ("d" * 16)).symlink_to(elsewhere)
    (stages / ("e" * 16)).symlink_to(tmp_path / "nowhere")
    (stages / LOOSE / "link").symlink_to(tmp_path / "nowhere")
    assert len(listed(say, cache)) == 5
    answer = say("cache", "prune", "--all", "--cache-dir", str(cache))
    assert (answer.code, answer.err) == (0, "")
    assert listed(say, cache) == []
    assert sorted(path.name for path in stages.iterdir() if path.suffix != ".lock") == [
        "e" * 16,
        "notes.txt",
    ]
    assert (elsewhere / "mine.txt").read_text() == "mine"


def test_vanishing_stage_is_not_listed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that goes while it is listed is none.

    Another process prunes between the look into the folder and the look at its files."""
    looked = Path.rglob

    def gone(self: Path, pattern: str) -> Iterator[Path]:
        found = list(looked(self, pattern))
        shutil.rmtree(self, ignore_errors=True)
        return iter(found)

    monkeypatch.setattr(Path, "rglob", gone)
    assert [entry.kind for entry in entries(cache, [])] == [
        "rows"
    ]  # a file has nothing inside that could go


def test_old_unfinished_file_is_leftover(say: Say, cache: Path) -> None:
    """What a killed process was writing is a leftover after an hour.

    Before that it may still be written."""
    old, young = (cache / "rows" / f".e{number}.npz.77.unfinished" for number in (1, 2))
    for half in (old, young):
        half.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    assert [entry.paths for entry in entries(cache, []) if entry.kind == "leftover"] == [(old,)]
    assert say("cache", "prune", "--all", "--cache-dir", str(cache)).code == 0
    assert not old.exists()
    assert young.exists()


def test_diverged_and_damaged_are_told_apart(cache: Path) -> None:
    """A diverged and a damaged stage are named so."""
    (stage_folder(cache, USED) / DIVERGED).touch()
    (stage_folder(cache, LOOSE) / STORED).write_text("{")
    kinds = {entry.key: entry.kind for entry in entries(cache, [])}
    assert (kinds[USED], kinds[LOOSE]) == ("diverged stage", "damaged stage")


@pytest.mark.parametrize("words", [(), ("--all", "--unused"), ("--all", "--older-than", "3")])
def test_prune_demands_a_choice(say: Say, cache: Path, words: tuple[str, ...]) -> None:
    """Pruning asks what should go."""
    answer = say("cache", "prune", *words, "--cache-dir", str(cache))
    assert_one_line(answer, ExitCode.USER, ("--all", "--unused", "--older-than"))


def test_nothing_is_unused_without_runs(say: Say, cache: Path) -> None:
    """Nothing is unused where there are no runs.

    A results folder that is misspelt says nothing about what others use."""
    before = everything_under(cache)
    answer = say(
        "cache", "prune", "--unused", "--cache-dir", str(cache), "--results-dir", "resutls"
    )
    assert_one_line(answer, ExitCode.USER, ("resutls", "--results-dir", "--all"))
    assert everything_under(cache) == before


def test_unreadable_run_blocks_pruning_unused(say: Say, cache: Path, tmp_path: Path) -> None:
    """Nothing unused goes while a run cannot be read."""
    (path,) = (tmp_path / "results").rglob("record.json")
    path.write_text("{")
    before = everything_under(cache)
    answer = say("cache", "prune", "--unused", "--cache-dir", str(cache))
    assert answer.code == 3
    assert everything_under(cache) == before
