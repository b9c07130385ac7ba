"""The table of live timings."""

from harness.analysis.comparison import Comparison
from harness.records import RunRecord, Timing
from harness.report.document import Table
from harness.store.results import ResultsStore


def live_timings(store: ResultsStore, comparison: Comparison) -> list[tuple[RunRecord, Timing]]:
    """Return the live timings of the comparison's runs, the newest under each set of conditions."""
    found = {}
    for record in comparison.records:
        for timing in sorted(store.timings(record), key=lambda timing: timing.created):
            conditions = (
                timing.policy,
                timing.threshold,
                timing.batch_size,
                timing.device,
                timing.precision,
                timing.threads,
                timing.rows,
            )
            found[record.run_id, conditions, timing.reference] = (record, timing)
    return list(found.values())


def live_caption(constant_scores: dict[str, float]) -> str:
    """Return the caption of the table of live timings."""
    baseline = ", ".join(f"{metric}={100 * score:.1f}" for metric, score in constant_scores.items())
    return (
        "Live early exit (`harness time`; ms per batch; the majority-class baseline scores "
        f"{baseline}):"
    )


def timing_table(timings: list[tuple[RunRecord, Timing]]) -> Table:
    """Return a table with one live timing per row."""
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
    headers += ["score x100", "layers", "ms", "reference", "reference ms", "ratio"]
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
