"""GLUE's nine tasks as their owners and the hub distribute them: files, columns, numbers of rows, and reading the files."""

from pathlib import Path

from harness.data.sources import GlueSource, Row, TsvLayout
from harness.errors import HarnessError
from harness.files.text import lines_of

_SENTENCES = ("sentence1", "sentence2")
_PAIR = (*_SENTENCES, "label")
_MNLI = (*_SENTENCES, "gold_label")

GLUE: dict[str, GlueSource] = {
    "cola": GlueSource(TsvLayout("CoLA", 4, (3,), 1, None), ("sentence",), (8_551, 1_043)),
    "sst2": GlueSource(
        TsvLayout("SST-2", 2, (0,), 1, ("sentence", "label")), ("sentence",), (67_349, 872)
    ),
    "mrpc": GlueSource(
        TsvLayout("MRPC", 5, (3, 4), 0, ("#1 String", "#2 String", "Quality")),
        _SENTENCES,
        (3_668, 408),
    ),
    "stsb": GlueSource(
        TsvLayout("STS-B", 10, (7, 8), 9, (*_SENTENCES, "score")), _SENTENCES, (5_749, 1_500)
    ),
    "qqp": GlueSource(
        TsvLayout("QQP", 6, (3, 4), 5, ("question1", "question2", "is_duplicate"), short_rows=True),
        ("question1", "question2"),
        (363_846, 40_430),
    ),
    "mnli": GlueSource(
        TsvLayout(
            "MNLI", 12, (8, 9), 11, _MNLI, dev=TsvLayout("MNLI", 16, (8, 9), 15, _MNLI)
        ),  # dev has five annotators' labels
        ("premise", "hypothesis"),
        (392_702, 9_815, 9_832),
    ),
    "qnli": GlueSource(
        TsvLayout("QNLI", 4, (1, 2), 3, ("question", "sentence", "label")),
        ("question", "sentence"),
        (104_743, 5_463),
    ),
    "rte": GlueSource(TsvLayout("RTE", 4, (1, 2), 3, _PAIR), _SENTENCES, (2_490, 277)),
    "wnli": GlueSource(TsvLayout("WNLI", 4, (1, 2), 3, _PAIR), _SENTENCES, (635, 71)),
}


def tsv_rows(layout: TsvLayout, path: Path) -> list[Row]:
    """The rows of an official file: tab-separated, no quoting (the texts hold unbalanced quotes), a byte-order mark allowed.

    Raises: HarnessError with file, line and columns when a row does not fit.
    """
    rows: list[Row] = []
    for number, line in enumerate(lines_of(path, "; check --data-dir"), start=1):
        if not line:
            continue
        cells = line.split("\t")
        if layout.short_rows and len(cells) < layout.columns and number > 1:
            continue
        if len(cells) != layout.columns:
            raise HarnessError(
                f"{path} line {number}: got {len(cells)} columns, wanted {layout.columns}"
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


def _check_header(names: tuple[str, ...], wanted: tuple[str, ...], path: Path) -> None:
    """Raises: HarnessError when the columns that are read have other names."""
    if names != wanted:
        raise HarnessError(
            f"{path} line 1: the columns of texts and label are named {', '.join(names)}, wanted {', '.join(wanted)}"
        )
