"""How figures are compared: a planted regression of each kind fails the check with both values,
and nothing else does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.command_line import RunCli, assert_names
from support.gate_runs import (
    CELL,
    Check,
    Judge,
    Outcome,
    at_exit,
    in_other_environment,
    record,
    trace,
    with_exit_cost,
    with_latency_ratio,
)
from support.messages import figures, names_all
from support.synthetic import identified, make_exit, make_record, save_run

from harness.evaluation.trace import Trace
from harness.gate.findings import Verdict
from harness.records import Polynomial, Quartiles, RunRecord, SplitScores
from harness.store.results import TRACES, ResultsStore

REGRESSION, CHANGED = Verdict.REGRESSION, Verdict.CHANGED

# --- all figures


def test_same_run_passes(judge: Judge) -> None:
    """The same run passes, and all its 26 figures are compared.

    They are 2 of the run (layers, parameters), 4 of each of 2 exits (parameters, MACs twice,
    score), 2 of each of 3 points (exits, score), 4 latency ratios of each exit (two kinds at two
    batch sizes), and the predictions of each exit: 2 + 2 * 4 + 3 * 2 + 2 * 4 + 2."""
    found = judge(record(), trace())
    assert (found.code, found.compared, found.findings) == (0, [26], [])
    assert_names(found.cells[0].cell, *CELL)


@pytest.mark.parametrize(
    ("run", "dev", "names", "old", "new"),
    [
        (record(), trace(wrong=40), ("accuracy", 4), "0.9000", "0.8000"),
        (with_exit_cost(record(), 1, Polynomial(-20, 1, 0)), trace(), (128, 4), "51200", "51308"),
        (with_exit_cost(record(), 0, Polynomial(128, -1, 0)), trace(), (1,), "2000.0", "2108.0"),
        (replace(record(), parameters=2_000_001), trace(), (), "2000000", "2000001"),
        (
            at_exit(record(), 0, lambda exit_: replace(exit_, parameters=7)),
            trace(),
            (1,),
            "1250000",
            "7",
        ),
        (record(), trace(early=101), (), "100/100", "101/99"),
        (in_other_environment(record()), trace(early=105), (), "100/100", "105/95"),
        (
            with_latency_ratio(record(), Quartiles(2.2, 2.4, 2.6)),
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
    """Both values are in the JSON and in the text output."""
    found = judge(run, dev)
    assert (found.code, len(found.cells)) == (1, 1)
    assert (old, new) in found.values(REGRESSION, *names)
    code, text = check(run, dev)
    assert code == 1
    assert any(
        names_all(line, *CELL, *names) and old in line and new in line for line in text.splitlines()
    )


# --- scores


def test_better_score_passes_as_change(judge: Judge) -> None:
    """A better score passes, as does a small shift between exits in another environment."""
    found = judge(in_other_environment(record()), trace(early=103, wrong=10))
    assert (found.code, found.verdicts) == (0, [CHANGED])
    assert found.values(CHANGED, "accuracy", 4)[0] == ("0.9000", "0.9500")
    (exits,) = {(one.old, one.new, one.note) for one in found.findings if one.old == "100/100"}
    assert exits[:2] == ("100/100", "103/97")
    assert figures(exits[2]) == [0.015, 0.02]


def test_drop_within_margin_passes(judge: Judge) -> None:
    """A drop within the margin passes whatever its interval."""
    found = judge(record(), trace(wrong=21), "--score-margin", "0.006")
    assert (found.code, found.verdicts) == (0, [CHANGED])
    assert found.values(CHANGED, "accuracy", 4)[0] == ("0.9000", "0.8950")


def test_drop_by_chance_passes(judge: Judge) -> None:
    """Two of 200 predictions become wrong.

    A share of exp(-2) = 13.5 % of resamples has neither of the two, so the interval's upper end
    is 0."""
    found = judge(record(), trace(wrong=22))
    assert (found.code, found.verdicts) == (0, [CHANGED])
    drop = found.findings[0]
    assert (drop.old, drop.new) == ("0.9000", "0.8900")
    assert figures(drop.note) == [95, -0.025, 0, -0.005]


def on_mnli(mismatched: float) -> tuple[RunRecord, dict[str, Trace]]:
    """Return a run whose last exit is right on all of dev and on this share of mismatched."""
    rows = 100
    labels = np.arange(rows) % 3
    right = np.arange(rows) < mismatched * rows
    predictions = dict.fromkeys(("dev", "selection", "calibration"), labels)
    predictions["mismatched"] = np.where(right, labels, (labels + 1) % 3)
    traces = {
        split: Trace(
            np.arange(rows),
            np.eye(3, dtype=np.float32)[predicted][None],
            labels.astype(float),
            np.full(rows, 20),
            np.array([4]),
        )
        for split, predicted in predictions.items()
    }
    run = make_record("bert", 1, [make_exit(4, {"accuracy": 1.0}, 8000.0, 9.0, 9.0)], task="mnli")
    run = replace(
        run,
        constant_scores={"accuracy": 0.34},
        mismatched=SplitScores({"accuracy": 0.33}, ({"accuracy": mismatched},)),
        data=replace(run.data, rows=run.data.rows | {"mismatched": rows}),
    )
    return identified(run), traces


def test_drop_on_mismatched_is_a_regression(
    tmp_path: Path, run_cli: RunCli, pin_and_check: Callable[[], Outcome]
) -> None:
    """A drop on MNLI's second dev split alone fails the check."""
    for name, mismatched in (("old", 0.6), ("new", 0.2)):
        run, traces = on_mnli(mismatched)
        save_run(ResultsStore(tmp_path / name), run, traces)
    found = pin_and_check()
    assert found.code == 1
    assert found.values(REGRESSION, "accuracy", 4, "mismatched") == [("0.6000", "0.2000")]
    (drop,) = [one for one in found.findings if names_all(one.what, "accuracy", "mismatched")]
    assert figures(drop.note)[0] == 95
    same = ("--baseline", str(tmp_path / "b.json"), "--results-dir", str(tmp_path / "old"))
    assert run_cli("check", *same).code == 0


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
    tmp_path: Path,
    pin_and_check: Callable[[], Outcome],
    score: float | None,
    code: int,
    verdict: Verdict,
) -> None:
    """It is unknown whether a higher score is better: a higher word error rate is worse."""
    ones = Trace(
        np.arange(9),
        np.ones((1, 9, 2), np.float32) * [0, 1],
        np.ones(9),
        np.full(9, 20),
        np.array([4]),
    )
    for name, value in (("old", 0.6), ("new", score)):
        external = {} if value is None else {"evaluate:theirs": value}
        exit_ = make_exit(4, {"accuracy": 1.0}, 8000.0, 9.0, 9.0)
        (exit_,) = make_record("bert", 1, [exit_]).exits
        run = make_record("bert", 1, [replace(exit_, scores={"accuracy": 1.0} | external)])
        run = replace(run, constant_scores={"accuracy": 1.0})
        save_run(ResultsStore(tmp_path / name), run, dict.fromkeys(TRACES, ones))
    found = pin_and_check()
    assert found.code == code
    ((old, new),) = found.values(verdict, "evaluate:theirs", 4)
    assert (old, figures(new)) == ("0.6000", [] if score is None else [score])


