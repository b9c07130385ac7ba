"""Comparisons of runs made by hand: every figure is worked out on paper."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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

from harness.analysis.comparison import Comparison, Row, compare
from harness.analysis.operating_points import BUDGETS
from harness.analysis.points import Exit
from harness.evaluation.curves import sweep
from harness.evaluation.policies import Entropy
from harness.evaluation.statistics import Mean, mean
from harness.evaluation.trace import Trace
from harness.records import Polynomial, RunRecord
from harness.store.results import ResultsStore


def row_of(comparison: Comparison, method: str, point: str) -> Row:
    (row,) = [row for row in comparison.rows if (row.method, str(row.point)) == (method, point)]
    return row


def assert_mean(got: Mean | None, *values: float) -> None:
    """Against the textbook formulas on the values of the seeds."""
    assert got is not None
    average = sum(values) / len(values)
    assert (got.mean, got.count) == (pytest.approx(average, rel=1e-9), len(values))
    if len(values) == 1:
        assert got.deviation is None
    else:
        deviation = (sum((value - average) ** 2 for value in values) / (len(values) - 1)) ** 0.5
        assert got.deviation == pytest.approx(deviation, abs=1e-9)


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
    """Ratios of the last exit are paired by seed, and the three speed-ups stay apart.

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
    2) of 4 rows leave there."""
    row = row_of(comparison, "deebert", "MACs <= 3/4")
    assert_mean(row.scores["accuracy"], 2 / 4, 3 / 4)
    assert_mean(row.layers, (2 * 1 + 2 * 4) / 4, (3 * 1 + 1 * 4) / 4)
    assert_mean(row.macs, 2.5 * 2000, 1.75 * 2000)
    assert_mean(row.retained, 0.5 / 0.8, 0.75 / 0.7)
    assert_mean(row.mac_ratio, 8000 / 5000, 8000 / 3500)


def test_point_latency_averages_path_latency(comparison: Comparison) -> None:
    """The latency of a point is the path latency, averaged over where the dev rows left.

    Path: 3.5 and 10 ms (seed 1), 7 and 20 ms (seed 2), half and three quarters of the rows at the
    first; ratios compose likewise."""
    row = row_of(comparison, "deebert", "MACs <= 3/4")
    own = (0.5 * 3.5 + 0.5 * 10, 0.75 * 7 + 0.25 * 20)
    assert_mean(row.latency_ms, *own)
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

    1/2: H(1), 3 rows of calibration leave; 1/4: H(1/2), all leave. On dev 3 and 4 rows, then all.
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

    On dev the cheapest threshold would score 1 within every budget; the report must not know."""
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

    All selection rows are surer than any other: no threshold of their grid lets a calibration row
    leave."""
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
    """A curve has every budget, and None where no threshold is cheap enough.

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


@pytest.mark.parametrize(
    "other",
    [
        lambda r: replace(r, spec=replace(r.spec, limit=64)),
        lambda r: replace(r, spec=replace(r.spec, train_rows=1000)),
        lambda r: replace(r, spec=replace(r.spec, max_length=64)),
        lambda r: replace(r, spec=replace(r.spec, backbone="small")),
        lambda r: replace(r, environment=replace(r.environment, precision="bfloat16")),
        lambda r: replace(r, data=replace(r.data, data="d1")),
        lambda r: replace(r, data=replace(r.data, splits="e1")),
        lambda r: replace(r, data=replace(r.data, backbone="f1")),
    ],
    ids=[
        "limit",
        "train_rows",
        "max_length",
        "backbone",
        "precision",
        "data",
        "splits",
        "backbone weights",
    ],
)
def test_other_conditions_never_share_table(
    other: Callable[[RunRecord], RunRecord], store: ResultsStore
) -> None:
    """Runs under other conditions never share a table."""
    ours, theirs = single("bert", 1, 0.9), identified(other(single("bert", 2, 0.1)))
    found = compare(store, [ours, theirs], "bert")
    assert sorted(comparison.rows[0].scores["accuracy"].mean for comparison in found) == [0.1, 0.9]
    assert [len(comparison.records) for comparison in found] == [1, 1]
    stranger = identified(other(single("pabee", 1)))
    for comparison in compare(store, [ours, stranger], "bert"):
        if comparison.records == (stranger,):
            assert comparison.reference is None
            assert comparison.rows[0].retained is None


