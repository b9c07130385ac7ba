"""Where the rows of a task come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """A row as a file holds it."""

    texts: tuple[str, ...]
    """One or two, without the spaces around them."""
    label: str
    line: int
    """Where it stands in its file, from 1."""


@dataclass(frozen=True)
class TsvLayout:
    """Where a task's texts and labels stand in its official files."""

    folder: str
    columns: int
    texts: tuple[int, ...]
    """Columns of the one or two texts, from 0."""
    label: int
    header: tuple[str, ...] | None
    """Names that the first line gives the text columns and the label's; None: the first line is a row."""
    dev: "TsvLayout | None" = None
    """Of the dev files, where it differs from train's."""
    short_rows: bool = False
    """Rows that lack cells are left out, as the hub's copy leaves them out (three in QQP's train file)."""


@dataclass(frozen=True)
class GlueSource:
    """Where a task's rows come from: the folder of its TSV files, or its configuration of the hub's copy."""

    layout: TsvLayout
    columns: tuple[str, ...]
    """Names of the text columns in the hub's copy."""
    rows: tuple[int, ...]
    """How many there are officially: train, dev, and mismatched where there is one."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the TSV files without their ending, in the order of `rows`."""
        return (
            ("train", "dev") if len(self.rows) == 2 else ("train", "dev_matched", "dev_mismatched")
        )

    @property
    def hub_splits(self) -> tuple[str, ...]:
        """What the hub's copy calls them."""
        return tuple(name.replace("dev", "validation") for name in self.files)


@dataclass(frozen=True)
class CustomFiles:
    """Where the rows of a user's own task are."""

    folder: Path
    """Of the task file."""
    train: Path
    dev: Path | None
    dev_share: float | None
    """Without a dev file: the share of train that is dev."""
    texts: tuple[str, ...]
    """Names of the one or two text columns."""
    label: str
    """Name of the label's column."""
