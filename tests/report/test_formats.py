"""The report as csv and json, and inserted into a file."""

import csv
import io
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from support.messages import names_all
from support.synthetic import identified, make_latency, one_line, save_bert_and_deebert, single

from harness.__main__ import main
from harness.analysis.comparison import Row
from harness.cli.results import report_command
from harness.errors import ExitCode, HarnessError
from harness.records import RunRecord
from harness.report.document import MAJORITY_BASELINE
from harness.report.formats import DOCUMENTS
from harness.report.overview import BEGIN, END, insert, render
from harness.report.overview_csv import FIGURES
from harness.store.results import ResultsStore


@pytest.fixture
def store(store: ResultsStore) -> ResultsStore:
    """bert and deebert, two seeds each; tests/analysis/test_comparison.py derives the figures."""
    save_bert_and_deebert(store)
    return store


def test_csv_has_line_per_row(store: ResultsStore) -> None:
    """The csv has one line per row and one column per figure."""
    other = replace(single("bert", 1, task="mrpc"), latency=make_latency("bert", 4.0, [1.25]))
    text = render(store, [*store.records()[0], identified(other)], "bert", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    named = {(row["task"], row["method"], row["point"]): row for row in rows}
    points = ["exit 4", "MACs <= 3/4", "MACs <= 1/2", "MACs <= 1/4"]
    baseline = (MAJORITY_BASELINE, "-")
    assert list(named) == [
        ("mrpc", *baseline), ("mrpc", "bert", "exit 4"),
        ("rte", *baseline), ("rte", "bert", "exit 4"),
        *(("rte", "deebert", point) for point in points),
    ]  # fmt: skip
    assert float(named["rte", *baseline]["scores.accuracy.mean"]) == pytest.approx(0.527)
    row = named["rte", "deebert", "MACs <= 3/4"]
    assert float(row["scores.accuracy.mean"]) == pytest.approx(0.625)
    assert float(row["scores.accuracy.deviation"]) == pytest.approx(0.25 / 2**0.5)
    assert float(row["scores.accuracy.count"]) == 2
    assert float(row["mac_ratio.mean"]) == pytest.approx((8000 / 5000 + 8000 / 3500) / 2)
    assert float(row["layers.mean"]) == pytest.approx(2.125)
    assert row["device"] == "A processor"
    assert row["scores.f1.mean"] == ""
    assert float(named["mrpc", "bert", "exit 4"]["scores.f1.mean"]) == 0.5


def test_csv_columns_never_depend_on_runs(store: ResultsStore, tmp_path: Path) -> None:
    """The csv has the same columns for all runs."""

    def header(records: list[RunRecord], reference: str | None) -> str:
        return render(store, records, reference, "csv").splitlines()[0]

    one, other = header(store.records()[0], "bert"), header([single("pabee", 1, task="mrpc")], None)
    assert one == other
    assert {"rows.train", "scores.pearson.mean", "latency_ratio.deviation", "composed"} <= set(
        one.split(",")
    )


def test_csv_has_every_row_figure() -> None:
    """The csv has every figure of a row, but not the shares of its exits."""
    other = {"method", "point", "device", "threads", "scores", "parameters", "clock_spread"}
    assert {*other, "exit_shares", *FIGURES} == {field.name for field in fields(Row)}


def test_csv_marks_composed_latency(store: ResultsStore) -> None:
    """The csv marks composed latency and gives the sizes of train and dev."""
    rows = list(csv.DictReader(io.StringIO(render(store, store.records()[0], "bert", "csv"))))
    assert {(row["point"], row["composed"]) for row in rows if row["method"] == "deebert"} == {
        ("exit 4", "False"),
        ("MACs <= 3/4", "True"), ("MACs <= 1/2", "True"), ("MACs <= 1/4", "True"),
    }  # fmt: skip
    assert {(row["rows.train"], row["rows.dev"], row["train_rows"]) for row in rows} == {
        ("2000", "40", "")
    }


def test_csv_ratios_need_a_reference(store: ResultsStore) -> None:
    """Without a reference the ratios in the csv are empty."""
    records, alone = store.records()[0], single("pabee", 1)
    alone = identified(replace(alone, environment=replace(alone.environment, precision="bf")))
    rows = list(csv.DictReader(io.StringIO(render(store, [*records, alone], "bert", "csv"))))
    (row,) = [row for row in rows if row["precision"] == "bf" and row["method"] == "pabee"]
    assert (row["retained.mean"], row["mac_ratio.mean"]) == ("", "")
    assert float(row["scores.accuracy.mean"]) == 0.5


def test_json_holds_same_figures(store: ResultsStore) -> None:
    records = store.records()[0]
    (comparison,) = json.loads(render(store, records, "bert", "json"))["comparisons"]
    assert comparison["condition"]["task"] == "rte"
    assert comparison["reference"] == "bert"
    assert comparison["constant_scores"] == {"accuracy": 0.527}
    assert sorted(comparison["runs"]) == sorted(record.run_id for record in records)
    row = next(row for row in comparison["rows"] if row["point"] == "MACs <= 3/4")
    assert row["scores"]["accuracy"] == {
        "mean": pytest.approx(0.625),
        "deviation": pytest.approx(0.25 / 2**0.5),
        "count": 2,
    }
    assert comparison["curves"][0]["scores"]["1/8"] is None
    assert len(comparison["exits"]) == 3


def test_report_replaces_text_between_markers(tmp_path: Path) -> None:
    """The report goes between the markers and replaces the previous one."""
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{BEGIN}\nold | text\n{END}\n\nThe ünd.\n", encoding="utf-8")
    insert(path, "new ± text\n")
    once = path.read_text(encoding="utf-8")
    assert once.startswith(f"# Title\n\n{BEGIN}\n")
    assert once.endswith(f"{END}\n\nThe ünd.\n")
    assert "new ± text" in once
    assert "old" not in once
    insert(path, "new ± text\n")
    assert path.read_text(encoding="utf-8") == once


def test_text_outside_markers_is_kept(tmp_path: Path) -> None:
    """The text outside the markers is kept byte for byte."""
    path = tmp_path / "README.md"
    before, after = b"Windows\r\nlines \r\n", "\r\nno final line end ä".encode()
    path.write_bytes(before + BEGIN.encode() + b"\r\n" + END.encode() + after)
    insert(path, "text")
    assert path.read_bytes().startswith(before + BEGIN.encode())
    assert path.read_bytes().endswith(END.encode() + after)


@pytest.mark.parametrize(
    "content",
    ["", "no markers", f"{BEGIN}\nonly", f"{END}\nonly", f"{END}\nin the wrong order\n{BEGIN}"],
)
def test_file_without_markers_is_refused(content: str, tmp_path: Path) -> None:
    """A file without the markers is refused and left unchanged."""
    path = tmp_path / "README.md"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(HarnessError) as caught:
        insert(path, "text")
    assert caught.value.exit_code == ExitCode.USER
    assert all(name in one_line(caught) for name in (str(path), BEGIN, END))
    assert path.read_text(encoding="utf-8") == content


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    """A missing or unreadable file is refused."""
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    for path in (tmp_path / "absent.md", tmp_path, tmp_path / "latin.md"):
        with pytest.raises(HarnessError) as caught:
            insert(path, "text")
        assert caught.value.exit_code == ExitCode.USER
        assert names_all(one_line(caught), path)


def test_damaged_run_leaves_file_alone(
    store: ResultsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a damaged run the file is left unchanged.

    A report without that run would replace one that has it."""
    path = tmp_path / "README.md"
    path.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    words = ["report", "--into", str(path), "--results-dir", str(store.root)]
    assert main(words) == ExitCode.OK
    complete = path.read_text(encoding="utf-8")
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    folder = store.folder("rte", "deebert", record.run_id)
    for name in ("trace.selection.npz", "record.json"):
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(b"PK torn")
        assert main(words) == ExitCode.INCOMPLETE
        *problems, last = capsys.readouterr().err.splitlines()
        assert names_all(" ".join(problems), f"rte/deebert/{record.run_id}", name)
        assert names_all(last, path)
        assert path.read_text(encoding="utf-8") == complete
        (folder / name).write_bytes(original)
    assert main(words) == ExitCode.OK


def test_command_line_offers_every_format() -> None:
    (option,) = [one for one in report_command.params if one.name == "form"]
    assert set(option.type.choices) == {*DOCUMENTS, "csv", "json", "parquet", "table"}
