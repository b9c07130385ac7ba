"""Records and traces of the right form whose figures do not fit one another: named in one line, and all other runs are shown."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import Say
from support.gate_runs import record as a_run
from support.gate_runs import save as save_run
from support.gate_runs import trace as a_trace
from support.stored_runs import DYNAMIC, SINGLE, store_run
from support.synthetic import identified, make_latency

from harness.evaluation.trace import read_trace, trace_bytes
from harness.files.typed_json import to_json
from harness.gate.baseline import baseline_of, write_baseline
from harness.records import RunRecord
from harness.store.results import RECORD, TRACES, ResultsStore

pytestmark = pytest.mark.usefixtures("own_folders")

WITH_CLOCK = identified(replace(DYNAMIC, latency=make_latency("bert", 9.0, [3.0, 1.0][: len(DYNAMIC.exits)])))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with a run of one exit, and one of several, of which a test breaks the second."""
    for record in (SINGLE, WITH_CLOCK):
        store_run(tmp_path / "results", record)
    return tmp_path / "results"


def broken_in(folder: Path) -> Path:
    return ResultsStore(folder).folder(WITH_CLOCK.spec.task, WITH_CLOCK.spec.method, WITH_CLOCK.run_id)


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


def assert_named_and_the_other_shown(say: Say, folder: Path, words: str) -> None:
    """No command stops with an error of ours; those that list show the sound run."""
    for command in all_commands(folder):
        answer = say(*command)
        assert answer.code in (0, 3), (command, answer)
        assert "Traceback" not in answer.err
    answer = say("report", "--results-dir", str(folder))
    assert answer.code == 3
    assert words in answer.err
    assert WITH_CLOCK.run_id in answer.err
    assert f"| {SINGLE.spec.method} " in answer.out


def set_at(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(whole: Any) -> None:
        for step in path[:-1]:
            whole = whole[step]
        whole[path[-1]] = value

    change.__name__ = f"{'.'.join(map(str, path))}={str(value)[:20]}"
    return change


def drop_at(*path: str | int) -> Callable[[Any], None]:
    def change(whole: Any) -> None:
        for step in path[:-1]:
            whole = whole[step]
        del whole[path[-1]]

    change.__name__ = f"no {'.'.join(map(str, path))}"
    return change


def nested(kind: type, depth: int) -> Any:
    """Lists in lists, or objects in objects."""
    return kind() if depth == 0 else [nested(kind, depth - 1)] if kind is list else {"in": nested(kind, depth - 1)}


RECORDS: list[tuple[Callable[[Any], None], str]] = [
    (set_at("exits", value=[]), "exits after layers []"),
    (set_at("exits", 0, "layer", value=3), "exits after layers [3"),
    (set_at("costs", "exits", value=[]), "MACs of exits after layers [] of"),
    (set_at("costs", "layers", value=[]), "of 0"),
    (drop_at("data", "rows", "train"), "no rows of train"),
    (set_at("data", "rows", "selection", value=0), "no rows of selection"),
    (drop_at("data", "rows", "dev"), "no rows of dev"),
    (set_at("exits", 0, "scores", value={}), "has no accuracy"),
    (set_at("constant_scores", value={}), "has no accuracy"),
    (set_at("policy", value="guess"), "unknown policy 'guess'"),
    (set_at("policy", value=None), "2 exits and policy None"),
    (set_at("exits", 0, "macs_128", value=7), "7 MACs at 128 tokens at exit 2, by its polynomials"),
    (set_at("costs", "layers", 0, "c1", value=0), "MACs at 128 tokens at exit 2, by its polynomials"),
    (set_at("data", "rows", "calibration", value=39), "40 rows, wanted 39"),
    (set_at("latency", "reference_ratio", "1", value=[]), "latency ratios of another number of exits"),
    (drop_at("latency", "path_ratio", "1"), "different batch sizes"),
    (set_at("latency", "reference_ratio", "1", 0, "q1", value=0.0), "quartiles of the clock"),
    (set_at("latency", "reference_ms", "1", "q3", value=0.1), "quartiles of the clock"),
    (set_at("exits", 0, "static_ms", "1", "median", value=-1.0), "quartiles of the clock"),
    (set_at("exits", 0, "macs", value=0.0), "MACs or parameters of 0 or less"),
    (set_at("parameters", value=-5), "MACs or parameters of 0 or less"),
    (set_at("stages", value=[]), "no stages"),
    (set_at("spec", "settings", "epochs", value=10**400), "too large a number"),
    (set_at("spec", "settings", "teacher", value={"rates": [10**40]}), "too large a number"),
    (set_at("costs", "embedding", "c0", value=2**63), "too large a number"),
    (set_at("spec", "settings", "epochs", value=float("inf")), "is no number"),
    (set_at("spec", "settings", "epochs", value=nested(list, 500)), "in one another"),
    (set_at("spec", "settings", "teacher", value=nested(dict, 500)), "in one another"),
    (set_at("environment", "device", value="x\n::error::y"), "characters that do not show"),
    (set_at("spec", "settings", "epochs", value="a\x1b[2Jb"), "characters that do not show"),
    (set_at("spec", "settings", "a\x00b", value=1), "characters that do not show"),
    (set_at("environment", "versions", "torch", value="\ud800"), "characters that do not show"),
    (set_at("own_task", value={"labels": ["no", "yes"], "metrics": ["guess"], "scale": 1.0}), "unknown metric"),
    (set_at("own_task", value={"labels": ["no", "yes"], "metrics": ["f1"], "scale": 1.0}), "has no f1"),
    (set_at("mismatched", value={"constant": {"accuracy": 0.5}, "exits": []}), "no rows of mismatched"),
]


@pytest.mark.parametrize(("change", "words"), RECORDS, ids=lambda value: getattr(value, "__name__", None))
def test_a_record_that_does_not_fit_together_is_named(say: Say, folder: Path, change: Callable[[Any], None], words: str) -> None:
    path = broken_in(folder) / RECORD
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))
    assert_named_and_the_other_shown(say, folder, words)


