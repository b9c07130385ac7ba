"""Figures of a comparison of runs made by hand, each worked out on paper."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.comparisons import assert_mean, row_of
from support.synthetic import (
    exit_1_or_4,
    flat_costs,
    identified,
    make_exit,
    make_record,
    random_trace,
    save_bert_and_deebert,
    save_run,
    single,
    timed,
)

from harness.analysis.comparison import Comparison, compare
from harness.analysis.operating_points import BUDGETS
from harness.analysis.points import Exit
from harness.evaluation.curves import sweep
from harness.evaluation.policies import Entropy
from harness.evaluation.statistics import Mean, mean
from harness.evaluation.trace import Trace
from harness.store.results import ResultsStore


@pytest.fixture
def comparison(store: ResultsStore) -> Comparison:
    """bert and deebert, two seeds each, against bert."""
    save_bert_and_deebert(store)
    (found,) = compare(store, store.records()[0], "bert")
    return found


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_mean_and_deviation_match_formulas(values: list[float]) -> None:
    """Mean and sample deviation equal the textbooks' formulas."""
    average = sum(values) / len(values)
    got = mean(values)
    assert got.mean == pytest.approx(average, abs=1e-6)
    assert got.count == len(values)
    squares = sum((value - average) ** 2 for value in values)
    assert got.deviation == (
        pytest.approx((squares / (len(values) - 1)) ** 0.5, abs=1e-4) if len(values) > 1 else None
    )


def test_last_exit_averages_over_seeds(comparison: Comparison) -> None:
    """The last exit of a method is averaged over its seeds."""
    row = row_of(comparison, "deebert", "exit 4")
    assert_mean(row.scores["accuracy"], 0.76, 0.77)
    assert_mean(row.macs, 8400, 8400)
    assert_mean(row.layers, 4, 4)
    assert_mean(row.latency_ms, 9, 18)
    assert row.parameters == 2_000_000


def test_last_exit_ratios_pair_by_seed(comparison: Comparison) -> None:
    """Ratios of the last exit are paired by seed, and the three speed-ups stay separate.

    Latency was paired in the same rounds (0.92, 0.94): it is not the quotient of the medians, which
    is 1."""
    row = row_of(comparison, "deebert", "exit 4")
    assert_mean(row.retained, 0.76 / 0.8, 0.77 / 0.7)
    assert_mean(row.mac_ratio, 8000 / 8400, 8000 / 8400)
    assert_mean(row.latency_ratio, 0.92, 0.94)


def test_reference_retains_all_of_itself(comparison: Comparison) -> None:
    """The reference comes first and has the ratio 1 to itself."""
    assert comparison.reference == "bert"
    row = comparison.rows[0]
    assert (row.method, row.point) == ("bert", Exit(4))
    assert_mean(row.scores["accuracy"], 0.8, 0.7)
    assert_mean(row.retained, 1, 1)
    assert_mean(row.mac_ratio, 1, 1)
    assert_mean(row.latency_ratio, 1.01, 1.01)


def test_curve_point_uses_calibration_threshold(comparison: Comparison) -> None:
    """A point of a curve is scored on dev at the threshold that calibration chose.

    3/4: on calibration H(2) is right on all rows at 2.5 of 4 layers. On dev 2 (seed 1) and 3 (seed
    2) of 4 rows exit there."""
    row = row_of(comparison, "deebert", "MACs <= 3/4")
    assert_mean(row.scores["accuracy"], 2 / 4, 3 / 4)
    assert_mean(row.layers, (2 * 1 + 2 * 4) / 4, (3 * 1 + 1 * 4) / 4)
    assert_mean(row.macs, 2.5 * 2000, 1.75 * 2000)
    assert_mean(row.retained, 0.5 / 0.8, 0.75 / 0.7)
    assert_mean(row.mac_ratio, 8000 / 5000, 8000 / 3500)


