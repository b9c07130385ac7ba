"""The results folder: complete runs, never changed, and strictly checked when read."""

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import NoReturn

import pytest
from support.messages import assert_message, names_in_order
from support.synthetic import (
    assert_same_trace,
    everything_under,
    identified,
    make_exit,
    make_record,
    make_timing,
    random_trace,
)

from harness.data.tasks import TASKS
from harness.errors import ExitCode, HarnessError, IncompleteError
from harness.evaluation.trace import Trace
from harness.files.atomic import check_writable
from harness.files.typed_json import SCHEMA, to_json
from harness.records import RunRecord
from harness.store.results import RECORD, TRACES, ResultsStore


def new_record(method: str = "deebert", seed: int = 1, task: str = "rte") -> RunRecord:
    """Return a record with 40 examples per split, like the traces of `random_trace`."""
    exits = [
        make_exit(layer, dict.fromkeys(TASKS[task].metrics, layer / 8), 100.0 * layer, 1.0, 1.0)
        for layer in (2, 4)
    ]
    record = make_record(method, seed, exits, policy="entropy", task=task)
    return identified(
        replace(
            record,
            data=replace(record.data, rows={**record.data.rows, **dict.fromkeys(TRACES, 40)}),
        )
    )


def three_traces() -> dict[str, Trace]:
    return {
        split: random_trace(index, (2, 4))
        for index, split in enumerate(("dev", "selection", "calibration"))
    }


def save(store: ResultsStore, record: RunRecord) -> RunRecord:
    store.save(record, three_traces())
    return record


