"""How hard the harness is to break: `make campaign`. Minutes, so not part of the tests, which kill one run and race two.

Kills a small demo grid with SIGKILL at random moments, runs it again, and looks whether any finished stage was lost or changed and
whether the final traces are those of an undisturbed run; lets eight processes share one results folder; fills a small file system. Prints
what it did, and ends with 1 when something broke.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GRID = (
    *(
        "run",
        "--methods",
        "bert,deebert,pabee",
        "--tasks",
        "demo",
        "--seeds",
        "1,2",
        "--limit",
        "192",
        "--epochs",
        "2",
    ),
    *("--threads", "1", "--precision", "fp32", "--no-latency", "-q"),
)
CELLS = 12
KILLS, PROCESSES = 30, 8
SLOWEST_S = 600


def command(folder: Path, *more: str) -> list[str]:
    """The grid on folders below this one."""
    where = ("--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache"))
    return [sys.executable, "-m", "harness", *GRID, *where, *more]


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Relative path -> hash of every file that fits."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def traces(folder: Path) -> dict[str, str]:
    """Of all runs."""
    return digests(folder / "results", "*/*/[!.]*/trace*.npz")


def finished_stages(folder: Path) -> dict[str, str]:
    """The files of fitted stages, but for the models of those that no run uses, which may go."""
    found = {
        name: value
        for name, value in digests(folder / "cache" / "stages", "*/**/*").items()
        if "." not in name.split("/")[0]
    }
    used = {name.split("/")[0] for name in found if name.endswith("/wanted")}
    return {
        name: value
        for name, value in found.items()
        if name.split("/")[0] in used or name.endswith("/stage.json")
    }


def finish(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the grid to its end."""
    return subprocess.run(
        command(folder), capture_output=True, text=True, timeout=SLOWEST_S, check=False
    )


def kills(root: Path, wanted: dict[str, str], seconds: float) -> list[str]:
    """Kill at random moments; what broke."""
    generator, broken, folder, done, begun = random.Random(1), [], root / "killed-0", 0, 1
    while done < KILLS:
        before = finished_stages(folder)
        child = subprocess.Popen(
            command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        moment = generator.uniform(1.0, 0.6 * seconds)
        try:
            child.wait(moment)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            done += 1
        else:  # it came to its end: look at it, and begin anew elsewhere
            broken += [f"ended with {child.returncode}"] if child.returncode else []
            broken += ["traces differ"] if traces(folder) != wanted else []
            folder, begun = root / f"killed-{begun}", begun + 1
            continue
        after = finished_stages(folder)
        lost = [name for name, value in before.items() if after.get(name) != value]
        broken += [f"kill {done} after {moment:.1f} s: lost or changed {name}" for name in lost]
    result = finish(folder)
    broken += (
        [f"the last run ended with {result.returncode}: {result.stderr}"]
        if result.returncode
        else []
    )
    broken += ["traces differ from an undisturbed run"] if traces(folder) != wanted else []
    left = [str(path) for path in (folder / "results").rglob(".unfinished-*")]
    print(
        f"kill -9: {done} kills in {begun} grids of {CELLS} cells, {len(left)} folders left unfinished, {len(broken)} things broken"
    )
    return broken


def crowd(root: Path, wanted: dict[str, str]) -> list[str]:
    """Several processes on one results folder and one cache."""
    folder = root / "crowd"
    children = [
        subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    answers = [child.communicate(timeout=SLOWEST_S) for child in children]
    broken = [
        f"ended with {child.returncode}: {said[1]}"
        for child, said in zip(children, answers, strict=True)
        if child.returncode
    ]
    found = traces(folder)
    broken += ["traces differ from an undisturbed run"] if found != wanted else []
    runs = {str(Path(name).parent) for name in found}
    broken += [f"{len(runs)} runs, wanted {CELLS}"] if len(runs) != CELLS else []
    print(
        f"{PROCESSES} processes on one folder: {len(runs)} runs of {CELLS} cells, {len(broken)} things broken"
    )
    return broken


@contextmanager
def small_file_system(folder: Path, megabytes: int) -> Iterator[bool]:
    """A file system of that size on the folder, where we may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


def full_disk(root: Path, wanted: dict[str, str]) -> list[str]:
    """Results on a file system that is too small, then with room."""
    broken = []
    with small_file_system(root / "small", 1) as mounted:
        if not mounted:
            print("full disk: not tried, mounting is not allowed")
            return []
        filler = root / "small" / "filler"
        filler.write_bytes(b"0" * (2**20 - 60_000))
        words = command(root / "full")
        words[words.index("--results-dir") + 1] = str(root / "small" / "results")
        result = subprocess.run(
            words, capture_output=True, text=True, timeout=SLOWEST_S, check=False
        )
        lines = [line for line in result.stderr.splitlines() if "No space left" in line]
        whole = sum(1 for _ in (root / "small" / "results").glob("*/*/*/record.json"))
        half = [
            path
            for path in (root / "small" / "results").glob("*/*/*")
            if not (path / "record.json").is_file()
        ]
        broken += (
            [f"ended with {result.returncode}, wanted 3: {result.stderr}"]
            if result.returncode != 3
            else []
        )
        broken += [f"half-written: {path}" for path in half]
        broken += ["a traceback"] if "Traceback" in result.stderr else []
        filler.unlink()
        again = subprocess.run(
            words, capture_output=True, text=True, timeout=SLOWEST_S, check=False
        )
        broken += (
            [f"with room it ended with {again.returncode}: {again.stderr}"]
            if again.returncode
            else []
        )
        broken += (
            ["traces differ from an undisturbed run"]
            if digests(root / "small" / "results", "*/*/[!.]*/trace*.npz") != wanted
            else []
        )
        said = f"{whole} runs stored, {len(lines)} lines of no space, {len(half)} half-written"
        print(f"full disk: code {result.returncode}, {said}; with room {again.returncode}")
    return broken


def main() -> int:
    """Run the three campaigns."""
    root = Path(tempfile.mkdtemp(prefix="campaign-"))
    os.chdir(root)
    try:
        started = time.perf_counter()
        result = finish(root / "undisturbed")
        seconds = time.perf_counter() - started
        wanted = traces(root / "undisturbed")
        assert not result.returncode, result.stderr
        assert len({str(Path(name).parent) for name in wanted}) == CELLS
        print(f"undisturbed: {CELLS} cells in {seconds:.0f} s")
        broken = kills(root, wanted, seconds) + crowd(root, wanted) + full_disk(root, wanted)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for line in broken:
        print(f"broken: {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