def test_point_latency_averages_path_latency(comparison: Comparison) -> None:
    """The latency of a point is the mean path latency over the exits that the dev rows take.

    Path: 3.5 and 10 ms (seed 1), 7 and 20 ms (seed 2), half and three quarters of the rows at the
    first; ratios compose likewise."""
    row = row_of(comparison, "deebert", "MACs <= 3/4")
    milliseconds = (0.5 * 3.5 + 0.5 * 10, 0.75 * 7 + 0.25 * 20)
    assert_mean(row.latency_ms, *milliseconds)
    ratios = [
        record.latency.path_ratio["1"]
        for record in comparison.records
        if record.spec.method == "deebert" and record.latency
    ]
    shares = (0.5, 0.75)
    assert_mean(
        row.latency_ratio,
        *(
            1 / (s / r[0].median + (1 - s) / r[-1].median)
            for s, r in zip(shares, ratios, strict=True)
        ),
    )
    assert (
        len(
            {
                round(ratio.mean, 3)
                for ratio in (row.mac_ratio, row.latency_ratio, row.layers)
                if ratio
            }
        )
        == 3
    )


def test_smaller_budget_takes_best_affordable_threshold(comparison: Comparison) -> None:
    """A smaller budget takes the best threshold that it can pay for.

    1/2: H(1), 3 calibration rows exit; 1/4: H(1/2), all exit. On dev 3 and 4 rows, then all.
    """
    half, quarter = (
        row_of(comparison, "deebert", f"MACs <= {budget}") for budget in ("1/2", "1/4")
    )
    assert_mean(half.scores["accuracy"], 3 / 4, 1)
    assert_mean(half.layers, 1.75, 1)
    assert_mean(quarter.scores["accuracy"], 1, 1)
    assert_mean(quarter.macs, 2000, 2000)
    assert_mean(quarter.latency_ms, 3.5, 7)


def test_thresholds_ignore_dev(comparison: Comparison, store: ResultsStore) -> None:
    """Thresholds are not chosen on dev.

    On dev the cheapest threshold scores 1 within every budget; the report must not use that."""
    record = next(
        record
        for record in comparison.records
        if (record.spec.method, record.spec.seed) == ("deebert", 1)
    )
    best = sweep(Entropy(), store.trace(record), record.costs, ("accuracy",), np.array([0.69]))
    assert best.scores["accuracy"].tolist() == [1.0]
    assert best.macs.tolist() == [2000.0]
    assert row_of(comparison, "deebert", "MACs <= 3/4").scores["accuracy"].mean == pytest.approx(
        (0.5 + 0.75) / 2
    )


def test_threshold_grid_comes_from_selection(comparison: Comparison, store: ResultsStore) -> None:
    """The grid of thresholds comes from selection alone.

    All selection rows are more confident than any other, so that no calibration row exits early at
    a threshold of their grid."""
    record = next(
        record
        for record in comparison.records
        if (record.spec.method, record.spec.seed) == ("deebert", 1)
    )
    other, traces = (
        identified(replace(record, seconds=1.0)),
        {split: store.trace(record, split) for split in ("dev", "calibration")},
    )
    save_run(
        store,
        other,
        traces | {"selection": exit_1_or_4((20, 21, 22, 23), [True] * 4, [True] * 4, 30)},
    )
    (found,) = compare(
        store,
        [*(record for record in comparison.records if record.spec.method == "bert"), other],
        "bert",
    )
    (row,) = found.curves
    assert row.macs["1"] == Mean(8000.0, None, 1)
    assert row.macs["3/4"] is None


