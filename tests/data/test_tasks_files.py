"""Reading GLUE's files: every row as it stands there, and one line for each that does not fit."""

from pathlib import Path

import pytest
from support.glue_files import HEADERS, Row, pairs, write_tsv
from support.synthetic import one_line

from harness.data.loading import load_data, read_tsv
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
def test_rows_of_each_glue_file_are_read_with_their_labels(tmp_path: Path, task: str, rows: list[Row], labels: list[float]) -> None:
    split = read_tsv(TASKS[task], write_tsv(tmp_path, task, "dev", rows))
    assert split.texts == tuple(texts for texts, _ in rows)
    assert split.labels.tolist() == labels
    assert split.ids.tolist() == [0, 1]


def test_unbalanced_quotes_alter_no_text_and_swallow_no_row(tmp_path: Path) -> None:
    rows = [
        (('"They said', 'he left "early'), "1"),
        (('"', "''"), "0"),
        (('a "quoted" word', 'half "" of it"'), "1"),
        (("plain", "rows"), "0"),
    ]
    assert read_tsv(TASKS["mrpc"], write_tsv(tmp_path, "mrpc", "dev", rows)).texts == tuple(texts for texts, _ in rows)


def test_byte_order_mark_does_not_become_part_of_the_first_label(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(b"\xef\xbb\xbfgj04\t1\t\tBill sang.\n")
    assert read_tsv(TASKS["cola"], path).texts == (("Bill sang.",),)


def test_sst2_space_at_the_end_of_a_sentence_is_no_part_of_it(tmp_path: Path) -> None:
    path = write_tsv(tmp_path, "sst2", "dev", [(("dull",), "0")])
    assert b"dull \t0" in path.read_bytes()
    assert read_tsv(TASKS["sst2"], path).texts == (("dull",),)


@pytest.mark.parametrize(
    ("newline", "end"), [("\n", ""), ("\n", "\n\n"), ("\r\n", "\r\n"), ("\r\n", ""), ("\r\n", "\r\n\r\n"), ("\n\n", "\n")]
)
def test_line_ends_and_empty_lines_do_not_matter(tmp_path: Path, newline: str, end: str) -> None:
    rows = [(("A", "B"), "1.5"), (("C", "D"), "3")]
    split = read_tsv(TASKS["stsb"], write_tsv(tmp_path, "stsb", "dev", rows, newline, end))
    assert split.texts == (("A", "B"), ("C", "D"))
    assert split.labels.tolist() == [1.5, 3.0]


def test_unicode_line_separators_inside_a_text_do_not_end_the_row(tmp_path: Path) -> None:
    text = "one\u2028two\x85three\x0bfour"
    assert read_tsv(TASKS["cola"], write_tsv(tmp_path, "cola", "dev", [((text,), "1")])).texts == ((text,),)


@pytest.mark.parametrize("task", ["sst2", "mrpc", "stsb", "rte", "wnli"])
def test_a_first_line_that_is_a_row_or_of_another_task_is_refused(task: str, tmp_path: Path) -> None:
    """A lost header would cost a row, or read another column, without a word."""
    header = HEADERS[task]
    assert header is not None
    path = tmp_path / "train.tsv"
    path.write_text("\t".join(f"cell{place}" for place in range(len(header.split("\t")))) + "\n", encoding="utf-8")
    with pytest.raises(HarnessError, match=r"line 1: the columns .* are named cell\d, .*wanted ") as caught:
        read_tsv(TASKS[task], path)
    assert str(path) in str(caught.value)


def test_header_less_cola_keeps_its_first_row_and_the_others_drop_their_header(tmp_path: Path) -> None:
    for task in HEADERS:
        label = {"stsb": "1.0", "rte": "entailment"}.get(task, "1")
        rows = [(("A", "B")[: len(TASKS[task].source.layout.texts)], label)] * 3
        assert len(read_tsv(TASKS[task], write_tsv(tmp_path, task, "dev", rows))) == 3


@pytest.mark.parametrize(("line", "got"), [("1\tonly one text\tentailment", 3), ("1\tA\tB\tentailment\tmore", 5)])
def test_row_of_another_width_is_named_with_file_line_and_both_widths(tmp_path: Path, line: str, got: int) -> None:
    path = write_tsv(tmp_path, "rte", "train", pairs(2))
    path.write_text(path.read_text() + f"\n{line}\n")
    with pytest.raises(HarnessError) as error:
        read_tsv(TASKS["rte"], path)
    said = one_line(error)
    assert str(path) in said
    assert "line 5" in said  # header, two rows, an empty line
    assert f"got {got} columns, wanted 4" in said


@pytest.mark.parametrize(
    ("task", "label", "wanted"),
    [
        ("cola", "2", "0, 1"),
        ("cola", "", "0, 1"),
        ("rte", "neutral", "entailment, not_entailment"),
        ("stsb", "5.1", "0 to 5"),
        ("stsb", "-0.1", "0 to 5"),
        ("stsb", "nan", "0 to 5"),
        ("stsb", "inf", "0 to 5"),
        ("stsb", "high", "0 to 5"),
    ],
)
def test_label_that_does_not_belong_to_the_task_is_named_with_what_is_allowed(tmp_path: Path, task: str, label: str, wanted: str) -> None:
    texts = ("A", "B")[: len(TASKS[task].source.layout.texts)]
    good = {"cola": "1", "rte": "entailment", "stsb": "2.5"}[task]
    path = write_tsv(tmp_path, task, "train", [(texts, good), (texts, label)])
    with pytest.raises(HarnessError) as error:
        read_tsv(TASKS[task], path)
    said = one_line(error)
    number = 2 if task == "cola" else 3
    assert str(path) in said
    assert f"line {number}" in said
    assert repr(label) in said
    assert wanted in said


def test_missing_file_names_the_file_and_the_option(tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["mrpc"], tmp_path)
    said = one_line(error)
    assert str(tmp_path / "MRPC" / "train.tsv") in said
    assert "--data-dir" in said


def test_glue_task_without_a_data_folder_names_the_option_and_the_subfolder() -> None:
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["sst2"], None)
    said = one_line(error)
    assert "--data-dir" in said
    assert "SST-2/" in said


def test_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes("gj04\t1\t\tcaf\u00e9\n".encode("latin-1"))
    with pytest.raises(HarnessError) as error:
        read_tsv(TASKS["cola"], path)
    said = one_line(error)
    assert str(path) in said
    assert "UTF-8" in said


@pytest.mark.parametrize("rows", ["", "sentence\tlabel\n", "sentence\tlabel\n\n\n"])
def test_file_without_rows_is_an_error(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(rows)
    with pytest.raises(HarnessError) as error:
        read_tsv(TASKS["sst2"], path)
    assert "no rows" in one_line(error)
