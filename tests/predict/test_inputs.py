"""Files and standard input of examples to predict."""

import io
from pathlib import Path

import pytest
from support.command_line import assert_names
from support.synthetic import one_line

from harness.errors import HarnessError
from harness.predict.inputs import Columns, text_rows


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.txt", "one\ttab\n\ntwo\n", [(1, ("one", "tab")), (3, ("two",))]),
        ("a.tsv", "one\ttwo\r\nthree\n", [(1, ("one", "two")), (2, ("three",))]),
        (
            "a.jsonl",
            '["one", "two"]\n"one"\n{"text": "a", "second": "b", "id": 5}\n',
            [(1, ("one", "two")), (2, ("one",)), (3, ("a", "b"))],
        ),
    ],
)
def test_rows_of_a_file(
    tmp_path: Path, name: str, text: str, rows: list[tuple[int, tuple[str, ...]]]
) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert [row[:2] for row in text_rows(tmp_path / name)] == rows


COLUMNS = Columns(("first", "other"), "same")


@pytest.mark.parametrize(
    ("name", "text", "columns", "rows"),
    [
        (
            "a.csv",
            'same,first,id,other\nyes,"a, b",1,c\n\nno,d,2,e\n',
            COLUMNS,
            [(2, ("a, b", "c"), "yes"), (4, ("d", "e"), "no")],
        ),
        ("a.CSV", "other,first\nb,a\n", COLUMNS, [(2, ("a", "b"), None)]),
        ("a.tsv", " first\tother\tsame\na\tb\tyes\n", COLUMNS, [(2, ("a", "b"), "yes")]),
        ("a.tsv", "a\tb\n", COLUMNS, [(1, ("a", "b"), None)]),
        ("a.jsonl", '{"first": "a", "other": "b", "same": 1}\n', COLUMNS, [(1, ("a", "b"), "1")]),
        ("a.jsonl", '{"text": "a", "second": "b"}\n', COLUMNS, [(1, ("a", "b"), None)]),
        ("a.csv", "text,label\na,yes\nb,\n", None, [(2, ("a",), "yes"), (3, ("b",), None)]),
        ("a.tsv", "text\tlabel\na\tyes\n", None, [(2, ("a",), "yes")]),
        (
            "a.jsonl",
            '{"text": "a", "label": null}\n"b"\n{"text": "c", "label": 2}\n',
            None,
            [(1, ("a",), None), (2, ("b",), None), (3, ("c",), "2")],
        ),
        ("a.csv", "second,text\nb,a\n", None, [(2, ("a",), None)]),
    ],
)
def test_columns_of_the_task_are_read(
    tmp_path: Path,
    name: str,
    text: str,
    columns: Columns | None,
    rows: list[tuple[int, tuple[str, ...], str | None]],
) -> None:
    """Columns are read by name, with labels where there are any; other files as without names."""
    (tmp_path / name).write_bytes(text.encode())
    assert text_rows(tmp_path / name, None, columns) == rows


@pytest.mark.parametrize(
    ("per_row", "rows"),
    [(1, [(1, ("one\ttwo",)), (3, ("three",))]), (2, [(1, ("one", "two")), (3, ("three",))])],
)
def test_rows_of_standard_input(
    monkeypatch: pytest.MonkeyPatch, per_row: int, rows: list[tuple[int, tuple[str, ...]]]
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"one\ttwo\n\nthree\n"))
    monkeypatch.setattr("sys.stdin", stream)
    assert [row[:2] for row in text_rows(Path("-"), per_row)] == rows


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.tsv", b"a\tb\tc\n", [1, 3]),
        ("a.jsonl", b'"a"\n{"second": "b"}\n', [2, "text"]),
        ("a.jsonl", b"[1, 2]\n", [1, "[1, 2]"]),
        ("a.jsonl", b"[]\n", [1, 0]),
        ("a.jsonl", b"[" * 100_000, [1]),
        ("a.txt", b"\n \n", []),
        ("a.txt", b"\xff\n", ["UTF-8"]),
        ("a.csv", b"review\nfine\n", ["review", "text"]),
        ("a.csv", b'text\n"fine\n', [2]),
        ("a.parquet", b"text", ["Parquet"]),
    ],
)
def test_file_of_rows_must_fit(tmp_path: Path, name: str, text: bytes, names: list[object]) -> None:
    """An invalid file of rows gives a one-line error."""
    (tmp_path / name).write_bytes(text)
    with pytest.raises(HarnessError) as caught:
        text_rows(tmp_path / name)
    assert_names(one_line(caught), tmp_path / name, *names)
