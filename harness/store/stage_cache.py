"""The cache folder: fitted stages, encoded rows, altered rows. What is in it, and making room."""

import os
import shutil
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import IncompleteError
from harness.files.atomic import UNFINISHED_S
from harness.files.typed_json import from_json
from harness.records import RunRecord, StageReport, WeightsReport

STORED = "stage.json"

MODEL, WANTED, DIVERGED = "model", "wanted", "diverged"
"""In a stage's folder beside stage.json: its model, the mark of a model that some run uses, and why there is none."""

DAY_S = 86_400.0

REMOVED = ".removed-"
"""How the name of something begins while it is removed."""


@dataclass(frozen=True)
class Stored:
    """`stage.json`: what is kept of a stage beside its model."""

    report: StageReport
    weights: WeightsReport | None


def stage_folder(cache: Path, key: str) -> Path:
    """Where a stage is, or would be."""
    return cache / "stages" / key


def stage_lock(folder: Path) -> FileLock:
    """Held by whoever fits or changes a stage."""
    return FileLock(folder.with_suffix(".lock"))


def stage_scratch(folder: Path) -> Path:
    """Where a stage that is being fitted keeps its state after each epoch."""
    return folder.with_suffix(".scratch")


def unfinished_stage(folder: Path) -> Path:
    """Where a stage is put together before it takes its place."""
    return folder.with_suffix(".unfinished")


@dataclass(frozen=True)
class Entry:
    """Something in the cache."""

    kind: str
    """A stage's name; unfinished, diverged or damaged stage; rows or augmented; leftover."""
    key: str
    paths: tuple[Path, ...]
    size_bytes: int
    used: float
    """When it was last made or used, seconds since 1970."""
    runs: tuple[RunRecord, ...]
    """Stored runs that it is part of."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Tasks and methods of these runs."""
        return tuple(sorted({f"{run.spec.task} {run.spec.method}" for run in self.runs}))

    @property
    def days(self) -> float:
        """Since it was last used."""
        return (time.time() - self.used) / DAY_S


def entries(cache: Path, records: Sequence[RunRecord]) -> list[Entry]:
    """Everything in the cache folder, the largest first; `records` say what is part of a run."""
    users: dict[str, list[RunRecord]] = {}
    for record in records:
        for use in record.stages:
            users.setdefault(use.report.key, []).append(record)
    keys = {
        path.name.partition(".")[0] for path in (cache / "stages").glob("[!.]*") if path.is_dir()
    }
    found = [_stage(stage_folder(cache, key), tuple(users.get(key, ()))) for key in keys]
    found += [
        _entry(kind, path.stem, [path])
        for kind in ("rows", "augmented")
        for path in (cache / kind).glob("[!.]*.[nj]*")
    ]
    removed = [
        path for path in cache.glob(f"[!.]*/{REMOVED}*") if path.suffix != ".lock"
    ]  # of a killed `remove`
    found += [_entry("leftover", path.name, [path]) for path in removed]
    written = [
        path for path in cache.glob("[!.]*/.*.unfinished") if not path.name.startswith(REMOVED)
    ]  # by `whole`, perhaps still
    halves = filter(None, (_entry("leftover", path.name, [path]) for path in written))
    found += [half for half in halves if half.days * DAY_S > UNFINISHED_S]
    return sorted(filter(None, found), key=lambda entry: (-entry.size_bytes, entry.key))


def _stage(folder: Path, runs: tuple[RunRecord, ...]) -> Entry | None:
    name = "unfinished stage"
    if (folder / DIVERGED).is_file():
        name = "diverged stage"
    elif (folder / STORED).is_file():
        name = _stage_name(folder)
    return _entry(
        name, folder.name, (folder, stage_scratch(folder), unfinished_stage(folder)), runs
    )


def _entry(
    kind: str, key: str, paths: Sequence[Path], runs: tuple[RunRecord, ...] = ()
) -> Entry | None:
    """What is there of these paths; None when another process has just removed all of them."""
    there = tuple(path for path in paths if os.path.lexists(path))
    found: list[os.stat_result] = []
    for path in (inner for outer in there for inner in (outer, *outer.rglob("*"))):
        with suppress(FileNotFoundError):
            found.append(path.lstat())
    if not found:
        return None
    size = sum(one.st_size for one in found if stat.S_ISREG(one.st_mode))
    return Entry(kind, key, there, size, max(one.st_mtime for one in found), runs)


def _stage_name(folder: Path) -> str:
    try:
        return from_json(
            Stored, (folder / STORED).read_text(encoding="utf-8"), str(folder)
        ).report.name
    except (OSError, UnicodeDecodeError, IncompleteError):
        return "damaged stage"


def remove(entry: Entry) -> bool:
    """Take something out of the cache; False when a process is working on it.

    Raises: IncompleteError when it cannot be removed.
    """
    try:
        with FileLock(entry.paths[0].with_suffix(".lock")).acquire(timeout=0):
            for path in entry.paths:
                away = (
                    path
                    if path.name.startswith(REMOVED)
                    else path.with_name(f"{REMOVED}{path.name}")
                )
                path.replace(away)  # gone at once: nobody finds half of it
                shutil.rmtree(away) if away.is_dir() and not away.is_symlink() else away.unlink()
    except Timeout:
        return False
    except OSError as error:
        raise IncompleteError(
            f"cannot remove {error.filename or entry.key} from the cache: {error.strerror}"
        ) from None
    return True


def cache_folder(folder: Path | None) -> Path:
    """The given folder, or harness in the user's cache folder."""
    return folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"
