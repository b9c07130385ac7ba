"""Which runs share a table and a mean, and which runs of the reference they are compared with."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.comparisons import assert_mean, row_of
from support.synthetic import (
    flat_costs,
    identified,
    save_bert_and_deebert,
    save_run,
    single,
    timed,
)

from harness.analysis.comparison import compare
from harness.evaluation.statistics import Mean
from harness.records import Polynomial, RunRecord
from harness.store.results import ResultsStore


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
    one, changed = single("bert", 1, 0.9), identified(other(single("bert", 2, 0.1)))
    found = compare(store, [one, changed], "bert")
    assert sorted(comparison.rows[0].scores["accuracy"].mean for comparison in found) == [0.1, 0.9]
    assert [len(comparison.records) for comparison in found] == [1, 1]
    unpaired = identified(other(single("pabee", 1)))
    for comparison in compare(store, [one, unpaired], "bert"):
        if comparison.records == (unpaired,):
            assert comparison.reference is None
            assert comparison.rows[0].retained is None


def on_hardware(record: RunRecord, device: str, threads: int = 2) -> RunRecord:
    return identified(
        replace(record, environment=replace(record.environment, device=device, threads=threads))
    )


@pytest.mark.parametrize("hardware", [("Another", 2), ("A processor", 1)])
def test_other_hardware_never_shares_mean(hardware: tuple[str, int], store: ResultsStore) -> None:
    """Runs on other processors or with other threads share a table but never a mean."""
    runs = [
        single("bert", 1, 0.9),
        single("bert", 2, 0.7),
        on_hardware(single("bert", 3, 0.1), *hardware),
    ]
    (comparison,) = compare(store, runs, "bert")
    rows = {(row.device, row.threads): row.scores["accuracy"] for row in comparison.rows}
    assert_mean(rows["A processor", 2], 0.9, 0.7)
    assert_mean(rows[hardware], 0.1)
    assert len({row.method for row in comparison.rows}) == 2


def test_reference_prefers_same_hardware(store: ResultsStore) -> None:
    """A run is compared with the reference on its own hardware, or else with the variant that has
    most seeds."""
    here, there = (
        [single("bert", seed, 0.8) for seed in (1, 2)],
        on_hardware(single("bert", 1, 0.4), "There"),
    )
    run_here, run_there, run_elsewhere = (
        single("pabee", 1, 0.2),
        on_hardware(single("deebert", 1, 0.2), "There"),
        on_hardware(single("tinybert", 1, 0.2), "Nowhere"),
    )
    (comparison,) = compare(store, [*here, there, run_here, run_there, run_elsewhere], "bert")
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
    """Save the deebert run of seed 1 again as method half, with layers of half the cost."""
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

    Within 1/2 of the own full model 3 of 4 rows exit early; within 1/2 of a reference twice as
    large the best threshold fits."""
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

    The run was timed against pabee; the report's reference is bert."""
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
    """With a reference score at or below 0 nothing is retained, but there are other ratios.

    Matthews' coefficient can be negative, and a share of it means nothing."""
    runs = [single("bert", 1, score, task="cola"), single("pabee", 1, 0.3, task="cola")]
    (comparison,) = compare(store, runs, "bert")
    row = row_of(comparison, "pabee", "exit 4")
    assert row.retained is None
    assert_mean(row.mac_ratio, 1)
