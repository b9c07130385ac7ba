"""The best point of each method within a budget, on the runs of `save_bert_and_deebert`.

Every figure is worked out on paper.
"""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from support.command_line import RunCli
from support.messages import names_all, names_in_order
from support.synthetic import one_line, save_bert_and_deebert

from harness.analysis.ranking import Budget, Choice, parse_budget, rank
from harness.errors import ExitCode, HarnessError, IncompleteError
from harness.report.document import MAJORITY_BASELINE
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


def test_threshold_is_best_on_calibration(runs: ResultsStore) -> None:
    """The threshold is the best on calibration within the budget, and dev only scores.

    On calibration (10 tokens: 1,000 MACs to layer 1, 4,000 to layer 4) threshold H(2), at which two
    of four rows exit early, costs 2,500 and is always right. On dev (20 tokens) two rows (seed 1)
    and three (seed 2) of four exit there."""
    best = choice_of(runs, "deebert", "2.5KMAC")
    assert best is not None
    assert (str(best.point), best.calibration.mean, best.calibration.count) == ("entropy", 1.0, 2)
    assert best.scores["accuracy"].mean == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert best.cost.mean == pytest.approx((5000 + 3500) / 2)


def test_smaller_budget_takes_cheaper_threshold(runs: ResultsStore) -> None:
    """At 1,750 MACs three rows exit early, and layer 1 is wrong on one of them.

    Layer 4 alone costs 8,400 on dev."""
    best = choice_of(runs, "deebert", "1.75KMAC")
    assert best is not None
    assert (str(best.point), best.calibration.mean) == ("entropy", 0.75)


def test_unaffordable_methods_are_beyond_budget(runs: ResultsStore) -> None:
    """Where no threshold and no exit fits, a method is beyond the budget."""
    assert choice_of(runs, "deebert", "0.9KMAC") is None
    assert choice_of(runs, "bert", "7.9KMAC") is None
    bert = choice_of(runs, "bert", "8KMAC")
    assert bert is not None
    assert (str(bert.point), bert.cost.mean) == ("exit 4", 8000)


def test_equal_scores_prefer_cheaper_point(runs: ResultsStore) -> None:
    """The cheaper of two points with equal scores is chosen.

    Above 8,400 MACs deebert's last exit is as right on calibration as its curve, which costs less.
    """
    best = choice_of(runs, "deebert", "1MMAC")
    assert best is not None
    assert str(best.point) == "entropy"


def test_policy_milliseconds_follow_paths(runs: ResultsStore) -> None:
    """The milliseconds of a policy are composed from those of the paths.

    Seed 1: paths take 3.5 and 10 ms; two of four calibration rows exit early: 6.75 ms. Seed 2
    takes twice as long: only H(1/2) fits, 7 ms."""
    best = choice_of(runs, "deebert", "7ms")
    assert best is not None
    assert str(best.point) == "entropy"
    assert best.calibration.mean == pytest.approx((1.0 + 0.5) / 2)
    assert best.cost.mean == pytest.approx(((2 * 3.5 + 2 * 10) / 4 + 7) / 2)


def test_untimed_run_has_no_milliseconds(runs: ResultsStore) -> None:
    """A run that was not timed has no milliseconds."""
    records = [
        replace(record, exits=tuple(replace(one, static_ms={}, path_ms={}) for one in record.exits))
        for record in runs.records()[0]
    ]
    (ranking,) = rank(runs, records, parse_budget("1000ms"), None)
    assert not ranking.choices
    assert set(ranking.beyond) == {"bert", "deebert"}


def test_methods_without_runs_are_incomplete(runs: ResultsStore) -> None:
    with pytest.raises(IncompleteError) as caught:
        rank(runs, runs.records()[0], parse_budget("1ms"), ["pabee"])
    assert names_all(one_line(caught), runs.root)


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
def test_budgets_are_parsed_with_units(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


def parts_of(markdown: str) -> tuple[str, str, list[list[str]]]:
    """Return the title, the prose and the rows of a report on one task."""
    title, prose, table, _ = markdown.split("\n\n", 3)
    _, _, *rows = [line.strip("| ").split("|") for line in table.splitlines()]
    return title, prose, [[cell.strip() for cell in row] for row in rows]


@pytest.mark.parametrize(
    "text", ["", "10", "ms", "-1ms", "0ms", "1e3ms", "10 s", "10MFLOP", "nanms"]
)
def test_invalid_budgets_are_refused(text: str) -> None:
    with pytest.raises(HarnessError) as caught:
        parse_budget(text)
    assert caught.value.exit_code == ExitCode.USER
    assert f"--budget {text}" in one_line(caught)
    assert names_in_order(one_line(caught), "--budget", "ms", "KMAC", "MMAC", "GMAC")


def test_report_shows_ranking_in_every_form(run_cli: RunCli, runs: ResultsStore) -> None:
    words = ("report", "--budget", "2.5KMAC", "--results-dir", str(runs.root))
    text = run_cli(*words).out
    title, prose, rows = parts_of(text)
    assert names_in_order(title, "rte", "tiny", "0.0025")
    assert names_all(prose, "bert")
    assert "deebert" not in prose
    assert rows == [
        [MAJORITY_BASELINE, "-", "-", "-", "52.7", "-"],
        ["deebert", "entropy", "2", "100.0", "62.5 ± 17.7", "0.00"],
    ]
    (loaded,) = json.loads(run_cli(*words, "--format", "json").out)
    assert loaded["choices"][0]["cost"]["mean"] == 4250
    baseline, row = csv.DictReader(io.StringIO(run_cli(*words, "--format", "csv").out))
    assert (baseline["method"], baseline["point"], baseline["cost"]) == (MAJORITY_BASELINE, "-", "")
    assert float(baseline["scores.accuracy"]) == 0.527
    assert (row["method"], row["unit"], float(row["cost"])) == ("deebert", "MACs", 4250)
    latex = run_cli(*words, "--format", "latex").out
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 1


def test_milliseconds_name_their_hardware(run_cli: RunCli, runs: ResultsStore) -> None:
    """Milliseconds come with the hardware that they were measured on; a budget that no method meets
    leaves the majority-class baseline."""
    title, prose, rows = parts_of(
        run_cli("report", "--budget", "0.1ms", "--results-dir", str(runs.root)).out
    )
    assert names_all(title, "0.1", "ms")
    assert names_in_order(prose, "A processor", 2, "bert", "deebert")
    assert [row[0] for row in rows] == [MAJORITY_BASELINE]


def test_latex_escapes_special_characters(run_cli: RunCli, runs: ResultsStore) -> None:
    """Characters that LaTeX would read as commands are escaped."""
    result = run_cli("report", "--format", "latex", "--results-dir", str(runs.root))
    assert (result.code, result.err) == (0, "")
    assert "\\%" in result.out
    assert "\\texttt{harness time}" in result.out
    assert not re.search(r"(?<!\\)[%_#](?! Needs)", result.out.replace("% Needs", ""))
    assert "±" not in result.out
    assert "MACs $\\le$ 1/2" in result.out
    assert "textless" not in result.out
