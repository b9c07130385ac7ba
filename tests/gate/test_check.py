"""The gate: a planted regression of each kind gives its exit code and a line with both values, and nothing else does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.command_line import Say, assert_names
from support.gate_runs import (
    CELL,
    Check,
    Judge,
    Outcome,
    at_exit,
    charged,
    elsewhere,
    outcome,
    record,
    save,
    slower,
    trace,
)
from support.messages import figures, names_all
from support.synthetic import identified, make_exit, make_record, save_run

from harness.evaluation.trace import Trace
from harness.gate.baseline import PinnedRun, read_baseline
from harness.gate.check import Verdict, _differences, cell_names
from harness.records import Polynomial, Quartiles, RunRecord, RunSpec, SplitScores
from harness.store.results import RECORD, TRACES, ResultsStore

REGRESSION, CHANGED = Verdict.REGRESSION, Verdict.CHANGED

# --- what passes


def test_same_run_passes(judge: Judge) -> None:
    """Layers and parameters; of each exit parameters, MACs twice, a score; of each of three points exits and a score; of each exit two
    ratios at two batch sizes, and its answers: 2 + 2 * 4 + 3 * 2 + 2 * 4 + 2."""
    found = judge(record(), trace())
    assert (found.code, found.compared, found.findings) == (0, [26], [])
    assert_names(found.cells[0].cell, *CELL)


def test_better_score_passes_as_change(judge: Judge) -> None:
    """More rows that leave elsewhere than the baseline's pass, too, within what is allowed."""
    found = judge(elsewhere(record()), trace(early=103, wrong=10))
    assert (found.code, found.verdicts) == (0, [CHANGED])
    assert found.values(CHANGED, "accuracy", 4)[0] == ("0.9000", "0.9500")
    (left,) = {(one.old, one.new, one.note) for one in found.findings if one.old == "100/100"}
    assert left[:2] == ("100/100", "103/97")
    assert figures(left[2]) == [0.015, 0.02]


def test_drop_within_margin_passes(judge: Judge) -> None:
    """Whatever its interval is."""
    found = judge(record(), trace(wrong=21), "--score-margin", "0.006")
    assert (found.code, found.verdicts) == (0, [CHANGED])
    assert found.values(CHANGED, "accuracy", 4)[0] == ("0.9000", "0.8950")


def test_drop_by_chance_passes(judge: Judge) -> None:
    """Two of 200 rows: of resamples exp(-2) = 13.5 % have neither, so the interval's upper end is 0."""
    found = judge(record(), trace(wrong=22))
    assert (found.code, found.verdicts) == (0, [CHANGED])
    drop = found.findings[0]
    assert (drop.old, drop.new) == ("0.9000", "0.8900")
    assert figures(drop.note) == [95, -0.025, 0, -0.005]


def test_run_outside_baseline_is_ignored(tmp_path: Path, check: Check) -> None:
    other = record()
    save(
        tmp_path / "new",
        replace(other, spec=replace(other.spec, seed=2), parameters=5),
        trace(wrong=150),
    )
    assert check(record(), trace())[0] == 0


def test_latency_elsewhere_is_not_compared(judge: Judge) -> None:
    """On another processor, or where nothing was timed, and that is said."""
    run = slower(record(), Quartiles(1.0, 1.1, 1.2))
    found = judge(replace(run, environment=replace(run.environment, device="Another")), trace())
    assert (found.code, found.verdicts) == (0, [Verdict.NOT_COMPARED])
    (clocks,) = found.values(Verdict.NOT_COMPARED)
    for said, device in zip(clocks, ("A processor", "Another"), strict=True):
        assert_names(said, "bert", device, 2)
    found = judge(record(latency=False), trace())
    assert (found.code, found.verdicts) == (0, [Verdict.NOT_COMPARED])
    assert not names_all(found.findings[0].new, "bert")


def test_no_latency_compares_no_latency(judge: Judge) -> None:
    found = judge(slower(record(), Quartiles(1.0, 1.1, 1.2)), trace(), "--no-latency")
    assert (found.code, found.compared, found.findings) == (0, [16], [])


def test_better_ratio_passes_as_change(judge: Judge) -> None:
    found = judge(slower(record(), Quartiles(3.5, 3.6, 3.7)), trace())
    assert (found.code, found.verdicts) == (0, [CHANGED])
    (finding,) = found.findings
    assert figures(finding.what) == [1, 1]  # exit and batch size
    assert (figures(finding.old), figures(finding.new)) == ([3, 2.7, 3.3], [3.6, 3.5, 3.7])