def failing_after(
    calls: int, write: Callable[..., object], error: BaseException
) -> Callable[..., object]:
    """Return a write that succeeds `calls` times, then writes half of its content and fails."""
    done = []

    def failing(path: Path, content: bytes | str, *arguments: object, **keywords: object) -> object:
        done.append(path)
        if len(done) <= calls:
            return write(path, content, *arguments, **keywords)
        write(path, content[: len(content) // 2], *arguments, **keywords)
        raise error

    return failing


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    return ResultsStore(tmp_path / "results")


def test_saved_run_survives_a_round_trip(store: ResultsStore) -> None:
    """A saved run is read back unchanged."""
    record, traces = new_record(), three_traces()
    assert not store.holds("rte", "deebert", record.run_id)
    store.save(record, traces)
    assert store.holds("rte", "deebert", record.run_id)
    assert store.records() == ([record], [])
    assert store.find(record.run_id) == record
    assert_same_trace(store.trace(record), traces["dev"])
    for split, trace in traces.items():
        assert_same_trace(store.trace(record, split), trace)


def test_run_has_documented_path(store: ResultsStore) -> None:
    """A run is stored in its documented folder."""
    record = save(store, new_record())
    names = {"record.json", "trace.npz", "trace.selection.npz", "trace.calibration.npz"}
    assert set(everything_under(store.root)) == {
        f"rte/deebert/{record.run_id}/{name}" for name in names
    }
    assert store.folder("rte", "deebert", record.run_id).stat().st_mode & 0o777 == 0o755


def test_missing_trace_is_incomplete(store: ResultsStore) -> None:
    record = make_record("bert", 1, [make_exit(4, {"accuracy": 0.5}, 400.0, 1.0, 1.0)])
    store.save(record, {"dev": random_trace(1, (4,))})
    with pytest.raises(IncompleteError) as caught:
        store.trace(record, "selection")
    assert_message(caught, record.run_id, "trace.selection.npz", code=ExitCode.INCOMPLETE)


def test_curves_of_earlier_versions_are_ignored(store: ResultsStore) -> None:
    record = save(store, new_record())
    (store.folder("rte", "deebert", record.run_id) / "points.npz").write_bytes(b"PK nothing")
    assert store.records() == ([record], [])
    assert_same_trace(store.trace(record), three_traces()["dev"])


def test_runs_are_sorted(store: ResultsStore) -> None:
    """Runs are sorted by task, method and seed."""
    wanted = [("mrpc", "bert", 1), ("rte", "bert", 2), ("rte", "bert", 10), ("rte", "deebert", 1)]
    for task, method, seed in reversed(wanted):
        save(store, new_record(method, seed, task))
    records, problems = store.records()
    assert [
        (record.spec.task, record.spec.method, record.spec.seed) for record in records
    ] == wanted
    assert not problems


def test_empty_folder_has_no_runs(store: ResultsStore) -> None:
    """An empty or missing results folder has no runs."""
    assert store.records() == ([], [])
    check_writable(store.root, "results")
    assert store.records() == ([], [])


def test_first_record_of_id_stays(store: ResultsStore) -> None:
    """Saving another record under the same id keeps the first."""
    record = save(store, new_record())
    before = everything_under(store.root)
    store.save(replace(record, seconds=1e6), {"dev": random_trace(9, (2, 4))})
    assert everything_under(store.root) == before
    assert store.find(record.run_id) == record


@pytest.mark.parametrize("files_written", [0, 1, 2, 3])
def test_full_disk_leaves_nothing_behind(
    files_written: int, store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves nothing behind."""
    kept, record = save(store, new_record(seed=1)), new_record(seed=2)
    before = everything_under(store.root)
    full = OSError(errno.ENOSPC, "the system's words")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", failing_after(files_written, Path.write_bytes, full))
        with pytest.raises(IncompleteError) as caught:
            save(store, record)
    assert_message(caught, record.run_id, full.strerror, code=ExitCode.INCOMPLETE)
    assert everything_under(store.root) == before
    assert [path.name for path in store.folder("rte", "deebert", "").iterdir()] == [kept.run_id]
    assert store.records() == ([kept], [])
    save(store, record)
    assert store.find(record.run_id) == record


def test_unmakeable_folder_is_incomplete(
    store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is too full for a folder is an IncompleteError."""

    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "the system's words")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(IncompleteError) as caught:
        save(store, new_record())
    assert_message(caught, new_record().run_id, "the system's words", code=ExitCode.INCOMPLETE)


def test_interrupt_leaves_nothing_behind(
    store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt leaves nothing behind."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", failing_after(2, Path.write_bytes, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            save(store, new_record())
    assert everything_under(store.root) == {}
    assert not list(store.folder("rte", "deebert", "").iterdir())


def test_unfinished_folder_is_no_run(store: ResultsStore) -> None:
    """A folder left by a killed process is not a run."""
    record = save(store, new_record(seed=1))
    unfinished = store.folder("rte", "deebert", ".unfinished-x1")
    unfinished.mkdir()
    (unfinished / RECORD).write_text(to_json(new_record(seed=2)))
    assert store.records() == ([record], [])


def test_parallel_writers_leave_one_run(store: ResultsStore) -> None:
    """Eight concurrent writers of one run leave exactly one complete run."""
    first = new_record()
    versions = [replace(first, seconds=float(number)) for number in range(8)]
    start = Barrier(8)

    def write(number: int) -> None:
        start.wait(timeout=10)
        store.save(versions[number], {"dev": random_trace(number, (2, 4))})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    (record,), problems = store.records()
    winner = int(record.seconds)
    assert not problems
    assert record == versions[winner]
    assert_same_trace(store.trace(record), random_trace(winner, (2, 4)))
    assert [path.name for path in store.folder("rte", "deebert", "").iterdir()] == [first.run_id]


def test_id_prefix_finds_run(store: ResultsStore) -> None:
    """A run is found by a prefix of its id."""
    one, other = (
        replace(new_record(seed=seed), run_id=run_id)
        for seed, run_id in ((1, "abcd" * 4), (2, "abce" * 4))
    )
    save(store, one)
    save(store, other)
    assert store.find("abcd") == one
    assert store.find("abceabce") == other
    assert store.find("abce" * 4) == other


def test_ambiguous_prefix_lists_candidates(store: ResultsStore) -> None:
    """An ambiguous prefix is refused with the candidates."""
    for seed, run_id in ((1, "abcd0000"), (2, "abcd1111")):
        save(store, replace(new_record(seed=seed), run_id=run_id))
    with pytest.raises(HarnessError) as caught:
        store.find("abcd")
    assert_message(caught, "abcd", "abcd0000", "abcd1111")


def test_unknown_id_is_refused(store: ResultsStore) -> None:
    """An unknown id is refused."""
    save(store, new_record())
    with pytest.raises(HarnessError) as caught:
        store.find("0123456789")
    assert_message(caught, "0123456789", store.root)


@pytest.mark.parametrize(
    "run_id",
    [
        "",
        "*",
        "????",
        "abc",
        "../../etc",
        "../../../etc/passwd",
        "/etc/passwd",
        "abcd/../abcd",
        "ABCD",
        "abcd\n",
        "a" * 17,
        "[a-f]*",
        "äbcd",
    ],
)
def test_hostile_id_reaches_no_file(run_id: str, store: ResultsStore) -> None:
    """A malicious id cannot reach any file."""
    save(store, new_record())
    with pytest.raises(HarnessError) as caught:
        store.find(run_id)
    assert run_id.strip() in assert_message(caught, 4, 16)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", ()),
        (b"{", ()),
        (b"\xff\xfe\x00", ()),
        (b"[]", ()),
        (b"{}", ("schema",)),
        (b'{"schema": 99}', ("schema", 99, SCHEMA)),
        (b"[" * 100_000, ()),
    ],
)
def test_corrupt_record_spares_others(
    content: bytes, names: tuple[object, ...], store: ResultsStore
) -> None:
    """A corrupt record is reported, and the others are still read."""
    good, bad = save(store, new_record(seed=1)), save(store, new_record(seed=2))
    (store.folder("rte", "deebert", bad.run_id) / RECORD).write_bytes(content)
    records, problems = store.records()
    assert records == [good]
    (problem,) = problems
    assert problem.folder == f"rte/deebert/{bad.run_id}"
    assert names_in_order(problem.reason, RECORD, *names)
    assert "\n" not in problem.reason
    with pytest.raises(IncompleteError) as caught:
        store.find(bad.run_id)
    assert_message(caught, bad.run_id, RECORD, *names, code=ExitCode.INCOMPLETE)


def test_folder_as_record_is_problem(store: ResultsStore) -> None:
    """A folder called record.json is reported."""
    (store.folder("rte", "deebert", "abcd0000") / RECORD).mkdir(parents=True)
    records, problems = store.records()
    assert records == []
    assert [problem.folder for problem in problems] == ["rte/deebert/abcd0000"]
    assert not store.holds("rte", "deebert", "abcd0000")


@pytest.mark.parametrize(
    "moved_to", ["rte/pabee/{0}", "mrpc/deebert/{0}", "rte/deebert/0000111122223333"]
)
def test_moved_run_is_problem(moved_to: str, store: ResultsStore) -> None:
    """A run that was moved to another folder is reported."""
    good, moved = save(store, new_record(seed=1)), save(store, new_record(seed=2))
    target = store.root / moved_to.format(moved.run_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    store.folder("rte", "deebert", moved.run_id).rename(target)
    records, problems = store.records()
    assert records == [good]
    assert [problem.folder for problem in problems] == [moved_to.format(moved.run_id)]
    assert f"rte/deebert/{moved.run_id}" in problems[0].reason


def test_record_pointing_outside_is_problem(store: ResultsStore) -> None:
    """A record that points outside the store is reported."""
    record = save(store, new_record())
    path = store.folder("rte", "deebert", record.run_id) / RECORD
    for name, value in (("task", "../../elsewhere"), ("method", "/etc"), ("task", "")):
        content = json.loads(to_json(record))
        content["spec"][name] = value
        path.write_text(json.dumps(content))
        records, problems = store.records()
        assert (records, len(problems)) == ([], 1)


def test_unwritable_results_folder_is_named(tmp_path: Path) -> None:
    """A results folder that cannot be written is named."""
    file = tmp_path / "file"
    file.write_text("here")
    for root in (file, file / "below"):
        with pytest.raises(HarnessError) as caught:
            check_writable(root, "results")
        assert_message(caught, "results", root)


def test_writable_folder_is_left_empty(store: ResultsStore) -> None:
    """A writable results folder is created and left empty."""
    check_writable(store.root, "results")
    assert list(store.root.iterdir()) == []


def test_timings_leave_their_run_alone(store: ResultsStore) -> None:
    """Timings are added to a run without changing it."""
    record = save(store, new_record())
    before = everything_under(store.root)
    assert store.timings(record) == []
    timings = [make_timing(record.run_id, threshold) for threshold in (0.1, 0.2)]
    paths = [store.add_timing(record, timing) for timing in (*timings, timings[0])]
    assert paths[0] == paths[2], "the same measurement is the same file"
    assert sorted(store.timings(record), key=lambda timing: timing.threshold) == timings
    assert {
        name: content
        for name, content in everything_under(store.root).items()
        if "timings" not in name
    } == before
    assert store.records() == ([record], [])


def test_truncated_timing_spares_others(
    store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timing that a full disk truncated does not affect the others."""
    record = save(store, new_record())
    kept = make_timing(record.run_id, 0.1)
    store.add_timing(record, kept)
    full = OSError(errno.ENOSPC, "the system's words")
    with monkeypatch.context() as patch:
        for name in ("write_text", "write_bytes"):
            patch.setattr(Path, name, failing_after(0, getattr(Path, name), full))
        with pytest.raises(IncompleteError) as caught:
            store.add_timing(record, make_timing(record.run_id, 0.2))
    assert_message(caught, record.run_id, full.strerror, code=ExitCode.INCOMPLETE)
    assert store.timings(record) == [kept]


def test_unfinished_timing_is_ignored(store: ResultsStore) -> None:
    """A timing that a killed process left unfinished is ignored."""
    record = save(store, new_record())
    path = store.add_timing(record, make_timing(record.run_id, 0.1))
    path.with_name(".0123456789ab.json").write_text('{"run_id": ')
    assert len(store.timings(record)) == 1


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"{}"])
def test_corrupt_timing_is_incomplete(content: bytes, store: ResultsStore) -> None:
    """A corrupt timing is an IncompleteError."""
    record = save(store, new_record())
    path = store.add_timing(record, make_timing(record.run_id, 0.1))
    path.write_bytes(content)
    with pytest.raises(IncompleteError) as caught:
        store.timings(record)
    assert_message(caught, path, code=ExitCode.INCOMPLETE)


def test_old_unfinished_folders_are_cleared(store: ResultsStore) -> None:
    """Saving a run removes old unfinished folders and keeps recent ones."""
    parent = store.folder("rte", "deebert", "x").parent
    old, recent = parent / ".unfinished-old", parent / ".unfinished-recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    save(store, new_record())
    assert not old.exists()
    assert recent.exists()
