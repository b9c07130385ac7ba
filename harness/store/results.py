"""The results folder: runs are added atomically and never changed.

A run is <task>/<method>/<run id>/ with record.json, trace*.npz and timings/.
"""

import gc
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import HarnessError, IncompleteError, reason
from harness.evaluation.trace import Trace, read_trace, trace_bytes
from harness.files.atomic import STALE_AFTER_S, UNFINISHED, atomic_write
from harness.files.typed_json import from_json, to_json
from harness.records import RunRecord, Timing
from harness.store.integrity import check_figures, check_record, check_trace

RECORD, TIMINGS = "record.json", "timings"

TRACES = {
    "dev": "trace.npz",
    "selection": "trace.selection.npz",
    "calibration": "trace.calibration.npz",
}
"""Split -> trace file of every run."""
MISMATCHED_TRACE = {"mismatched": "trace.mismatched.npz"}
"""Split -> further trace file of a run on MNLI."""

T = TypeVar("T", RunRecord, Timing)

_RUN_ID = re.compile(r"[0-9a-f]{4,16}")


@dataclass(frozen=True)
class Problem:
    """A run folder that cannot be read, and the reason."""

    folder: str
    reason: str


class ResultsStore:
    """The runs in a results folder.

    A run folder appears complete or not at all and is never changed; timings are files added to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, task: str, method: str, run_id: str) -> Path:
        """Return the folder of a run, whether or not it exists."""
        return self.root / task / method / run_id

    def holds(self, task: str, method: str, run_id: str) -> bool:
        """Return whether the run is stored."""
        return (self.folder(task, method, run_id) / RECORD).is_file()

    def save(self, record: RunRecord, traces: dict[str, Trace]) -> None:
        """Write a run to a temporary folder, then move it into place.

        If another process has stored the run in the meantime, that one is kept.
        Raises: IncompleteError if the run cannot be written; nothing is left behind.
        """
        text = to_json(record)
        files = {RECORD: text.encode()} | {
            (TRACES | MISMATCHED_TRACE)[split]: trace_bytes(trace)
            for split, trace in traces.items()
        }
        final = self.folder(record.spec.task, record.spec.method, record.run_id)
        temporary: Path | None = None
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _clear_unfinished(final.parent)
            temporary = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=final.parent))
            for name, content in files.items():
                (temporary / name).write_bytes(content)
            temporary.chmod(0o755)
            temporary.rename(final)
        except OSError as error:
            if not (final / RECORD).is_file():
                raise IncompleteError(
                    f"cannot store run {record.run_id}: {error.strerror}; nothing was written"
                ) from None
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def add_timing(self, record: RunRecord, timing: Timing) -> Path:
        """Add a live timing to a run and return its file."""
        text = to_json(timing)
        folder = self.folder(record.spec.task, record.spec.method, record.run_id) / TIMINGS
        name = hashlib.sha256(text.encode()).hexdigest()[:12] + ".json"
        try:
            folder.mkdir(exist_ok=True)
            with atomic_write(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            return folder / name
        except OSError as error:
            raise IncompleteError(
                f"cannot store a timing of run {record.run_id}: {error.strerror}"
            ) from None

    def records(self) -> tuple[list[RunRecord], list[Problem]]:
        """Return all runs, sorted by task, method and seed, and the folders that cannot be read."""
        records, problems = [], []
        paths = sorted(self.root.glob(f"[!.]*/*/[!.]*/{RECORD}"))
        with collector_paused():
            for path in paths:
                try:
                    records.append(self._read(path))
                except IncompleteError as error:
                    problems.append(Problem(str(path.parent.relative_to(self.root)), str(error)))
        return sorted(
            records, key=lambda r: (r.spec.task, r.spec.method, r.spec.seed, r.run_id)
        ), problems

    def intact(self, records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[Problem]]:
        """Return the records whose traces and timings can be read, and the others as problems."""
        intact, problems = [], []
        for record in records:
            try:
                self._traces(record)
                self.timings(record)
            except IncompleteError as error:
                problems.append(
                    Problem(
                        str(Path(record.spec.task, record.spec.method, record.run_id)), str(error)
                    )
                )
            else:
                intact.append(record)
        return intact, problems

    def find(self, run_id: str) -> RunRecord:
        """Return the run with this id, or the only run whose id begins with it.

        Raises: HarnessError if there is no such run, or several; IncompleteError if its record is
        corrupt.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise HarnessError(
                f"run id {run_id!r}: expected 4 to 16 hexadecimal digits; see `harness list runs`"
            )
        paths = sorted(self.root.glob(f"[!.]*/*/{run_id}*/{RECORD}"))
        if not paths:
            raise HarnessError(
                f"run id {run_id}: no run in {self.root} begins with it: give the --results-dir of "
                "the run; `harness list runs` shows what there is"
            )
        if paths[1:]:
            found = ", ".join(path.parent.name for path in paths)
            raise HarnessError(
                f"run id {run_id}: {len(paths)} runs in {self.root} begin with it ({found}); "
                "see `harness list runs`"
            )
        return self._read(paths[0])

    def trace(self, record: RunRecord, split: str = "dev") -> Trace:
        """Return a run's trace of a split.

        Raises: IncompleteError if it is missing or damaged, or does not match its record.
        """
        path = (
            self.folder(record.spec.task, record.spec.method, record.run_id)
            / (TRACES | MISMATCHED_TRACE)[split]
        )
        trace = read_trace(path)
        check_trace(record, trace, split, str(path))
        return trace

    def checked_traces(self, record: RunRecord) -> dict[str, Trace]:
        """Return a run's traces (split -> trace) after checking its scores and MACs against them.

        Raises: IncompleteError if a file is missing or damaged, or its figures differ from the
        record's.
        """
        traces = self._traces(record)
        check_figures(record, traces, f"run {record.run_id}")
        return traces

    def _traces(self, record: RunRecord) -> dict[str, Trace]:
        return {
            split: self.trace(record, split)
            for split in (TRACES if record.mismatched is None else TRACES | MISMATCHED_TRACE)
        }

    def timings(self, record: RunRecord) -> list[Timing]:
        """Return a run's live timings."""
        folder = self.folder(record.spec.task, record.spec.method, record.run_id) / TIMINGS
        return [_read(Timing, path) for path in sorted(folder.glob("[!.]*.json"))]

    def _read(self, path: Path) -> RunRecord:
        record = _read(RunRecord, path)
        expected = record.spec.task, record.spec.method, record.run_id
        if expected != path.parts[-4:-1]:
            raise IncompleteError(
                f"{path} holds the record of {'/'.join(expected)}: move or delete its folder"
            )
        check_record(record, str(path))
        return record


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection while many records, which have no cycles, are created.

    It would take longer than reading them. Afterwards the new objects are moved to the oldest
    generation, so that the collector does not scan all of them at once.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def _clear_unfinished(folder: Path) -> None:
    """Remove folders left by killed processes; younger ones may still be in progress."""
    for unfinished in folder.glob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):  # another process just finished it
            if time.time() - unfinished.stat().st_mtime > STALE_AFTER_S:
                shutil.rmtree(unfinished, ignore_errors=True)


def _read(kind: type[T], path: Path) -> T:
    """Read a record or a timing.

    Raises: IncompleteError if the file cannot be read or does not match the dataclass.
    """
    try:
        return from_json(kind, path.read_bytes().decode(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise IncompleteError(f"cannot read {path}: {reason(error)}") from None
