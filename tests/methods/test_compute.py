"""Default number of threads: OMP_NUM_THREADS, affinity and the quotas of control groups."""

import os
from pathlib import Path

import pytest

from harness.methods import compute
from harness.methods.compute import default_threads


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Eight cores, no variable, and control groups in a folder of the test."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(compute, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(compute, "PROCESS", tmp_path / "self")
    for name in ("groups/job/step", "self"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "self" / "cgroup").write_text("0::/job/step\n")
    return tmp_path / "groups"


@pytest.mark.parametrize(
    ("value", "threads"),
    [("3", 3), ("16", 16), ("4,2", 4), (" 2 ", 2), ("0", 8), ("many", 8), ("", 8), ("-1", 8)],
)
def test_omp_num_threads_is_the_default(
    cores: Path, monkeypatch: pytest.MonkeyPatch, value: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert default_threads() == threads


@pytest.mark.parametrize(
    ("quotas", "threads"),
    [
        ({}, 8),
        ({".": "max 100000"}, 8),
        ({".": "200000 100000"}, 2),
        ({".": "250000 100000"}, 3),
        ({".": "10000 100000"}, 1),
        ({"job": "400000 100000", "job/step": "max 100000"}, 4),
        ({"job": "400000 100000", "job/step": "150000 50000"}, 3),
        ({".": "1600000 100000"}, 8),
        ({".": "nonsense"}, 8),
        ({".": "100000 0"}, 8),
    ],
)
def test_smallest_quota_limits_threads(cores: Path, quotas: dict[str, str], threads: int) -> None:
    for group, text in quotas.items():
        (cores / group / "cpu.max").write_text(text + "\n")
    assert default_threads() == threads


def test_missing_control_groups_are_no_limit(cores: Path) -> None:
    (cores.parent / "self" / "cgroup").unlink()
    assert default_threads() == 8