def test_clock_noise_is_no_finding(judge: Judge) -> None:
    found = judge(slower(record(), Quartiles(3.1, 3.2, 3.7)), trace())
    assert (found.code, found.compared, found.findings) == (0, [24], [])


def test_batch_size_without_timing_is_named(judge: Judge) -> None:
    timed = record().latency
    assert timed is not None
    ratios = {
        name: {size: of for size, of in getattr(timed, name).items() if size == "1"}
        for name in ("reference_ratio", "path_ratio")
    }
    found = judge(replace(record(), latency=replace(timed, **ratios)), trace())
    assert (found.code, found.verdicts) == (0, [Verdict.NOT_COMPARED])
    assert len(found.values(Verdict.NOT_COMPARED, 32)) == 1


def test_other_answers_elsewhere_pass(judge: Judge) -> None:
    """In another environment equal scores are enough."""
    found = judge(elsewhere(record()), other_answers())
    assert (found.code, found.compared, found.findings) == (0, [24], [])


# --- what does not


def other_answers() -> Trace:
    """The first rows are answered as the last were."""
    return replace(trace(), logits=trace().logits[:, ::-1].copy())


def test_other_answers_of_same_run_fail(judge: Judge) -> None:
    """Though it scores the same. Exit 1 is wrong on 40 rows at either end, exit 4 on 20."""
    found = judge(record(), other_answers())
    assert (found.code, found.verdicts) == (1, [REGRESSION])
    answers = [(figures(one.what), figures(one.old), figures(one.new)) for one in found.findings]
    assert answers == [([1], [200], [80]), ([4], [200], [40])]


def test_record_must_score_as_its_trace(tmp_path: Path, judge: Judge) -> None:
    save(tmp_path / "new", record(), trace())
    (path,) = (tmp_path / "new").rglob(RECORD)
    path.write_text(
        path.read_text().replace('"scores":{"accuracy":0.8}', '"scores":{"accuracy":0.1}')
    )
    found = judge()
    assert (found.code, found.verdicts) == (3, [Verdict.MISSING])
    assert_names(found.findings[0].note, ("accuracy", 1, "0.1000", "0.8000"))


def test_job_is_compared_on_each_processor(tmp_path: Path, say: Say) -> None:
    """Though one of two processors ran again alone: what is left of the other's own is a run under another torch, and that one is worse;
    without any the newest run is compared."""
    there = replace(record(), environment=replace(record().environment, device="Another"))
    for folder in ("old", "new"):
        save(tmp_path / folder, replace(there, created="2027-01-01T12:00:00+00:00"), trace())
    save(tmp_path / "old", record(), trace())
    path = str(tmp_path / "b.json")
    assert (
        say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).code
        == 0
    )
    assert len(read_baseline(Path(path)).runs) == 2
    command = (
        "check",
        "--baseline",
        path,
        "--results-dir",
        str(tmp_path / "new"),
        "--format",
        "json",
    )
    found = outcome(say(*command))
    assert (found.code, len(found.cells)) == (0, 2)
    save(tmp_path / "new", elsewhere(record()), trace(wrong=60))
    found = outcome(say(*command))
    assert found.code == 1
    assert ("0.9000", "0.7000") in found.values(REGRESSION, "accuracy", 4)


def test_untimed_newer_run_is_compared_too(tmp_path: Path, judge: Judge) -> None:
    """The report shows the timed one, behind which it must not hide."""
    newer = replace(record(latency=False), created="2027-01-01T12:00:00+00:00")
    save(tmp_path / "new", newer, trace(wrong=60))
    found = judge(record(), trace())
    assert (found.code, len(found.cells)) == (1, 2)
    assert ("0.9000", "0.7000") in found.values(REGRESSION, "accuracy", 4)


def test_newest_run_elsewhere_counts(tmp_path: Path, check: Check) -> None:
    """Timed or not."""
    save(
        tmp_path / "new", replace(elsewhere(record()), created="2026-12-01T12:00:00+00:00"), trace()
    )
    save(
        tmp_path / "new",
        replace(elsewhere(record(latency=False)), created="2027-01-01T12:00:00+00:00"),
        trace(wrong=60),
    )
    assert check(record(), trace())[0] == 1


