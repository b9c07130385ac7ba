"""Files of a custom task."""

import csv
from pathlib import Path

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
