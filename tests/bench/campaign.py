"""Stress test of the harness: `make campaign`. It takes minutes, unlike the tests.

It kills a small demo grid with SIGKILL at random moments, runs it again, and checks that no
finished stage was lost or changed and that the final traces equal those of an undisturbed run. It
also lets eight processes share one results folder, and fills a small file system. It prints what
it did, and returns 1 if something broke.
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
    """Return the command that runs the grid with results and cache in this folder."""
    where = ("--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache"))
    return [sys.executable, "-m", "harness", *GRID, *where, *more]


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Return relative path -> hash of every file that matches."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def traces(folder: Path) -> dict[str, str]:
    """Return the hashes of the traces of all runs."""
    return digests(folder / "results", "*/*/[!.]*/trace*.npz")


def finished_stages(folder: Path) -> dict[str, str]:
    """Return hashes of finished stages' files, except unused models, which may be removed."""
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
    """Run the grid to the end."""
    return subprocess.run(
        command(folder), capture_output=True, text=True, timeout=SLOWEST_S, check=False
    )


def kills(root: Path, expected: dict[str, str], seconds: float) -> list[str]:
    """Kill the grid at random moments, and return what broke."""
    generator, broken, folder, done, grids = random.Random(1), [], root / "killed-0", 0, 1
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
        else:  # the grid finished: check it, and start again in another folder
            broken += [f"ended with {child.returncode}"] if child.returncode else []
            broken += ["traces differ"] if traces(folder) != expected else []
            folder, grids = root / f"killed-{grids}", grids + 1
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
    broken += ["traces differ from an undisturbed run"] if traces(folder) != expected else []
    left = [str(path) for path in (folder / "results").rglob(".unfinished-*")]
    print(
        f"kill -9: {done} kills in {grids} grids of {CELLS} cells, "
        f"{len(left)} folders left unfinished, {len(broken)} failures"
    )
    return broken


def crowd(root: Path, expected: dict[str, str]) -> list[str]:
    """Run several processes on one results folder and one cache, and return what broke."""
    folder = root / "crowd"
    children = [
        subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    outputs = [child.communicate(timeout=SLOWEST_S) for child in children]
    broken = [
        f"ended with {child.returncode}: {output[1]}"
        for child, output in zip(children, outputs, strict=True)
        if child.returncode
    ]
    found = traces(folder)
    broken += ["traces differ from an undisturbed run"] if found != expected else []
    runs = {str(Path(name).parent) for name in found}
    broken += [f"{len(runs)} runs, expected {CELLS}"] if len(runs) != CELLS else []
    print(
        f"{PROCESSES} processes on one folder: {len(runs)} runs of {CELLS} cells, "
        f"{len(broken)} failures"
    )
    return broken


@contextmanager
def small_file_system(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount a file system of this size on the folder; yield whether that was allowed."""
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


def full_disk(root: Path, expected: dict[str, str]) -> list[str]:
    """Fill the file system of the results, then make room; return what broke."""
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
        complete = sum(1 for _ in (root / "small" / "results").glob("*/*/*/record.json"))
        half = [
            path
            for path in (root / "small" / "results").glob("*/*/*")
            if not (path / "record.json").is_file()
        ]
        broken += (
            [f"ended with {result.returncode}, expected 3: {result.stderr}"]
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
            if digests(root / "small" / "results", "*/*/[!.]*/trace*.npz") != expected
            else []
        )
        summary = (
            f"{complete} runs stored, {len(lines)} lines of no space, {len(half)} half-written"
        )
        print(f"full disk: code {result.returncode}, {summary}; with room {again.returncode}")
    return broken


def main() -> int:
    """Run the three parts, and return 1 if anything broke."""
    root = Path(tempfile.mkdtemp(prefix="campaign-"))
    os.chdir(root)
    try:
        started = time.perf_counter()
        result = finish(root / "undisturbed")
        seconds = time.perf_counter() - started
        expected = traces(root / "undisturbed")
        assert not result.returncode, result.stderr
        assert len({str(Path(name).parent) for name in expected}) == CELLS
        print(f"undisturbed: {CELLS} cells in {seconds:.0f} s")
        broken = kills(root, expected, seconds) + crowd(root, expected) + full_disk(root, expected)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for line in broken:
        print(f"broken: {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