def at(record: RunRecord, device: str, threads: int = 2) -> RunRecord:
    return identified(
        replace(record, environment=replace(record.environment, device=device, threads=threads))
    )


@pytest.mark.parametrize("place", [("Another", 2), ("A processor", 1)])
def test_other_places_never_share_mean(place: tuple[str, int], store: ResultsStore) -> None:
    """Runs on other processors or threads share a table and never a mean."""
    runs = [single("bert", 1, 0.9), single("bert", 2, 0.7), at(single("bert", 3, 0.1), *place)]
    (comparison,) = compare(store, runs, "bert")
    rows = {(row.device, row.threads): row.scores["accuracy"] for row in comparison.rows}
    assert_mean(rows["A processor", 2], 0.9, 0.7)
    assert_mean(rows[place], 0.1)
    assert len({row.method for row in comparison.rows}) == 2


def test_reference_prefers_same_place(store: ResultsStore) -> None:
    """A run is compared with the reference of its own place, or else with the one that has most
    seeds."""
    here, there = (
        [single("bert", seed, 0.8) for seed in (1, 2)],
        at(single("bert", 1, 0.4), "There"),
    )
    mine, yours, nowhere = (
        single("pabee", 1, 0.2),
        at(single("deebert", 1, 0.2), "There"),
        at(single("tinybert", 1, 0.2), "Nowhere"),
    )
    (comparison,) = compare(store, [*here, there, mine, yours, nowhere], "bert")
    retained = {row.method: row.retained for row in comparison.rows}
    assert_mean(retained["pabee"], 0.2 / 0.8)
    assert_mean(retained["deebert"], 0.2 / 0.4)
    assert_mean(retained["tinybert"], 0.2 / 0.8)
    assert comparison.reference == "bert (device=A processor)"


def test_comparisons_follow_task_names(store: ResultsStore) -> None:
    """Comparisons come in the order of the tasks' names."""
    found = compare(
        store, [single("bert", 1, task=task) for task in ("sst2", "rte", "wnli")], "bert"
    )
    assert [comparison.condition.task for comparison in found] == ["rte", "sst2", "wnli"]


@pytest.mark.parametrize("reference", [None, "bert", "pabee"])
def test_missing_reference_leaves_ratios_empty(reference: str | None, store: ResultsStore) -> None:
    """Without runs of the reference there are no ratios."""
    save_bert_and_deebert(store)
    runs = [record for record in store.records()[0] if record.spec.method == "deebert"]
    (comparison,) = compare(store, runs, reference)
    assert comparison.reference is None
    assert [str(row.point) for row in comparison.rows] == [
        "exit 4",
        "MACs <= 3/4",
        "MACs <= 1/2",
        "MACs <= 1/4",
    ]
    for row in comparison.rows:
        assert (row.retained, row.mac_ratio, row.latency_ratio) == (None, None, None), row.point
    assert_mean(comparison.rows[0].scores["accuracy"], 0.76, 0.77)
    assert_mean(comparison.rows[0].latency_ms, 9, 18)


