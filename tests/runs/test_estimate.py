"""Estimated training times, computed by hand from synthetic runs."""

from dataclasses import replace

import pytest
import torch
from support.synthetic import make_exit, make_record

from harness.methods.compute import Compute
from harness.records import RunRecord, RunSpec, StageReport, StageUse, Trial
from harness.runs.estimate import estimate_minutes

COMPUTE = Compute(torch.device("cpu"), "float32", threads=2)


def run(method: str, task: str = "rte", seed: int = 1, **stages: float) -> RunRecord:
    """Return a run with the seconds of its stages, on 2,000 training rows of 20.5 tokens.

    For the last stage two learning rates were tried: one took 30 s, the other was chosen."""
    uses = tuple(
        StageUse(StageReport(2000, 9, seconds, 0.1, (), 1, name, "c0"), False)
        for name, seconds in stages.items()
    )
    *_, (last, seconds) = stages.items()
    search = (
        Trial(last, "learning_rate", 1.0, 0.5, 30.0, False),
        Trial(last, "learning_rate", 2.0, 0.6, seconds, True),
    )
    record = make_record(method, seed, [make_exit(4, {"accuracy": 0.5}, 1.0, 1.0, 1.0)], task=task)
    return replace(record, stages=uses, search=search)


def cell(method: str, seed: int, task: str = "rte", stored: bool = False) -> tuple[RunSpec, bool]:
    return replace(run(method, task, x=1.0).spec, seed=seed), stored


def minutes(
    cells: list[tuple[RunSpec, bool]], records: list[RunRecord], rte: float = 41_000.0
) -> list[float | None]:
    return estimate_minutes(cells, {"rte": rte, "cola": 20_500.0}, records, COMPUTE, "A processor")


def test_search_is_counted_once() -> None:
    """A search is counted for the first seed, and the chosen rate once.

    Seed 1 takes 60 s plus 30 s for the other rate, later seeds take 60 s. Without seed 1 the search
    fits both rates at its own seed: 60 + 90 s."""
    records = [run("bert", tune=60.0)]
    assert minutes([cell("bert", 1), cell("bert", 2), cell("bert", 3)], records) == [
        1.5,
        1.0,
        1.0,
    ]
    assert minutes([cell("bert", 2)], records) == [2.5]


def test_shared_stage_is_counted_once() -> None:
    """A stage that two methods share is counted once."""
    records = [run("bert", tune=60.0), run("deebert", tune=60.0, exits=12.0)]
    assert minutes([cell("bert", 2), cell("deebert", 2)], records)[1] == pytest.approx(
        (12 + 30 + 12) / 60
    )


def test_stored_cells_count_as_cached() -> None:
    """The stages and searches of stored cells count as cached for other cells."""
    records = [run("bert", tune=60.0), run("deebert", tune=60.0, exits=12.0)]
    cells = [cell("deebert", 1), cell("bert", 2), cell("bert", 1, stored=True)]
    assert minutes(cells, records) == [pytest.approx((12 + 30) / 60), 1.0]


def test_time_grows_with_training_tokens() -> None:
    """The time is proportional to the number of training tokens."""
    assert minutes([cell("bert", 1)], [run("bert", tune=60.0)], rte=3 * 41_000.0) == [4.5]


def test_most_similar_run_is_used() -> None:
    """The most similar run is used, and an incomparable one never.

    Equal settings matter more than the task, and the task more than the device. A run of another
    method, backbone or kind of device, or with a limit, is not comparable."""
    same, other_task = run("bert", tune=60.0), run("bert", task="cola", tune=600.0)
    other_device = replace(
        same,
        environment=replace(same.environment, device="Another"),
        stages=run("bert", tune=6000.0).stages,
    )
    assert minutes([cell("bert", 1)], [other_task, other_device, same]) == [1.5]
    assert minutes([cell("bert", 1)], [other_task, other_device]) == [
        pytest.approx((6000 + 30) / 60)
    ]
    changed = replace(same, spec=replace(same.spec, settings={"epochs": 9}))
    assert minutes([cell("bert", 1)], [other_task, changed]) == [pytest.approx((600 + 30) / 60)]
    assert minutes([cell("pabee", 1)], [same]) == [None]
    assert minutes(
        [cell("bert", 1)],
        [replace(same, environment=replace(same.environment, device_type="cuda"))],
    ) == [None]
    assert minutes(
        [cell("bert", 1)], [replace(same, spec=replace(same.spec, backbone="other"))]
    ) == [None]
    assert minutes([cell("bert", 1)], [replace(same, spec=replace(same.spec, limit=9))]) == [None]
