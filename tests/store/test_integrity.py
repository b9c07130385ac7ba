"""Valid records and traces with inconsistent figures: named in one line; other runs are shown."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import RunCli
from support.gate_runs import record as a_run
from support.gate_runs import save as save_run
from support.gate_runs import trace as a_trace
from support.messages import names_in_order
from support.stored_runs import DYNAMIC, SINGLE, store_run
from support.synthetic import identified, make_latency

from harness.evaluation.trace import read_trace, trace_bytes
from harness.files.typed_json import to_json
from harness.gate.baseline import baseline_of, write_baseline
from harness.records import RunRecord
from harness.store.results import RECORD, TRACES, ResultsStore

pytestmark = pytest.mark.usefixtures("own_folders")

WITH_CLOCK = identified(
    replace(DYNAMIC, latency=make_latency("bert", 9.0, [3.0, 1.0][: len(DYNAMIC.exits)]))
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with a run of one exit, and one of several exits that a test damages."""
    for record in (SINGLE, WITH_CLOCK):
        store_run(tmp_path / "results", record)
    return tmp_path / "results"


def broken_in(folder: Path) -> Path:
    return ResultsStore(folder).folder(
        WITH_CLOCK.spec.task, WITH_CLOCK.spec.method, WITH_CLOCK.run_id
    )


def all_commands(folder: Path) -> list[tuple[str, ...]]:
    where = ("--results-dir", str(folder))
    return [
        ("list", "runs", *where),
        ("report", *where),
        ("report", "--budget", "1MMAC", *where),
        ("report", "--differences-from", SINGLE.spec.method, *where),
        ("sweep", WITH_CLOCK.run_id, "--policy", "entropy", *where),
        ("cache", "list", *where),
    ]


def assert_problem_named_and_other_run_shown(run_cli: RunCli, folder: Path, *names: object) -> None:
    """No command fails with an internal error, and the report shows the intact run."""
    for command in all_commands(folder):
        result = run_cli(*command)
        assert result.code in (0, 3), (command, result)
        assert "Traceback" not in result.err
    result = run_cli("report", "--results-dir", str(folder))
    assert result.code == 3
    (line,) = [line for line in result.lines if WITH_CLOCK.run_id in line]
    assert line.isprintable()
    assert names_in_order(line, *names), (line, names)
    assert f"| {SINGLE.spec.method} " in result.out


