"""The wheel holds the three packages and runs without the source tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.methods.registry import METHODS

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "baselines", "costeff")


@pytest.mark.slow
def test_installed_wheel_runs_outside_the_source(tmp_path: Path) -> None:
    """Every source file is in the wheel, and the installed command lists all methods."""
    source = tmp_path / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target, pip = tmp_path / "target", [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*pip, "install", *options, "--target", target, source], check=True)
    installed = {str(path.relative_to(target)) for path in target.rglob("*.py")}
    assert installed == {
        str(path.relative_to(source)) for name in PACKAGES for path in (source / name).rglob("*.py")
    }
    listed = subprocess.run(
        [sys.executable, "-m", "harness", "list", "methods"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    methods = [line.split()[0] for line in listed.stdout.splitlines()[2:]]
    assert methods[: len(METHODS)] == list(METHODS)
