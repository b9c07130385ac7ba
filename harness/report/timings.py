"""The table of live timings."""

from harness.analysis.comparison import Comparison
from harness.records import RunRecord, Timing
from harness.report.document import Table
from harness.store.results import ResultsStore


def _timings(store: ResultsStore, comparison: Comparison) -> list[tuple[RunRecord, Timing]]:
    """The live timings of the comparison's runs, of those under the same conditions the newest."""
    found = {}
    for record in comparison.records:
        for timing in sorted(store.timings(record), key=lambda timing: timing.created):
            where = (
                timing.policy,
                timing.threshold,
                timing.batch_size,
                timing.device,
                timing.precision,
                timing.threads,
                timing.rows,
            )
            found[record.run_id, where, timing.reference] = (record, timing)
    return list(found.values())


def live_caption(constant_scores: dict[str, float]) -> str:
    """What live timings stand under."""
    constant = ", ".join(f"{metric}={100 * score:.1f}" for metric, score in constant_scores.items())
    return f"Live early exit (`harness time`; ms per batch; a constant answer scores {constant}):"


def timing_table(timings: list[tuple[RunRecord, Timing]]) -> Table:
    """Live timings with their runs, one a row."""
    headers = [
        "method",
        "seed",
        "policy",
        "threshold",
        "batch",
        "rows",
        "rounds",
        "tokens",
        "device",
        "precision",
        "threads",
    ]
    headers += ["score x100", "layers", "ms", "reference", "its ms", "ratio"]
    table = [
        [
            record.spec.method,
            str(record.spec.seed),
            timing.policy,
            f"{timing.threshold:g}",
            str(timing.batch_size),
            _of_dev(timing.rows, record.data.rows["dev"]),
            str(timing.rounds),
            f"{timing.tokens:.1f}",
            timing.device,
            timing.precision,
            str(timing.threads),
            ", ".join(f"{metric}={100 * score:.1f}" for metric, score in timing.scores.items()),
            f"{timing.mean_layers:.2f}",
            f"{timing.early_ms.median:.2f}",
            timing.reference or "own last exit",
            f"{timing.reference_ms.median:.2f}",
            f"{timing.ratio.median:.2f} [{timing.ratio.q1:.2f}, {timing.ratio.q3:.2f}]",
        ]
        for record, timing in timings
    ]
    return Table(headers, table)


def _of_dev(rows: int, dev: int) -> str:
    return str(rows) if rows == dev else f"{rows} of {dev}"
