"""Medians of `make bench` as multiples of its yardstick, compared with a saved baseline.

The ratio to the yardstick makes machines comparable. `compare.py RESULTS.json` prints the table;
with `--save` the results become the baseline.
"""

import json
import sys
from pathlib import Path

from tabulate import tabulate

BASELINE = Path(__file__).with_name("baseline.json")
YARDSTICK = "test_yardstick"


def multiples(path: Path) -> dict[str, float]:
    """Return benchmark -> its median over the yardstick's, from pytest-benchmark's JSON."""
    medians = {
        one["name"]: one["stats"]["median"]
        for one in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    }
    return {
        name: median / medians[YARDSTICK] for name, median in medians.items() if name != YARDSTICK
    }


def main(words: list[str]) -> None:
    """Print the table, and save the results with --save."""
    now = multiples(Path(words[0]))
    if "--save" in words:
        BASELINE.write_text(
            json.dumps({name: float(f"{value:.4g}") for name, value in now.items()}, indent=1)
            + "\n",
            encoding="utf-8",
        )
    before: dict[str, float] = (
        json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.is_file() else {}
    )
    rows = [
        [
            name,
            f"{value:.2f}",
            *(
                [f"{before[name]:.2f}", f"{value / before[name]:.2f}"]
                if name in before
                else ["-", "-"]
            ),
        ]
        for name, value in now.items()
    ]
    print(
        tabulate(
            rows,
            ["benchmark", "times the yardstick", "baseline", "now / baseline"],
            disable_numparse=True,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
