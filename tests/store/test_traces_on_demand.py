"""Commands open only the traces that their figures need; check --deep opens all."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.command_line import RunCli
from support.gate_runs import record as a_run
from support.gate_runs import save, trace
from support.messages import names_in_order
from support.synthetic import identified, make_timing

from harness.evaluation.trace import Trace, read_trace
from harness.gate.baseline import baseline_of, write_baseline
from harness.records import RunRecord
from harness.store import results
from harness.store.results import RECORD, TRACES, ResultsStore

pytestmark = pytest.mark.usefixtures("own_folders")


def one_exit(run: RunRecord, seed: int) -> RunRecord:
    """Return the run with only its last exit, like a method without a policy."""
    costs = replace(run.costs, exits=(None,) * (len(run.costs.exits) - 1) + run.costs.exits[-1:])
    return replace(
        run,
        spec=replace(run.spec, method="bert", seed=seed),
        policy=None,
        latency=None,
        costs=costs,
        exits=run.exits[-1:],
    )


def last_exit_of(full: Trace) -> Trace:
    return replace(full, logits=full.logits[-1:], exit_layers=full.exit_layers[-1:])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with a run of two exits and one of a single exit, both intact."""
    save(tmp_path / "results", a_run(), trace())
    store = ResultsStore(tmp_path / "results")
    single = identified(one_exit(a_run(), 1))
    accuracy = float((last_exit_of(trace()).predictions() == 1).mean())
    exits = (replace(single.exits[0], scores={"accuracy": accuracy}),)
    rows = {**single.data.rows, **dict.fromkeys(TRACES, 200)}
    data = replace(single.data, rows=rows)
    store.save(
        replace(single, exits=exits, data=data, constant_scores={"accuracy": 1.0}),
        dict.fromkeys(TRACES, last_exit_of(trace())),
    )
    return tmp_path / "results"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The traces opened, as method/file, in order."""
    found: list[str] = []

    def read(path: Path) -> Trace:
        found.append(f"{path.parent.parent.name}/{path.name}")
        return read_trace(path)

    monkeypatch.setattr(results, "read_trace", read)
    return found


def files_of(folder: Path, method: str) -> Path:
    (record,) = folder.glob(f"rte/{method}/*/{RECORD}")
    return record.parent


def test_listing_runs_opens_no_trace(run_cli: RunCli, folder: Path, opened: list[str]) -> None:
    assert run_cli("list", "runs", "--results-dir", str(folder)).code == 0
    assert opened == []


@pytest.mark.parametrize("form", ["markdown", "csv", "json"])
def test_report_opens_needed_traces_once(
    run_cli: RunCli, folder: Path, opened: list[str], form: str
) -> None:
    assert run_cli("report", "--format", form, "--results-dir", str(folder)).code == 0
    assert sorted(opened) == sorted(f"deebert/{name}" for name in TRACES.values())


@pytest.mark.parametrize("name", TRACES.values())
def test_unneeded_trace_is_not_opened(run_cli: RunCli, folder: Path, name: str) -> None:
    (files_of(folder, "bert") / name).write_bytes(b"PK torn")
    result = run_cli("report", "--results-dir", str(folder))
    assert (result.code, result.err) == (0, "")
    assert "| bert " in result.out


@pytest.mark.parametrize("options", [(), ("--budget", "1MMAC"), ("--into", "page.md")])
@pytest.mark.parametrize("name", TRACES.values())
def test_needed_damaged_trace_is_named(
    run_cli: RunCli, folder: Path, name: str, options: tuple[str, ...]
) -> None:
    (files_of(folder, "deebert") / name).write_bytes(b"PK torn")
    result = run_cli("report", *options, "--results-dir", str(folder))
    assert result.code == 3
    (line,) = [line for line in result.lines if name in line]
    assert line.startswith(f"harness: rte/deebert/{files_of(folder, 'deebert').name}: ")
    assert ("| bert " in result.out) == ("--into" not in options)
    assert "| deebert " not in result.out


def test_all_unreadable_runs_are_named(run_cli: RunCli, folder: Path) -> None:
    save(folder, replace(a_run(), spec=replace(a_run().spec, seed=2)), trace(wrong=10))
    store = ResultsStore(folder)
    (one, other) = [record for record in store.records()[0] if record.spec.method == "deebert"]
    (store.folder("rte", "deebert", one.run_id) / TRACES["dev"]).unlink()
    store.add_timing(other, make_timing(other.run_id, 0.5)).write_text("{")
    result = run_cli("report", "--results-dir", str(folder))
    assert result.code == 3
    assert [line.split(": ")[1] for line in result.lines] == [
        f"rte/deebert/{run.run_id}" for run in (one, other)
    ]
    assert "| bert " in result.out


def test_deep_check_opens_every_trace(run_cli: RunCli, folder: Path, opened: list[str]) -> None:
    result = run_cli("check", "--deep", "--results-dir", str(folder))
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("passed: 2 cells, 6 figures")
    assert sorted(opened) == sorted(
        f"{method}/{name}" for method in ("bert", "deebert") for name in TRACES.values()
    )


@pytest.mark.parametrize("method", ["bert", "deebert"])
@pytest.mark.parametrize("name", TRACES.values())
def test_deep_check_names_damaged_trace(
    run_cli: RunCli, folder: Path, method: str, name: str
) -> None:
    path = files_of(folder, method) / name
    path.write_bytes(path.read_bytes()[:-9])
    result = run_cli("check", "--deep", "--results-dir", str(folder))
    assert result.code == 3
    (line, _) = result.out.splitlines()
    assert line.startswith(f"missing: rte/{method}/{path.parent.name[:8]}: ")
    assert str(path) in line


def test_deep_check_names_timing_and_score(run_cli: RunCli, folder: Path) -> None:
    store = ResultsStore(folder)
    single, several = store.records()[0]
    timing = store.add_timing(single, make_timing(single.run_id, 0.5))
    timing.write_text("{")
    record = files_of(folder, "deebert") / RECORD
    record.write_text(record.read_text().replace('"accuracy":0.8', '"accuracy":0.85'))
    result = run_cli("check", "--deep", "--results-dir", str(folder))
    assert result.code == 3
    one, other, _ = result.out.splitlines()
    assert str(timing) in one
    assert names_in_order(other, "accuracy", 1, "0.8500", "0.8000")
    assert several.run_id in other


def test_deep_check_extends_baseline_check(run_cli: RunCli, folder: Path, tmp_path: Path) -> None:
    store, path = ResultsStore(folder), tmp_path / "baseline.json"
    write_baseline(
        path,
        baseline_of(
            store, [record for record in store.records()[0] if record.spec.method == "deebert"]
        ),
    )
    command = ("check", "--baseline", str(path), "--results-dir", str(folder))
    (files_of(folder, "bert") / TRACES["selection"]).write_bytes(b"PK torn")
    assert run_cli(*command).code == 0
    assert run_cli(*command, "--deep").code == 3


def test_deep_check_needs_runs(run_cli: RunCli, tmp_path: Path) -> None:
    assert run_cli("check", "--deep", "--results-dir", str(tmp_path / "none")).code == 3


@pytest.mark.parametrize(
    ("options", "code"), [((), 2), (("--update",), 3), (("--deep", "--update"), 3)]
)
def test_check_needs_the_default_baseline(
    run_cli: RunCli, tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    """An empty results folder has neither a baseline nor runs to make one of."""
    result = run_cli("check", *options, "--results-dir", str(tmp_path))
    assert result.code == code
    (line,) = result.lines
    assert "baseline.json" in line