LAYERS = [measured.layer for measured in WITH_CLOCK.exits]


@pytest.mark.parametrize("split", TRACES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logits": lambda a: a[:1], "exit_layers": lambda a: a[:1]}, f"exits after layers {LAYERS[:1]}, wanted {LAYERS}"),
        ({"exit_layers": lambda a: a[::-1].copy()}, f"exits after layers {LAYERS[::-1]}, wanted {LAYERS}"),
        ({"exit_layers": lambda a: a - 99}, "exits after layers [-"),
        ({"logits": lambda a: np.concatenate([a, a], -1)}, "4 logits a row, wanted 2"),
        ({name: (lambda a: a[:0]) for name in ("ids", "labels", "lengths")} | {"logits": lambda a: a[:, :0]}, "0 rows, wanted 40"),
        ({"labels": lambda a: a * 0 + 9}, "label 9"),
        ({"labels": lambda a: a * np.nan}, "label nan"),
        ({"lengths": lambda a: -a}, "tokens, wanted 1 to"),
        ({"lengths": lambda a: a * 1000}, "tokens, wanted 1 to"),
    ],
    ids=["one exit", "reversed", "negative layers", "classes", "no rows", "labels", "nan", "negative lengths", "long"],
)
def test_a_trace_that_is_not_its_records_is_named(
    say: Say, folder: Path, split: str, change: dict[str, Callable[[Any], Any]], words: str
) -> None:
    path = broken_in(folder) / TRACES[split]
    trace = read_trace(path)
    path.write_bytes(trace_bytes(replace(trace, **{name: with_(getattr(trace, name)) for name, with_ in change.items()})))
    assert_named_and_the_other_shown(say, folder, words)


def swapped(store: ResultsStore, stored: RunRecord) -> None:
    folder = store.folder(stored.spec.task, stored.spec.method, stored.run_id)
    (folder / TRACES["dev"]).write_bytes((folder / TRACES["calibration"]).read_bytes())


