"""The results folder: <task>/<method>/<run id>/{record.json, trace*.npz, timings/}. Append-only and atomic."""

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
from harness.files.atomic import UNFINISHED, UNFINISHED_S, whole
from harness.files.typed_json import from_json, to_json
from harness.records import RunRecord, Timing
from harness.store.integrity import check_figures, check_record, check_trace

RECORD, TIMINGS = "record.json", "timings"

TRACES = {
    "dev": "trace.npz",
    "selection": "trace.selection.npz",
    "calibration": "trace.calibration.npz",
}
"""Split -> file, of every run."""
MISMATCHED_TRACE = {"mismatched": "trace.mismatched.npz"}
"""The same of a run on MNLI."""

T = TypeVar("T", RunRecord, Timing)

_RUN_ID = re.compile(r"[0-9a-f]{4,16}")


@dataclass(frozen=True)
class Problem:
    """A run folder that cannot be read."""

    folder: str
    reason: str


class ResultsStore:
    """A run folder appears whole or not at all, and is never changed; timings are files added beside."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, task: str, method: str, run_id: str) -> Path:
        """Where a run is, or would be."""
        return self.root / task / method / run_id

    def holds(self, task: str, method: str, run_id: str) -> bool:
        """Whether the run is there."""
        return (self.folder(task, method, run_id) / RECORD).is_file()

    def save(self, record: RunRecord, traces: dict[str, Trace]) -> None:
        """Write a run beside, then move it into place. A run that another process has stored meanwhile stays as it is.

        Raises: IncompleteError when the disk is full; nothing is left behind.
        """
        text = to_json(record)
        files = {RECORD: text.encode()} | {
            (TRACES | MISMATCHED_TRACE)[split]: trace_bytes(trace)
            for split, trace in traces.items()
        }
        final = self.folder(record.spec.task, record.spec.method, record.run_id)
        beside: Path | None = None
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _clear_unfinished(final.parent)
            beside = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=final.parent))
            for name, content in files.items():
                (beside / name).write_bytes(content)
            beside.chmod(0o755)
            beside.rename(final)
        except OSError as error:
            if not (final / RECORD).is_file():
                raise IncompleteError(
                    f"cannot store run {record.run_id}: {error.strerror}; nothing was written"
                ) from None
        finally:
            if beside is not None:
                shutil.rmtree(beside, ignore_errors=True)

    def add_timing(self, record: RunRecord, timing: Timing) -> Path:
        """Add a live timing beside a run."""
        text = to_json(timing)
        folder = self.folder(record.spec.task, record.spec.method, record.run_id) / TIMINGS
        name = hashlib.sha256(text.encode()).hexdigest()[:12] + ".json"
        try:
            folder.mkdir(exist_ok=True)
            with whole(folder / name) as beside:
                beside.write_text(text, encoding="utf-8")
            return folder / name
        except OSError as error:
            raise IncompleteError(
                f"cannot store a timing of run {record.run_id}: {error.strerror}"
            ) from None

    def records(self) -> tuple[list[RunRecord], list[Problem]]:
        """All runs, in the order of task, method and seed, and the folders that cannot be read."""
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

    def sound(self, records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[Problem]]:
        """Those of the records whose traces and timings can be read too, and the others as problems."""
        whole, problems = [], []
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
                whole.append(record)
        return whole, problems

    def find(self, run_id: str) -> RunRecord:
        """The run of this id, or of the only id that begins with it.

        Raises: HarnessError when there is none, or several; IncompleteError when its record is corrupt.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise HarnessError(
                f"run id {run_id!r}: wanted 4 to 16 of the digits 0-9a-f, as `harness list runs` shows them"
            )
        paths = sorted(self.root.glob(f"[!.]*/*/{run_id}*/{RECORD}"))
        if len(paths) != 1:
            found = ", ".join(path.parent.name for path in paths) or "none"
            raise HarnessError(
                f"run id {run_id}: {len(paths)} runs in {self.root} begin with it ({found}); see harness list runs"
            )
        return self._read(paths[0])

    def trace(self, record: RunRecord, split: str = "dev") -> Trace:
        """A run's trace of a split.

        Raises: IncompleteError when it is missing, damaged, or not that of its record.
        """
        path = (
            self.folder(record.spec.task, record.spec.method, record.run_id)
            / (TRACES | MISMATCHED_TRACE)[split]
        )
        trace = read_trace(path)
        check_trace(record, trace, split, str(path))
        return trace

    def checked_traces(self, record: RunRecord) -> dict[str, Trace]:
        """A run's traces, split -> trace, from which its scores and MACs were computed again.

        Raises: IncompleteError when a file is missing or damaged, or the record says other figures.
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
        """A run's live timings."""
        folder = self.folder(record.spec.task, record.spec.method, record.run_id) / TIMINGS
        return [_read(Timing, path) for path in sorted(folder.glob("[!.]*.json"))]

    def _read(self, path: Path) -> RunRecord:
        record = _read(RunRecord, path)
        place = record.spec.task, record.spec.method, record.run_id
        if place != path.parts[-4:-1]:
            raise IncompleteError(f"{path} holds the record of {'/'.join(place)}")
        check_record(record, str(path))
        return record


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python from looking for cycles while many records are made, which have none: that takes longer than reading.

    What was made counts as old afterwards, or the collector would go through all of it at once.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def _clear_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing; whatever is younger may still be written."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):  # another process has just finished it
            if time.time() - left.stat().st_mtime > UNFINISHED_S:
                shutil.rmtree(left, ignore_errors=True)


def _read(kind: type[T], path: Path) -> T:
    """Raises: IncompleteError when the file cannot be read or does not fit."""
    try:
        return from_json(kind, path.read_bytes().decode(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise IncompleteError(f"{path} cannot be read: {reason(error)}") from None
