"""Architecture of the source: imports between rooms, what imports load, and code size."""

import ast
import fnmatch
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.methods.registry import METHODS, MODEL_FORMAT

ROOT = Path(__file__).parents[1]

PACKAGES = ("costeff", "baselines", "harness")
"""A package imports only from itself and from those after it."""

ROOMS = (
    *(
        "__main__",
        "api",
        "cli",
        "predict",
        "gate",
        "report",
        "runs",
        "analysis",
        "measure",
        "methods",
    ),
    *("store", "models", "data", "evaluation", "files", "progress", "records", "errors"),
)
"""A room of harness (a folder or top-level file) imports only from itself and later rooms."""

WITHOUT_TORCH = (
    "files",
    "evaluation",
    "data",
    "store",
    "analysis",
    "report",
    "gate",
    "records",
    "errors",
    "progress",
)
"""Rooms whose import must not load torch."""

HEAVY = "torch transformers datasets accelerate pandas"

LAZY = {
    "harness/analysis/frames.py": "pandas",
    "harness/report/document.py": "pandas",
    "harness/report/formats.py": "pandas",
    "harness/report/plots.py": "matplotlib",
    "harness/data/glue.py": "harness.data.glue_hub",
    "harness/data/glue_hub.py": "datasets",
    "harness/evaluation/external_metrics.py": "evaluate",
    "harness/data/custom_files.py": "pyarrow",
    "harness/data/hub_data.py": "datasets harness.files.hub",
    "harness/files/typed_json.py": "pydantic pydantic_core",
    "harness/models/tokenizers.py": "transformers",
}
"""Files that may import these libraries inside functions; cli and api may import anything."""

FORBIDDEN = {"predict": ("runs", "gate", "report")}
"""Room -> lower rooms that it must not import, as it does not need them."""

TABLES = {
    "METHODS": "harness/methods/registry.py",
    "TASKS": "harness/data/tasks.py",
    "GROUPS": "harness/data/tasks.py",
    "BACKBONES": "harness/models/backbones.py",
    "POLICIES": "harness/evaluation/policies.py",
}
"""Table -> the only file that reads it; other files use its functions, as plug-ins do."""

FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

LINES_OF_A_FUNCTION, LINES_OF_A_FILE = 70, 460

ALLOWED_AT_TOP_LEVEL = {
    "harness", "baselines", "costeff", "results", "tests", "docs",
    "pyproject.toml", "README.md", "Makefile", "constraints.txt", "LICENSE", "CITATION.cff",
}  # fmt: skip


