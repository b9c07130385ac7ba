"""GLUE's nine tasks: layout of their official TSV files, their copy on the hub, and row counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.data.sources import FixedSource, Labelled, RawSplit, Row, Source
from harness.errors import HarnessError
from harness.files.text import read_lines


@dataclass(frozen=True)
class TsvLayout:
    """Columns of a task's official files."""

    folder: str
    columns: int
    """Number of columns of every line."""
    texts: tuple[int, ...]
    """Positions of the one or two text columns, from 0."""
    label: int
    """Position of the label column."""
    header: tuple[str, ...] | None
    """Names of the text columns and the label column; None if the files have no header."""
    dev: "TsvLayout | None" = None
    """Layout of the dev files where it differs from that of train."""
    short_rows: bool = False
    """Whether rows that lack cells are skipped, as in the hub's copy (QQP has three)."""


@dataclass(frozen=True)
class GlueFiles(FixedSource):
    """Official TSV files of a GLUE task."""

    layout: TsvLayout
    rows: Mapping[str, int]
    """File name without .tsv -> official row count: train, then the dev files."""
    data_dir: Path

    @property
    def texts(self) -> int:
        """Number of texts in a row, 1 or 2."""
        return len(self.layout.texts)

    def is_local(self) -> bool:
        """Return whether the train file exists."""
        return self._path("train").is_file()

    def read(self, task: Labelled) -> list[RawSplit]:
        """Read all files.

        Raises: HarnessError with file, line and columns if a row does not fit the layout.
        """
        self._check_folder()
        return [self.read_file(task, self._path(name)) for name in self.rows]

    def _check_folder(self) -> None:
        """Raise HarnessError if the task's folder is missing."""
        if (self.data_dir / self.layout.folder).is_dir():
            return
        if not self.data_dir.is_dir():
            raise HarnessError(f"--data-dir {self.data_dir}: there is no such folder")
        folders = [source.layout.folder for source in GLUE.values()]
        present = [name for name in folders if (self.data_dir / name).is_dir()]
        raise HarnessError(
            f"--data-dir {self.data_dir} has no folder {self.layout.folder}, only "
            f"{', '.join(present)}"
            if present
            else f"--data-dir {self.data_dir} has none of GLUE's folders ({', '.join(folders)}): "
            "give their parent"
        )

    def read_file(self, task: Labelled, path: Path) -> RawSplit:
        """Read one file, whose name tells whether it has the layout of train or of dev."""
        layout = self.layout if path.stem == "train" else self.layout.dev or self.layout
        rows = tsv_rows(layout, path)
        return RawSplit(path.stem, rows, task.values, str(path), self.rows.get(path.stem))

    def _path(self, name: str) -> Path:
        return self.data_dir / self.layout.folder / f"{name}.tsv"


@dataclass(frozen=True)
class GlueHub:
    """A GLUE task in the hub's copy, which has the same rows as the official files."""

    config: str
    """Configuration name in the hub's copy."""
    layout: TsvLayout
    """Layout of the official files."""
    columns: tuple[str, ...]
    """Names of the text columns in the hub's copy."""
    counts: tuple[int, ...]
    """Official row counts of train, dev and, for MNLI, the mismatched dev split."""

    @property
    def texts(self) -> int:
        """Number of texts in a row, 1 or 2."""
        return len(self.columns)

    @property
    def rows(self) -> dict[str, int]:
        """File name without .tsv -> official row count: train, then the dev files."""
        mismatched = len(self.counts) > 2
        names = ("train", "dev_matched", "dev_mismatched") if mismatched else ("train", "dev")
        return dict(zip(names, self.counts, strict=True))

    @property
    def hub_splits(self) -> tuple[str, ...]:
        """Names of the same splits in the hub's copy."""
        return tuple(name.replace("dev", "validation") for name in self.rows)

    def at(self, data_dir: Path | None) -> Source:
        """Return the official files in `data_dir`; this source if it is None."""
        return self if data_dir is None else GlueFiles(self.layout, self.rows, data_dir)

    def is_local(self) -> bool:
        """Return whether the hub's cache holds every file."""
        from harness.data.glue_hub import is_cached  # loads the hub's client

        return is_cached(self.config, self.hub_splits)

    def read(self, task: Labelled) -> list[RawSplit]:
        """Read all splits.

        Raises: HarnessError, within seconds, if they are neither cached nor can be downloaded, or
            if the copy has other columns or classes.
        """
        from harness.data.glue_hub import hub_rows  # loads the hub's client

        return [
            RawSplit(
                name,
                hub_rows(self.config, self.columns, self.hub_splits, split, task.labels),
                task.labels,
                f"the hub's {self.config} {split}",
                count,
            )
            for (name, count), split in zip(self.rows.items(), self.hub_splits, strict=True)
        ]


