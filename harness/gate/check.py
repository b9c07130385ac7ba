"""`harness check`: compare each run of a baseline with the stored runs of the same cell."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from harness.analysis.variants import (
    Variant,
    distinguishing_settings,
    row_name,
    selected_run,
    short_text,
)
from harness.data.custom_tasks import task_of
from harness.errors import ExitCode, IncompleteError
from harness.gate.baseline import Baseline, PinnedRun
from harness.gate.figures import compare_figures
from harness.gate.findings import CODES, CellCheck, Finding, Limits, Verdict
from harness.records import Environment, RunRecord, RunSpec, canonical, flat, short_id
from harness.store.results import Problem, ResultsStore


def check(
    baseline: Baseline, store: ResultsStore, records: Sequence[RunRecord], limits: Limits
) -> list[CellCheck]:
    """Compare every run of the baseline with the stored runs of the same cell.

    A cell is a task, method, backbone and seed. Stored runs of other cells are ignored.
    """
    jobs = [job_of(run) for run in baseline.runs]
    names = cell_names(baseline.runs)
    checks = []
    for name, old, job in zip(names, baseline.runs, jobs, strict=True):
        environments = [
            run.environment
            for run, other in zip(baseline.runs, jobs, strict=True)
            if other == job and _cell(run.spec) == _cell(old.spec)
        ]
        checks += _check_run(name, old, environments, store, records, limits)
    return checks


def unreadable_runs(problems: Sequence[Problem]) -> list[CellCheck]:
    """Report each run folder that cannot be read as a missing cell."""
    return [
        CellCheck(problem.folder, 0, (Finding("run", Verdict.MISSING, "-", "-", problem.reason),))
        for problem in problems
    ]


def verify_runs(store: ResultsStore, records: Sequence[RunRecord]) -> list[CellCheck]:
    """Verify each stored run without a baseline.

    Its traces and timings are read, and the scores and MACs of its exits recomputed.
    """
    return [_verify_run(store, record) for record in records]


def _verify_run(store: ResultsStore, record: RunRecord) -> CellCheck:
    cell = f"{record.spec.task}/{record.spec.method}/{record.short_id}"
    try:
        store.checked_traces(record)
        store.timings(record)
    except IncompleteError as error:
        finding = Finding("run", Verdict.MISSING, record.short_id, "-", str(error))
        return CellCheck(cell, 0, (finding,))
    return CellCheck(cell, len(record.exits) * (1 + len(task_of(record).metrics)), ())


def exit_code(checks: Sequence[CellCheck]) -> ExitCode:
    """Return the code of the most severe finding, or INCOMPLETE if nothing was compared."""
    verdicts = {finding.verdict for checked in checks for finding in checked.findings}
    worst = next((code for verdict, code in CODES.items() if verdict in verdicts), ExitCode.OK)
    compared = any(checked.compared for checked in checks)
    return ExitCode.INCOMPLETE if worst == ExitCode.OK and not compared else worst


def cell_names(runs: Sequence[PinnedRun]) -> list[str]:
    """Return a name for each run.

    Several runs of one task, method and backbone are named as in the report, with the settings in
    which they differ.
    """
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, run in enumerate(runs):
        groups[run.spec.task, run.spec.method, run.spec.backbone].append(index)
    differences: dict[int, dict[str, object]] = {}
    for indices in groups.values():
        variants = [
            Variant(flat(run.spec.settings), run.changed, flat(_conditions(run)))
            for run in (runs[index] for index in indices)
        ]
        differences |= dict(zip(indices, distinguishing_settings(variants), strict=True))
    return [
        f"{spec.task} {row_name(spec.method, differences[index])} on {spec.backbone},"
        f" seed {spec.seed}"
        for index, spec in enumerate(run.spec for run in runs)
    ]


def _check_run(
    name: str,
    old: PinnedRun,
    environments: Sequence[Environment],
    store: ResultsStore,
    records: Sequence[RunRecord],
    limits: Limits,
) -> list[CellCheck]:
    """Compare one run; `environments` are those of the baseline's runs of the same job."""
    candidates = [record for record in records if _cell(record.spec) == _cell(old.spec)]
    same_job = [record for record in candidates if job_of(record) == job_of(old)]
    if not candidates:
        return [
            CellCheck(name, 0, (Finding("run", Verdict.MISSING, short_id(old.run_id), "none"),))
        ]
    if not same_job:
        return [CellCheck(name, 0, tuple(job_differences(job_of(old), job_of(candidates[-1]))))]
    selected = _runs_to_compare(old, same_job, environments)
    names = [name] if len(selected) == 1 else [f"{name}, run {new.short_id}" for new in selected]
    return [
        _compare(cell, old, new, store, limits) for cell, new in zip(names, selected, strict=True)
    ]


