"""Sources of a task's rows: GLUE's files or their copy on the hub, custom files, or code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.errors import HarnessError


class Row(NamedTuple):
    """A row of a file."""

    texts: tuple[str, ...]
    """One or two texts, without surrounding spaces."""
    label: str
    line: int
    """Line number in the file, from 1."""


class RawSplit(NamedTuple):
    """Rows of a split before their labels are checked."""

    rows: Sequence[Row]
    labels: Sequence[str]
    """Spelling of each class in these rows, in index order; empty for a regression."""
    name: str
    """File or split, named in messages."""


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
    """The place from which the rows of a task are read."""

    @property
    def texts(self) -> int | None:
        """Number of texts in a row, 1 or 2; None if the task's description does not say."""
        ...

    def is_local(self) -> bool:
        """Return whether the rows can be read without a download."""
        ...

    def read(self, task: Labelled) -> list[RawSplit]:
        """Read train, dev, and any further dev split, in this order.

        A custom task without a dev file has only train.
        Raises: HarnessError if the rows are missing or malformed.
        """
        ...


@dataclass(frozen=True)
class Unavailable:
    """Source of a task that is only described, for example by the record of a run."""

    texts: int | None

    def is_local(self) -> bool:
        """Return False: there are no rows."""
        return False

    def read(self, task: Labelled) -> list[RawSplit]:
        """Raise HarnessError: the description does not say where the rows are."""
        raise HarnessError(f"the rows of task {task.name} are not available: give its --task-file")
