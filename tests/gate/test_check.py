"""The gate: a planted regression of each kind gives its exit code and a line with both values, and nothing else does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.command_line import Say
from support.gate_runs import Check, at_exit, charged, elsewhere, record, save, slower, trace
from support.synthetic import identified, make_exit, make_record, save_run

from harness.evaluation.trace import Trace
from harness.gate.baseline import PinnedRun, read_baseline
from harness.gate.check import _differences, cell_names
from harness.records import Polynomial, Quartiles, RunRecord, RunSpec, SplitScores
from harness.store.results import RECORD, TRACES, ResultsStore

# --- what passes


def test_the_same_run_passes(check: Check) -> None:
    """Layers and parameters; of each exit parameters, MACs twice, a score; of each of three points exits and a score; of each exit two
    ratios at two batch sizes, and its answers: 2 + 2 * 4 + 3 * 2 + 2 * 4 + 2."""
    code, said = check(record(), trace())
    assert code == 0
    assert said == "passed: 1 cells, 26 figures compared: all the same\n"


def test_a_better_score_and_more_rows_that_leave_elsewhere_pass_and_are_said(check: Check) -> None:
    code, said = check(elsewhere(record()), trace(early=103, wrong=10))
    assert code == 0
    assert "changed: rte deebert on tiny, seed 1: accuracy at exit 4: 0.9000 -> 0.9500" in said
    assert "100/100 -> 103/97 (distance 0.0150, allowed 0.02)" in said


def test_a_drop_within_the_margin_is_no_regression_whatever_its_interval(check: Check) -> None:
    code, said = check(record(), trace(wrong=21), "--score-margin", "0.006")
    assert code == 0
    assert "accuracy at exit 4: 0.9000 -> 0.8950" in said


def test_a_drop_that_the_rows_do_not_tell_from_chance_is_none(check: Check) -> None:
    """Two of 200 rows: of resamples exp(-2) = 13.5 % have neither, so the interval's upper end is 0."""
    code, said = check(record(), trace(wrong=22))
    assert code == 0
    assert "0.9000 -> 0.8900 (95 % of paired resamples: -0.0250 to +0.0000; allowed -0.005)" in said


def test_a_run_that_the_baseline_does_not_have_is_not_looked_at(tmp_path: Path, check: Check) -> None:
    other = record()
    save(tmp_path / "new", replace(other, spec=replace(other.spec, seed=2), parameters=5), trace(wrong=150))
    assert check(record(), trace())[0] == 0


def test_latency_on_another_processor_is_not_compared_and_that_is_said(check: Check) -> None:
    run = slower(record(), Quartiles(1.0, 1.1, 1.2))
    code, said = check(replace(run, environment=replace(run.environment, device="Another")), trace())
    assert code == 0
    assert "latency ratios: against bert on A processor, 2 thread(s) -> against bert on Another, 2 thread(s)" in said
    code, said = check(record(latency=False), trace())
    assert code == 0
    assert "-> not timed" in said


def test_latency_is_left_alone_where_it_is_not_asked_for(check: Check) -> None:
    code, said = check(slower(record(), Quartiles(1.0, 1.1, 1.2)), trace(), "--no-latency")
    assert (code, said) == (0, "passed: 1 cells, 16 figures compared: all the same\n")


def test_a_clearly_better_ratio_is_said_and_noise_is_not(check: Check) -> None:
    code, said = check(slower(record(), Quartiles(3.5, 3.6, 3.7)), trace())
    assert (code, "static latency ratio at exit 1, batch 1: 3.00 [2.70, 3.30] -> 3.60" in said) == (0, True)


def test_noise_of_the_clock_is_not_said(check: Check) -> None:
    code, said = check(slower(record(), Quartiles(3.1, 3.2, 3.7)), trace())
    assert (code, said) == (0, "passed: 1 cells, 24 figures compared: all the same\n")


def test_a_batch_size_that_was_not_timed_is_said(check: Check) -> None:
    timed = record().latency
    assert timed is not None
    ratios = {name: {size: of for size, of in getattr(timed, name).items() if size == "1"} for name in ("reference_ratio", "path_ratio")}
    code, said = check(replace(record(), latency=replace(timed, **ratios)), trace())
    assert code == 0
    assert "not compared: rte deebert on tiny, seed 1: latency ratios at batch size 32: timed -> not timed" in said


def test_other_answers_with_equal_scores_pass_in_another_environment(check: Check) -> None:
    assert check(elsewhere(record()), other_answers()) == (0, "passed: 1 cells, 24 figures compared: all the same\n")


# --- what does not


def other_answers() -> Trace:
    """The first rows are answered as the last were."""
    return replace(trace(), logits=trace().logits[:, ::-1].copy())


