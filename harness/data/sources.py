"""Sources of a task's rows: GLUE's files, data sets on the hub, custom files, or code."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from harness.errors import HarnessError


class Row(NamedTuple):
    """A row of a file."""

    texts: tuple[str, ...]
    """One or two texts. Those of GLUE are without surrounding spaces, those of custom tasks are as
    they are written."""
    label: str
    line: int
    """Line number in the file, from 1."""


class RawSplit(NamedTuple):
    """Rows of a split before their labels are checked."""

    split: str
    """Name of the split: train, dev, dev_matched or dev_mismatched."""
    rows: Sequence[Row]
    labels: Sequence[str]
    """Spelling of each class in these rows, in index order; empty for a regression."""
    origin: str
    """File or hub split, for messages."""
    official_rows: int | None = None
    """Official row count; None if there is none."""
    dev_share: float | None = None
    """Share of train that becomes dev; None if dev has rows of its own."""


class Labelled(Protocol):
    """The part of a task that its source needs."""

    @property
    def name(self) -> str:
        """Name of the task."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in index order; empty for a regression."""
        ...

    @property
    def values(self) -> tuple[str, ...]:
        """Spelling of each class in the task's files."""
        ...


class Source(Protocol):
    """Place that the rows of a task are read from."""

    @property
    def texts(self) -> int | None:
        """Number of texts in a row, 1 or 2; None if the description of a task does not tell."""
        ...

    def at(self, data_dir: Path | None) -> "Source":
        """Return the source that is used if GLUE's folder is `data_dir`, or unknown (None)."""
        ...

    def is_local(self) -> bool:
        """Return whether the rows can be read without a download."""
        ...

    def read(self, task: Labelled) -> list[RawSplit]:
        """Read train, dev unless it is a share of train, and any further dev split.

        Raises: HarnessError if the rows are missing or malformed.
        """
        ...


class FixedSource:
    """Base of the sources that do not depend on GLUE's folder."""

    def at(self, data_dir: Path | None) -> Self:
        """Return this source."""
        return self


@dataclass(frozen=True)
class CustomSource(FixedSource, ABC):
    """Base of the sources that a user's task file describes."""

    dev_share: float | None
    """Share of train that becomes dev; None if dev has rows of its own."""
    columns: tuple[str, ...]
    """Names of the one or two text columns."""
    label: str
    """Name of the label column."""

    @property
    def texts(self) -> int:
        """Number of texts in a row, 1 or 2."""
        return len(self.columns)

    @abstractmethod
    def is_local(self) -> bool:
        """Return whether the rows can be read without a download."""

    @abstractmethod
    def read(self, task: Labelled) -> list[RawSplit]:
        """Read train, and dev unless it is a share of train."""


@dataclass(frozen=True)
class Unavailable(FixedSource):
    """Source of a task that is only described, for example by the record of a run."""

    texts: int | None

    def is_local(self) -> bool:
        """Return False: there are no rows."""
        return False

    def read(self, task: Labelled) -> list[RawSplit]:
        """Raise HarnessError: the description does not say where the rows are."""
        raise HarnessError(f"the rows of task {task.name} are not available: give its --task-file")