_SENTENCES = ("sentence1", "sentence2")
_QUESTIONS = ("question1", "question2")
_PAIR = (*_SENTENCES, "label")
_MNLI = (*_SENTENCES, "gold_label")

GLUE: dict[str, GlueHub] = {
    source.config: source
    for source in (
        GlueHub("cola", TsvLayout("CoLA", 4, (3,), 1, None), ("sentence",), (8_551, 1_043)),
        GlueHub(
            "sst2",
            TsvLayout("SST-2", 2, (0,), 1, ("sentence", "label")),
            ("sentence",),
            (67_349, 872),
        ),
        GlueHub(
            "mrpc",
            TsvLayout("MRPC", 5, (3, 4), 0, ("#1 String", "#2 String", "Quality")),
            _SENTENCES,
            (3_668, 408),
        ),
        GlueHub(
            "stsb",
            TsvLayout("STS-B", 10, (7, 8), 9, (*_SENTENCES, "score")),
            _SENTENCES,
            (5_749, 1_500),
        ),
        GlueHub(
            "qqp",
            TsvLayout("QQP", 6, (3, 4), 5, (*_QUESTIONS, "is_duplicate"), short_rows=True),
            _QUESTIONS,
            (363_846, 40_430),
        ),
        GlueHub(
            "mnli",
            # The dev files have the labels of five annotators.
            TsvLayout("MNLI", 12, (8, 9), 11, _MNLI, dev=TsvLayout("MNLI", 16, (8, 9), 15, _MNLI)),
            ("premise", "hypothesis"),
            (392_702, 9_815, 9_832),
        ),
        GlueHub(
            "qnli",
            TsvLayout("QNLI", 4, (1, 2), 3, ("question", "sentence", "label")),
            ("question", "sentence"),
            (104_743, 5_463),
        ),
        GlueHub("rte", TsvLayout("RTE", 4, (1, 2), 3, _PAIR), _SENTENCES, (2_490, 277)),
        GlueHub("wnli", TsvLayout("WNLI", 4, (1, 2), 3, _PAIR), _SENTENCES, (635, 71)),
    )
}


def tsv_rows(layout: TsvLayout, path: Path) -> list[Row]:
    """Read an official file.

    It is tab-separated without quoting (the texts hold unbalanced quotes) and may begin with a
    byte-order mark.
    Raises: HarnessError with file, line and columns if a row does not fit the layout.
    """
    rows: list[Row] = []
    for number, line in enumerate(read_lines(path, "; check --data-dir"), start=1):
        if not line:
            continue
        cells = line.split("\t")
        if layout.short_rows and len(cells) < layout.columns and number > 1:
            continue
        if len(cells) != layout.columns:
            raise HarnessError(
                f"{path} line {number}: got {len(cells)} columns, expected {layout.columns}"
            )
        if number == 1 and layout.header is not None:
            _check_header(
                tuple(cells[column] for column in (*layout.texts, layout.label)),
                layout.header,
                path,
            )
            continue
        rows.append(
            Row(
                tuple(cells[column].strip() for column in layout.texts), cells[layout.label], number
            )
        )
    if not rows:
        raise HarnessError(f"{path} has no rows")
    return rows


def _check_header(names: tuple[str, ...], expected: tuple[str, ...], path: Path) -> None:
    """Raise HarnessError if the columns that are read have other names."""
    if names != expected:
        raise HarnessError(
            f"{path} line 1: the text and label columns are named {', '.join(names)}, "
            f"expected {', '.join(expected)}"
        )