def test_the_same_run_with_other_answers_is_a_regression_though_it_scores_the_same(check: Check) -> None:
    """Exit 1 is wrong on 40 rows at either end, exit 4 on 20."""
    code, said = check(record(), other_answers())
    assert code == 1
    assert "answers at exit 1: 200 rows -> 80 of them other (wanted the same: the same run in an equal environment)" in said
    assert "answers at exit 4: 200 rows -> 40 of them other" in said


def test_a_record_whose_scores_are_not_its_traces_is_no_run(tmp_path: Path, baseline: str, say: Say) -> None:
    save(tmp_path / "new", record(), trace())
    (path,) = (tmp_path / "new").rglob(RECORD)
    path.write_text(path.read_text().replace('"scores":{"accuracy":0.8}', '"scores":{"accuracy":0.1}'))
    answer = say("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    assert answer.code == 3
    assert "accuracy at exit 1 is 0.1000, by its trace 0.8000" in answer.out


def test_a_job_that_ran_on_two_processors_is_compared_for_each_though_one_ran_again_alone(tmp_path: Path, say: Say) -> None:
    """What is left of the other's own is a run under another torch, and that one is worse; without any the newest run is compared."""
    there = replace(record(), environment=replace(record().environment, device="Another"))
    for folder in ("old", "new"):
        save(tmp_path / folder, replace(there, created="2027-01-01T12:00:00+00:00"), trace())
    save(tmp_path / "old", record(), trace())
    path = str(tmp_path / "b.json")
    assert say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).out.endswith("2 runs\n")
    command = ("check", "--baseline", path, "--results-dir", str(tmp_path / "new"))
    assert say(*command).out.splitlines()[-1].startswith("passed: 2 cells")
    save(tmp_path / "new", elsewhere(record()), trace(wrong=60))
    answer = say(*command)
    assert answer.code == 1
    assert "accuracy at exit 4: 0.9000 -> 0.7000" in answer.out


def test_a_newer_run_that_was_not_timed_does_not_hide_behind_one_that_was(tmp_path: Path, check: Check) -> None:
    """The report shows the timed one, and it is compared too."""
    newer = replace(record(latency=False), created="2027-01-01T12:00:00+00:00")
    save(tmp_path / "new", newer, trace(wrong=60))
    code, said = check(record(), trace())
    assert code == 1
    assert "accuracy at exit 4: 0.9000 -> 0.7000" in said
    assert said.splitlines()[-1].startswith("failed: 2 cells")


def test_of_runs_elsewhere_the_newest_counts_timed_or_not(tmp_path: Path, check: Check) -> None:
    save(tmp_path / "new", replace(elsewhere(record()), created="2026-12-01T12:00:00+00:00"), trace())
    save(tmp_path / "new", replace(elsewhere(record(latency=False)), created="2027-01-01T12:00:00+00:00"), trace(wrong=60))
    assert check(record(), trace())[0] == 1


def test_runs_of_another_precision_are_another_job(tmp_path: Path, say: Say) -> None:
    """Under another torch each is compared with its own."""
    path = str(tmp_path / "b.json")
    for folder, torch in (("old", "2.6"), ("new", "2.7")):
        for precision, wrong in (("float32", 20), ("bfloat16", 60)):
            where = replace(record().environment, precision=precision, versions={"torch": torch})
            save(tmp_path / folder, replace(record(), environment=where), trace(wrong=wrong))
    assert say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).code == 0
    answer = say("check", "--baseline", path, "--results-dir", str(tmp_path / "new"))
    assert (answer.code, answer.out) == (0, "passed: 2 cells, 48 figures compared: all the same\n")


def test_settings_that_are_the_same_in_short_are_said_in_full() -> None:
    found = list(_differences({"heads": 0.3212890625, "epochs": 3.0}, {"heads": 0.3212890626, "epochs": 4.0}))
    assert [str(one) for one in found] == ["epochs: 3 -> 4", "heads: 0.3212890625 -> 0.3212890626"]


