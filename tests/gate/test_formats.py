"""What a check prints, in each of its forms."""

import json
from xml.etree import ElementTree

from support.gate_runs import Check, record, trace


def test_github_annotations(check: Check) -> None:
    _, said = check(record(), trace(wrong=40), "--format", "github")
    lines = said.splitlines()
    assert lines[0].startswith("::error title=regression%3A rte deebert on tiny%2C seed 1::accuracy at exit 4: 0.9000 -> 0.8000 (95 %25 of")
    assert lines[-1].startswith("::error title=harness check::1 cells")


def test_junit_has_a_case_for_each_cell(check: Check) -> None:
    _, said = check(record(), trace(wrong=40), "--format", "junit")
    suite = ElementTree.fromstring(said)
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    (case,) = suite.iter("testcase")
    failure = case.find("failure")
    assert case.get("name") == "rte deebert on tiny, seed 1"
    assert failure is not None
    assert failure.get("message") == "regression"
    assert "0.9000 -> 0.8000" in (failure.text or "")


def test_junit_of_a_check_that_passes_has_no_failure(check: Check) -> None:
    _, said = check(record(), trace(), "--format", "junit")
    assert ElementTree.fromstring(said).get("failures") == "0"


def test_json_and_markdown_hold_both_values_and_the_outcome(check: Check) -> None:
    code, said = check(record(), trace(wrong=40), "--format", "json")
    told = json.loads(said)
    assert told["code"] == code == 1
    (finding,) = [one for one in told["cells"][0]["findings"] if one["what"] == "accuracy at exit 4"]
    assert (finding["verdict"], finding["old"], finding["new"]) == ("regression", "0.9000", "0.8000")
    _, said = check(record(), trace(wrong=40), "--format", "markdown")
    assert "| regression" in said
    assert "Failed: 1 cells" in said
