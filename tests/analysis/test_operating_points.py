"""Operating points: the exit that each example takes, its score and its cost."""

from dataclasses import replace

import numpy as np
import pytest
from support.synthetic import gap_trace, make_exit, make_record, random_trace

from harness.analysis.operating_points import evaluate, policy_of
from harness.errors import HarnessError
from harness.evaluation.curves import sweep
from harness.evaluation.policies import Patience
from harness.records import RunRecord


def two_exits(policy: str, task: str = "rte") -> RunRecord:
    metric = {"accuracy": 0.5} if task == "rte" else {"pearson": 0.5, "spearman": 0.5}
    return make_record(
        "deebert",
        1,
        [make_exit(layer, metric, 10.0 * layer, 1.0, 1.0) for layer in (1, 4)],
        policy,
        task,
    )


def test_evaluation_computed_by_hand() -> None:
    """The first and the third example have low entropy and take the first exit, where the third is
    wrong."""
    record = two_exits("entropy")
    trace = gap_trace([1, 4], [[0, 0, 1], [1, 1, 0]], [5.0, 0.4, 5.0], [0, 1, 0], length=10)
    reached = evaluate(record, trace, policy_of(record), 0.3)
    assert reached.exits.tolist() == [0, 1, 0]
    assert reached.predictions.tolist() == [0, 1, 1]
    assert reached.scores == {"accuracy": pytest.approx(2 / 3)}
    assert reached.counts == (2, 1)
    assert reached.layers == pytest.approx((1 + 4 + 1) / 3)
    first, last = (record.costs.path(layer - 1, 10) for layer in (1, 4))
    assert reached.macs == pytest.approx((2 * first + last) / 3)
    assert reached.cost(np.array([[1.0, 1.0, 2.0], [7.0, 7.0, 7.0]])) == pytest.approx(10 / 3)


@pytest.mark.parametrize("policy", ["entropy", "confidence"])
def test_evaluation_equals_curve_point(policy: str) -> None:
    record, trace = two_exits(policy), random_trace(3, (1, 4), rows=277)
    reached = evaluate(record, trace, policy_of(record), 0.6)
    curve = sweep(policy_of(record), trace, record.costs, ("accuracy",), np.array([0.6]))
    assert reached.scores["accuracy"] == curve.scores["accuracy"][0]
    assert (reached.macs, reached.layers) == (
        pytest.approx(curve.macs[0]),
        pytest.approx(curve.layers[0]),
    )
    assert list(reached.counts) == curve.left[0].tolist()


def test_policy_settings_come_from_record() -> None:
    record = replace(two_exits("patience", "stsb"), tolerance=0.25)
    assert policy_of(record) == Patience(0.25)


def test_threshold_out_of_range_is_refused() -> None:
    record, trace = two_exits("entropy"), random_trace(3, (1, 4))
    with pytest.raises(HarnessError):
        evaluate(record, trace, policy_of(record), -1.0)