def test_a_later_run_elsewhere_does_not_hide_behind_the_baselines_own(tmp_path: Path, check: Check, baseline: str, say: Say) -> None:
    later = replace(elsewhere(record()), created="2027-01-01T12:00:00+00:00")
    run = save(tmp_path / "new", later, trace(wrong=60))
    code, said = check(record(), trace())
    assert code == 1
    assert f"regression: rte deebert on tiny, seed 1, run {run.run_id}: accuracy at exit 4: 0.9000 -> 0.7000" in said
    assert said.splitlines()[-1].startswith("failed: 2 cells")
    where = ("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    assert say(*where, "--update").code == 0
    assert say(*where).code == 0


def on_mnli(mismatched: float) -> tuple[RunRecord, dict[str, Trace]]:
    """A run whose last exit is right on all of dev and on this share of mismatched."""
    rows = 100
    labels = np.arange(rows) % 3
    answers = {"dev": labels, "mismatched": np.where(np.arange(rows) < mismatched * rows, labels, (labels + 1) % 3)}
    traces = {
        split: Trace(np.arange(rows), np.eye(3, dtype=np.float32)[said][None], labels.astype(float), np.full(rows, 20), np.array([4]))
        for split, said in (answers | dict.fromkeys(("selection", "calibration"), labels)).items()
    }
    made = make_record("bert", 1, [make_exit(4, {"accuracy": 1.0}, 8000.0, 9.0, 9.0)], task="mnli")
    further = SplitScores({"accuracy": 0.33}, ({"accuracy": mismatched},))
    made = replace(made, constant_scores={"accuracy": 0.34})
    return identified(replace(made, mismatched=further, data=replace(made.data, rows=made.data.rows | {"mismatched": rows}))), traces


def test_a_drop_on_the_second_dev_split_is_a_regression(tmp_path: Path, say: Say) -> None:
    path = str(tmp_path / "b.json")
    for name, mismatched in (("old", 0.6), ("new", 0.2)):
        run, traces = on_mnli(mismatched)
        save_run(ResultsStore(tmp_path / name), run, traces)
    assert say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).code == 0
    assert say("check", "--baseline", path, "--results-dir", str(tmp_path / "old")).code == 0
    answer = say("check", "--baseline", path, "--results-dir", str(tmp_path / "new"))
    assert answer.code == 1
    assert "accuracy at exit 4 on mismatched: 0.6000 -> 0.2000 (95 % of paired resamples" in answer.out


@pytest.mark.parametrize(
    ("score", "code", "words"), [(0.603, 0, "changed"), (0.5, 4, "not comparable"), (0.7, 4, "not comparable"), (None, 3, "missing")]
)
def test_other_peoples_metrics_are_held_by_the_margin_either_way(
    tmp_path: Path, say: Say, score: float | None, code: int, words: str
) -> None:
    """Whether more is better is not known of them: of a word error rate it is worse."""
    path = str(tmp_path / "b.json")
    for name, value in (("old", 0.6), ("new", score)):
        (exit_,) = make_record("bert", 1, [make_exit(4, {"accuracy": 1.0}, 8000.0, 9.0, 9.0)]).exits
        measured = replace(exit_, scores={"accuracy": 1.0} | ({} if value is None else {"evaluate:theirs": value}))
        run = make_record("bert", 1, [measured])
        ones = Trace(np.arange(9), np.ones((1, 9, 2), np.float32) * [0, 1], np.ones(9), np.full(9, 20), np.array([4]))
        save_run(ResultsStore(tmp_path / name), replace(run, constant_scores={"accuracy": 1.0}), dict.fromkeys(TRACES, ones))
    assert say("check", "--baseline", path, "--update", "--results-dir", str(tmp_path / "old")).code == 0
    answer = say("check", "--baseline", path, "--results-dir", str(tmp_path / "new"))
    assert answer.code == code
    assert f"{words}: rte bert on tiny, seed 1: evaluate:theirs at exit 4: 0.6000 ->" in answer.out


@pytest.mark.parametrize(
    ("run", "dev", "code", "line"),
    [
        (record(), trace(wrong=40), 1, "regression: rte deebert on tiny, seed 1: accuracy at exit 4: 0.9000 -> 0.8000"),
        (charged(record(), 1, Polynomial(-20, 1, 0)), trace(), 1, "MACs at 128 tokens at exit 4: 51200 -> 51308"),
        (charged(record(), 0, Polynomial(128, -1, 0)), trace(), 1, "mean MACs at exit 1: 2000.0 -> 2108.0"),
        (replace(record(), parameters=2_000_001), trace(), 1, "parameters: 2000000 -> 2000001"),
        (at_exit(record(), 0, lambda exit_: replace(exit_, parameters=7)), trace(), 1, "parameters at exit 1: 1250000 -> 7"),
        (record(), trace(early=101), 1, "100/100 -> 101/99 (distance 0.0050, allowed 0)"),
        (elsewhere(record()), trace(early=105), 1, "100/100 -> 105/95 (distance 0.0250, allowed 0.02)"),
        (slower(record(), Quartiles(2.2, 2.4, 2.6)), trace(), 1, "static latency ratio at exit 1, batch 1: 3.00 [2.70, 3.30] -> 2.40"),
    ],
    ids=["score", "macs-128", "macs", "parameters", "parameters of an exit", "exits", "exits elsewhere", "latency"],
)
def test_a_planted_regression_fails_with_both_values(check: Check, run: RunRecord, dev: Trace, code: int, line: str) -> None:
    found, said = check(run, dev)
    assert found == code
    assert line in said
    assert "failed: 1 cells" in said.splitlines()[-1]


