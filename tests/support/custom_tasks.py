"""Files of a custom task."""

import csv
from pathlib import Path

from harness.data.custom_tasks import read_task_file
from harness.data.dataset import TaskData
from harness.data.loading import load_data

NFC, NFD = "n\u00e9gatif", "ne\u0301gatif"
"""A name in Unicode's composed and decomposed forms."""

DEFAULT_KEYS = {
    "name": '"reviews"',
    "train": '"train.csv"',
    "dev": '"dev.csv"',
    "text": '"review"',
    "label": '"liked"',
    "labels": '["no", "yes"]',
    "metrics": '"accuracy"',
}


def write_task(folder: Path, changes: dict[str, str | None] | None = None) -> Path:
    """Write a task file with `changes` of its values; None removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {
        key: value for key, value in (DEFAULT_KEYS | (changes or {})).items() if value is not None
    }
    path = folder / "mytask.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in keys.items()), encoding="utf-8")
    return path


def write_csv(
    path: Path, rows: list[tuple[str, str]], names: tuple[str, ...] = ("review", "liked")
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])


def reviews(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [
        (f"review {number}", "yes" if number % 3 else "no")
        for number in range(start, start + count)
    ]


def load(path: Path) -> TaskData:
    """Load the data of a task file."""
    return load_data(read_task_file(path), None)
