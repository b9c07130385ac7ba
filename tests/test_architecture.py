"""The rules of the house, checked on the source: who imports whom, what an import may do, and how large things get."""

import ast
import fnmatch
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness.methods import METHODS, MODEL_FORMAT

ROOT = Path(__file__).parents[1]

PACKAGES = ("costeff", "baselines", "harness")
"""A package imports only from itself and from those after it."""

ORDER = (
    "__init__", "errors", "lines", "whole", "typed_json", "toml_files", "records", "trace", "demo", "glue", "reach", "hub", "metric_code",
    "metrics", "own_files", "splits", "tasks", "own_tasks", "leaderboard", "corpus", "rows", "text_rows", "sources", "class_names",
    "shapes", "vocabularies", "backbones", "fetching", "methods", "options", "policies", "soundness", "sweep", "store", "groups", "listing",
    "compare", "rules", "doubts", "tables", "averages", "budget", "differences", "report", "baseline", "regress", "verdicts", "schema",
    "cache", "progress", "model", "batches", "stages", "inference", "answering", "exported", "flops", "latency", "run", "estimate",
    "grid", "live", "export", "submission", "cli_options", "cli_data", "cli_results", "cli_cache", "cli_models", "cli", "__main__",
)  # fmt: skip
"""Inside harness a file imports only from files before it; those before `model` do without torch."""

TORCH_FREE = ORDER[1 : ORDER.index("model")]
HEAVY = "torch transformers datasets pandas"
LAZY = {
    "harness/tables.py": "pandas",
    "harness/metrics.py": "scipy",
    "harness/hub.py": "datasets",
    "harness/metric_code.py": "evaluate",
    "harness/own_files.py": "pyarrow",
}
"""Files that may import a library inside functions; those of the command line (cli*.py) may import anything there."""

FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

LINES_OF_A_FUNCTION, LINES_OF_A_FILE = 60, 400

ALLOWED_AT_THE_TOP = {
    "harness", "baselines", "costeff", "results", "tests", "docs",
    "pyproject.toml", "README.md", "Makefile", "constraints.txt", "LICENSE", "CITATION.cff",
}  # fmt: skip