def test_other_precision_is_another_job(tmp_path: Path, say: Say) -> None:
    """Under another torch each is compared with its own."""
    path = str(tmp_path / "b.json")
    for folder, torch in (("old", "2.6"), ("new", "2.7")):
        for precision, wrong in (("float32", 20), ("bfloat16", 60)):
            where = replace(record().environment, precision=precision, versions={"torch": torch})
            save(tmp_path / folder, replace(record(), environment=where), trace(wrong=wrong))
    assert (
        say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).code
        == 0
    )
    found = outcome(
        say("check", "--baseline", path, "--results-dir", str(tmp_path / "new"), "--format", "json")
    )
    assert (found.code, found.compared, found.findings) == (0, [24, 24], [])


def test_settings_alike_in_short_differ() -> None:
    """Those that are the same with few digits are given with all."""
    found = list(
        _differences({"heads": 0.3212890625, "epochs": 3.0}, {"heads": 0.3212890626, "epochs": 4.0})
    )
    assert [(one.what, one.old, one.new) for one in found] == [
        ("epochs", "3", "4"),
        ("heads", "0.3212890625", "0.3212890626"),
    ]


def test_later_run_elsewhere_is_compared_too(
    tmp_path: Path, judge: Judge, baseline: str, say: Say
) -> None:
    """It does not hide behind the baseline's own."""
    later = replace(elsewhere(record()), created="2027-01-01T12:00:00+00:00")
    run = save(tmp_path / "new", later, trace(wrong=60))
    found = judge(record(), trace())
    assert (found.code, len(found.cells)) == (1, 2)
    (worse,) = [cell for cell in found.cells if cell.failures]
    assert_names(worse.cell, *CELL, run.run_id)
    assert ("0.9000", "0.7000") in found.values(REGRESSION, "accuracy", 4)
    where = ("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    assert say(*where, "--update").code == 0
    assert say(*where).code == 0


def on_mnli(mismatched: float) -> tuple[RunRecord, dict[str, Trace]]:
    """A run whose last exit is right on all of dev and on this share of mismatched."""
    rows = 100
    labels = np.arange(rows) % 3
    answers = {
        "dev": labels,
        "mismatched": np.where(np.arange(rows) < mismatched * rows, labels, (labels + 1) % 3),
    }
    traces = {
        split: Trace(
            np.arange(rows),
            np.eye(3, dtype=np.float32)[said][None],
            labels.astype(float),
            np.full(rows, 20),
            np.array([4]),
        )
        for split, said in (answers | dict.fromkeys(("selection", "calibration"), labels)).items()
    }
    made = make_record("bert", 1, [make_exit(4, {"accuracy": 1.0}, 8000.0, 9.0, 9.0)], task="mnli")
    further = SplitScores({"accuracy": 0.33}, ({"accuracy": mismatched},))
    made = replace(made, constant_scores={"accuracy": 0.34})
    return identified(
        replace(
            made,
            mismatched=further,
            data=replace(made.data, rows=made.data.rows | {"mismatched": rows}),
        )
    ), traces


def test_drop_on_mismatched_is_a_regression(tmp_path: Path, say: Say) -> None:
    """Of the second dev split."""
    path = str(tmp_path / "b.json")
    for name, mismatched in (("old", 0.6), ("new", 0.2)):
        run, traces = on_mnli(mismatched)
        save_run(ResultsStore(tmp_path / name), run, traces)
    assert (
        say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).code
        == 0
    )
    assert say("check", "--baseline", path, "--results-dir", str(tmp_path / "old")).code == 0
    found = outcome(
        say("check", "--baseline", path, "--results-dir", str(tmp_path / "new"), "--format", "json")
    )
    assert found.code == 1
    assert found.values(REGRESSION, "accuracy", 4, "mismatched") == [("0.6000", "0.2000")]
    (drop,) = [one for one in found.findings if names_all(one.what, "accuracy", "mismatched")]
    assert figures(drop.note)[0] == 95


