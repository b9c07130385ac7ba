"""The cache folder: fitted stages, encoded examples and augmented data, listed and removed."""

import os
import shutil
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import HarnessError, IncompleteError
from harness.files.atomic import STALE_AFTER_S
from harness.files.typed_json import from_json
from harness.records import RunRecord, StageReport, WeightsReport

STORED = "stage.json"

MODEL, WANTED, DIVERGED = "model", "wanted", "diverged"
"""Names in a stage's folder besides stage.json.

They are its model, a marker that some run uses the model, and the reason why training diverged.
"""

DAY_S = 86_400.0

REMOVED = ".removed-"
"""Prefix of the name of an entry while it is being removed."""


@dataclass(frozen=True)
class Stored:
    """Content of `stage.json`: everything stored for a stage except its model."""

    report: StageReport
    weights: WeightsReport | None


def stage_folder(cache: Path, key: str) -> Path:
    """Return the folder of a stage, whether or not it exists."""
    return cache / "stages" / key


def is_fitted(folder: Path, needs_model: bool) -> bool:
    """Return whether a stage is stored, with its model if that is needed."""
    return (folder / STORED).is_file() and ((folder / MODEL).is_dir() or not needs_model)


def read_stored(folder: Path) -> Stored:
    """Return what is stored of a stage.

    Raises: IncompleteError if it is damaged.
    """
    text = (folder / STORED).read_text(encoding="utf-8")
    return from_json(Stored, text, f"stage {folder.name}")


def stage_lock(folder: Path) -> FileLock:
    """Return the lock to hold while fitting or changing a stage."""
    return FileLock(folder.with_suffix(".lock"))


def stage_scratch(folder: Path) -> Path:
    """Return the folder where a stage keeps its training state after each epoch."""
    return folder.with_suffix(".scratch")


def unfinished_stage(folder: Path) -> Path:
    """Return the folder where a stage is written before it is moved into place."""
    return folder.with_suffix(".unfinished")


@dataclass(frozen=True)
class Entry:
    """A stage or a file in the cache."""

    kind: str
    """A stage's name, or one of: unfinished stage, diverged stage, damaged stage, rows, augmented,
    leftover."""
    key: str
    paths: tuple[Path, ...]
    size_bytes: int
    used: float
    """Time when it was last written or used, in seconds since 1970."""
    runs: tuple[RunRecord, ...]
    """Stored runs that use it."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Task and method of each of these runs."""
        return tuple(sorted({f"{run.spec.task} {run.spec.method}" for run in self.runs}))

    @property
    def days(self) -> float:
        """Days since it was last used."""
        return (time.time() - self.used) / DAY_S


def entries(cache: Path, records: Sequence[RunRecord]) -> list[Entry]:
    """Return everything in the cache folder, largest first, with the runs that use it."""
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
    # A killed `remove` leaves these behind.
    removed = [path for path in cache.glob(f"[!.]*/{REMOVED}*") if path.suffix != ".lock"]
    found += [_entry("leftover", path.name, [path]) for path in removed]
    # A killed atomic write leaves these behind; a recent one may still be in progress.
    unfinished = [
        path for path in cache.glob("[!.]*/.*.unfinished") if not path.name.startswith(REMOVED)
    ]
    candidates = filter(None, (_entry("leftover", path.name, [path]) for path in unfinished))
    found += [entry for entry in candidates if entry.days * DAY_S > STALE_AFTER_S]
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
    """Return an entry for the paths that exist, or None if another process has removed them all."""
    existing = tuple(path for path in paths if os.path.lexists(path))
    stats: list[os.stat_result] = []
    for path in (inner for outer in existing for inner in (outer, *outer.rglob("*"))):
        with suppress(FileNotFoundError):
            stats.append(path.lstat())
    if not stats:
        return None
    size = sum(one.st_size for one in stats if stat.S_ISREG(one.st_mode))
    return Entry(kind, key, existing, size, max(one.st_mtime for one in stats), runs)


def _stage_name(folder: Path) -> str:
    try:
        return from_json(
            Stored, (folder / STORED).read_text(encoding="utf-8"), str(folder)
        ).report.name
    except (OSError, UnicodeDecodeError, IncompleteError):
        return "damaged stage"


def remove(entry: Entry) -> bool:
    """Remove an entry from the cache; return False if another process is using it.

    Raises: IncompleteError if it cannot be removed.
    """
    try:
        with FileLock(entry.paths[0].with_suffix(".lock")).acquire(timeout=0):
            for path in entry.paths:
                renamed = (
                    path
                    if path.name.startswith(REMOVED)
                    else path.with_name(f"{REMOVED}{path.name}")
                )
                path.replace(renamed)  # atomic: no process sees a partly removed entry
                if renamed.is_dir() and not renamed.is_symlink():
                    shutil.rmtree(renamed)
                else:
                    renamed.unlink()
    except Timeout:
        return False
    except OSError as error:
        raise IncompleteError(
            f"cannot remove {error.filename or entry.key} from the cache: {error.strerror}"
        ) from None
    return True


def cache_folder(folder: Path | None) -> Path:
    """Return the given folder, or by default `harness` in the user's cache folder.

    Raises: HarnessError if the user has no home folder.
    """
    if folder is not None:
        return folder
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"
    except RuntimeError:  # neither HOME nor an entry of the user says where it is
        raise HarnessError("there is no home folder to cache in: give --cache-dir") from None