@pytest.mark.parametrize("ratio", [Quartiles(2.2, 2.4, 2.8), Quartiles(2.6, 2.65, 2.69)], ids=["intervals meet", "small"])
def test_a_latency_ratio_is_worse_only_below_the_interval_and_beyond_the_margin(check: Check, ratio: Quartiles) -> None:
    if ratio.median > 2.5:
        assert check(slower(record(), ratio), trace(), "--latency-margin", "0.15")[0] == 0
    else:
        assert check(slower(record(), ratio), trace())[0] == 0


def test_a_missing_run_is_incomplete(tmp_path: Path, baseline: str, say: Say) -> None:
    other = record()
    save(tmp_path / "new", replace(other, spec=replace(other.spec, seed=2)), trace())
    answer = say("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    assert answer.code == 3
    (old,) = read_baseline(Path(baseline)).runs
    assert f"missing: rte deebert on tiny, seed 1: run: {old.run_id} -> none" in answer.out


def other_data(run: RunRecord) -> RunRecord:
    return replace(run, data=replace(run.data, data="d1"))


def other_settings(run: RunRecord) -> RunRecord:
    return replace(run, spec=replace(run.spec, settings={"epochs": 4, "teacher": {"rates": [0.1, 0.2]}}))


def other_rows(run: RunRecord) -> RunRecord:
    return replace(run, spec=replace(run.spec, limit=64))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (other_data, "not comparable: rte deebert on tiny, seed 1: rows of the task's files: d0 -> d1"),
        (other_settings, "epochs: 3 -> 4"),
        (other_rows, "limit: None -> 64"),
    ],
)
def test_a_run_of_another_job_is_not_comparable(check: Check, change: Callable[[RunRecord], RunRecord], line: str) -> None:
    code, said = check(change(record()), trace(wrong=100))
    assert code == 4
    assert line in said
    assert "regression" not in said


def test_a_regression_counts_more_than_what_is_not_comparable_and_that_more_than_what_is_missing(tmp_path: Path, say: Say) -> None:
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
    verdicts = list(dict.fromkeys(line.partition(":")[0] for line in answer.out.splitlines()))
    assert verdicts == ["regression", "not comparable", "missing", "failed"]


def test_nothing_compared_never_passes(tmp_path: Path, say: Say) -> None:
    path = tmp_path / "baseline.json"
    path.write_text('{"schema": 2, "runs": []}')
    save(tmp_path / "new", record(), trace())
    answer = say("check", "--baseline", str(path), "--results-dir", str(tmp_path / "new"))
    assert (answer.code, answer.out) == (3, "failed: 0 cells, 0 figures compared: all the same\n")


def test_a_damaged_trace_is_a_missing_run(tmp_path: Path, baseline: str, say: Say) -> None:
    save(tmp_path / "new", record(), trace())
    (path,) = (tmp_path / "new").rglob(TRACES["dev"])
    path.write_bytes(path.read_bytes()[:100])
    answer = say("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    assert answer.code == 3
    assert "cannot be read" in answer.out


def test_a_record_that_cannot_be_read_fails_a_check_that_would_pass(tmp_path: Path, check: Check, baseline: str, say: Say) -> None:
    assert check(record(), trace())[0] == 0
    broken = tmp_path / "new" / "rte" / "deebert" / "dead" / RECORD
    broken.parent.mkdir()
    broken.write_text("{")
    answer = say("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    assert answer.code == 3
    assert "missing: rte/deebert/dead: run: - -> - (" in answer.out
    assert answer.out.splitlines()[-1].startswith("failed: 2 cells")
    suite = ElementTree.fromstring(say("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"), "--format", "junit").out)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


# --- names


def test_runs_of_one_method_are_told_apart_by_what_sets_them_apart() -> None:
    def run(seed: int, **changed: object) -> PinnedRun:
        spec = RunSpec("costeff", "rte", "tiny", seed, None, 128, None, {"rounds": "iterative", "effort": 1.0} | changed)
        own = record()
        return PinnedRun("", spec, own.environment, own.data, 0, None, (), (), changed)

    runs = [run(1), run(2), run(1, rounds="one"), run(1, effort=0.3), run(1, effort=2.0)]
    assert cell_names(runs) == [
        "rte costeff on tiny, seed 1",
        "rte costeff on tiny, seed 2",
        "rte costeff (rounds=one) on tiny, seed 1",
        "rte costeff (effort=0.3) on tiny, seed 1",
        "rte costeff (effort=2) on tiny, seed 1",
    ]
    assert cell_names(runs[:2]) == ["rte costeff on tiny, seed 1", "rte costeff on tiny, seed 2"]
