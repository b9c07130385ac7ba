"""Reading GLUE's files: rows are read unchanged, and invalid ones give a one-line error."""

from pathlib import Path

import pytest
from support.command_line import assert_names
from support.glue_files import HEADERS, Row, pairs, read_tsv, write_tsv
from support.synthetic import one_line

from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.errors import HarnessError


@pytest.mark.parametrize(
    ("task", "rows", "labels"),
    [
        ("cola", [(("They drank the pub.",), "0"), (("Bill sang.",), "1")], [0, 1]),
        ("sst2", [(("a gorgeous film",), "1"), (("dull",), "0")], [1, 0]),
        ("mrpc", [(("He said so .", "So he said ."), "1"), (("A", "B"), "0")], [1, 0]),
        ("stsb", [(("A plane.", "An air plane."), "5.000"), (("A", "B"), "0.25")], [5.0, 0.25]),
        ("rte", [(("A", "B"), "not_entailment"), (("C", "D"), "entailment")], [1, 0]),
        ("wnli", [(("A", "B"), "0"), (("C", "D"), "1")], [0, 1]),
    ],
)
def test_glue_files_are_read_with_labels(
    tmp_path: Path, task: str, rows: list[Row], labels: list[float]
) -> None:
    """The rows of each GLUE file are read with their labels."""
    split = read_tsv(task, write_tsv(tmp_path, task, "dev", rows))
    assert split.texts == tuple(texts for texts, _ in rows)
    assert split.labels.tolist() == labels
    assert split.ids.tolist() == [0, 1]


def test_unbalanced_quotes_change_no_text(tmp_path: Path) -> None:
    """Unbalanced quotes alter no text and swallow no row."""
    rows = [
        (('"They said', 'he left "early'), "1"),
        (('"', "''"), "0"),
        (('a "quoted" word', 'half "" of it"'), "1"),
        (("plain", "rows"), "0"),
    ]
    assert read_tsv("mrpc", write_tsv(tmp_path, "mrpc", "dev", rows)).texts == tuple(
        texts for texts, _ in rows
    )


def test_byte_order_mark_is_removed(tmp_path: Path) -> None:
    """A byte-order mark does not become part of the first label."""
    path = tmp_path / "train.tsv"
    path.write_bytes(b"\xef\xbb\xbfgj04\t1\t\tBill sang.\n")
    assert read_tsv("cola", path).texts == (("Bill sang.",),)


def test_sst2_trailing_space_is_removed(tmp_path: Path) -> None:
    """The space at the end of an SST-2 sentence is removed."""
    path = write_tsv(tmp_path, "sst2", "dev", [(("dull",), "0")])
    assert b"dull \t0" in path.read_bytes()
    assert read_tsv("sst2", path).texts == (("dull",),)


@pytest.mark.parametrize(
    ("newline", "end"),
    [
        ("\n", ""),
        ("\n", "\n\n"),
        ("\r\n", "\r\n"),
        ("\r\n", ""),
        ("\r\n", "\r\n\r\n"),
        ("\n\n", "\n"),
    ],
)
def test_line_ends_never_matter(tmp_path: Path, newline: str, end: str) -> None:
    """Line ends and empty lines do not matter."""
    rows = [(("A", "B"), "1.5"), (("C", "D"), "3")]
    split = read_tsv("stsb", write_tsv(tmp_path, "stsb", "dev", rows, newline, end))
    assert split.texts == (("A", "B"), ("C", "D"))
    assert split.labels.tolist() == [1.5, 3.0]


def test_unicode_separators_split_no_row(tmp_path: Path) -> None:
    """Unicode's line separators inside a text do not end the row."""
    text = "one\u2028two\x85three\x0bfour"
    assert read_tsv("cola", write_tsv(tmp_path, "cola", "dev", [((text,), "1")])).texts == (
        (text,),
    )


@pytest.mark.parametrize("task", ["sst2", "mrpc", "stsb", "rte", "wnli"])
def test_wrong_header_is_refused(task: str, tmp_path: Path) -> None:
    """A first line that is a row or another task's header is refused.

    Otherwise a row would be lost, or another column read, without notice."""
    header = HEADERS[task]
    assert header is not None
    path = tmp_path / "train.tsv"
    path.write_text(
        "\t".join(f"cell{index}" for index in range(len(header.split("\t")))) + "\n",
        encoding="utf-8",
    )
    with pytest.raises(HarnessError) as caught:
        read_tsv(task, path)
    layout, names = TASKS[task].source.layout, header.lstrip("\ufeff").split("\t")
    columns = (*layout.texts, layout.label)
    assert_names(
        one_line(caught),
        path,
        1,
        (*(f"cell{column}" for column in columns), *(names[column] for column in columns)),
    )


