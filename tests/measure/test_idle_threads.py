"""Idle threads sleep in training, and wait as the user or the library wants while timing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.stored_runs import record_in

from harness.measure import idle_threads
from harness.measure.idle_threads import (
    POLICY_VARIABLES,
    chosen_policy,
    let_idle_threads_sleep,
    users_environment,
)
from harness.records import LIBRARY_DEFAULT


@pytest.fixture
def before_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_threads, "sys", type("sys", (), {"modules": {}}))


@pytest.mark.usefixtures("before_torch")
def test_threads_sleep_in_training_alone() -> None:
    """The policy is set for this process and withheld from the process that times."""
    environment = {"HOME": "/home/me"}
    let_idle_threads_sleep(environment)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert users_environment(environment) == {"HOME": "/home/me"}


@pytest.mark.usefixtures("before_torch")
@pytest.mark.parametrize("name", POLICY_VARIABLES)
def test_users_policy_is_kept(name: str) -> None:
    environment = {name: "1000"}
    let_idle_threads_sleep(environment)
    assert environment == users_environment(environment) == {name: "1000"}
    assert chosen_policy(environment) == f"{name}=1000"


@pytest.mark.usefixtures("before_torch")
def test_second_command_finds_no_users_policy() -> None:
    """A command started by another one does not take the first one's setting for the user's."""
    environment = {"HOME": "/home/me"}
    let_idle_threads_sleep(environment)
    let_idle_threads_sleep(environment)
    assert users_environment(environment) == {"HOME": "/home/me"}


def test_nothing_is_set_after_torch() -> None:
    """Torch reads the variable when it is imported."""
    environment: dict[str, str] = {}
    let_idle_threads_sleep(environment)
    assert environment == {}


def test_run_sets_the_policy_before_torch() -> None:
    """`harness run` sets the policy before it imports torch, which reads it only then."""
    code = """
import sys
from harness.measure import idle_threads
from harness.__main__ import main

idle_threads.let_idle_threads_sleep = lambda: print("torch" in sys.modules)
main(["run", "--tasks", "no-such-task", "--methods", "bert"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", done


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, LIBRARY_DEFAULT), ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY=ACTIVE")],
)
def test_record_names_wait_policy(tmp_path: Path, variables: dict[str, str], expected: str) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in POLICY_VARIABLES
    }
    words = "run --methods bert --tasks demo-pair --limit 8 --threads 2 --latency-seconds 0.01 -q"
    folders = ["--results-dir", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache")]
    subprocess.run(
        [sys.executable, "-m", "harness", *words.split(), *folders],
        env=environment | variables,
        check=True,
        capture_output=True,
    )
    latency = record_in(tmp_path / "results").latency
    assert latency is not None
    assert latency.wait_policy == expected