# --- predictions


def reversed_predictions() -> Trace:
    """Return a trace with the predictions in reverse order, which scores the same."""
    return replace(trace(), logits=trace().logits[:, ::-1].copy())


def test_other_predictions_elsewhere_pass(judge: Judge) -> None:
    """In another environment, different predictions with equal scores pass."""
    found = judge(in_other_environment(record()), reversed_predictions())
    assert (found.code, found.compared, found.findings) == (0, [24], [])


def test_other_predictions_of_same_run_fail(judge: Judge) -> None:
    """Different predictions of the same run fail even if the scores are equal.

    Exit 1 is wrong on 40 examples at either end, exit 4 on 20."""
    found = judge(record(), reversed_predictions())
    assert (found.code, found.verdicts) == (1, [REGRESSION])
    values = [(figures(one.what), figures(one.old), figures(one.new)) for one in found.findings]
    assert values == [([1], [200], [80]), ([4], [200], [40])]


# --- exits


@pytest.mark.parametrize(
    ("run", "dev", "note"),
    [
        (record(), trace(early=101), [0.005, 0]),
        (in_other_environment(record()), trace(early=105), [0.025, 0.02]),
    ],
    ids=["same", "elsewhere"],
)
def test_moved_exits_name_distance_and_margin(
    judge: Judge, run: RunRecord, dev: Trace, note: list[float]
) -> None:
    found = [finding for finding in judge(run, dev).findings if finding.old == "100/100"]
    assert [figures(finding.note) for finding in found] == [note] * len(found)
    assert found