@pytest.mark.parametrize(
    ("score", "code", "verdict"),
    [
        (0.603, 0, CHANGED),
        (0.5, 4, Verdict.NOT_COMPARABLE),
        (0.7, 4, Verdict.NOT_COMPARABLE),
        (None, 3, Verdict.MISSING),
    ],
)
def test_external_metrics_have_two_sided_margin(
    tmp_path: Path, say: Say, score: float | None, code: int, verdict: Verdict
) -> None:
    """Whether more is better is not known of other people's metrics: of a word error rate it is worse."""
    path = str(tmp_path / "b.json")
    for name, value in (("old", 0.6), ("new", score)):
        (exit_,) = make_record("bert", 1, [make_exit(4, {"accuracy": 1.0}, 8000.0, 9.0, 9.0)]).exits
        measured = replace(
            exit_, scores={"accuracy": 1.0} | ({} if value is None else {"evaluate:theirs": value})
        )
        run = make_record("bert", 1, [measured])
        ones = Trace(
            np.arange(9),
            np.ones((1, 9, 2), np.float32) * [0, 1],
            np.ones(9),
            np.full(9, 20),
            np.array([4]),
        )
        save_run(
            ResultsStore(tmp_path / name),
            replace(run, constant_scores={"accuracy": 1.0}),
            dict.fromkeys(TRACES, ones),
        )
    assert (
        say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).code
        == 0
    )
    found = outcome(
        say("check", "--baseline", path, "--results-dir", str(tmp_path / "new"), "--format", "json")
    )
    assert found.code == code
    ((old, new),) = found.values(verdict, "evaluate:theirs", 4)
    assert (old, figures(new)) == ("0.6000", [] if score is None else [score])


@pytest.mark.parametrize(
    ("run", "dev", "names", "old", "new"),
    [
        (record(), trace(wrong=40), ("accuracy", 4), "0.9000", "0.8000"),
        (charged(record(), 1, Polynomial(-20, 1, 0)), trace(), (128, 4), "51200", "51308"),
        (charged(record(), 0, Polynomial(128, -1, 0)), trace(), (1,), "2000.0", "2108.0"),
        (replace(record(), parameters=2_000_001), trace(), (), "2000000", "2000001"),
        (
            at_exit(record(), 0, lambda exit_: replace(exit_, parameters=7)),
            trace(),
            (1,),
            "1250000",
            "7",
        ),
        (record(), trace(early=101), (), "100/100", "101/99"),
        (elsewhere(record()), trace(early=105), (), "100/100", "105/95"),
        (
            slower(record(), Quartiles(2.2, 2.4, 2.6)),
            trace(),
            (1,),
            "3.00 [2.70, 3.30]",
            "2.40 [2.20, 2.60]",
        ),
    ],
    ids=[
        "score",
        "macs-128",
        "macs",
        "parameters",
        "parameters of an exit",
        "exits",
        "exits elsewhere",
        "latency",
    ],
)
def test_planted_regression_fails_with_both_values(
    check: Check,
    judge: Judge,
    run: RunRecord,
    dev: Trace,
    names: tuple[object, ...],
    old: str,
    new: str,
) -> None:
    """In the text for people, too."""
    found = judge(run, dev)
    assert (found.code, len(found.cells)) == (1, 1)
    assert (old, new) in found.values(REGRESSION, *names)
    code, said = check(run, dev)
    assert code == 1
    assert any(
        names_all(line, *CELL, *names) and old in line and new in line for line in said.splitlines()
    )


@pytest.mark.parametrize(
    ("run", "dev", "note"),
    [
        (record(), trace(early=101), [0.005, 0]),
        (elsewhere(record()), trace(early=105), [0.025, 0.02]),
    ],
    ids=["same", "elsewhere"],
)
def test_moved_exits_tell_distance_and_margin(
    judge: Judge, run: RunRecord, dev: Trace, note: list[float]
) -> None:
    found = [finding for finding in judge(run, dev).findings if finding.old == "100/100"]
    assert [figures(finding.note) for finding in found] == [note] * len(found)
    assert found


@pytest.mark.parametrize(
    "ratio", [Quartiles(2.2, 2.4, 2.8), Quartiles(2.6, 2.65, 2.69)], ids=["intervals meet", "small"]
)
def test_ratio_below_interval_and_margin_fails(check: Check, ratio: Quartiles) -> None:
    """A latency ratio is worse only below the interval and beyond the margin."""
    if ratio.median > 2.5:
        assert check(slower(record(), ratio), trace(), "--latency-margin", "0.15")[0] == 0
    else:
        assert check(slower(record(), ratio), trace())[0] == 0


