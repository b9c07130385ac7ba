"""Files of custom tasks: formats, names in other spellings, mistakes."""

import json
from decimal import Decimal
from pathlib import Path

import pyarrow
import pytest
from pyarrow import Table, parquet
from support.command_line import assert_names
from support.custom_tasks import NFC, NFD, load, reviews, write_csv, write_task
from support.synthetic import one_line

from harness.errors import HarnessError


@pytest.mark.parametrize("extension", ["tsv", "csv", "jsonl", "parquet"])
def test_formats_hold_the_same_rows(tmp_path: Path, extension: str) -> None:
    """Every format gives the same pairs, with commas, quotes and integer labels."""
    rows = [(f'first, "{number}', f"second {number}", number % 3) for number in range(450)]
    names = ("one", "other", "kind")
    path = tmp_path / f"rows.{extension}"
    if extension == "tsv":
        path.write_text("\n".join("\t".join(map(str, row)) for row in (names, *rows)) + "\n")
    elif extension == "csv":
        write_csv(path, [tuple(map(str, row)) for row in rows], names)
    elif extension == "jsonl":
        path.write_text(
            "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows) + "\n\n"
        )
    else:
        parquet.write_table(
            Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]), path
        )
    changes = {
        "train": f'"rows.{extension}"',
        "dev": f'"rows.{extension}"',
        "text": '["one", "other"]',
        "label": '"kind"',
    }
    data = load(
        write_task(
            tmp_path, changes | {"labels": '["low", "middle", "high"]', "values": '["0", "1", "2"]'}
        )
    )
    assert data.dev.texts == tuple(row[:2] for row in rows)
    assert data.dev.labels.tolist() == [row[2] for row in rows]
    assert data.task.labels == ("low", "middle", "high")


def test_cells_may_hold_several_lines(tmp_path: Path) -> None:
    """A cell of several lines is one text, as it is written; spaces around labels are removed."""
    write_csv(tmp_path / "train.csv", [(" two\nlines ", " yes"), *reviews(450)])
    write_csv(tmp_path / "dev.csv", [(" two\nlines ", " yes")])
    data = load(write_task(tmp_path))
    assert data.dev.texts == ((" two\nlines ",),)
    assert data.dev.labels.tolist() == [1]


def decimals(path: Path) -> None:
    labels = pyarrow.array([Decimal(number % 5) / 2 for number in range(500)])
    texts = [text for text, _ in reviews(500)]
    parquet.write_table(Table.from_pydict({"review": texts, "liked": labels}), path)


@pytest.mark.parametrize(
    ("names", "values", "keys"),
    [
        ((" review", "liked "), ("no", "yes"), {}),
        (("review", NFD), ("no", "yes"), {"label": f'"{NFC}"'}),
        (("review", "liked"), (NFD, "yes"), {"labels": f'["{NFC}", "yes"]'}),
        (("review", "liked"), (NFC, "yes"), {"labels": f'["{NFD}", "yes"]'}),
    ],
    ids=["spaces", "column", "label", "task"],
)
@pytest.mark.parametrize("ending", [".csv", ".CSV", ".tsv", ".jsonl", ".parquet"])
def test_names_match_despite_spelling(
    tmp_path: Path,
    names: tuple[str, str],
    values: tuple[str, str],
    keys: dict[str, str | None],
    ending: str,
) -> None:
    """Spaces around a column's name, Unicode's two forms and a suffix's case do not matter."""
    rows = [(text, values[number % 2]) for number, (text, _) in enumerate(reviews(500))]
    path = tmp_path / f"rows{ending}"
    if ending.lower() == ".csv":
        write_csv(path, rows, names)
    elif ending == ".tsv":
        path.write_text("".join("\t".join(row) + "\n" for row in [names, *rows]))
    elif ending == ".jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows]
        path.write_text("".join(lines))
    else:
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(Table.from_pydict(columns), path)
    file = {"train": f'"{path.name}"', "dev": f'"{path.name}"'}
    data = load(write_task(tmp_path, keys | file))
    assert data.dev.labels.tolist() == [0.0, 1.0] * 250


def test_decimal_labels_are_numbers(tmp_path: Path) -> None:
    decimals(tmp_path / "rows.parquet")
    file: dict[str, str | None] = {"train": '"rows.parquet"', "dev": '"rows.parquet"'}
    regression = {"labels": None, "regression": "true", "scale": "2.0", "metrics": '"pearson"'}
    data = load(write_task(tmp_path, file | regression))
    assert sorted(set(data.dev.labels)) == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("label", ["4_0", "1_0.5", "_1", "1e1_0"])
