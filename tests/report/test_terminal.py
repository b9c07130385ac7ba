"""The report on a terminal fits its width and marks the best values."""

import csv
import io
import re
from pathlib import Path

import pandas
import pytest
from support.command_line import RunCli, assert_one_line
from support.synthetic import (
    make_exit,
    make_record,
    random_trace,
    save_bert_and_deebert,
    save_run,
)

from harness.cli import results as commands
from harness.report.overview import render_terminal
from harness.store.results import TRACES, ResultsStore


@pytest.fixture
def store(store: ResultsStore) -> ResultsStore:
    """bert and deebert, two seeds each; tests/analysis/test_comparison.py derives the figures."""
    save_bert_and_deebert(store)
    return store


def shown(store: ResultsStore, width: int, colour: bool = False) -> str:
    return render_terminal(store, store.records()[0], "bert", None, width, colour)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_tables_fit_the_width(store: ResultsStore, width: int) -> None:
    """No line is longer than the terminal, and no figure is cut."""
    text = shown(store, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figure in ("75.0", "87.5", "1.00", "<= 1/2"):
        assert figure in text


def test_wide_tables_show_deviations(store: ResultsStore) -> None:
    assert "75.0 ± 7.1" in shown(store, 140)
    assert "±" not in re.sub(r"\(mean ± sd\)", "", shown(store, 60))


def test_best_values_are_marked(store: ResultsStore) -> None:
    """The best score is marked in colour; without colour there are no control characters."""
    assert "\x1b" not in shown(store, 100)
    coloured = shown(store, 100, colour=True)
    marked = re.findall(r"\x1b\[1;32m([^\x1b]+)\x1b", coloured)
    assert [one.strip() for one in marked] == [
        *["2.00"] * 4, "100.0", "4.00", "~2.00", "2.00",
    ], "the equal numbers of parameters, and the row of the smallest budget"  # fmt: skip


def test_warnings_are_shown(store: ResultsStore) -> None:
    """A warning of the report is shown below its table, without the marks of markdown."""
    record = make_record("pabee", 1, [make_exit(4, {"accuracy": 0.1}, 400.0, 4.0, 4.0)])
    save_run(store, record, {split: random_trace(1, (4,)) for split in TRACES})
    text = shown(store, 100)
    assert "Warning, pabee" in text
    assert "**" not in text


def test_piped_report_is_markdown(store: ResultsStore, run_cli: RunCli) -> None:
    """The default format is a table on a terminal only."""
    where = ("--results-dir", str(store.root))
    assert "| method" in run_cli("report", *where).out
    assert "| method" not in run_cli("report", "--format", "table", *where).out


def test_levels_are_written(store: ResultsStore, run_cli: RunCli, tmp_path: Path) -> None:
    """The same table is csv on standard output and Parquet in a file."""
    where = ("--results-dir", str(store.root))
    rows = list(csv.DictReader(io.StringIO(run_cli("report", "--level", "exit", *where).out)))
    assert {(row["method"], row["layer"]) for row in rows} == {
        ("bert", "4"), ("deebert", "1"), ("deebert", "4"),
    }  # fmt: skip
    out = tmp_path / "exits.parquet"
    words = ("report", "--level", "exit", "--format", "parquet", "--out", str(out), *where)
    assert run_cli(*words).code == 0
    assert pandas.read_parquet(out).layer.tolist() == [int(row["layer"]) for row in rows]
    only = run_cli("report", "--level", "run", "--methods", "bert", *where).out
    assert {row["method"] for row in csv.DictReader(io.StringIO(only))} == {"bert"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--level", "exit", "--format", "json"), ["exit", "csv", "json"]),
        (("--format", "parquet"), ["parquet", "--level"]),
        (("--level", "exit", "--format", "parquet"), ["--out"]),
        (("--level", "exit", "--budget", "10ms"), ["--budget", "--level"]),
        (("--budget", "10ms", "--format", "table"), ["table"]),
        (("--into", "page.md", "--format", "table"), ["--into", "table"]),
    ],
)
def test_formats_must_suit(
    store: ResultsStore, run_cli: RunCli, words: tuple[str, ...], names: list[object]
) -> None:
    assert_one_line(run_cli("report", *words, "--results-dir", str(store.root)), 2, names)


def test_long_report_is_paged(
    store: ResultsStore, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    paged: list[str] = []
    monkeypatch.setattr(commands.click, "echo_via_pager", paged.append)
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert run_cli("report", "--results-dir", str(store.root)).code == 0
    (text,) = paged
    assert "deebert" in text