def test_missing_run_is_incomplete(tmp_path: Path, judge: Judge, baseline: str) -> None:
    other = record()
    save(tmp_path / "new", replace(other, spec=replace(other.spec, seed=2)), trace())
    found = judge()
    assert (found.code, found.verdicts) == (3, [Verdict.MISSING])
    (old,) = read_baseline(Path(baseline)).runs
    (finding,) = found.findings
    assert finding.old == old.run_id
    assert_names(found.cells[0].cell, *CELL)


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


def test_worst_verdict_gives_the_code(tmp_path: Path, say: Say) -> None:
    """A regression counts more than what is not comparable, and that more than what is missing."""
    old, new = tmp_path / "old", tmp_path / "new"
    runs = {seed: replace(record(), spec=replace(record().spec, seed=seed)) for seed in (1, 2, 3)}
    for run in runs.values():
        save(old, run, trace())
    path = str(tmp_path / "baseline.json")
    say("check", "--baseline", path, "--update", "--results-dir", str(old))
    save(new, other_data(runs[2]), trace())
    assert say("check", "--baseline", path, "--results-dir", str(new)).code == 4
    save(new, runs[1], trace(wrong=60))
    answer = say("check", "--baseline", path, "--results-dir", str(new))
    assert answer.code == 1
    found = outcome(say("check", "--baseline", path, "--results-dir", str(new), "--format", "json"))
    assert found.verdicts == [REGRESSION, Verdict.NOT_COMPARABLE, Verdict.MISSING]
    told = [
        next(cell.cell for cell in found.cells if cell.cell in line)
        for line in answer.out.splitlines()[:-1]
    ]
    assert list(dict.fromkeys(told)) == [cell.cell for cell in found.cells], (
        "the worst stands first"
    )


def test_nothing_compared_never_passes(tmp_path: Path, say: Say) -> None:
    path = tmp_path / "baseline.json"
    path.write_text('{"schema": 2, "runs": []}')
    save(tmp_path / "new", record(), trace())
    answer = say(
        "check", "--baseline", str(path), "--results-dir", str(tmp_path / "new"), "--format", "json"
    )
    assert outcome(answer) == Outcome(3, [])


def test_damaged_trace_is_missing_run(tmp_path: Path, judge: Judge) -> None:
    save(tmp_path / "new", record(), trace())
    (path,) = (tmp_path / "new").rglob(TRACES["dev"])
    path.write_bytes(path.read_bytes()[:100])
    found = judge()
    assert (found.code, found.verdicts) == (3, [Verdict.MISSING])
    assert_names(found.findings[0].note, path)


def test_unreadable_record_fails_the_check(
    tmp_path: Path, judge: Judge, baseline: str, say: Say
) -> None:
    """One that would pass without it."""
    assert judge(record(), trace()).code == 0
    broken = tmp_path / "new" / "rte" / "deebert" / "dead" / RECORD
    broken.parent.mkdir()
    broken.write_text("{")
    found = judge()
    assert (found.code, len(found.cells), found.verdicts) == (3, 2, [Verdict.MISSING])
    (cell,) = [cell for cell in found.cells if cell.failures]
    assert cell.cell == "rte/deebert/dead"
    assert_names(cell.findings[0].note, broken)
    suite = ElementTree.fromstring(
        say(
            "check",
            "--baseline",
            baseline,
            "--results-dir",
            str(tmp_path / "new"),
            "--format",
            "junit",
        ).out
    )
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


# --- names


def test_cells_are_named_by_their_differences() -> None:
    """Runs of one method are told apart by what sets them apart, and by nothing else."""

    def run(seed: int, **changed: object) -> PinnedRun:
        spec = RunSpec(
            "costeff",
            "rte",
            "tiny",
            seed,
            None,
            128,
            None,
            {"rounds": "iterative", "effort": 1.0} | changed,
        )
        own = record()
        return PinnedRun("", spec, own.environment, own.data, 0, None, (), (), changed)

    runs = [run(1), run(2), run(1, rounds="one"), run(1, effort=0.3), run(1, effort=2.0)]
    names = cell_names(runs)
    for name, seed in zip(names, (1, 2, 1, 1, 1), strict=True):
        assert_names(name, "rte", "costeff", "tiny", seed)
    settings = ("rounds=iterative", "rounds=one", "effort=0.3", "effort=1", "effort=2")
    shown = [[setting for setting in settings if names_all(name, setting)] for name in names]
    assert shown == [[], [], ["rounds=one"], ["effort=0.3"], ["effort=2"]]
    assert cell_names(runs[:2]) == names[:2]