class Import(NamedTuple):
    module: str
    """Full name of the module: harness.data.demo for `from harness.data import demo`."""
    name: str | None
    """Name imported from the module; None for the module itself."""
    function: str | None
    """Function whose body holds the import."""
    types_only: bool
    """Whether the import is under TYPE_CHECKING."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str:
    """Return the room of a module: data for harness.data.tasks, the lowest for harness itself."""
    return module.split(".")[1] if "." in module else "errors"


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path))


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str | None]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, None) for alias in node.names)
        return
    parent = "." * node.level + (node.module or "")
    for alias in node.names:
        inner = ROOT / parent.replace(".", "/") / alias.name
        is_module = inner.with_suffix(".py").is_file() or inner.is_dir()
        yield (f"{parent}.{alias.name}", None) if is_module else (parent, alias.name)


def checks_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


@cache
def imports(path: Path) -> list[Import]:
    """Return every import of a file."""
    found: list[Import] = []

    def walk(node: ast.AST, function: str | None, types_only: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(
                Import(module, name, function, types_only) for module, name in imported(node)
            )
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        for child in ast.iter_child_nodes(node):
            walk(child, inside, types_only or (checks_types(node) and child in node.body))

    walk(parse(path), None, False)
    return found


def package_of(module: str) -> str:
    return module.partition(".")[0]


def files_of(package: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(ROOT).parts[0] == package]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (
        node
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


# --- imports between packages and rooms


def test_packages_import_downwards() -> None:
    violations = [
        f"{name_of(path)} imports {found.module}"
        for index, package in enumerate(PACKAGES)
        for path in files_of(package)
        for found in imports(path)
        if package_of(found.module) in (*PACKAGES[:index], "tests", "")
    ]
    assert violations == []


def test_rooms_are_those_of_the_plan() -> None:
    assert {room_of(module_of(path)) for path in files_of("harness")} == set(ROOMS)


def test_rooms_import_downwards() -> None:
    violations = [
        f"{name_of(path)} imports {found.module}"
        for path in files_of("harness")
        for found in imports(path)
        if package_of(found.module) == "harness"
        if ROOMS.index(room_of(found.module)) < ROOMS.index(room_of(module_of(path)))
    ]
    assert violations == []


def test_rooms_import_nothing_forbidden() -> None:
    violations = [
        f"{name_of(path)} imports {found.module}"
        for path in files_of("harness")
        for found in imports(path)
        if package_of(found.module) == "harness"
        and room_of(found.module) in FORBIDDEN.get(room_of(module_of(path)), ())
    ]
    assert violations == []


def test_files_have_no_import_cycle() -> None:
    """Imports for type checkers count, too."""
    waiting = {
        module_of(path): {found.module for found in imports(path)} - {module_of(path)}
        for path in FILES
    }
    while ready := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in ready:
            del waiting[name]
    assert list(waiting) == []


def test_only_main_imports_the_command_line() -> None:
    violations = [
        f"{name_of(path)} imports {found.module}"
        for path in FILES
        for found in imports(path)
        if found.module.startswith("harness.cli")
        and name_of(path) != "harness/__main__.py"
        and room_of(module_of(path)) != "cli"
    ]
    assert violations == []


def test_only_the_command_line_imports_click() -> None:
    violations = [
        name_of(path)
        for path in FILES
        for found in imports(path)
        if package_of(found.module) == "click"
        and room_of(module_of(path)) not in ("cli", "__main__")
    ]
    assert violations == []


@pytest.mark.parametrize("table", TABLES)
def test_table_is_read_in_one_file(table: str) -> None:
    """Neither its name nor the attribute of its module occurs elsewhere."""
    readers = {
        name_of(path)
        for path in FILES
        for node in ast.walk(parse(path))
        if (isinstance(node, ast.Name) and node.id == table)
        or (isinstance(node, ast.Attribute) and node.attr == table)
        or (isinstance(node, ast.alias) and node.name == table)
    }
    assert readers == {TABLES[table]}


def test_only_the_table_names_methods() -> None:
    """Strings such as "baselines.bert:BERT" load modules without an import."""
    named = [
        (name_of(path), node.value)
        for path in files_of("harness")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if any(f"{package}." in node.value for package in ("baselines", "costeff"))
    ]
    table = [*(entry.target for entry in METHODS.values()), MODEL_FORMAT]
    assert sorted(named) == sorted(("harness/methods/registry.py", target) for target in table)


def test_only_the_registry_imports_by_name() -> None:
    """A module that is imported by a text would escape the tests of imports."""
    found = {
        name_of(path)
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr)
        in ("import_module", "__import__", "exec", "eval")
        and not (isinstance(node, ast.Attribute) and node.attr == "eval")  # a model's eval()
    }
    assert found == {"harness/methods/registry.py", "harness/__init__.py"}


def test_only_front_doors_import_inside_functions() -> None:
    """The command line and the Python interface load what each function needs."""
    violations = [
        f"{name_of(path)}: {found.function} imports {found.module}"
        for path in FILES
        for found in imports(path)
        if found.function is not None
        if room_of(module_of(path)) not in ("cli", "api")
        and {package_of(found.module), found.module}.isdisjoint(LAZY.get(name_of(path), "").split())
    ]
    assert violations == []


# --- effects of imports


WATCH = """
import importlib, sys
for group in sys.argv[1:]:
    names, _, forbidden = group.partition(" not ")
    for name in names.split():
        importlib.import_module(name)
        loaded = set(forbidden.split()) & set(sys.modules)
        if loaded:
            sys.exit(f"{name} loads {', '.join(sorted(loaded))}")
