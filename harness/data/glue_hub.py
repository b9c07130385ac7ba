"""GLUE's copy on the hub: found in the cache or downloaded, and read through `datasets`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.data.sources import Row
from harness.errors import HarnessError, first_line
from harness.files.hub import cached_files, download_files, has_all_shards

REPOSITORY, REVISION = "nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"

SMALLEST = "wnli/validation-00000-of-00001.parquet"
"""Smallest file, requested to check whether the others can be downloaded."""


def is_cached(config: str, splits: Sequence[str]) -> bool:
    """Return whether the hub's cache holds every file of these splits."""
    return _cached_folder(config, splits) is not None


def hub_rows(
    config: str,
    columns: Sequence[str],
    splits: Sequence[str],
    split: str,
    labels: Sequence[str],
) -> list[Row]:
    """Read one of the splits, each row with the name of its class or its number.

    Raises: HarnessError, within seconds, if the splits are neither cached nor can be downloaded, or
        if the copy has other columns or classes.
    """
    files = _files(config, splits, split)
    try:
        return _read(files, columns, labels)
    # The library's exception for a damaged file differs between its versions.
    except Exception as error:
        raise _unreadable(config, split, error) from None


def hub_unlabelled(
    config: str, columns: Sequence[str], split: str
) -> list[tuple[int, tuple[str, ...]]]:
    """Read the index and the texts of each row of a split without public labels.

    Raises: HarnessError, within seconds, if they are not cached and cannot be downloaded, or if
        the copy has other columns.
    """
    files = _files(config, (split,), split)
    import datasets

    datasets.disable_progress_bars()
    try:
        table = datasets.Dataset.from_parquet([str(file) for file in files])[:]
        return [
            (int(index), row)
            for index, row in zip(table["idx"], _texts(table, columns), strict=True)
        ]
    except Exception as error:  # as in hub_rows
        raise _unreadable(config, split, error) from None


def _unreadable(config: str, split: str, error: Exception) -> HarnessError:
    return HarnessError(
        f"{REPOSITORY}: {config} {split} cannot be read: {first_line(error)}; "
        "check the hub's cache, or give --data-dir"
    )


def _files(config: str, splits: Sequence[str], split: str) -> list[Path]:
    """Return the files of `split`, one of the `splits` that are downloaded together.

    Raises: HarnessError if they are not cached and cannot be downloaded.
    """
    folder = _cached_folder(config, splits) or _downloaded_folder(config, splits)
    files = _shards(folder / config, split)
    if not files:
        raise HarnessError(
            f"{REPOSITORY} at {REVISION[:7]} lacks files {config}/{split}-*.parquet; "
            "give --data-dir"
        )
    return files


def _read(files: Sequence[Path], columns: Sequence[str], labels: Sequence[str]) -> list[Row]:
    """Return the rows of the files.

    Raises: ValueError for other classes; KeyError for a missing column.
    """
    import datasets  # takes 1 s, and so only when it is needed

    datasets.disable_progress_bars()  # the files are local by now
    data = datasets.Dataset.from_parquet([str(file) for file in files])
    names = list(getattr(data.features["label"], "names", ()))
    if set(names) != set(labels):
        raise ValueError(
            f"classes {', '.join(names) or '(none)'}, expected {', '.join(labels) or '(none)'}"
        )
    table = data[:]
    if names and min(table["label"]) < 0:
        raise ValueError("a row has no label")
    # A float32 is written in the fewest digits: 3.8 as in the TSV files, not 3.7999999523.
    written = [names[value] if names else str(np.float32(value)) for value in table["label"]]
    return [
        Row(row, label, number)
        for number, (row, label) in enumerate(
            zip(_texts(table, columns), written, strict=True), start=1
        )
    ]


def _texts(table: Mapping[str, list[str]], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the one or two texts of each row, without surrounding spaces."""
    return zip(*([text.strip() for text in table[column]] for column in columns), strict=True)


def _cached_folder(config: str, splits: Sequence[str]) -> Path | None:
    """Return the cached folder if it holds every file of these splits."""
    folder = cached_files(REPOSITORY, REVISION, _patterns(config, splits))
    complete = folder is not None and all(_shards(folder / config, split) for split in splits)
    return folder if complete else None


def _downloaded_folder(config: str, splits: Sequence[str]) -> Path:
    try:
        return download_files(REPOSITORY, REVISION, _patterns(config, splits), SMALLEST)
    except HarnessError as error:
        raise HarnessError(
            f"GLUE is read from the hub unless --data-dir is given, but {error}; give --data-dir, "
            "a folder of GLUE's TSV files (MRPC/, SST-2/, ...)"
        ) from None


def _patterns(config: str, splits: Sequence[str]) -> list[str]:
    return [f"{config}/{split}-*.parquet" for split in splits]


def _shards(folder: Path, split: str) -> list[Path]:
    """Return the parquet files of a split in order; none if one is missing."""
    found = sorted(folder.glob(f"{split}-*.parquet"))
    return found if has_all_shards(found) else []
