"""A page on one run: its exits, operating points, stages and environment."""

import shlex
from collections.abc import Iterator

from tabulate import tabulate

from harness.analysis.comparison import record_points
from harness.analysis.diagnostics import backbone_checks, sanity_checks
from harness.errors import counted
from harness.evaluation.metrics import scores_text
from harness.files.text import option_text
from harness.progress import duration
from harness.records import PRECISION_OPTIONS, RunRecord
from harness.store.results import ResultsStore


def run_page(store: ResultsStore, record: RunRecord) -> str:
    """Return the page as text.

    Raises: IncompleteError if a trace cannot be read.
    """
    spec, data, environment = record.spec, record.data, record.environment
    rows = ", ".join(f"{name} {count:,}" for name, count in data.rows.items())
    lines = [
        f"run {record.run_id}: {spec.method} on {spec.task}, backbone {spec.backbone}, "
        f"seed {spec.seed}",
        f"created {record.created}; {duration(record.seconds)} in all",
        f"rows: {rows}; {data.dev_tokens:g} tokens per dev example, at most {spec.max_length}",
        f"majority class: {scores_text(record.constant_scores)}",
        f"last exit: {scores_text(record.exits[-1].scores)}",
        *(f"changed setting: {name} = {value}" for name, value in (record.changed or {}).items()),
        *(f"remark: {remark}" for remark in record.remarks),
        *(f"warning: {one}" for one in (*backbone_checks(record), *sanity_checks(store, record))),
    ]
    parts = ["\n".join(lines), f"Exits:\n{_table(_exits(record))}"]
    if record.policy is not None:
        points = list(_points(store, record))
        parts.append(
            f"Operating points of {record.policy}, thresholds chosen on calibration:\n"
            f"{_table(points)}"
        )
    parts.append(f"Stages:\n{_table(_stages(record))}")
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    parts.append(
        f"Environment: {environment.device}, {counted(environment.threads, 'thread')}, trained in "
        f"{environment.precision}; {versions}"
    )
    parts.append(f"To fit it again: harness rerun {record.short_id}, or\n  {run_command(record)}")
    return "\n\n".join(parts) + "\n"


def run_command(record: RunRecord) -> str:
    """Return the command that makes the same run; paths of the user's are left to the user."""
    spec, environment = record.spec, record.environment
    words = ["harness", "run", "--methods", spec.method, "--tasks", spec.task]
    words += ["--backbone", spec.backbone, "--seeds", str(spec.seed)]
    for name, value in (record.changed or {}).items():
        words += ["--set", f"{spec.method}.{name}={option_text(value)}"]
    if spec.train_rows is not None:
        words += ["--train-rows", f"{spec.task}={spec.train_rows}"]
    if spec.limit is not None:
        words += ["--limit", str(spec.limit)]
    words += ["--max-length", str(spec.max_length), "--threads", str(environment.threads)]
    words += ["--precision", PRECISION_OPTIONS[environment.precision]]
    if record.batch_size is not None:
        words += ["--batch-size", str(record.batch_size)]
    if record.latency is None:
        words += ["--no-latency"]
    elif record.latency_seconds is not None:
        words += ["--latency-seconds", f"{record.latency_seconds:g}"]
    if record.latency is not None and record.latency.reference != "bert":
        words += ["--reference", record.latency.reference or "none"]
    return shlex.join(words)


def _table(rows: list[dict[str, str]]) -> str:
    return tabulate(rows, headers="keys", disable_numparse=True, stralign="right")


def _exits(record: RunRecord) -> list[dict[str, str]]:
    return [
        {
            "exit": str(one.layer),
            **{f"{metric} x100": f"{100 * score:.1f}" for metric, score in one.scores.items()},
            "MMACs": f"{one.macs / 1e6:.1f}",
            "params M": f"{one.parameters / 1e6:.2f}",
            **{f"ms (batch {size})": f"{ms.median:.2f}" for size, ms in one.static_ms.items()},
        }
        for one in record.exits
    ]


def _points(store: ResultsStore, record: RunRecord) -> Iterator[dict[str, str]]:
    for budget, point in record_points(store, record, record, {}).items():
        yield {
            "MACs <=": f"{budget} of its own",
            "threshold": f"{point.threshold:.4g}",
            **{f"{metric} x100": f"{100 * score:.1f}" for metric, score in point.scores.items()},
            "MMACs": f"{point.macs / 1e6:.1f}",
            "layers": f"{point.layers:.2f}",
            "exits taken, %": " ".join(f"{100 * one:.0f}" for one in point.exit_shares.values()),
        }


def _stages(record: RunRecord) -> list[dict[str, str]]:
    return [
        {
            "stage": use.report.name,
            "steps": f"{use.report.steps:,}",
            "time": duration(use.report.seconds),
            "best epoch": str(use.report.best_epoch),
            "on selection": " ".join(f"{score:.3f}" for score in use.report.selection),
            "from the cache": "yes" if use.reused else "no",
        }
        for use in record.stages
    ]