def test_only_cola_keeps_first_line(tmp_path: Path) -> None:
    """CoLA, which has no header, keeps its first line, and the other tasks drop theirs."""
    for task in HEADERS:
        label = {"stsb": "1.0", "rte": "entailment"}.get(task, "1")
        rows = [(("A", "B")[: len(TASKS[task].source.layout.texts)], label)] * 3
        assert len(read_tsv(task, write_tsv(tmp_path, task, "dev", rows))) == 3


@pytest.mark.parametrize(
    ("line", "got"), [("1\tonly one text\tentailment", 3), ("1\tA\tB\tentailment\tmore", 5)]
)
def test_row_width_error_names_both_widths(tmp_path: Path, line: str, got: int) -> None:
    """The error for a row of another width names file, line and both widths."""
    path = write_tsv(tmp_path, "rte", "train", pairs(2))
    path.write_text(path.read_text() + f"\n{line}\n")
    with pytest.raises(HarnessError) as error:
        read_tsv("rte", path)
    assert_names(one_line(error), path, (5, got, 4))  # header, two rows, an empty line


@pytest.mark.parametrize(
    ("task", "label", "allowed"),
    [
        ("cola", "2", (0, 1)),
        ("cola", "", (0, 1)),
        ("rte", "neutral", ("entailment", "not_entailment")),
        ("stsb", "5.1", (0, 5)),
        ("stsb", "-0.1", (0, 5)),
        ("stsb", "nan", (0, 5)),
        ("stsb", "inf", (0, 5)),
        ("stsb", "high", (0, 5)),
    ],
)
def test_invalid_label_names_allowed_ones(
    tmp_path: Path, task: str, label: str, allowed: tuple[object, ...]
) -> None:
    """The error for an invalid label names file, line, label and the allowed values."""
    texts = ("A", "B")[: len(TASKS[task].source.layout.texts)]
    valid = {"cola": "1", "rte": "entailment", "stsb": "2.5"}[task]
    path = write_tsv(tmp_path, task, "train", [(texts, valid), (texts, label)])
    with pytest.raises(HarnessError) as error:
        read_tsv(task, path)
    number = 2 if task == "cola" else 3
    assert_names(one_line(error), path, (number, *([label] if label else []), *allowed))


def test_missing_file_names_the_option(tmp_path: Path) -> None:
    """The error for a missing file or folder names it and the option."""
    (tmp_path / "SST-2").mkdir()
    missing = {
        tmp_path / "nowhere": ("nowhere", "folder"),
        tmp_path: ("MRPC", "SST-2"),
        tmp_path / "SST-2": ("none", "MRPC", "parent"),
    }
    for folder, names in missing.items():
        with pytest.raises(HarnessError) as error:
            load_data(TASKS["mrpc"], folder)
        assert_names(one_line(error), "--data-dir", folder, *names)
    (tmp_path / "MRPC").mkdir()
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["mrpc"], tmp_path)
    assert_names(one_line(error), tmp_path / "MRPC" / "train.tsv", "--data-dir")


def test_missing_data_folder_names_the_option() -> None:
    """The error for a GLUE task without a folder names the option and the subfolder."""
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["sst2"], None)
    assert_names(one_line(error), "--data-dir", "SST-2/")


def test_file_must_be_utf8(tmp_path: Path) -> None:
    """The error for a file that is not UTF-8 names it."""
    path = tmp_path / "train.tsv"
    path.write_bytes("gj04\t1\t\tcaf\u00e9\n".encode("latin-1"))
    with pytest.raises(HarnessError) as error:
        read_tsv("cola", path)
    assert_names(one_line(error), path, "UTF-8")


@pytest.mark.parametrize("rows", ["", "sentence\tlabel\n", "sentence\tlabel\n\n\n"])
def test_file_without_rows_is_refused(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(rows)
    with pytest.raises(HarnessError) as error:
        read_tsv("sst2", path)
    assert_names(one_line(error), path)