def _runs_to_compare(
    old: PinnedRun, same_job: Sequence[RunRecord], environments: Sequence[Environment]
) -> list[RunRecord]:
    """Select the stored runs to compare with `old`, at least one.

    Candidates are the runs in the environment of `old`; without any, those with its device and
    number of threads in environments that the baseline lacks; without any, those in any such
    environment; else all. Of the candidates, the run that the report selects and the newest are
    compared. The newest run in an environment that the baseline lacks is added if it is later:
    an earlier run must not hide the latest one.
    """
    ordered = sorted(same_job, key=lambda record: record.created)
    elsewhere = [record for record in ordered if record.environment not in environments]
    equal = [record for record in ordered if record.environment == old.environment]
    machine = _machine(old.environment)
    near = [record for record in elsewhere if _machine(record.environment) == machine]
    candidates = equal or near or elsewhere or ordered
    newest = candidates[-1]
    later = [record for record in elsewhere[-1:] if record.created > newest.created]
    selected = (selected_run(candidates, old.reference), newest, *later)
    return list({record.run_id: record for record in selected}.values())


def _machine(environment: Environment) -> tuple[str, int]:
    return environment.device, environment.threads


def _compare(
    name: str, old: PinnedRun, new: RunRecord, store: ResultsStore, limits: Limits
) -> CellCheck:
    differences = tuple(_data_differences(old, new))
    if differences:
        return CellCheck(name, 0, differences)
    try:
        traces = store.checked_traces(new)
    except IncompleteError as error:
        ids = short_id(old.run_id), new.short_id
        finding = Finding("run", Verdict.MISSING, *ids, str(error))
        return CellCheck(name, 0, (finding,))
    figures = list(compare_figures(old, new, traces, limits))
    return CellCheck(name, len(figures), tuple(found for found in figures if found is not None))


def _cell(spec: RunSpec) -> tuple[str, str, str, int]:
    return spec.task, spec.method, spec.backbone, spec.seed


def job_of(run: RunRecord | PinnedRun) -> dict[str, object]:
    """Return what two runs of one cell must share to be comparable: settings and conditions."""
    job: dict[str, object] = json.loads(canonical(run.spec.settings | _conditions(run)))
    return job


def _conditions(run: RunRecord | PinnedRun) -> dict[str, object]:
    """Return the job of a run without its method's settings.

    These are the number of rows, the length, the precision, and the fingerprints of the method's
    external inputs.
    """
    spec = run.spec
    conditions = {"train_rows": spec.train_rows, "max_length": spec.max_length, "limit": spec.limit}
    return conditions | {
        "precision": run.environment.precision,
        "sources": asdict(run.data.sources),
    }


def job_differences(old: dict[str, object], new: dict[str, object]) -> Iterator[Finding]:
    """Yield the settings and conditions in which two jobs differ.

    Values are written in full if their short forms are equal.
    """
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before != after:
            text = str if short_text(before) == short_text(after) else short_text
            yield Finding(name, Verdict.NOT_COMPARABLE, text(before), text(after))


def _data_differences(old: PinnedRun, new: RunRecord) -> Iterator[Finding]:
    """Yield the differences in data, splits and weights, which both runs must share."""
    labels = {
        "data": "rows of the task's files",
        "splits": "held-out rows",
        "backbone": "backbone weights",
    }
    for field, label in labels.items():
        before, after = getattr(old.data, field), getattr(new.data, field)
        if before != after:
            yield Finding(label, Verdict.NOT_COMPARABLE, before, after)