def half_size_deebert(store: ResultsStore, seed: int) -> RunRecord:
    """The method of `save_bert_and_deebert` with layers that cost half as much, on its dev rows of seed 1."""
    known = next(
        record
        for record in store.records()[0]
        if (record.spec.method, record.spec.seed) == ("deebert", 1)
    )
    half = flat_costs((1, 4))
    half = replace(half, layers=tuple(Polynomial(0, layer.c1 // 2, 0) for layer in half.layers))
    exits = tuple(replace(exit_, macs_128=exit_.macs_128 // 2) for exit_ in known.exits)
    record = identified(
        replace(known, spec=replace(known.spec, method="half", seed=seed), costs=half, exits=exits)
    )
    return save_run(
        store,
        record,
        {split: store.trace(known, split) for split in ("dev", "selection", "calibration")},
    )


def test_budgets_without_reference_use_own_model(store: ResultsStore) -> None:
    """Without the reference a budget is a share of the method's own full model.

    1/2 of the own full model: 3 of 4 rows leave; of a reference twice as large the best threshold
    would fit."""
    save_bert_and_deebert(store)
    half = half_size_deebert(store, 1)
    (alone,) = compare(store, [half], "bert")
    assert_mean(row_of(alone, "half", "MACs <= 1/2").layers, 1.75)
    (beside,) = compare(store, store.records()[0], "bert")
    assert_mean(row_of(beside, "half", "MACs <= 1/2").layers, 2.5)
    assert_mean(row_of(beside, "half", "MACs <= 1/2").mac_ratio, 8000 / (2.5 * 1000))


def test_mean_never_mixes_two_budgets(store: ResultsStore) -> None:
    """A mean over seeds never mixes the budgets of two models.

    Seed 3 has no run of the reference; MACs do not depend on the seed, so its budget is still a
    share of the reference's."""
    save_bert_and_deebert(store)
    for seed in (1, 3):
        half_size_deebert(store, seed)
    (comparison,) = compare(store, store.records()[0], "bert")
    layers = row_of(comparison, "half", "MACs <= 1/2").layers
    assert (layers.mean, layers.deviation) == (2.5, 0)


def test_latency_ratio_needs_same_reference(store: ResultsStore) -> None:
    """A latency ratio against another method is not shown as one against the reference.

    The record's rounds were run with pabee beside; the report's reference is bert."""
    (comparison,) = compare(
        store,
        [timed(single("bert", 1), "bert", 1.0), timed(single("tinybert", 1), "pabee", 3.0)],
        "bert",
    )
    assert row_of(comparison, "bert", "exit 4").latency_ratio == Mean(1.0, None, 1)
    assert row_of(comparison, "tinybert", "exit 4").latency_ratio is None


def test_point_ratio_needs_same_reference(store: ResultsStore) -> None:
    """A point that was timed against another method has no latency ratio."""
    save_bert_and_deebert(store)
    records = [
        replace(record, latency=replace(record.latency, reference="pabee"))
        if record.spec.method == "deebert" and record.latency
        else record
        for record in store.records()[0]
    ]
    (comparison,) = compare(store, records, "bert")
    row = row_of(comparison, "deebert", "MACs <= 3/4")
    assert row.latency_ms is not None
    assert row.latency_ratio is None


def test_ratios_use_shared_seeds(store: ResultsStore) -> None:
    """Ratios are taken over the seeds that the reference has too."""
    runs = [
        single("bert", 1, 0.8),
        single("bert", 2, 0.4),
        single("pabee", 2, 0.5),
        single("pabee", 3, 0.9),
    ]
    (comparison,) = compare(store, runs, "bert")
    row = row_of(comparison, "pabee", "exit 4")
    assert_mean(row.scores["accuracy"], 0.5, 0.9)
    assert_mean(row.retained, 0.5 / 0.4)


def test_unpaired_seeds_give_no_ratio(store: ResultsStore) -> None:
    """Seeds that the reference does not have give no ratio."""
    (comparison,) = compare(store, [single("bert", 1), single("pabee", 2)], "bert")
    row = row_of(comparison, "pabee", "exit 4")
    assert (row.retained, row.mac_ratio) == (None, None)


@pytest.mark.parametrize("score", [0.0, -0.1])
def test_nonpositive_reference_score_retains_nothing(score: float, store: ResultsStore) -> None:
    """A reference at or below 0 retains nothing but has its other ratios.

    Matthews' coefficient can be: a share of it means nothing."""
    runs = [single("bert", 1, score, task="cola"), single("pabee", 1, 0.3, task="cola")]
    (comparison,) = compare(store, runs, "bert")
    row = row_of(comparison, "pabee", "exit 4")
    assert row.retained is None
    assert_mean(row.mac_ratio, 1)


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

    Answers move by 1/4 from exit to exit: within a tolerance of 0.3 they agree at layer 2, the
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
