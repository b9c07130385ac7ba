"""Estimates of the time left of a grid and its current cell, under a fake clock."""

from types import SimpleNamespace

import pytest

from harness.methods.planning import PlannedStage
from harness.runs.outlook import LEAST_S, MEASURING_START_S, CellPlan, Outlook

TEACHER = PlannedStage("t", "fine-tune", 1_000)
READ = PlannedStage("r", "read", 0)


def exits(number: int) -> PlannedStage:
    return PlannedStage(f"e{number}", "exits", 2_000)


@pytest.fixture
def clock() -> SimpleNamespace:
    """A clock whose `now` is in seconds."""
    return SimpleNamespace(now=50.0)


@pytest.fixture
def outlook(clock: SimpleNamespace) -> Outlook:
    """A grid of four cells, of which the third is stored."""
    cells = {
        1: CellPlan((TEACHER, READ, exits(1)), 20),
        2: CellPlan((exits(2),), 20),
        4: CellPlan((exits(4),), 20),
    }
    return Outlook(cells, 4, clock=lambda: clock.now)


def fit(outlook: Outlook, clock: SimpleNamespace, key: str, seconds: float) -> str:
    """Fit a stage in this time and return the label of its progress."""
    with outlook.fitting(key, resumed=False) as label:
        clock.now += seconds
    return label


def measure(outlook: Outlook, clock: SimpleNamespace, seconds: float) -> None:
    outlook.start_measuring()
    clock.now += seconds
    outlook.end_cell()


def test_trainings_of_a_cell_are_counted(outlook: Outlook, clock: SimpleNamespace) -> None:
    """Stages that train nothing are not counted."""
    outlook.start_cell(1)
    assert fit(outlook, clock, "t", 10) == "cell 1 of 4, training 1 of 2"
    assert fit(outlook, clock, "r", 1) == "cell 1 of 4"
    assert fit(outlook, clock, "e1", 10) == "cell 1 of 4, training 2 of 2"


def test_first_training_predicts_the_others(outlook: Outlook, clock: SimpleNamespace) -> None:
    """Before a training has ended, its own speed is that of all trainings."""
    outlook.start_cell(1)
    with outlook.fitting("t", resumed=False):
        clock.now += 4
        assert outlook.cell_s(None) is None
        assert outlook.text(None) == ""
        # 1,000 tokens take 4 + 6 s, and so 2,000 tokens take 20 s
        measuring = 20 + MEASURING_START_S
        assert outlook.cell_s(6.0) == pytest.approx(6 + 20 + measuring)
        assert outlook.rest_s(6.0) == pytest.approx(2 * (20 + measuring))
        assert outlook.text(6.0) == "cell 51 s, grid 2 min left"


def test_stage_predicts_others_of_its_name(outlook: Outlook, clock: SimpleNamespace) -> None:
    """Stages of one name have the same speed; measuring takes as long as before."""
    outlook.start_cell(1)
    fit(outlook, clock, "t", 10)
    fit(outlook, clock, "r", 1)
    with outlook.fitting("e1", resumed=False):
        clock.now += 8
        assert outlook.cell_s(None) == pytest.approx(20 - 8 + 20 + MEASURING_START_S)
        clock.now += 32  # twice as slow as the teacher
    measure(outlook, clock, 20 + 9)
    outlook.start_cell(2)
    assert outlook.cell_s() == pytest.approx(40 + 29)
    assert outlook.rest_s() == pytest.approx(40 + 29)


def test_current_task_is_a_lower_bound(outlook: Outlook, clock: SimpleNamespace) -> None:
    """A training that is slower than expected is not reported as finished."""
    outlook.start_cell(2)
    fit(outlook, clock, "e2", 10)
    measure(outlook, clock, 20)
    outlook.start_cell(4)
    with outlook.fitting("e4", resumed=False):
        clock.now += 12
        assert outlook.cell_s(7.0) == pytest.approx(7 + 20)
        assert outlook.text(7.0) == "cell 27 s, grid 27 s left"


def test_measuring_counts_down(outlook: Outlook, clock: SimpleNamespace) -> None:
    outlook.start_cell(2)
    fit(outlook, clock, "e2", 10)
    outlook.start_measuring()
    clock.now += 15
    assert outlook.cell_s() == pytest.approx(20 + MEASURING_START_S - 15)
    clock.now += 100
    assert outlook.cell_s() == LEAST_S


def test_other_keys_take_planned_places(outlook: Outlook, clock: SimpleNamespace) -> None:
    """A stage after a search has another key than in the plan, and is counted nevertheless."""
    outlook.start_cell(1)
    fit(outlook, clock, "t", 10)
    fit(outlook, clock, "r", 0)
    assert fit(outlook, clock, "another key", 20) == "cell 1 of 4, training 2 of 2"
    assert fit(outlook, clock, "one more", 20) == "cell 1 of 4"


def test_single_cell_has_one_time(clock: SimpleNamespace) -> None:
    outlook = Outlook({1: CellPlan((TEACHER,), 0)}, 1, clock=lambda: clock.now)
    outlook.start_cell(1)
    with outlook.fitting("t", resumed=False):
        clock.now += 10
        assert outlook.text(10.0) == "15 s left"


def test_unknown_stages_give_no_estimate(clock: SimpleNamespace) -> None:
    """A cell without a plan has no estimate, and neither has a grid with such a cell to come.

    The time left of the current task is still shown."""
    cells = {1: CellPlan((TEACHER,), 0), 2: CellPlan(None, 0)}
    outlook = Outlook(cells, 2, clock=lambda: clock.now)
    outlook.start_cell(1)
    fit(outlook, clock, "t", 10)
    assert outlook.text(None) == "cell 5 s left"
    assert outlook.rest_s() is None
    outlook.start_cell(2)
    assert (outlook.text(8.0), outlook.text(None)) == ("8 s left", "")


def test_resumed_training_tells_no_speed(outlook: Outlook, clock: SimpleNamespace) -> None:
    """A training that was interrupted takes less than its tokens suggest."""
    outlook.start_cell(1)
    with outlook.fitting("t", resumed=True):
        clock.now += 1
        assert outlook.cell_s(1.0) is None
        clock.now += 1
    with outlook.fitting("e1", resumed=False):
        clock.now += 10
        assert outlook.cell_s(10.0) == pytest.approx(10 + 20 + MEASURING_START_S)


def test_stage_of_another_process_is_left_out(outlook: Outlook, clock: SimpleNamespace) -> None:
    outlook.start_cell(1)
    outlook.found("t")
    assert fit(outlook, clock, "e1", 10) == "cell 1 of 4, training 1 of 1"
