"""GLUE from the hub: found in its cache or fetched there, and read through `datasets`."""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from harness.data.sources import GlueSource, Row
from harness.errors import HarnessError, first_line
from harness.files.hub import PROBE_S, out_of_reach

REPOSITORY, REVISION = "nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"

SMALLEST = "wnli/validation-00000-of-00001.parquet"
"""Of its files: where it is to be had, so are the others."""

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.parquet$")


def is_cached(config: str, splits: Sequence[str]) -> bool:
    """Whether the hub's cache holds every file of these splits."""
    folder = _cached_folder(config, splits)
    return folder is not None and all(_shards(folder / config, split) for split in splits)


def hub_rows(config: str, source: GlueSource, labels: Sequence[str], split: str) -> list[Row]:
    """The rows of one split, each with the name of its class, or with its number.

    Raises: HarnessError, within seconds, when they are neither cached nor to be had; or when the copy has other columns or classes.
    """
    files = _files(config, source.hub_splits, split)
    try:
        return _read(files, source.columns, labels)
    except (
        Exception
    ) as error:  # what the library raises for a damaged file differs between its versions
        advice = "see to the hub's cache, or give --data-dir"
        raise HarnessError(
            f"{REPOSITORY}: {config} {split} cannot be read: {first_line(error)}; {advice}"
        ) from None


def hub_unlabelled(
    config: str, columns: Sequence[str], split: str
) -> list[tuple[int, tuple[str, ...]]]:
    """The number and the texts of each row of a split whose labels are secret.

    Raises: HarnessError, within seconds, when they are neither cached nor to be had, or the copy has other columns.
    """
    files = _files(config, (split,), split)
    import datasets

    datasets.disable_progress_bars()
    try:
        held = datasets.Dataset.from_parquet([str(file) for file in files])[:]
        texts = zip(*([text.strip() for text in held[column]] for column in columns), strict=True)
        return [(int(index), row) for index, row in zip(held["idx"], texts, strict=True)]
    except Exception as error:  # as in hub_rows
        advice = "see to the hub's cache, or give --data-dir"
        raise HarnessError(
            f"{REPOSITORY}: {config} {split} cannot be read: {first_line(error)}; {advice}"
        ) from None


def _files(config: str, splits: Sequence[str], split: str) -> list[Path]:
    """Those of one of the splits, which are had together.

    Raises: HarnessError when they are neither cached nor to be had.
    """
    folder = (
        _cached_folder(config, splits)
        if is_cached(config, splits)
        else _fetched_folder(config, splits)
    )
    files = _shards(folder / config, split) if folder is not None else []
    if not files:
        raise HarnessError(
            f"{REPOSITORY} at {REVISION[:7]} has no whole {config}/{split}-*.parquet; give --data-dir"
        )
    return files


def _read(files: Sequence[Path], columns: Sequence[str], labels: Sequence[str]) -> list[Row]:
    """Raises: ValueError for other classes; KeyError for a missing column."""
    import datasets  # 1 s to import, for those alone who read from the hub

    datasets.disable_progress_bars()  # what is read lies on the disk already
    table = datasets.Dataset.from_parquet([str(file) for file in files])
    names = list(getattr(table.features["label"], "names", ()))
    if set(names) != set(labels):
        raise ValueError(
            f"classes {', '.join(names) or '(none)'}, wanted {', '.join(labels) or '(none)'}"
        )
    held = table[:]
    if names and min(held["label"]) < 0:
        raise ValueError("a row has no label")
    # a regression's float32 in the fewest digits that say it: 3.8, as the TSV files have it, not 3.7999999523
    said = [names[value] if names else str(np.float32(value)) for value in held["label"]]
    texts = zip(*([text.strip() for text in held[column]] for column in columns), strict=True)
    return [
        Row(row, label, number)
        for number, (row, label) in enumerate(zip(texts, said, strict=True), start=1)
    ]


def _cached_folder(config: str, splits: Sequence[str]) -> Path | None:
    """The cached snapshot, whole or not; None where there is none."""
    with suppress(LocalEntryNotFoundError):
        return Path(_snapshot(config, splits)(local_files_only=True))
    return None


def _fetched_folder(config: str, splits: Sequence[str]) -> Path:
    why = out_of_reach(REPOSITORY, SMALLEST, REVISION, "dataset")
    try:
        if why is None:
            return Path(_snapshot(config, splits)(etag_timeout=PROBE_S))
    except Exception as error:  # the client also lets the errors of its HTTP library through
        why = first_line(error)
    raise HarnessError(
        f"GLUE comes from the hub where no --data-dir is given, and {REPOSITORY} is neither cached nor to be had: {why}; "
        "give --data-dir, a folder of GLUE's TSV files (MRPC/, SST-2/, ...)"
    )


def _snapshot(config: str, splits: Sequence[str]) -> "partial[str]":
    wanted = [f"{config}/{split}-*.parquet" for split in splits]
    return partial(
        snapshot_download, REPOSITORY, repo_type="dataset", revision=REVISION, allow_patterns=wanted
    )


def _shards(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split in their order; none where one is missing."""
    found = {path: _SHARD.search(path.name) for path in sorted(folder.glob(f"{split}-*.parquet"))}
    whole = all(match is not None and int(match[1]) == len(found) for match in found.values())
    return list(found) if whole else []
