"""Choice of runs by task, method and backbone."""

from dataclasses import replace

import pytest
from support.messages import assert_message
from support.synthetic import make_exit, make_record

from harness.analysis.selection import runs_of
from harness.errors import HarnessError
from harness.records import RunRecord


def run(task: str, method: str, backbone: str = "tiny") -> RunRecord:
    record = make_record(method, 1, [make_exit(4, {"accuracy": 0.5}, 1.0, 1.0, 1.0)], task=task)
    return replace(record, spec=replace(record.spec, backbone=backbone))


RUNS = [
    run("sst2", "bert"),
    run("sst2", "pabee"),
    run("demo-pair", "bert"),
    run("sst2", "bert", "minilm"),
    run("mine", "bert"),
]


@pytest.mark.parametrize(
    ("tasks", "methods", "backbones", "kept"),
    [
        (None, None, None, [0, 1, 2, 3, 4]),
        (["sst2"], None, None, [0, 1, 3]),
        (["glue"], None, None, [0, 1, 3]),
        (["demo", "mine"], None, None, [2, 4]),
        (None, ["pabee"], None, [1]),
        (["glue"], ["bert"], ["tiny"], [0]),
        (["demo"], ["pabee"], None, []),
    ],
)
def test_names_narrow_the_runs(
    tasks: list[str] | None,
    methods: list[str] | None,
    backbones: list[str] | None,
    kept: list[int],
) -> None:
    """Tasks, groups, methods and backbones narrow the runs together."""
    assert runs_of(RUNS, tasks, methods, backbones) == [RUNS[index] for index in kept]


@pytest.mark.parametrize(
    ("tasks", "methods", "backbones", "names"),
    [
        (["sst3"], None, None, ["sst3", "sst2"]),
        (["glue", "mrpc"], None, None, ["mrpc"]),
        (None, ["deebert"], None, ["deebert", "bert"]),
        (None, None, ["minlm"], ["minlm", "minilm"]),
    ],
)
def test_names_without_runs_are_refused(
    tasks: list[str] | None,
    methods: list[str] | None,
    backbones: list[str] | None,
    names: list[str],
) -> None:
    with pytest.raises(HarnessError) as caught:
        runs_of(RUNS, tasks, methods, backbones)
    assert_message(caught, *names)