def test_underscores_spell_no_number(tmp_path: Path, label: str) -> None:
    write_csv(tmp_path / "train.csv", [(text, "1.0") for text, _ in reviews(500)])
    write_csv(tmp_path / "dev.csv", [("a text", label)])
    regression = {"labels": None, "regression": "true", "scale": "50.0", "metrics": '"pearson"'}
    with pytest.raises(HarnessError) as caught:
        load(write_task(tmp_path, regression))
    assert_names(one_line(caught), "dev.csv", 2, label)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_long_texts_are_read(tmp_path: Path, ending: str) -> None:
    """A text may exceed the 131,072 characters that the csv library reads by default."""
    rows = [*reviews(500), ("long " * 50_000, "yes")]
    path = tmp_path / f"rows.{ending}"
    if ending == "csv":
        write_csv(path, rows)
    elif ending == "tsv":
        path.write_text("".join("\t".join(row) + "\n" for row in [("review", "liked"), *rows]))
    else:
        lines = [json.dumps(dict(zip(("review", "liked"), row, strict=True))) for row in rows]
        path.write_text("\n".join(lines))
    data = load(write_task(tmp_path, {"train": f'"{path.name}"', "dev": f'"{path.name}"'}))
    assert len(data.dev.texts[-1][0]) == 250_000


ROWS: list[tuple[str, str, list[object]]] = [
    ("train.csv", "review,liked\na,yes\nb,maybe\n", [(3, "maybe", "no", "yes")]),
    ("train.csv", "review,liked\na,yes\nb\n", [(3, 1, 2)]),
    ("train.csv", "review,likd\na,yes\n", [("liked", "likd")]),
    ("train.csv", "review,review,liked\na,b,yes\n", ["review", 2]),
    ("train.csv", 'review,liked\n"a"b,yes\n', [2]),
    ("train.csv", "review,liked\n", []),
    ("train.csv", "", ["review"]),
    ("train.tsv", "review\tliked\na\tb\tyes\n", [(2, 3, 2)]),
    (
        "train.jsonl",
        '{"review": "a", "liked": "yes"}\n{"review": 3, "liked": "yes"}\n',
        [2, "review", 3],
    ),
    ("train.jsonl", '{"review": "a", "liked": null}\n', [1, "liked"]),
    ("train.jsonl", '{"review": "a", "liked": ["yes"]}\n', [1, "liked", "['yes']"]),
    ("train.jsonl", '{"review": "a"}\n', [1, "liked", "review"]),
    ("train.jsonl", '{"review": "a", "liked": true}\n', [(1, "true", "no", "yes")]),
    ("train.jsonl", '{"review": "a",\n', [1, "JSON"]),
    ("train.jsonl", "[1]\n", [1, "[1]"]),
    ("train.parquet", "review,liked\n", ["Parquet"]),
]


@pytest.mark.parametrize(
    ("name", "content", "names"),
    ROWS,
    ids=[f"{name}-{content[:40]!r}" for name, content, _ in ROWS],
)
def test_data_file_mistake_names_the_line(
    folder: Path, name: str, content: str, names: list[object]
) -> None:
    """A mistake in a data file is reported in one line with file and line number."""
    (folder / name).write_text(content)
    with pytest.raises(HarnessError) as error:
        load(write_task(folder, {"train": f'"{name}"'}))
    assert_names(one_line(error), folder / name, *names)


def test_data_must_fit_encoding_and_range(folder: Path) -> None:
    """Files not in UTF-8 and labels outside the range are reported in one line."""
    (folder / "latin.csv").write_bytes("review,liked\ncaf\u00e9,yes\n".encode("latin-1"))
    with pytest.raises(HarnessError) as error:
        load(write_task(folder, {"train": '"latin.csv"'}))
    assert_names(one_line(error), folder / "latin.csv", "UTF-8")
    write_csv(folder / "numbers.csv", [("a", "0.5"), ("b", "-0.5")])
    changes = {
        "train": '"numbers.csv"',
        "labels": None,
        "regression": "true",
        "metrics": '"pearson"',
        "range": "[0.25, 1.0]",
    }
    with pytest.raises(HarnessError) as error:
        load(write_task(folder, changes))
    assert_names(one_line(error), folder / "numbers.csv", (3, "-0.5", 0.25, 1))
