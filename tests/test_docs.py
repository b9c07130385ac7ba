"""The documentation builds without a warning and covers the Python interface."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.slow
def test_docs_build_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    result = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "html" / "measuring.html").is_file()


def test_pages_cover_the_public_names() -> None:
    """Every public name has its place on the page about Python."""
    documented = re.findall(r"auto\w+:: harness\.(\w+)", (DOCS / "python.md").read_text("utf-8"))
    assert sorted(documented) == harness.__all__


def test_every_page_is_in_the_contents() -> None:
    contents = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {
        path.relative_to(DOCS).with_suffix("").as_posix()
        for path in DOCS.rglob("*.md")
        if "_build" not in path.parts
    }
    listed = set(contents.partition("{toctree}")[2].split()) & pages
    assert listed == pages - {"index"}