class Import(NamedTuple):
    module: str
    """The module itself: for `from harness import demo` it is harness.demo."""
    function: str | None
    """The function whose body holds the import."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path))


def modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    parent = "." * node.level + (node.module or "")
    for alias in node.names:
        inner = ROOT / parent.replace(".", "/") / f"{alias.name}.py"
        yield f"{parent}.{alias.name}" if inner.is_file() else parent


def checks_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


@cache
def imports(path: Path) -> list[Import]:
    """Every import of a file but those for type checkers alone."""
    found: list[Import] = []

    def walk(node: ast.AST, function: str | None) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(Import(module, function) for module in modules(node))
        children = node.orelse if isinstance(node, ast.If) and checks_types(node) else list(ast.iter_child_nodes(node))
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        for child in children:
            walk(child, inside)

    walk(parse(path), None)
    return found


def package_of(module: str) -> str:
    return module.partition(".")[0]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


# --- who imports whom


def test_package_imports_only_from_itself_and_those_below_it() -> None:
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in FILES
        for module, _ in imports(path)
        if package_of(module) in (*PACKAGES[: PACKAGES.index(path.parent.name)], "tests", "")
    ]
    assert wrong == []


def test_order_of_harness_names_every_file_once() -> None:
    assert sorted(ORDER) == sorted(path.stem for path in FILES if path.parent.name == "harness")


def test_harness_file_imports_only_from_files_above_it() -> None:
    wrong = []
    for path in (ROOT / "harness" / f"{name}.py" for name in ORDER):
        above = {"harness"} | {f"harness.{name}" for name in ORDER[: ORDER.index(path.stem)]}
        wrong += [f"{path.name} imports {module}" for module, _ in imports(path) if package_of(module) == "harness" and module not in above]
    assert wrong == []


def test_files_of_a_package_do_not_import_each_other_in_circles() -> None:
    waiting = {f"{path.parent.name}.{path.stem}": {module for module, _ in imports(path)} for path in FILES}
    while ready := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in ready:
            del waiting[name]
    assert list(waiting) == []


def test_harness_names_method_modules_only_in_the_table() -> None:
    """Strings such as "baselines.bert:BERT" load what no import shows."""
    named = [
        (path.name, node.value)
        for path in FILES
        for node in ast.walk(parse(path))
        if path.parent.name == "harness" and isinstance(node, ast.Constant) and isinstance(node.value, str)
        if any(f"{package}." in node.value for package in ("baselines", "costeff"))
    ]
    table = [*(entry.target for entry in METHODS.values()), MODEL_FORMAT]
    assert sorted(named) == sorted(("methods.py", target) for target in table)


def test_only_the_command_line_imports_inside_functions() -> None:
    wrong = [
        f"{name_of(path)}: {function} imports {module}"
        for path in FILES
        for module, function in imports(path)
        if function is not None and not path.stem.startswith("cli") and module.split(".")[0] != LAZY.get(name_of(path))
    ]
    assert wrong == []


# --- what an import does


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
    """Groups `NAMES not LIBRARIES`, one after the other, in an empty home and working directory; nothing may be said or written."""
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME"), str(folder))
    environment = os.environ | places | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", WATCH, *groups]
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert list(folder.iterdir()) == []


def test_command_line_loads_almost_nothing(tmp_path: Path) -> None:
    import_in_a_fresh_process(tmp_path, f"harness.cli harness.__main__ not {HEAVY} numpy scipy tokenizers rich tabulate")


def test_files_above_the_model_load_no_heavy_library_and_no_import_says_or_writes_anything(tmp_path: Path) -> None:
    light = [f"harness.{name}" for name in TORCH_FREE]
    rest = [f"{path.parent.name}.{path.stem}" for path in FILES if path.stem not in ("__init__", "__main__")]
    import_in_a_fresh_process(tmp_path, f"{' '.join(light)} not {HEAVY}", f"{' '.join(rest)} not transformers datasets evaluate pandas")


def test_module_level_holds_definitions_alone() -> None:
    """No calls for their effect, no loops, no imports behind a condition."""
    wrong = []
    for path in FILES:
        for node in parse(path).body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            script = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            plain = isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.ClassDef | ast.FunctionDef)
            if not (text or script or plain or checks_types(node)):
                wrong.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


# --- how code is written


def test_no_any_and_no_keyword_bags() -> None:
    wrong = []
    for path in FILES:
        wrong += [f"{name_of(path)}: {node.name} takes **" for node in functions(path) if node.args.kwarg is not None]
        wrong += [f"{name_of(path)}: {module}" for module, _ in imports(path) if module == "typing.Any"]
        for node in ast.walk(parse(path)):
            if (isinstance(node, ast.Name) and node.id == "Any") or (isinstance(node, ast.Attribute) and node.attr == "Any"):
                wrong.append(f"{name_of(path)}:{node.lineno}: Any")
    assert wrong == []


def test_functions_are_short() -> None:
    """Of a command the signature is not counted: it has a parameter for each option."""
    long = {
        f"{name_of(path)}:{node.name}": lines
        for path in FILES
        for node in functions(path)
        if (lines := int(node.end_lineno or 0) - (node.body[0] if node.name.endswith("_command") else node).lineno + 1)
        > LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_files_are_short() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in sizes.items() if lines > LINES_OF_A_FILE} == {}


def test_every_file_says_what_it_is_for() -> None:
    assert [name_of(path) for path in FILES if not ast.get_docstring(parse(path))] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "base", "core", "config", "configs", "misc", "tools"}
    assert [name_of(path) for path in FILES if empty & set(path.relative_to(ROOT).with_suffix("").parts)] == []


# --- the folders


def test_top_level_holds_only_what_the_design_names() -> None:
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    made = {name for name in found if any(fnmatch.fnmatch(name, pattern) for pattern in ignored)}
    assert found - made <= ALLOWED_AT_THE_TOP
    assert {"harness", "baselines", "costeff", "tests", "pyproject.toml", "LICENSE"} <= found


def test_packages_and_tests_are_flat() -> None:
    assert [name_of(path) for path in FILES if path.parent.parent != ROOT] == []
    tests = (ROOT / "tests").rglob("test_*.py")
    assert [name_of(path) for path in tests if path.parent.name not in ("tests", "bench")] == []