def set_at(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    change.__name__ = f"{'.'.join(map(str, path))}={str(value)[:20]}"
    return change


def drop_at(*path: str | int) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    change.__name__ = f"no {'.'.join(map(str, path))}"
    return change


def nested(kind: type, depth: int) -> Any:
    """Return nested lists or nested objects."""
    return (
        kind()
        if depth == 0
        else [nested(kind, depth - 1)]
        if kind is list
        else {"in": nested(kind, depth - 1)}
    )


RECORDS: list[tuple[Callable[[Any], None], tuple[object, ...]]] = [
    (set_at("exits", value=[]), ("exits",)),
    (set_at("exits", 0, "layer", value=3), ([3, 4], [2, 4], 4)),
    (set_at("costs", "exits", value=[]), ([2, 4], [], 4)),
    (set_at("costs", "layers", value=[]), ([2, 4], [2, 4], 0)),
    (drop_at("data", "rows", "train"), ("train",)),
    (set_at("data", "rows", "selection", value=0), ("selection",)),
    (drop_at("data", "rows", "dev"), ("dev",)),
    (set_at("exits", 0, "scores", value={}), ("accuracy",)),
    (set_at("constant_scores", value={}), ("accuracy",)),
    (set_at("policy", value="guess"), ("policy", "guess", "confidence", "entropy", "patience")),
    (set_at("policy", value=None), (2, "policy", None)),
    (set_at("exits", 0, "macs_128", value=7), (7, 128, 2, 25600)),
    (set_at("costs", "layers", 0, "c1", value=0), (25600, 128, 2, 12800)),
    (set_at("data", "rows", "calibration", value=39), ("trace.calibration.npz", 40, 39)),
    (set_at("latency", "reference_ratio", "1", value=[]), (2, 1)),
    (drop_at("latency", "path_ratio", "1"), ()),
    (set_at("latency", "reference_ratio", "1", 0, "q1", value=0.0), ()),
    (set_at("latency", "reference_ms", "1", "q3", value=0.1), ()),
    (set_at("exits", 0, "static_ms", "1", "median", value=-1.0), ()),
    (set_at("exits", 0, "macs", value=0.0), (0,)),
    (set_at("parameters", value=-5), ()),
    (set_at("stages", value=[]), ("stages",)),
    (set_at("spec", "settings", "epochs", value=10**400), ("epochs", str(10**39))),
    (
        set_at("spec", "settings", "teacher", value={"rates": [10**40]}),
        ("teacher", str(10**40)[:40]),
    ),
    (set_at("costs", "embedding", "c0", value=2**63), ("embedding", "c0", 2**63)),
    (set_at("spec", "settings", "epochs", value=float("inf")), ("Infinity",)),
    (set_at("spec", "settings", "epochs", value=nested(list, 500)), ("epochs", 20)),
    (set_at("spec", "settings", "teacher", value=nested(dict, 500)), ("teacher", 20)),
    (set_at("environment", "device", value="x\n::error::y"), ("device", r"x\n::error::y")),
    (set_at("spec", "settings", "epochs", value="a\x1b[2Jb"), ("epochs", r"a\x1b[2Jb")),
    (set_at("spec", "settings", "a\x00b", value=1), ("settings", r"a\x00b")),
    (set_at("environment", "versions", "torch", value="\ud800"), ("torch", r"\ud800")),
    (
        set_at("own_task", value={"labels": ["no", "yes"], "metrics": ["guess"], "scale": 1.0}),
        ("guess", "accuracy", "f1"),
    ),
    (set_at("own_task", value={"labels": ["no", "yes"], "metrics": ["f1"], "scale": 1.0}), ("f1",)),
    (set_at("mismatched", value={"constant": {"accuracy": 0.5}, "exits": []}), ("mismatched",)),
]
"""A change of a record, and the names in the resulting message."""


@pytest.mark.parametrize(
    ("change", "names"), RECORDS, ids=lambda value: getattr(value, "__name__", "")
)
def test_inconsistent_record_is_named(
    run_cli: RunCli, folder: Path, change: Callable[[Any], None], names: tuple[object, ...]
) -> None:
    """An inconsistent record is named."""
    path = broken_in(folder) / RECORD
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    in_a_trace = names[:1] == (TRACES["calibration"],)
    assert_problem_named_and_other_run_shown(
        run_cli, folder, *([] if in_a_trace else [RECORD]), *names
    )


LAYERS = [measured.layer for measured in WITH_CLOCK.exits]


@pytest.mark.parametrize("split", TRACES)
@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"logits": lambda a: a[:1], "exit_layers": lambda a: a[:1]}, (LAYERS[:1], LAYERS)),
        ({"exit_layers": lambda a: a[::-1].copy()}, (LAYERS[::-1], LAYERS)),
        ({"exit_layers": lambda a: a - 99}, ([layer - 99 for layer in LAYERS], LAYERS)),
        ({"logits": lambda a: np.concatenate([a, a], -1)}, (4, 2)),
        (
            {name: (lambda a: a[:0]) for name in ("ids", "labels", "lengths")}
            | {"logits": lambda a: a[:, :0]},
            (0, 40),
        ),
        ({"labels": lambda a: a * 0 + 9}, (9,)),
        ({"labels": lambda a: a * np.nan}, ("nan",)),
        ({"lengths": lambda a: -a}, (-3, 1, 128)),
        ({"lengths": lambda a: a * 1000}, (3000, 1, 128)),
    ],
    ids=[
        "one exit",
        "reversed",
        "negative layers",
        "classes",
        "no rows",
        "labels",
        "nan",
        "negative lengths",
        "long",
    ],
)
def test_trace_of_another_record_is_named(
    run_cli: RunCli,
    folder: Path,
    split: str,
    change: dict[str, Callable[[Any], Any]],
    names: tuple[object, ...],
) -> None:
    """A trace that does not match its record is named."""
    path = broken_in(folder) / TRACES[split]
    trace = read_trace(path)
    path.write_bytes(
        trace_bytes(
            replace(trace, **{name: with_(getattr(trace, name)) for name, with_ in change.items()})
        )
    )
    assert_problem_named_and_other_run_shown(run_cli, folder, TRACES[split], *names)


def swap_traces(store: ResultsStore, stored: RunRecord) -> None:
    folder = store.folder(stored.spec.task, stored.spec.method, stored.run_id)
    (folder / TRACES["dev"]).write_bytes((folder / TRACES["calibration"]).read_bytes())


