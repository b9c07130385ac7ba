"""The report as csv and json, and between the markers of a file."""

import csv
import io
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from support.synthetic import identified, make_latency, save_bert_and_deebert, single

from harness.__main__ import main
from harness.analysis.comparison import Row
from harness.errors import ExitCode, HarnessError
from harness.records import RunRecord
from harness.report.overview import BEGIN, END, FIGURES, insert, render
from harness.store.results import ResultsStore


@pytest.fixture
def store(store: ResultsStore) -> ResultsStore:
    """bert and deebert, two seeds each: the figures are worked out in test_compare.py."""
    save_bert_and_deebert(store)
    return store


def test_csv_has_one_line_a_row_and_one_column_a_figure(store: ResultsStore) -> None:
    other = replace(single("bert", 1, task="mrpc"), latency=make_latency("bert", 4.0, [1.25]))
    text = render(store, [*store.records()[0], identified(other)], "bert", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    named = {(row["task"], row["method"], row["point"]): row for row in rows}
    points = ["exit 4", "MACs <= 3/4", "MACs <= 1/2", "MACs <= 1/4"]
    constant = ("(constant answer)", "-")
    assert list(named) == [
        ("mrpc", *constant), ("mrpc", "bert", "exit 4"),
        ("rte", *constant), ("rte", "bert", "exit 4"), *(("rte", "deebert", point) for point in points),
    ]  # fmt: skip
    assert float(named["rte", *constant]["scores.accuracy.mean"]) == pytest.approx(0.527)
    row = named["rte", "deebert", "MACs <= 3/4"]
    assert float(row["scores.accuracy.mean"]) == pytest.approx(0.625)
    assert float(row["scores.accuracy.deviation"]) == pytest.approx(0.25 / 2**0.5)
    assert float(row["scores.accuracy.count"]) == 2
    assert float(row["mac_ratio.mean"]) == pytest.approx((8000 / 5000 + 8000 / 3500) / 2)
    assert float(row["layers.mean"]) == pytest.approx(2.125)
    assert row["device"] == "A processor"
    assert row["scores.f1.mean"] == ""
    assert float(named["mrpc", "bert", "exit 4"]["scores.f1.mean"]) == 0.5


def test_csv_has_the_same_columns_whatever_the_runs(store: ResultsStore, tmp_path: Path) -> None:
    def header(records: list[RunRecord], reference: str | None) -> str:
        return render(store, records, reference, "csv").splitlines()[0]

    one, other = header(store.records()[0], "bert"), header([single("pabee", 1, task="mrpc")], None)
    assert one == other
    assert {"rows.train", "scores.pearson.mean", "latency_ratio.deviation", "composed"} <= set(one.split(","))


def test_csv_has_every_figure_of_a_row() -> None:
    own = {"method", "point", "device", "threads", "scores", "parameters", "clock_spread"}
    assert {*own, *FIGURES} == {field.name for field in fields(Row)}


def test_csv_marks_composed_latency_and_gives_the_rows_that_were_there(store: ResultsStore) -> None:
    rows = list(csv.DictReader(io.StringIO(render(store, store.records()[0], "bert", "csv"))))
    assert {(row["point"], row["composed"]) for row in rows if row["method"] == "deebert"} == {
        ("exit 4", "False"), ("MACs <= 3/4", "True"), ("MACs <= 1/2", "True"), ("MACs <= 1/4", "True"),
    }  # fmt: skip
    assert {(row["rows.train"], row["rows.dev"], row["train_rows"]) for row in rows} == {("2000", "40", "")}


def test_csv_without_a_reference_has_empty_ratios(store: ResultsStore) -> None:
    records, alone = store.records()[0], single("pabee", 1)
    alone = identified(replace(alone, environment=replace(alone.environment, precision="bf")))
    rows = list(csv.DictReader(io.StringIO(render(store, [*records, alone], "bert", "csv"))))
    (row,) = [row for row in rows if row["precision"] == "bf" and row["method"] == "pabee"]
    assert (row["retained.mean"], row["mac_ratio.mean"]) == ("", "")
    assert float(row["scores.accuracy.mean"]) == 0.5


def test_json_holds_the_same_figures(store: ResultsStore) -> None:
    records = store.records()[0]
    (comparison,) = json.loads(render(store, records, "bert", "json"))["comparisons"]
    assert comparison["condition"]["task"] == "rte"
    assert comparison["reference"] == "bert"
    assert comparison["constant_scores"] == {"accuracy": 0.527}
    assert sorted(comparison["runs"]) == sorted(record.run_id for record in records)
    row = next(row for row in comparison["rows"] if row["point"] == "MACs <= 3/4")
    assert row["scores"]["accuracy"] == {"mean": pytest.approx(0.625), "deviation": pytest.approx(0.25 / 2**0.5), "count": 2}
    assert comparison["curves"][0]["scores"]["1/8"] is None
    assert len(comparison["exits"]) == 3


def test_the_report_goes_between_the_markers_and_replaces_the_last_one(tmp_path: Path) -> None:
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


def test_all_that_stands_outside_of_the_markers_is_kept_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    before, after = b"Windows\r\nlines \r\n", "\r\nno final line end ä".encode()
    path.write_bytes(before + BEGIN.encode() + b"\r\n" + END.encode() + after)
    insert(path, "text")
    assert path.read_bytes().startswith(before + BEGIN.encode())
    assert path.read_bytes().endswith(END.encode() + after)


@pytest.mark.parametrize("content", ["", "no markers", f"{BEGIN}\nonly", f"{END}\nonly", f"{END}\nin the wrong order\n{BEGIN}"])
def test_a_file_without_the_markers_is_refused_and_stays_as_it_is(content: str, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(HarnessError, match="report: begin") as caught:
        insert(path, "text")
    assert caught.value.exit_code == ExitCode.USER
    assert path.read_text(encoding="utf-8") == content


def test_a_missing_or_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot read"):
        insert(tmp_path / "absent.md", "text")
    with pytest.raises(HarnessError, match="cannot read"):
        insert(tmp_path, "text")
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    with pytest.raises(HarnessError, match=r"latin\.md"):
        insert(tmp_path / "latin.md", "text")


def test_a_damaged_run_leaves_the_file_as_it_is(store: ResultsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report without that run would take the place of one that has it."""
    path = tmp_path / "README.md"
    path.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    words = ["report", "--into", str(path), "--results-dir", str(store.root)]
    assert main(words) == ExitCode.OK
    whole = path.read_text(encoding="utf-8")
    record = next(record for record in store.records()[0] if record.spec.method == "deebert")
    folder = store.folder("rte", "deebert", record.run_id)
    for name in ("trace.selection.npz", "record.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(b"PK torn")
        assert main(words) == ExitCode.INCOMPLETE
        said = capsys.readouterr().err
        assert f"rte/deebert/{record.run_id}" in said
        assert f"{path} stays as it is" in said
        assert path.read_text(encoding="utf-8") == whole
        (folder / name).write_bytes(kept)
    assert main(words) == ExitCode.OK