"""


def import_in_a_fresh_process(folder: Path, *groups: str) -> None:
    """Import groups `NAMES not LIBRARIES` in turn, in an empty home and working directory.

    Nothing may be printed or written.
    """
    folders = dict.fromkeys(
        ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME"), str(folder)
    )
    environment = os.environ | folders | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", WATCH, *groups]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(folder.iterdir()) == []


def test_command_line_loads_almost_nothing(tmp_path: Path) -> None:
    import_in_a_fresh_process(
        tmp_path,
        f"harness harness.cli.app harness.__main__ not {HEAVY} pydantic numpy scipy tokenizers "
        "rich tabulate",
    )


def test_imports_are_light_and_silent(tmp_path: Path) -> None:
    modules = [module_of(path) for path in FILES if path.stem != "__main__"]
    light = [
        module
        for module in modules
        if package_of(module) == "harness" and room_of(module) in WITHOUT_TORCH
    ]
    rest = [module for module in modules if module not in light]
    import_in_a_fresh_process(
        tmp_path,
        f"{' '.join(light)} not {HEAVY}",
        f"{' '.join(rest)} not transformers datasets evaluate pandas",
    )


def test_modules_hold_only_definitions() -> None:
    """Modules have no top-level calls for their effects, loops or conditional imports."""
    violations = []
    for path in FILES:
        for node in parse(path).body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            script = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            definition = isinstance(
                node,
                ast.Import
                | ast.ImportFrom
                | ast.Assign
                | ast.AnnAssign
                | ast.ClassDef
                | ast.FunctionDef,
            )
            if not (text or script or definition or checks_types(node)):
                violations.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}")
    assert violations == []


# --- code style


def test_no_any_and_no_kwargs() -> None:
    violations = []
    for path in FILES:
        violations += [
            f"{name_of(path)}: {node.name} takes **"
            for node in functions(path)
            if node.args.kwarg is not None
        ]
        for node in ast.walk(parse(path)):
            names = (
                getattr(node, "id", None),
                getattr(node, "attr", None),
                node.name if isinstance(node, ast.alias) else None,
            )
            violations += [f"{name_of(path)}: Any"] if "Any" in names else []
    assert violations == []


def test_functions_are_short() -> None:
    """Signatures of commands do not count, as they have a parameter for each option."""
    long = {
        f"{name_of(path)}:{node.name}": lines
        for path in FILES
        for node in functions(path)
        if (
            lines := int(node.end_lineno or 0)
            - (node.body[0] if node.name.endswith("_command") else node).lineno
            + 1
        )
        > LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_files_are_short() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in sizes.items() if lines > LINES_OF_A_FILE} == {}


def test_every_file_has_a_docstring() -> None:
    assert [name_of(path) for path in FILES if not ast.get_docstring(parse(path))] == []


def test_no_module_has_a_vague_name() -> None:
    vague = {
        "utils",
        "util",
        "common",
        "helpers",
        "helper",
        "base",
        "core",
        "config",
        "configs",
        "misc",
        "tools",
    }
    assert [
        name_of(path) for path in FILES if vague & set(path.relative_to(ROOT).with_suffix("").parts)
    ] == []


# --- the folders


def test_top_level_holds_only_allowed_files() -> None:
    ignored = [
        line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ]
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    generated = {
        name for name in found if any(fnmatch.fnmatch(name, pattern) for pattern in ignored)
    }
    assert found - generated <= ALLOWED_AT_TOP_LEVEL
    assert {"harness", "baselines", "costeff", "tests", "pyproject.toml", "LICENSE"} <= found


def test_test_folders_mirror_the_rooms() -> None:
    rooms = {*ROOMS, "bench", "support", "fixtures"}
    folders = {
        path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/*.py")
    }
    assert folders <= rooms | {"baselines", "costeff"}
