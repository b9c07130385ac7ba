"""Data sets of custom tasks on the Hugging Face hub, read through `datasets` without their code."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.custom_files import checked_row, positions_of
from harness.data.sources import CustomSource, Labelled, RawSplit, Row
from harness.errors import HarnessError, first_line
from harness.files.text import same_text

if TYPE_CHECKING:
    from datasets import Dataset

ALWAYS_PRESENT = ".gitattributes"
"""File that every repository has, requested to check whether the others can be downloaded."""

CARD = "README.md"
"""File whose header lists the configurations of a data set and their files."""

BATCH = 1_000
"""Rows that are read at once."""


@dataclass(frozen=True)
class HubData(CustomSource):
    """A data set on the hub, at a fixed revision."""

    repository: str
    """OWNER/NAME."""
    config: str | None
    """Name of the configuration; None if there is only one."""
    revision: str
    """Hash of a commit, so that the rows never change."""
    files: tuple[str, ...] | None
    """Patterns of the files to download; None means all."""
    train: str
    """Name of the split that becomes train."""
    dev: str | None
    """Name of the split that becomes dev."""

    @property
    def splits(self) -> dict[str, str]:
        """The hub's name of train and, unless it is a share of train, of dev."""
        return {"train": self.train} | ({} if self.dev is None else {"dev": self.dev})

    def is_local(self) -> bool:
        """Return whether the hub's cache has the files."""
        return self._cached_folder() is not None

    def read(self, task: Labelled) -> list[RawSplit]:
        """Read train, and dev if it is a split of its own.

        Files that the cache lacks are downloaded.
        Raises: HarnessError, within seconds, if the files are neither cached nor can be downloaded;
            HarnessError that names the data set and the split for an unknown name or a value of
            another kind.
        """
        folder = self._folder()
        return [
            RawSplit(
                split,
                list(self._rows(folder, name, task)),
                task.values,
                self._origin(name),
                dev_share=self.dev_share,
            )
            for split, name in self.splits.items()
        ]

    def _origin(self, split: str) -> str:
        return " ".join(filter(None, (self.repository, self.config, split)))

    def _patterns(self) -> list[str] | None:
        return None if self.files is None else [CARD, *self.files]

    def _folder(self) -> Path:
        """Return the folder of the files, which are downloaded unless the cache has them."""
        from harness.files.hub import download_files  # loads the hub's client

        cached = self._cached_folder()
        if cached is not None:
            return cached
        try:
            return download_files(
                self.repository, self.revision, self._patterns(), probed_file=ALWAYS_PRESENT
            )
        except HarnessError as error:
            raise HarnessError(f"{error} (revision {self.revision[:7]})") from None

    def _cached_folder(self) -> Path | None:
        """Return the cached folder, or None if it is missing or known to be incomplete."""
        from harness.files.hub import cached_files, has_all_shards, lacks_files

        wanted = (self.repository, self.revision, self._patterns())
        folder = cached_files(*wanted)
        if folder is None or lacks_files(*wanted) or not has_all_shards(folder.rglob("*")):
            return None
        return folder

    def _rows(self, folder: Path, split: str, task: Labelled) -> Iterator[Row]:
        origin = self._origin(split)
        data = self._load(folder, split)
        requested = (*self.columns, self.label)
        columns = [data.column_names[i] for i in positions_of(origin, data.column_names, requested)]
        written = _label_writer(data.features[columns[-1]], task.values)
        line = 0
        for batch in data.select_columns(columns).iter(BATCH):
            for *texts, label in zip(*(batch[name] for name in columns), strict=True):
                line += 1
                yield checked_row(origin, line, (*texts, written(label)), requested)
        if not line:
            raise HarnessError(f"{origin} has no rows")

    def _load(self, folder: Path, split: str) -> "Dataset":
        """Return a split, read by the library from these files alone.

        Words such as "NA" in CSV files are texts, not missing values, as in a file of the user's.
        """
        import datasets  # takes 1 s

        datasets.disable_progress_bars()
        path = str(folder)
        try:
            if self.config is None and datasets.get_dataset_default_config_name(path) is None:
                names = datasets.get_dataset_config_names(path)
                raise ValueError(f"config is missing, expected one of {', '.join(names)}")
            config = datasets.load_dataset_builder(path, self.config).config
            _check_inside(folder, config.data_files or {})
            words = {"keep_default_na": False} if hasattr(config, "keep_default_na") else {}
            return datasets.load_dataset(
                path,
                self.config,
                split=split,
                # the card counts the rows of all files
                verification_mode="no_checks" if self.files else "basic_checks",
                **words,
            )
        # The library's exceptions differ between formats of files and between its versions.
        except Exception as error:
            hint = "; do `files` leave out some that it needs?" if self.files else ""
            raise HarnessError(
                f"{self._origin(split)} at {self.revision[:7]} cannot be read: "
                f"{type(error).__name__}: {first_line(error)}{hint}"
            ) from None


def _check_inside(folder: Path, data_files: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError if the card names a file outside the data set, which no revision fixes."""
    for file in (file for files in data_files.values() for file in files):
        if not Path(os.path.normpath(file)).is_relative_to(folder):
            raise ValueError(f"its card names {file}, which is not a file of the data set")


def _label_writer(feature: object, values: Sequence[str]) -> Callable[[object], object]:
    """Return a function that writes a label of this feature as the task file does.

    A class is written by its name, unless the task file's `values` are other numbers: then these
    are the numbers of the classes. A number of 32 bits is written in the fewest digits: 3.8, not
    3.7999999523.
    """
    classes: Sequence[str] = getattr(feature, "names", ())
    names = set(map(same_text, classes))
    by_name = not all(value.isdecimal() and same_text(value) not in names for value in values)

    def written(label: object) -> object:
        if isinstance(label, int) and classes and by_name:
            return classes[label] if label >= 0 else None  # -1 means no label
        if isinstance(label, float) and getattr(feature, "dtype", "") == "float32":
            return float(str(np.float32(label)))
        return label

    return written
