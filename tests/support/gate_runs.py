"""Runs of one cell with countable predictions, and changes to them, for tests of the gate."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from support.command_line import CliResult
from support.messages import names_all
from support.synthetic import gap_trace, identified, make_exit, make_latency, make_record, save_run

from harness.evaluation.trace import Trace
from harness.gate.findings import CellCheck, Finding, Verdict
from harness.records import ExitMeasurement, Polynomial, Quartiles, RunRecord
from harness.store.results import TRACES, ResultsStore

ROWS = 200
CONFIDENT, UNCERTAIN = 6.0, 0.5
"""Gaps between the logits of the two classes: exit at exit 1, or continue."""

CELL = ("rte", "deebert", "tiny", 1)
"""Cell of `record`: task, method, backbone, seed."""


def trace(early: int = 100, wrong: int = 20) -> Trace:
    """Return a trace of examples of class 1.

    The first `early` are confident at exit 1 (layer 1 of 4). Exit 2 (layer 4) is wrong on the last
    `wrong`, exit 1 on the last 40.
    """
    gaps = [CONFIDENT] * early + [UNCERTAIN] * (ROWS - early)
    predictions = [[1] * (ROWS - 40) + [0] * 40, [1] * (ROWS - wrong) + [0] * wrong]
    return gap_trace((1, 4), predictions, gaps, [1] * ROWS, 20)


def record(latency: bool = True) -> RunRecord:
    exits = [
        make_exit(1, {"accuracy": 0.8}, 2000.0, 3.0, 3.5),
        make_exit(4, {"accuracy": 0.9}, 8000.0, 9.0, 10.0),
    ]
    made = make_record("deebert", 1, exits, "entropy")
    return replace(made, latency=make_latency("bert", 9.0, [3.0, 1.0]) if latency else None)


def save(folder: Path, run: RunRecord, dev: Trace) -> RunRecord:
    """Store the run with the scores of its trace, and return it."""
    accuracies = (dev.predictions() == dev.labels).mean(1)
    exits = [
        replace(one, scores={"accuracy": float(score)})
        for one, score in zip(run.exits, accuracies, strict=True)
    ]
    stored = identified(replace(run, exits=tuple(exits), constant_scores={"accuracy": 1.0}))
    return save_run(
        ResultsStore(folder),
        stored,
        dict.fromkeys(TRACES, dev) | {"selection": trace(), "calibration": trace()},
    )


def with_exit_cost(run: RunRecord, index: int, exit_: Polynomial) -> RunRecord:
    """Return the run with this cost of an exit, measured on examples of 20 tokens."""
    layer = run.exits[index].layer
    exits = tuple(
        exit_ if number == layer else own for number, own in enumerate(run.costs.exits, start=1)
    )
    costs = replace(run.costs, exits=exits)
    figures = {"macs": float(costs.static(layer - 1, 20)), "macs_128": costs.static(layer - 1, 128)}
    return at_exit(replace(run, costs=costs), index, lambda measured: replace(measured, **figures))


def at_exit(
    run: RunRecord, index: int, change: Callable[[ExitMeasurement], ExitMeasurement]
) -> RunRecord:
    exits = list(run.exits)
    exits[index] = change(exits[index])
    return replace(run, exits=tuple(exits))


def in_other_environment(run: RunRecord) -> RunRecord:
    """Return the run in an environment whose results may differ in the last bits."""
    return replace(run, environment=replace(run.environment, versions={"torch": "2.7"}))


def with_latency_ratio(run: RunRecord, ratio: Quartiles) -> RunRecord:
    assert run.latency is not None
    ratios = run.latency.reference_ratio | {"1": (ratio, run.latency.reference_ratio["1"][1])}
    return replace(run, latency=replace(run.latency, reference_ratio=ratios))


Check = Callable[..., tuple[int, str]]


class Outcome(NamedTuple):
    """Result of a check, read from its JSON."""

    code: int
    cells: list[CellCheck]

    @property
    def compared(self) -> list[int]:
        """Number of figures compared in each cell."""
        return [cell.compared for cell in self.cells]

    @property
    def findings(self) -> list[Finding]:
        return [finding for cell in self.cells for finding in cell.findings]

    @property
    def verdicts(self) -> list[Verdict]:
        """Distinct verdicts that occur, the most severe first."""
        return [
            verdict
            for verdict in Verdict
            if verdict in {finding.verdict for finding in self.findings}
        ]

    def values(self, verdict: Verdict, *names: object) -> list[tuple[str, str]]:
        """Return old and new value of each finding of this verdict that names all of these."""
        found = [
            finding
            for finding in self.findings
            if finding.verdict == verdict and names_all(finding.what, *names)
        ]
        return [(finding.old, finding.new) for finding in found]


def outcome(result: CliResult) -> Outcome:
    """Parse the result of a check with --format json."""
    report = json.loads(result.out)
    assert report["code"] == result.code
    cells = []
    for cell in report["cells"]:
        findings = [
            Finding(**{**one, "verdict": Verdict(one["verdict"])}) for one in cell["findings"]
        ]
        cells.append(CellCheck(cell["cell"], cell["compared"], tuple(findings)))
    return Outcome(result.code, cells)


Judge = Callable[..., Outcome]
