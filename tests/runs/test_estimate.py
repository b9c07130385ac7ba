"""How long a grid will fit: worked out on paper from runs made by hand."""

from dataclasses import replace

import pytest
import torch
from support.synthetic import make_exit, make_record

from harness.methods.compute import Compute
from harness.records import RunRecord, RunSpec, StageReport, StageUse, Trial
from harness.runs.estimate import fitting_minutes

COMPUTE = Compute(torch.device("cpu"), "float32", threads=2)


def run(method: str, task: str = "rte", seed: int = 1, **stages: float) -> RunRecord:
    """Stage -> seconds, on 2,000 training rows of 20.5 tokens; two learning rates were tried for the last stage: 30 s, and the chosen."""
    uses = tuple(
        StageUse(StageReport(2000, 9, seconds, 0.1, (), 1, name, "c0"), False)
        for name, seconds in stages.items()
    )
    *_, (last, seconds) = stages.items()
    search = (
        Trial(last, "learning_rate", 1.0, 0.5, 30.0, False),
        Trial(last, "learning_rate", 2.0, 0.6, seconds, True),
    )
    made = make_record(method, seed, [make_exit(4, {"accuracy": 0.5}, 1.0, 1.0, 1.0)], task=task)
    return replace(made, stages=uses, search=search)


def asked(method: str, seed: int, task: str = "rte", stored: bool = False) -> tuple[RunSpec, bool]:
    return replace(run(method, task, x=1.0).spec, seed=seed), stored


def minutes(
    cells: list[tuple[RunSpec, bool]], records: list[RunRecord], rte: float = 41_000.0
) -> list[float | None]:
    return fitting_minutes(cells, {"rte": rte, "cola": 20_500.0}, records, COMPUTE, "A processor")


def test_search_is_counted_once() -> None:
    """A search is counted with the first seed, and the chosen rate once.

    Seed 1: 60 s and the other rate's 30. Later seeds: 60 s. Without seed 1 the search fits both
    rates at its own seed: 60 + 90."""
    records = [run("bert", tune=60.0)]
    assert minutes([asked("bert", 1), asked("bert", 2), asked("bert", 3)], records) == [
        1.5,
        1.0,
        1.0,
    ]
    assert minutes([asked("bert", 2)], records) == [2.5]


def test_shared_stage_is_counted_once() -> None:
    """A stage that two methods share is counted once."""
    records = [run("bert", tune=60.0), run("deebert", tune=60.0, exits=12.0)]
    assert minutes([asked("bert", 2), asked("deebert", 2)], records)[1] == pytest.approx(
        (12 + 30 + 12) / 60
    )


def test_stored_cells_leave_their_stages() -> None:
    """Stored cells leave their stages and their search to the others."""
    records = [run("bert", tune=60.0), run("deebert", tune=60.0, exits=12.0)]
    cells = [asked("deebert", 1), asked("bert", 2), asked("bert", 1, stored=True)]
    assert minutes(cells, records) == [pytest.approx((12 + 30) / 60), 1.0]


def test_time_grows_with_training_tokens() -> None:
    """Time grows with the tokens of the training part."""
    assert minutes([asked("bert", 1)], [run("bert", tune=60.0)], rte=3 * 41_000.0) == [4.5]


def test_most_similar_run_counts() -> None:
    """The same task before the same device, the same settings before both; another method or backbone or kind of device never."""
    same, task = run("bert", tune=60.0), run("bert", task="cola", tune=600.0)
    elsewhere = replace(
        same,
        environment=replace(same.environment, device="Another"),
        stages=run("bert", tune=6000.0).stages,
    )
    assert minutes([asked("bert", 1)], [task, elsewhere, same]) == [1.5]
    assert minutes([asked("bert", 1)], [task, elsewhere]) == [pytest.approx((6000 + 30) / 60)]
    changed = replace(same, spec=replace(same.spec, settings={"epochs": 9}))
    assert minutes([asked("bert", 1)], [task, changed]) == [pytest.approx((600 + 30) / 60)]
    assert minutes([asked("pabee", 1)], [same]) == [None]
    assert minutes(
        [asked("bert", 1)],
        [replace(same, environment=replace(same.environment, device_type="cuda"))],
    ) == [None]
    assert minutes(
        [asked("bert", 1)], [replace(same, spec=replace(same.spec, backbone="other"))]
    ) == [None]
    assert minutes([asked("bert", 1)], [replace(same, spec=replace(same.spec, limit=9))]) == [None]