def rewrite_record(store: ResultsStore, stored: RunRecord, **fields_: Any) -> None:
    path = store.folder(stored.spec.task, stored.spec.method, stored.run_id) / RECORD
    path.write_text(to_json(replace(stored, **fields_)))


def first_exit(stored: RunRecord, **fields_: Any) -> dict[str, Any]:
    return {"exits": (replace(stored.exits[0], **fields_), *stored.exits[1:])}


@pytest.mark.parametrize(
    ("alter", "names"),
    [
        (swap_traces, ("accuracy", 4, "0.8500", "0.9000")),
        (
            lambda store, run: rewrite_record(
                store, run, **first_exit(run, scores={"accuracy": 0.99})
            ),
            ("accuracy", 1, "0.9900", "0.8000"),
        ),
        (lambda store, run: rewrite_record(store, run, **first_exit(run, macs=7.0)), (7, 1, 2000)),
        (
            lambda store, run: rewrite_record(store, run, constant_scores={"accuracy": 0.4}),
            ("accuracy", "0.4000"),
        ),
    ],
    ids=["another trace", "score", "macs", "constant"],
)
def test_figures_must_match_traces(
    run_cli: RunCli,
    tmp_path: Path,
    alter: Callable[[ResultsStore, RunRecord], None],
    names: tuple[object, ...],
) -> None:
    """Figures that differ from the traces are neither checked nor pinned."""
    folder, path = tmp_path / "results", tmp_path / "baseline.json"
    stored = save_run(folder, a_run(), a_trace(wrong=30))
    command = ("check", "--baseline", str(path), "--results-dir", str(folder))
    assert run_cli(*command, "--update").code == 0
    before = path.read_bytes()
    alter(ResultsStore(folder), stored)
    result = run_cli(*command)
    assert result.code == 3
    assert names_in_order(result.out, stored.run_id, *names)
    result = run_cli(*command, "--update")
    assert result.code == 3
    assert names_in_order(result.err, stored.run_id, *names)
    assert path.read_bytes() == before


ANYTHING = (None, 0, -1, 0.5, 10**400, "", "patience", "entropy", [], {}, [[[]]])


def paths_inside(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every value inside, including lists and objects."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [at] * (at != ()) + [
        path for name, item in items for path in paths_inside(item, (*at, name))
    ]


def changed(path: Path) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Rewrite the file with one value changed at a time; yield the path and the value."""
    content = path.read_text()
    for at in paths_inside(json.loads(content)):
        for value in ANYTHING:
            other = json.loads(content)
            set_at(*at, value=value)(other)
            path.write_text(json.dumps(other))
            yield at, str(value)[:9]


@pytest.mark.parametrize("command", ["report", "check --baseline baseline.json", "list runs"])
@pytest.mark.slow
def test_any_record_value_is_handled(run_cli: RunCli, tmp_path: Path, command: str) -> None:
    """Any value in any field of a record is handled without an internal error.

    The record is refused and named, or shown, or compared."""
    folder = tmp_path / "results"
    store, run = ResultsStore(folder), save_run(folder, a_run(), a_trace())
    write_baseline(tmp_path / "baseline.json", baseline_of(store, [run]))
    store_run(folder, SINGLE)
    tried, failures = 0, []
    for how in changed(store.folder(run.spec.task, run.spec.method, run.run_id) / RECORD):
        result = run_cli(*command.split(), "--results-dir", str(folder))
        tried += 1
        if result.code not in (0, 1, 3, 4) or not result.out:
            failures.append((how, result.code, result.err))
    assert failures == []
    assert tried > 1000


def test_any_baseline_value_is_handled(run_cli: RunCli, tmp_path: Path) -> None:
    """Any value in any field of a baseline is handled without an internal error."""
    path, folder = tmp_path / "baseline.json", tmp_path / "results"
    save_run(folder, a_run(), a_trace())
    store = ResultsStore(folder)
    write_baseline(path, baseline_of(store, store.records()[0]))
    assert run_cli("check", "--baseline", str(path), "--results-dir", str(folder)).code == 0
    tried, failures = 0, []
    for how in changed(path):
        result = run_cli("check", "--baseline", str(path), "--results-dir", str(folder))
        tried += 1
        if result.code not in (0, 1, 2, 3, 4) or len(result.lines) > 1:
            failures.append((how, result.code, result.err))
    assert failures == []
    assert tried > 800
