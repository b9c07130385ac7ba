"""The best of each method within a budget, on the runs of `save_bert_and_deebert`: every figure is worked out on paper."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from support.command_line import Say
from support.synthetic import save_bert_and_deebert

from harness.analysis.ranking import Budget, Choice, parse_budget, rank
from harness.errors import HarnessError, IncompleteError
from harness.store.results import ResultsStore


@pytest.fixture
def runs(store: ResultsStore) -> ResultsStore:
    """bert and deebert, two seeds each."""
    save_bert_and_deebert(store)
    return store


def choice_of(store: ResultsStore, method: str, text: str) -> Choice | None:
    (ranking,) = rank(store, store.records()[0], parse_budget(text), None)
    found = {choice.method: choice for choice in ranking.choices}
    assert {*found, *ranking.beyond} == {"bert", "deebert"}
    return found.get(method)


def test_threshold_is_the_best_on_calibration_within_the_budget_and_dev_only_scores(runs: ResultsStore) -> None:
    """On calibration (10 tokens: 1,000 MACs to layer 1, 4,000 to layer 4) leaving at H(2), two of four rows, costs 2,500 and is always
    right. On dev (20 tokens) two rows (seed 1) and three (seed 2) of four leave there."""
    best = choice_of(runs, "deebert", "2.5KMAC")
    assert best is not None
    assert (best.point, best.calibration.mean, best.calibration.count) == ("entropy", 1.0, 2)
    assert best.scores["accuracy"].mean == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert best.cost.mean == pytest.approx((5000 + 3500) / 2)


def test_a_smaller_budget_takes_a_cheaper_threshold(runs: ResultsStore) -> None:
    """1,750: three rows leave, and layer 1 is wrong on one of them. Layer 4 alone costs 8,400 on dev."""
    best = choice_of(runs, "deebert", "1.75KMAC")
    assert best is not None
    assert (best.point, best.calibration.mean) == ("entropy", 0.75)


def test_where_no_threshold_and_no_exit_fits_a_method_is_beyond_the_budget(runs: ResultsStore) -> None:
    assert choice_of(runs, "deebert", "0.9KMAC") is None
    assert choice_of(runs, "bert", "7.9KMAC") is None
    bert = choice_of(runs, "bert", "8KMAC")
    assert bert is not None
    assert (bert.point, bert.cost.mean) == ("exit 4", 8000)


def test_of_equal_answers_the_cheaper_stands(runs: ResultsStore) -> None:
    """Above 8,400 MACs deebert's last exit is as right on calibration as its curve, which costs less."""
    best = choice_of(runs, "deebert", "1MMAC")
    assert best is not None
    assert best.point == "entropy"


def test_milliseconds_of_a_policy_are_those_of_the_paths(runs: ResultsStore) -> None:
    """Seed 1: paths take 3.5 and 10 ms; two of four calibration rows leave: 6.75 ms. Seed 2 takes twice as long: only H(1/2) fits, 7 ms."""
    best = choice_of(runs, "deebert", "7ms")
    assert best is not None
    assert best.point == "entropy"
    assert best.calibration.mean == pytest.approx((1.0 + 0.5) / 2)
    assert best.cost.mean == pytest.approx(((2 * 3.5 + 2 * 10) / 4 + 7) / 2)


def test_a_run_that_was_not_timed_has_no_milliseconds(runs: ResultsStore) -> None:
    records = [replace(record, exits=tuple(replace(one, static_ms={}, path_ms={}) for one in record.exits)) for record in runs.records()[0]]
    (ranking,) = rank(runs, records, parse_budget("1000ms"), None)
    assert not ranking.choices
    assert set(ranking.beyond) == {"bert", "deebert"}


def test_methods_without_runs_are_incomplete(runs: ResultsStore) -> None:
    with pytest.raises(IncompleteError, match="no runs"):
        rank(runs, runs.records()[0], parse_budget("1ms"), ["pabee"])


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("10ms", Budget("ms", 10)),
        ("0.5 ms", Budget("ms", 0.5)),
        ("100MMAC", Budget("MACs", 1e8)),
        ("1.5gmacs", Budget("MACs", 1.5e9)),
        (".5KMAC", Budget("MACs", 500)),
    ],
)
def test_budgets_are_read(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "10", "ms", "-1ms", "0ms", "1e3ms", "10 s", "10MFLOP", "nanms"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(HarnessError, match="wanted a number with ms"):
        parse_budget(text)


def test_the_report_shows_the_ranking_in_every_form(say: Say, runs: ResultsStore) -> None:
    words = ("report", "--budget", "2.5KMAC", "--results-dir", str(runs.root))
    text = say(*words).out
    assert "### rte on tiny within 0.0025 MMACs" in text
    assert "Beyond it, or not measured: bert." in text
    assert re.search(r"\| \(constant answer\) +\| - +\| - +\| - +\| 52.7 ", text)
    assert re.search(r"\| deebert +\| entropy +\| 2 +\| 100.0 ", text)
    (told,) = json.loads(say(*words, "--format", "json").out)
    assert told["choices"][0]["cost"]["mean"] == 4250
    constant, row = csv.DictReader(io.StringIO(say(*words, "--format", "csv").out))
    assert (constant["method"], constant["point"], constant["cost"]) == ("(constant answer)", "-", "")
    assert float(constant["scores.accuracy"]) == 0.527
    assert (row["method"], row["unit"], float(row["cost"])) == ("deebert", "MACs", 4250)
    latex = say(*words, "--format", "latex").out
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 1


def test_milliseconds_say_where_they_were_taken_and_a_budget_that_nobody_keeps_shows_the_constant_answer(
    say: Say, runs: ResultsStore
) -> None:
    text = say("report", "--budget", "0.1ms", "--results-dir", str(runs.root)).out
    assert "on A processor, 2 CPU thread(s), of a policy composed from the paths'." in text
    assert "Beyond it, or not measured: bert, deebert." in text
    assert re.search(r"\| \(constant answer\) +\|", text)


def test_latex_escapes_what_it_would_read(say: Say, runs: ResultsStore) -> None:
    answer = say("report", "--format", "latex", "--results-dir", str(runs.root))
    assert (answer.code, answer.err) == (0, "")
    assert "retained \\%" in answer.out
    assert "\\texttt{harness time}" in answer.out
    assert not re.search(r"(?<!\\)[%_#](?! Needs)", answer.out.replace("% Needs", ""))
    assert "±" not in answer.out
    assert "MACs $\\le$ 1/2" in answer.out
    assert "textless" not in answer.out
