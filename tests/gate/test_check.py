"""Which runs a check compares, what makes them incomparable, and the exit code of a check."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.command_line import RunCli, assert_names
from support.gate_runs import (
    CELL,
    Check,
    Judge,
    Outcome,
    in_other_environment,
    outcome,
    record,
    save,
    trace,
)
from support.messages import names_all

from harness.gate.baseline import PinnedRun, read_baseline
from harness.gate.check import cell_names, job_differences
from harness.gate.findings import Verdict
from harness.records import RunRecord, RunSpec, short_id
from harness.store.results import RECORD, TRACES

REGRESSION = Verdict.REGRESSION

# --- which runs are compared


def test_run_outside_baseline_is_ignored(tmp_path: Path, check: Check) -> None:
    other = record()
    save(
        tmp_path / "new",
        replace(other, spec=replace(other.spec, seed=2), parameters=5),
        trace(wrong=150),
    )
    assert check(record(), trace())[0] == 0


def test_job_is_compared_on_each_processor(tmp_path: Path, run_cli: RunCli) -> None:
    """The baseline has a job on two processors, and only one of them ran it again.

    For the other processor's run the newest run is compared; once that processor has a run under
    another torch, that run is, and it is worse."""
    there = replace(record(), environment=replace(record().environment, device="Another"))
    for folder in ("old", "new"):
        save(tmp_path / folder, replace(there, created="2027-01-01T12:00:00+00:00"), trace())
    save(tmp_path / "old", record(), trace())
    path = str(tmp_path / "b.json")
    check = ("check", "--baseline", path, "--results-dir")
    assert run_cli(*check, str(tmp_path / "old"), "--update").code == 0
    assert len(read_baseline(Path(path)).runs) == 2
    command = (*check, str(tmp_path / "new"), "--format", "json")
    found = outcome(run_cli(*command))
    assert (found.code, len(found.cells)) == (0, 2)
    save(tmp_path / "new", in_other_environment(record()), trace(wrong=60))
    found = outcome(run_cli(*command))
    assert found.code == 1
    assert ("0.9000", "0.7000") in found.values(REGRESSION, "accuracy", 4)


def test_untimed_newer_run_is_compared_too(tmp_path: Path, judge: Judge) -> None:
    """A newer untimed run must not hide behind the timed run that the report selects."""
    newer = replace(record(latency=False), created="2027-01-01T12:00:00+00:00")
    save(tmp_path / "new", newer, trace(wrong=60))
    found = judge(record(), trace())
    assert (found.code, len(found.cells)) == (1, 2)
    assert ("0.9000", "0.7000") in found.values(REGRESSION, "accuracy", 4)


def test_newest_run_elsewhere_counts(tmp_path: Path, check: Check) -> None:
    """The newest run of another environment is compared whether or not it was timed."""
    earlier = replace(in_other_environment(record()), created="2026-12-01T12:00:00+00:00")
    later = replace(
        in_other_environment(record(latency=False)), created="2027-01-01T12:00:00+00:00"
    )
    save(tmp_path / "new", earlier, trace())
    save(tmp_path / "new", later, trace(wrong=60))
    assert check(record(), trace())[0] == 1


def test_later_run_elsewhere_is_compared_too(
    tmp_path: Path, judge: Judge, baseline: str, run_cli: RunCli
) -> None:
    """A later run of another environment must not hide behind one of the baseline's own."""
    later = replace(in_other_environment(record()), created="2027-01-01T12:00:00+00:00")
    run = save(tmp_path / "new", later, trace(wrong=60))
    found = judge(record(), trace())
    assert (found.code, len(found.cells)) == (1, 2)
    (worse,) = [cell for cell in found.cells if cell.failures]
    assert_names(worse.cell, *CELL, run.short_id)
    assert ("0.9000", "0.7000") in found.values(REGRESSION, "accuracy", 4)
    where = ("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    assert run_cli(*where, "--update").code == 0
    assert run_cli(*where).code == 0


def test_other_precision_is_another_job(
    tmp_path: Path, pin_and_check: Callable[[], Outcome]
) -> None:
    """Under another torch, each precision is compared with its own run of the baseline."""
    for folder, torch in (("old", "2.6"), ("new", "2.7")):
        for precision, errors in (("float32", 20), ("bfloat16", 60)):
            where = replace(record().environment, precision=precision, versions={"torch": torch})
            save(tmp_path / folder, replace(record(), environment=where), trace(wrong=errors))
    found = pin_and_check()
    assert (found.code, found.compared, found.findings) == (0, [24, 24], [])


# --- what makes runs incomparable


def test_similar_settings_show_all_digits() -> None:
    """Settings that look equal when rounded are given with all digits."""
    found = list(
        job_differences(
            {"heads": 0.3212890625, "epochs": 3.0}, {"heads": 0.3212890626, "epochs": 4.0}
        )
    )
    assert [(one.what, one.old, one.new) for one in found] == [
        ("epochs", "3", "4"),
        ("heads", "0.3212890625", "0.3212890626"),
    ]


def other_data(run: RunRecord) -> RunRecord:
    return replace(run, data=replace(run.data, data="d1"))


def other_settings(run: RunRecord) -> RunRecord:
    return replace(
        run, spec=replace(run.spec, settings={"epochs": 4, "teacher": {"rates": [0.1, 0.2]}})
    )


def other_rows(run: RunRecord) -> RunRecord:
    return replace(run, spec=replace(run.spec, limit=64))


@pytest.mark.parametrize(
    ("change", "names", "old", "new"),
    [
        (other_data, (), "d0", "d1"),
        (other_settings, ("epochs",), "3", "4"),
        (other_rows, ("limit",), "None", "64"),
    ],
)
def test_other_job_is_not_comparable(
    judge: Judge,
    change: Callable[[RunRecord], RunRecord],
    names: tuple[str, ...],
    old: str,
    new: str,
) -> None:
    found = judge(change(record()), trace(wrong=100))
    assert (found.code, found.verdicts) == (4, [Verdict.NOT_COMPARABLE])
    assert found.values(Verdict.NOT_COMPARABLE, *names) == [(old, new)]
    assert_names(found.cells[0].cell, *CELL)


# --- what is missing


def test_missing_run_is_incomplete(tmp_path: Path, judge: Judge, baseline: str) -> None:
    other = record()
    save(tmp_path / "new", replace(other, spec=replace(other.spec, seed=2)), trace())
    found = judge()
    assert (found.code, found.verdicts) == (3, [Verdict.MISSING])
    (old,) = read_baseline(Path(baseline)).runs
    (finding,) = found.findings
    assert finding.old == short_id(old.run_id)
    assert_names(found.cells[0].cell, *CELL)


def test_comparing_nothing_never_passes(tmp_path: Path, run_cli: RunCli) -> None:
    path = tmp_path / "baseline.json"
    path.write_text('{"schema": 2, "runs": []}')
    save(tmp_path / "new", record(), trace())
    result = run_cli(
        "check", "--baseline", str(path), "--results-dir", str(tmp_path / "new"), "--format", "json"
    )
    assert outcome(result) == Outcome(3, [])


def test_damaged_trace_is_missing_run(tmp_path: Path, judge: Judge) -> None:
    save(tmp_path / "new", record(), trace())
    (path,) = (tmp_path / "new").rglob(TRACES["dev"])
    path.write_bytes(path.read_bytes()[:100])
    found = judge()
    assert (found.code, found.verdicts) == (3, [Verdict.MISSING])
    assert_names(found.findings[0].note, path)


def test_record_scores_must_match_trace(tmp_path: Path, judge: Judge) -> None:
    save(tmp_path / "new", record(), trace())
    (path,) = (tmp_path / "new").rglob(RECORD)
    path.write_text(
        path.read_text().replace('"scores":{"accuracy":0.8}', '"scores":{"accuracy":0.1}')
    )
    found = judge()
    assert (found.code, found.verdicts) == (3, [Verdict.MISSING])
    assert_names(found.findings[0].note, ("accuracy", 1, "0.1000", "0.8000"))


def test_unreadable_record_fails_the_check(
    tmp_path: Path, judge: Judge, baseline: str, run_cli: RunCli
) -> None:
    """An unreadable record fails a check that would pass without it."""
    assert judge(record(), trace()).code == 0
    broken = tmp_path / "new" / "rte" / "deebert" / "dead" / RECORD
    broken.parent.mkdir()
    broken.write_text("{")
    found = judge()
    assert (found.code, len(found.cells), found.verdicts) == (3, 2, [Verdict.MISSING])
    (cell,) = [cell for cell in found.cells if cell.failures]
    assert cell.cell == "rte/deebert/dead"
    assert_names(cell.findings[0].note, broken)
    where = ("--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    suite = ElementTree.fromstring(run_cli("check", *where, "--format", "junit").out)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


# --- codes and names


def test_worst_verdict_gives_the_code(tmp_path: Path, run_cli: RunCli) -> None:
    """A regression outranks what is not comparable, which outranks what is missing."""
    old, new = tmp_path / "old", tmp_path / "new"
    runs = {seed: replace(record(), spec=replace(record().spec, seed=seed)) for seed in (1, 2, 3)}
    for run in runs.values():
        save(old, run, trace())
    path = str(tmp_path / "baseline.json")
    run_cli("check", "--baseline", path, "--update", "--results-dir", str(old))
    save(new, other_data(runs[2]), trace())
    assert run_cli("check", "--baseline", path, "--results-dir", str(new)).code == 4
    save(new, runs[1], trace(wrong=60))
    result = run_cli("check", "--baseline", path, "--results-dir", str(new))
    assert result.code == 1
    found = outcome(
        run_cli("check", "--baseline", path, "--results-dir", str(new), "--format", "json")
    )
    assert found.verdicts == [REGRESSION, Verdict.NOT_COMPARABLE, Verdict.MISSING]
    named = [
        next(cell.cell for cell in found.cells if cell.cell in line)
        for line in result.out.splitlines()[:-1]
    ]
    assert list(dict.fromkeys(named)) == [cell.cell for cell in found.cells], (
        "the worst verdict comes first"
    )


def test_cells_are_named_by_their_differences() -> None:
    """The names of one method's runs hold the settings in which they differ, and no others."""

    def run(seed: int, **changed: object) -> PinnedRun:
        settings = {"rounds": "iterative", "effort": 1.0} | changed
        spec = RunSpec("costeff", "rte", "tiny", seed, None, 128, None, settings)
        stored = record()
        return PinnedRun("", spec, stored.environment, stored.data, 0, None, (), (), changed)

    runs = [run(1), run(2), run(1, rounds="one"), run(1, effort=0.3), run(1, effort=2.0)]
    names = cell_names(runs)
    for name, seed in zip(names, (1, 2, 1, 1, 1), strict=True):
        assert_names(name, "rte", "costeff", "tiny", seed)
    settings = ("rounds=iterative", "rounds=one", "effort=0.3", "effort=1", "effort=2")
    named = [[setting for setting in settings if names_all(name, setting)] for name in names]
    assert named == [[], [], ["rounds=one"], ["effort=0.3"], ["effort=2"]]
    assert cell_names(runs[:2]) == names[:2]
