"""The output formats of `harness check`."""

import json
from xml.etree import ElementTree

from support.gate_runs import CELL, Check, record, trace
from support.messages import figures, names_all

from harness.errors import ExitCode
from harness.gate.findings import CellCheck, Finding, Verdict
from harness.gate.formats import FORMS, MOST_NAMED


def test_text_has_a_line_per_finding(check: Check) -> None:
    """The last line has the numbers of cells, figures and findings of each verdict."""
    _, output = check(record(), trace(wrong=40))
    *lines, last = output.splitlines()
    assert all(names_all(line, Verdict.REGRESSION, *CELL) for line in lines)
    assert any(names_all(line, "accuracy", 4, "0.9000", "0.8000") for line in lines)
    assert sorted(figures(last)) == [1, len(lines), 24]
    assert names_all(last, Verdict.REGRESSION)


def test_passing_text_is_one_line(check: Check) -> None:
    _, output = check(record(), trace())
    (line,) = output.splitlines()
    assert sorted(figures(line)) == [1, 26]
    assert not any(names_all(line, verdict) for verdict in Verdict)


def test_github_annotates_each_finding(check: Check) -> None:
    """Characters with a meaning in workflow commands are escaped."""
    _, output = check(record(), trace(wrong=40), "--format", "github")
    *lines, last = output.splitlines()
    title, _, text = lines[0].removeprefix("::error title=").partition("::")
    assert lines[0].startswith("::error title=")
    assert title.startswith(f"{Verdict.REGRESSION}%3A ")
    assert names_all(title.replace("%3A", ":").replace("%2C", ","), *CELL)
    assert not set(title) & {":", ","}
    assert names_all(text, "accuracy", 4, "0.9000", "0.8000")
    assert "95 %25" in text
    assert last.startswith("::error title=harness check::")
    assert figures(last.rpartition("::")[2])[0] == 1


def test_junit_has_case_per_cell(check: Check) -> None:
    _, output = check(record(), trace(wrong=40), "--format", "junit")
    suite = ElementTree.fromstring(output)
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    (case,) = suite.iter("testcase")
    failure = case.find("failure")
    assert names_all(case.get("name") or "", *CELL)
    assert failure is not None
    assert failure.get("message") == Verdict.REGRESSION
    assert names_all(failure.text or "", "accuracy", 4, "0.9000", "0.8000")


def test_passing_junit_has_no_failure(check: Check) -> None:
    _, output = check(record(), trace(), "--format", "junit")
    assert ElementTree.fromstring(output).get("failures") == "0"


def test_json_and_markdown_hold_both_values(check: Check) -> None:
    """They hold the outcome of the check, too."""
    code, output = check(record(), trace(wrong=40), "--format", "json")
    content = json.loads(output)
    assert content["code"] == code == 1
    finding = next(
        one for one in content["cells"][0]["findings"] if names_all(one["what"], "accuracy", 4)
    )
    assert (finding["verdict"], finding["old"], finding["new"]) == (
        Verdict.REGRESSION,
        "0.9000",
        "0.8000",
    )
    _, output = check(record(), trace(wrong=40), "--format", "markdown")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in output.splitlines()
        if line.startswith("|")
    ][2:]
    assert len(rows) == len(content["cells"][0]["findings"])
    assert all(row[0] == Verdict.REGRESSION and names_all(row[1], *CELL) for row in rows)
    assert [row[3:5] for row in rows] == [
        [one["old"], one["new"]] for one in content["cells"][0]["findings"]
    ]
    assert sorted(figures(output.splitlines()[-1])) == [1, len(rows), 24]


def absent(cell: str) -> CellCheck:
    return CellCheck(cell, 0, (Finding("run", Verdict.MISSING, "1234", "none"),))


def test_missing_cells_are_said_once() -> None:
    """The text names the first cells without a run in one line, after more severe findings."""
    count = MOST_NAMED + 3
    worse = CellCheck("worse", 1, (Finding("exit 1", Verdict.REGRESSION, "2", "1"),))
    checks = [*(absent(f"cell-{index}") for index in range(count)), worse]
    first, second, last = FORMS["text"](checks, ExitCode.REGRESSION).splitlines()
    assert names_all(first, Verdict.REGRESSION, "worse")
    assert names_all(second, Verdict.MISSING, count, "cell-0", f"cell-{MOST_NAMED - 1}", 3)
    assert not names_all(second, f"cell-{MOST_NAMED}")
    assert names_all(last, count)
    for form in ("json", "junit", "github", "markdown"):
        assert f"cell-{count - 1}" in FORMS[form](checks, ExitCode.REGRESSION)


def test_one_missing_cell_keeps_its_line() -> None:
    line, _ = FORMS["text"]([absent("cell-0")], ExitCode.INCOMPLETE).splitlines()
    assert names_all(line, Verdict.MISSING, "cell-0", "1234")