# --- latency


def test_latency_elsewhere_is_not_compared(judge: Judge) -> None:
    """A finding says that latency was not compared, on another processor or without timings."""
    run = with_latency_ratio(record(), Quartiles(1.0, 1.1, 1.2))
    found = judge(replace(run, environment=replace(run.environment, device="Another")), trace())
    assert (found.code, found.verdicts) == (0, [Verdict.NOT_COMPARED])
    (setups,) = found.values(Verdict.NOT_COMPARED)
    for setup, device in zip(setups, ("A processor", "Another"), strict=True):
        assert_names(setup, "bert", device, 2)
    found = judge(record(latency=False), trace())
    assert (found.code, found.verdicts) == (0, [Verdict.NOT_COMPARED])
    assert not names_all(found.findings[0].new, "bert")


def test_no_latency_compares_no_latency(judge: Judge) -> None:
    found = judge(with_latency_ratio(record(), Quartiles(1.0, 1.1, 1.2)), trace(), "--no-latency")
    assert (found.code, found.compared, found.findings) == (0, [16], [])


def test_better_ratio_passes_as_change(judge: Judge) -> None:
    found = judge(with_latency_ratio(record(), Quartiles(3.5, 3.6, 3.7)), trace())
    assert (found.code, found.verdicts) == (0, [CHANGED])
    (finding,) = found.findings
    assert figures(finding.what) == [1, 1]  # exit and batch size
    assert (figures(finding.old), figures(finding.new)) == ([3, 2.7, 3.3], [3.6, 3.5, 3.7])


def test_clock_noise_is_no_finding(judge: Judge) -> None:
    found = judge(with_latency_ratio(record(), Quartiles(3.1, 3.2, 3.7)), trace())
    assert (found.code, found.compared, found.findings) == (0, [24], [])


@pytest.mark.parametrize(
    "ratio", [Quartiles(2.2, 2.4, 2.8), Quartiles(2.6, 2.65, 2.69)], ids=["intervals meet", "small"]
)
def test_ratio_below_interval_and_margin_fails(check: Check, ratio: Quartiles) -> None:
    """A latency ratio is worse only if it is below the interval and beyond the margin."""
    if ratio.median > 2.5:
        assert (
            check(with_latency_ratio(record(), ratio), trace(), "--latency-margin", "0.15")[0] == 0
        )
    else:
        assert check(with_latency_ratio(record(), ratio), trace())[0] == 0


def test_batch_size_without_timing_is_named(judge: Judge) -> None:
    timed = record().latency
    assert timed is not None
    ratios = {
        name: {size: ratio for size, ratio in getattr(timed, name).items() if size == "1"}
        for name in ("reference_ratio", "path_ratio")
    }
    found = judge(replace(record(), latency=replace(timed, **ratios)), trace())
    assert (found.code, found.verdicts) == (0, [Verdict.NOT_COMPARED])
    assert len(found.values(Verdict.NOT_COMPARED, 32)) == 1
