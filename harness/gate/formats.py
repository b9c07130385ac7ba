"""Output formats of `harness check`, for people and CI systems."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from tabulate import tabulate

from harness.errors import ExitCode, counted
from harness.gate.findings import CODES, CellCheck, Finding, Verdict

Checks = Sequence[CellCheck]

COLUMNS = ("verdict", "cell", "figure", "baseline", "now", "note")


def summary(checks: Checks) -> str:
    """Return one line with the numbers of cells, of figures, and of findings by verdict."""
    counts = Counter(finding.verdict for checked in checks for finding in checked.findings)
    figures = sum(checked.compared for checked in checks)
    totals = ", ".join(f"{verdict} {counts[verdict]}" for verdict in Verdict if counts[verdict])
    return f"{counted(len(checks), 'cell')}, {figures} figures compared: {totals or 'all the same'}"


def _by_severity(checks: Checks) -> list[tuple[str, Finding]]:
    """Return (cell, finding) pairs, the most severe verdicts first."""
    order = list(Verdict)
    found = [(checked.cell, finding) for checked in checks for finding in checked.findings]
    return sorted(found, key=lambda pair: order.index(pair[1].verdict))


MOST_NAMED = 4
"""Largest number of cells without a run that the text names."""


def _text(checks: Checks, code: ExitCode) -> str:
    found = _by_severity(checks)
    absent = [cell for cell, finding in found if finding.absent]
    lines = []
    for cell, finding in found:
        line = f"{finding.verdict}: {cell}: {finding}"
        lines.append(_absent_cells(absent) if finding.absent and absent[1:] else line)
    outcome = "passed" if code == ExitCode.OK else "failed"
    return "\n".join([*dict.fromkeys(lines), f"{outcome}: {summary(checks)}"]) + "\n"


def _absent_cells(cells: Sequence[str]) -> str:
    """Return one line for all cells of the baseline that have no stored run."""
    more = f"; and {len(cells) - MOST_NAMED} more" if cells[MOST_NAMED:] else ""
    names = "; ".join(cells[:MOST_NAMED])
    return f"{Verdict.MISSING}: {len(cells)} cells have no stored run: {names}{more}"


def _github(checks: Checks, code: ExitCode) -> str:
    """Return GitHub workflow commands: one annotation per finding, failures as errors."""
    lines = []
    for cell, finding in _by_severity(checks):
        level = "error" if finding.verdict in CODES else "notice"
        title = _escaped(f"{finding.verdict}: {cell}").replace(":", "%3A").replace(",", "%2C")
        lines.append(f"::{level} title={title}::{_escaped(str(finding))}")
    level = "notice" if code == ExitCode.OK else "error"
    return "\n".join([*lines, f"::{level} title=harness check::{_escaped(summary(checks))}"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _junit(checks: Checks, code: ExitCode) -> str:
    """Return JUnit XML with a test case for each cell."""
    failed = sum(bool(checked.failures) for checked in checks)
    attributes = {"name": "harness check", "tests": str(len(checks)), "failures": str(failed)}
    suite = ElementTree.Element("testsuite", attributes)
    for checked in checks:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": "harness", "name": checked.cell}
        )
        if checked.failures:
            kinds = {finding.verdict.value: None for finding in checked.failures}
            failure = ElementTree.SubElement(case, "failure", {"message": ", ".join(kinds)})
            failure.text = "\n".join(
                f"{finding.verdict}: {finding}" for finding in checked.failures
            )
        others = [finding for finding in checked.findings if finding not in checked.failures]
        if others:
            ElementTree.SubElement(case, "system-out").text = "\n".join(
                f"{finding.verdict}: {finding}" for finding in others
            )
    if not checks:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": "harness", "name": "baseline"}
        )
        ElementTree.SubElement(case, "failure", {"message": summary(checks)})
        suite.attrib |= {"tests": "1", "failures": "1"}
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _json(checks: Checks, code: ExitCode) -> str:
    content = {
        "code": int(code),
        "summary": summary(checks),
        "cells": [asdict(checked) for checked in checks],
    }
    return json.dumps(content, indent=1) + "\n"


def _markdown(checks: Checks, code: ExitCode) -> str:
    rows = [
        [finding.verdict, cell, finding.what, finding.old, finding.new, finding.note]
        for cell, finding in _by_severity(checks)
    ]
    outcome = f"{'Passed' if code == ExitCode.OK else 'Failed'}: {summary(checks)}.\n"
    if not rows:
        return outcome
    table = tabulate(rows, COLUMNS, tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{outcome}"


FORMS: dict[str, Callable[[Checks, ExitCode], str]] = {
    "text": _text,
    "github": _github,
    "junit": _junit,
    "json": _json,
    "markdown": _markdown,
}
"""Value of --format -> the function that writes it."""
