"""Stored runs as tidy tables: one row a run, an exit, an operating point or an example.

The names of the columns have the units of their figures.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.comparison import base_for, full_run, record_points, reference_runs
from harness.analysis.conditions import by_condition
from harness.analysis.operating_points import BUDGETS, policy_of
from harness.analysis.selection import no_runs
from harness.analysis.variants import runs_by_row
from harness.data.custom_tasks import task_of
from harness.errors import unknown
from harness.evaluation.trace import predictions
from harness.records import RunRecord
from harness.store.results import ResultsStore

if TYPE_CHECKING:
    import pandas

TidyRow = dict[str, object]


class Runs(NamedTuple):
    """Stored runs and the method with which they are compared."""

    store: ResultsStore
    records: Sequence[RunRecord]
    reference: str | None


def frame(level: str, runs: Runs) -> "pandas.DataFrame":
    """Return the table of a level, a name in `LEVELS`.

    Raises: HarnessError for an unknown level; IncompleteError if there are no runs or a trace
        cannot be read.
    """
    import pandas

    if level not in LEVELS:
        raise unknown("level", level, LEVELS)
    if not runs.records:
        raise no_runs(runs.store)
    found = pandas.DataFrame.from_records(list(LEVELS[level](runs)))
    return found.astype({"limit_rows": "Int64"}) if "limit_rows" in found else found


def _identity(record: RunRecord) -> TidyRow:
    spec, environment = record.spec, record.environment
    return {
        "run_id": record.run_id,
        "task": spec.task,
        "method": spec.method,
        "backbone": spec.backbone,
        "seed": spec.seed,
        "train_rows": record.data.rows["train"],
        "limit_rows": spec.limit,
        "max_tokens": spec.max_length,
        "precision": environment.precision,
        "device": environment.device,
        "threads": environment.threads,
        "changed_settings": ", ".join(f"{k}={v}" for k, v in (record.changed or {}).items()),
    }


def _scores(scores: dict[str, float], prefix: str = "score") -> TidyRow:
    return {f"{prefix}_{metric}": value for metric, value in scores.items()}


def _runs(runs: Runs) -> Iterator[TidyRow]:
    """Yield a row for each run, with the figures of its last exit."""
    for record in runs.records:
        last = record.exits[-1]
        latency = record.latency
        ratios = {} if latency is None else latency.reference_ratio
        yield {
            **_identity(record),
            "created_utc": record.created,
            "exits": len(record.exits),
            "policy": record.policy,
            "parameters": last.parameters,
            **_scores(last.scores),
            **_scores(record.constant_scores, "majority_class"),
            "macs_per_example": last.macs,
            "macs_128_tokens": last.macs_128,
            **{f"static_ms_batch_{size}": ms.median for size, ms in last.static_ms.items()},
            **{f"latency_ratio_batch_{size}": found[-1].median for size, found in ratios.items()},
            "training_steps": sum(use.report.steps for use in record.stages),
            "training_seconds": sum(use.report.seconds for use in record.stages),
        }


def _exits(runs: Runs) -> Iterator[TidyRow]:
    """Yield a row for each exit of each run: the model truncated after it, and the path to it."""
    for record in runs.records:
        latency = record.latency
        kinds = (
            {}
            if latency is None
            else {"static": latency.reference_ratio, "path": latency.path_ratio}
        )
        for index, measured in enumerate(record.exits):
            yield {
                **_identity(record),
                "layer": measured.layer,
                "parameters": measured.parameters,
                **_scores(measured.scores),
                "macs_per_example": measured.macs,
                "macs_128_tokens": measured.macs_128,
                **{f"static_ms_batch_{size}": ms.median for size, ms in measured.static_ms.items()},
                **{f"path_ms_batch_{size}": ms.median for size, ms in measured.path_ms.items()},
                **{
                    f"{kind}_latency_ratio_batch_{size}": found[index].median
                    for kind, ratios in kinds.items()
                    for size, found in ratios.items()
                },
            }


def _points(runs: Runs) -> Iterator[TidyRow]:
    """Yield a row for each budget that a dynamic run meets on calibration, scored on dev."""
    for _, group in by_condition(runs.records):
        rows = runs_by_row(group, runs.reference)
        bases = reference_runs(rows, runs.reference)
        for records in rows.values():
            base = base_for(records, bases)
            for record in records:
                if record.policy is None:
                    continue
                full = full_run(record, base)
                for budget, point in record_points(runs.store, record, full, base).items():
                    yield {
                        **_identity(record),
                        "policy": record.policy,
                        "budget_share": BUDGETS[budget],
                        "threshold": point.threshold,
                        **_scores(point.scores),
                        "macs_per_example": point.macs,
                        "layers_mean": point.layers,
                        "composed_ms_batch_1": point.path_ms,
                        "composed_latency_ratio_batch_1": point.path_ratio,
                        **{
                            f"share_exit_{layer}": share
                            for layer, share in point.exit_shares.items()
                        },
                    }


def _examples(runs: Runs) -> Iterator[TidyRow]:
    """Yield a row for each dev example and exit of each run: label, prediction and exit score.

    Labels and predictions are indices of classes with their names, or values of a regression. The
    exit score is the one that the method's policy compares with its threshold: higher is surer.
    """
    for record in runs.records:
        trace, task = runs.store.trace(record), task_of(record)
        policy = None if record.policy is None else policy_of(record)
        for index, layer in enumerate(trace.exit_layers.tolist()):
            predicted = predictions(trace.logits[index])
            scores = None if policy is None else policy.score(trace.logits[: index + 1])
            for position in range(len(trace.ids)):
                yield {
                    "run_id": record.run_id,
                    "task": record.spec.task,
                    "method": record.spec.method,
                    "seed": record.spec.seed,
                    "example_id": int(trace.ids[position]),
                    "tokens": int(trace.lengths[position]),
                    "layer": layer,
                    "label": float(trace.labels[position]),
                    "prediction": float(predicted[position]),
                    "label_name": _name(task.labels, trace.labels[position]),
                    "prediction_name": _name(task.labels, predicted[position]),
                    "exit_score": None if scores is None else float(scores[position]),
                }


def _name(labels: tuple[str, ...], value: float) -> str | None:
    """Return the name of a class; None for a regression."""
    return labels[int(value)] if labels else None


LEVELS: dict[str, Callable[[Runs], Iterator[TidyRow]]] = {
    "run": _runs,
    "exit": _exits,
    "point": _points,
    "example": _examples,
}
"""Level of a table -> the function that yields its rows."""