def test_curve_lists_every_budget(comparison: Comparison) -> None:
    """A curve has every budget, with None where no threshold is cheap enough.

    Layer 1 is a quarter of the reference: nothing fits 1/8."""
    (row,) = comparison.curves
    assert (row.method, row.policy, list(row.scores)) == ("deebert", "entropy", list(BUDGETS))
    expected = {
        "1": (0.5, 0.75),
        "3/4": (0.5, 0.75),
        "1/2": (0.75, 1),
        "3/8": (1, 1),
        "1/4": (1, 1),
    }
    for budget, values in expected.items():
        assert_mean(row.scores[budget], *values)
    assert_mean(row.macs["1/2"], 3500, 2000)
    assert row.scores["1/8"] is None
    assert row.macs["1/8"] is None


def test_exit_rows_average_seeds_per_batch(comparison: Comparison) -> None:
    """Each exit is averaged over seeds at each batch size."""
    assert [(row.method, row.layer) for row in comparison.exits] == [
        ("bert", 4),
        ("deebert", 1),
        ("deebert", 4),
    ]
    row = comparison.exits[1]
    assert_mean(row.score, 0.6, 0.5)
    assert_mean(row.macs, 2000, 2000)
    assert_mean(row.static_ms["1"], 3, 6)
    assert_mean(row.static_ms["32"], 60, 120)
    assert_mean(row.path_ms["1"], 3.5, 7)
    assert (row.macs_128, row.parameters) == (12_800, 1_250_000)


def test_latency_needs_every_seed(store: ResultsStore) -> None:
    """Latency is shown only when every seed has it."""
    with_latency = timed(single("bert", 1), "bert", 1.0)
    untimed = single("bert", 2)
    untimed = identified(
        replace(untimed, exits=(replace(untimed.exits[0], static_ms={}, path_ms={}),))
    )
    (both,) = compare(store, [with_latency, untimed], "bert")
    assert (both.rows[0].latency_ms, both.rows[0].latency_ratio) == (None, None)
    (one,) = compare(store, [with_latency], "bert")
    assert_mean(one.rows[0].latency_ms, 4.0)
    assert_mean(one.rows[0].latency_ratio, 1.0)


def test_regression_uses_recorded_tolerance(store: ResultsStore) -> None:
    """A regression is compared by patience with the tolerance of its record.

    Predictions move by 1/4 from exit to exit: within a tolerance of 0.3 they agree at layer 2, the
    best; within 0.1 never."""
    labels_ = np.arange(8.0) / 2
    noise = np.array([0, 0, 0, 0, 0.02, -0.02, 0.01, -0.01])
    values = np.stack([labels_ - 0.25, labels_, labels_ + 0.25 + noise, labels_ + 0.5 + 2 * noise])
    trace = Trace(
        np.arange(8), values[..., None].astype(np.float32), labels_, np.full(8, 20), np.arange(1, 5)
    )
    scores = {"pearson": 0.8, "spearman": 0.7}
    exits = [
        make_exit(layer, scores, 2000.0 * layer, float(layer), float(layer))
        for layer in (1, 2, 3, 4)
    ]
    records = [make_record("bert", 1, exits[-1:], task="stsb")]
    for method, tolerance in (("pabee", 0.3), ("strict", 0.1)):
        record = make_record(method, 1, exits, "patience", task="stsb")
        records.append(
            identified(replace(record, tolerance=tolerance, costs=flat_costs((1, 2, 3, 4))))
        )
    save_run(
        store,
        records[0],
        {split: random_trace(1, (4,), classes=1) for split in ("dev", "selection", "calibration")},
    )
    for record in records[1:]:
        save_run(store, record, dict.fromkeys(("dev", "selection", "calibration"), trace))
    (comparison,) = compare(store, store.records()[0], "bert")
    assert comparison.metrics == ("pearson", "spearman")
    row = row_of(comparison, "pabee", "MACs <= 1/2")
    assert_mean(row.layers, 2)
    assert_mean(row.scores["pearson"], 1)
    assert_mean(row.retained, 1 / 0.8)
    strict = comparison.curves[1]
    assert_mean(strict.macs["1"], 8000)
    assert strict.scores["3/4"] is None