def rewritten(store: ResultsStore, stored: RunRecord, **fields_: Any) -> None:
    path = store.folder(stored.spec.task, stored.spec.method, stored.run_id) / RECORD
    path.write_text(to_json(replace(stored, **fields_)))


def first_exit(stored: RunRecord, **fields_: Any) -> dict[str, Any]:
    return {"exits": (replace(stored.exits[0], **fields_), *stored.exits[1:])}


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (swapped, "accuracy at exit 4 is 0.8500, by its trace 0.9000"),
        (lambda store, run: rewritten(store, run, **first_exit(run, scores={"accuracy": 0.99})), "accuracy at exit 1 is 0.9900"),
        (lambda store, run: rewritten(store, run, **first_exit(run, macs=7.0)), "7 mean MACs at exit 1, by its trace 2000"),
        (lambda store, run: rewritten(store, run, constant_scores={"accuracy": 0.4}), "a constant answer scores accuracy 0.4000"),
    ],
    ids=["another trace", "score", "macs", "constant"],
)
def test_figures_that_are_not_those_of_the_traces_are_neither_checked_nor_pinned(
    say: Say, tmp_path: Path, alter: Callable[[ResultsStore, RunRecord], None], words: str
) -> None:
    folder, path = tmp_path / "results", tmp_path / "baseline.json"
    stored = save_run(folder, a_run(), a_trace(wrong=30))
    command = ("check", "--baseline", str(path), "--results-dir", str(folder))
    assert say(*command, "--update").code == 0
    before = path.read_bytes()
    alter(ResultsStore(folder), stored)
    answer = say(*command)
    assert answer.code == 3
    assert words in answer.out
    answer = say(*command, "--update")
    assert answer.code == 3
    assert words in answer.err
    assert path.read_bytes() == before


ANYTHING = (None, 0, -1, 0.5, 10**400, "", "patience", "entropy", [], {}, [[[]]])


def leaves(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value inside, lists and objects too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * (at != ()) + [leaf for name, item in items for leaf in leaves(item, (*at, name))]


def changed(path: Path) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where and how the file, which is rewritten each time, holds something else."""
    whole = path.read_text()
    for at in leaves(json.loads(whole)):
        for value in ANYTHING:
            other = json.loads(whole)
            set_at(*at, value=value)(other)
            path.write_text(json.dumps(other))
            yield at, str(value)[:9]


@pytest.mark.parametrize("command", ["report", "check --baseline baseline.json", "list runs"])
def test_every_value_of_a_record_may_be_anything_without_a_failure_of_ours(say: Say, tmp_path: Path, command: str) -> None:
    """Refused and named, or shown, or compared."""
    folder = tmp_path / "results"
    store, run = ResultsStore(folder), save_run(folder, a_run(), a_trace())
    write_baseline(tmp_path / "baseline.json", baseline_of(store, [run]))
    store_run(folder, SINGLE)
    tried, wrong = 0, []
    for how in changed(store.folder(run.spec.task, run.spec.method, run.run_id) / RECORD):
        answer = say(*command.split(), "--results-dir", str(folder))
        tried += 1
        if answer.code not in (0, 1, 3, 4) or not answer.out:
            wrong.append((how, answer.code, answer.err))
    assert wrong == []
    assert tried > 1000


def test_every_value_of_a_baseline_may_be_anything_without_a_failure_of_ours(say: Say, tmp_path: Path) -> None:
    """Refused, or compared."""
    path, folder = tmp_path / "baseline.json", tmp_path / "results"
    save_run(folder, a_run(), a_trace())
    store = ResultsStore(folder)
    write_baseline(path, baseline_of(store, store.records()[0]))
    assert "all the same" in say("check", "--baseline", str(path), "--results-dir", str(folder)).out
    tried, wrong = 0, []
    for how in changed(path):
        answer = say("check", "--baseline", str(path), "--results-dir", str(folder))
        tried += 1
        if answer.code not in (0, 1, 2, 3, 4) or len(answer.lines) > 1:
            wrong.append((how, answer.code, answer.err))
    assert wrong == []
    assert tried > 800
