"""GLUE's test files as distributed, and the leaderboard's zip file, read back independently."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest
from support.command_line import RunCli, assert_names, assert_one_line
from support.glue_files import PARSES, glue_rows, write_glue
from support.messages import figures, names_all, names_in_order
from support.synthetic import everything_under, one_line

from harness.__main__ import main
from harness.data.glue_hub import REVISION
from harness.data.glue_test import ENTRIES, Entry, read_unlabelled, unlabelled
from harness.data.tasks import GROUPS, TASKS
from harness.errors import HarnessError, IncompleteError
from harness.predict.exported import load
from harness.predict.submission import (
    PredictionFile,
    Submission,
    check_zip,
    leaderboard_words,
    write_zip,
)
from harness.records import RunRecord
from harness.store.results import ResultsStore

HEADERS = {
    "CoLA": "index\tsentence",
    "SST-2": "index\tsentence",
    "MRPC": "\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "STS-B": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2",
    "QQP": "id\tquestion1\tquestion2",
    "MNLI-m": "\t".join([*PARSES, "sentence1", "sentence2"]),
    "MNLI-mm": "\t".join([*PARSES, "sentence1", "sentence2"]),
    "QNLI": "index\tquestion\tsentence",
    "RTE": "index\tsentence1\tsentence2",
    "WNLI": "index\tsentence1\tsentence2",
    "AX": "index\tsentence1\tsentence2",
}
BY_NAME = {entry.name: entry for entry in ENTRIES}
TEXTS = [('the "film was', "it was not"), ("unaffable", "good 'un")]


def write_test(
    folder: Path, entry: Entry, rows: Sequence[tuple[str, ...]] = TEXTS, first: int = 0
) -> Path:
    """Write a test file as it is distributed."""
    names = HEADERS[entry.name].lstrip("\ufeff").split("\t")
    single = len(TASKS[entry.task].source.columns) == 1
    lines = [HEADERS[entry.name]]
    for number, texts in enumerate(rows, start=first):
        cells = [f"{texts[0]} "] if single else ["x"] * (len(names) - 3) + list(texts)
        lines.append("\t".join([str(number), *cells]))
    path = folder / entry.files[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# --- the rows


@pytest.mark.parametrize("name", BY_NAME)
def test_columns_are_found_by_name(tmp_path: Path, name: str) -> None:
    """A test file's columns are found by name."""
    entry = BY_NAME[name]
    write_test(tmp_path, entry, first=7)
    wanted = [texts[: len(TASKS[entry.task].source.columns)] for texts in TEXTS]
    assert unlabelled(entry, tmp_path) == [(7, wanted[0]), (8, wanted[1])]


def test_missing_diagnostic_file_is_left_out(tmp_path: Path) -> None:
    """A missing diagnostic file is left out; other missing files are errors."""
    assert unlabelled(BY_NAME["AX"], tmp_path) is None
    with pytest.raises(HarnessError) as caught:
        unlabelled(BY_NAME["RTE"], tmp_path)
    assert_names(one_line(caught), tmp_path / "RTE" / "test.tsv", "--data-dir")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("index\tsentence\n0\ta\tb\n", [(2, 3, 2)]),
        ("index\ttext\n0\ta\n", [(1, "index, text", "index", "sentence")]),
        ("number\tsentence\n0\ta\n", [(1, "number, sentence", "index")]),
        ("index\tsentence\nzero\ta\n", [2, "index", "zero"]),
        ("index\tsentence\n0\ta\n1\tb\n0\tc\n", [(4, "index", 0, 2)]),
        ("index\tsentence\n0\ta\n1\tb\n00\tc\n", [(4, "index", "00", 2)]),
        ("index\tsentence\n", []),
        ("", [1]),
    ],
)
def test_file_must_fit(tmp_path: Path, text: str, names: list[object]) -> None:
    """An invalid test file gives a one-line error."""
    (tmp_path / "test.tsv").write_text(text)
    with pytest.raises(HarnessError) as caught:
        read_unlabelled(tmp_path / "test.tsv", ("sentence",))
    assert_names(one_line(caught), tmp_path / "test.tsv", *names)


@pytest.mark.parametrize("name", ["CoLA", "MNLI-mm", "STS-B", "AX"])
def test_hub_gives_the_same_test_rows(tmp_path: Path, hub_cache: Path, name: str) -> None:
    entry = BY_NAME[name]
    columns = TASKS[entry.task].source.columns
    held: dict[str, list[object]] = {
        column: [texts[index] for texts in TEXTS] for index, column in enumerate(columns)
    }
    held |= {"label": [-1, -1], "idx": [7, 8]}
    folder = hub_cache / "datasets--nyu-mll--glue" / "snapshots" / REVISION / entry.hub[0]
    folder.mkdir(parents=True)
    datasets.Dataset.from_dict(held).to_parquet(
        str(folder / f"{entry.hub[1]}-00000-of-00001.parquet")
    )
    write_test(tmp_path, entry, first=7)
    assert unlabelled(entry, None) == unlabelled(entry, tmp_path)


def test_unreachable_hub_rows_are_one_line(hub_cache: Path) -> None:
    """Test rows that cannot be downloaded give a one-line error."""
    with pytest.raises(HarnessError) as caught:
        unlabelled(BY_NAME["RTE"], None)
    assert_names(one_line(caught), "nyu-mll/glue", "--data-dir")
    assert unlabelled(BY_NAME["AX"], None) is None


# --- label values and the zip file


def test_predictions_use_leaderboard_labels() -> None:
    """Predictions are written with the leaderboard's label values."""
    logits = np.array([[0.9, 0.1], [0.2, 0.3]], dtype=np.float32)
    words = {
        task: leaderboard_words(TASKS[task], logits)
        for task in ("cola", "sst2", "mrpc", "qqp", "wnli", "rte", "qnli")
    }
    assert {words[task] for task in ("cola", "sst2", "mrpc", "qqp", "wnli")} == {("0", "1")}
    assert words["rte"] == words["qnli"] == ("entailment", "not_entailment")
    assert leaderboard_words(TASKS["mnli"], np.eye(3, dtype=np.float32)) == (
        "entailment",
        "neutral",
        "contradiction",
    )
    values = np.array([[-0.2], [5.4], [3.14159], [0.0004]], dtype=np.float32)
    assert leaderboard_words(TASKS["stsb"], values) == ("0.000", "5.000", "3.142", "0.000")


def test_written_zip_is_read_back(tmp_path: Path) -> None:
    """A written zip holds what the leaderboard reads."""
    files = [
        PredictionFile(BY_NAME["RTE"], (0, 1), ("entailment", "not_entailment")),
        PredictionFile(BY_NAME["STS-B"], (3,), ("4.250",)),
    ]
    write_zip(tmp_path / "below" / "it.zip", files)
    with zipfile.ZipFile(tmp_path / "below" / "it.zip") as archive:
        assert archive.namelist() == ["RTE.tsv", "STS-B.tsv"]
        assert archive.read("RTE.tsv") == b"index\tprediction\n0\tentailment\n1\tnot_entailment\n"
        assert archive.read("STS-B.tsv") == b"index\tprediction\n3\t4.250\n"
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["it.zip"]


@pytest.mark.parametrize(
    "files",
    [
        [PredictionFile(BY_NAME["RTE"], (0,), ("0",))],
        [PredictionFile(BY_NAME["CoLA"], (0,), ("acceptable",))],
        [PredictionFile(BY_NAME["STS-B"], (0,), ("5.001",))],
        [PredictionFile(BY_NAME["STS-B"], (0,), ("nan",))],
        [PredictionFile(BY_NAME["STS-B"], (0,), ("1.0\n1\t2.0",))],
    ],
)
def test_refused_submission_replaces_no_file(tmp_path: Path, files: list[PredictionFile]) -> None:
    """A submission that the leaderboard would refuse replaces no file."""
    (tmp_path / "it.zip").write_text("the last one")
    with pytest.raises(IncompleteError) as caught:
        write_zip(tmp_path / "it.zip", files)
    assert_names(one_line(caught), f"{files[0].entry.name}.tsv")
    assert everything_under(tmp_path) == {"it.zip": b"the last one"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"RTE.tsv": "index\tprediction\n0\tentailment\n", "more.tsv": ""}, ["more.tsv"]),
        ({"../RTE.tsv": "index\tprediction\n0\tentailment\n"}, ["../RTE.tsv"]),
        ({"RTE.tsv": "index,prediction\n0\tentailment\n"}, ["index,prediction"]),
        ({"RTE.tsv": "index\tprediction\n"}, ["RTE.tsv", (0, 1)]),
        ({"RTE.tsv": "index\tprediction\n1\tentailment\n"}, ["RTE.tsv", 0]),
    ],
)
def test_altered_zip_is_refused(tmp_path: Path, files: dict[str, str], names: list[object]) -> None:
    """A zip that differs from what was written is refused."""
    with zipfile.ZipFile(tmp_path / "it.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    with pytest.raises(IncompleteError) as caught:
        check_zip(tmp_path / "it.zip", {"RTE": [0]})
    assert_names(one_line(caught), *names)


def test_moved_values_are_counted() -> None:
    """A file with predictions outside the labels' range is named with their number."""
    entry = next(entry for entry in ENTRIES if entry.task == "stsb")
    files = [PredictionFile(entry, (0, 1, 2), ("0.000",) * 3, clipped) for clipped in (2, 0)]
    (line,) = Submission(files, []).clipped()
    assert names_in_order(line, entry.name, 2, 3)


def test_submission_needs_all_files_and_rows() -> None:
    """A submission is complete with every file and the official number of rows."""
    files = [
        PredictionFile(entry, tuple(range(entry.rows)), ("entailment",) * entry.rows)
        for entry in ENTRIES
    ]
    assert Submission(files, []).problems() == []
    (reason,) = Submission(files[:-1], [ENTRIES[-1]]).problems()
    assert [entry.name for entry in ENTRIES if names_all(reason, entry.name)] == [ENTRIES[-1].name]
    (reason,) = Submission([files[0]._replace(words=files[0].words[1:]), *files[1:]], []).problems()
    assert_names(reason, files[0].entry.name)
    assert figures(reason) == [files[0].entry.rows - 1, files[0].entry.rows]


def test_every_glue_task_has_its_file() -> None:
    assert {entry.task for entry in ENTRIES} == set(GROUPS["glue"])


# --- the command


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store runs on RTE, STS-B and MNLI with few rows, and write the test files."""
    folder = tmp_path_factory.mktemp("done")
    for task in ("rte", "stsb", "mnli"):
        for name in TASKS[task].source.rows:
            write_glue(
                folder / "glue",
                task,
                name,
                glue_rows(task, 0 if name == "train" else 1_000, 450 if name == "train" else 12),
            )
    for name in ("RTE", "STS-B", "MNLI-m", "MNLI-mm", "AX"):
        write_test(
            folder / "glue",
            BY_NAME[name],
            [(f"the film {number}", f"it was {number * 'not '}") for number in range(20)],
        )
    words = "--methods deebert --tasks rte,stsb,mnli --limit 32 --epochs 1 --precision fp32"
    assert main(["run", *words.split(), "--no-latency", "-q", *folders(folder)]) == 0
    return folder


def runs(done: Path) -> dict[str, RunRecord]:
    return {record.spec.task: record for record in ResultsStore(done / "results").records()[0]}


def folders(done: Path) -> list[str]:
    return [
        "--data-dir",
        str(done / "glue"),
        "--results-dir",
        str(done / "results"),
        "--cache-dir",
        str(done / "cache"),
        "--threads",
        "1",
    ]


def read_zip(path: Path) -> dict[str, list[list[str]]]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        return {
            name: [line.split("\t") for line in archive.read(name).decode().splitlines()]
            for name in archive.namelist()
        }


def test_submission_is_made_of_runs(run_cli: RunCli, done: Path, tmp_path: Path) -> None:
    """Runs become a submission, and missing files are named."""
    ids = [record.short_id for record in runs(done).values()]
    result = run_cli("submit", *ids, "--out", str(tmp_path / "it.zip"), "-q", *folders(done))
    assert result.code == 3
    *short, missing = [[word.strip(":,;.") for word in line.split()] for line in result.lines]
    moved = [line for line in short if "range" in line]  # of a model that hardly trained
    short = [line for line in short if line not in moved]
    assert {word for line in moved for word in line if word in BY_NAME} <= {"STS-B"}
    assert [word for word in missing if word in BY_NAME] == [
        "CoLA",
        "SST-2",
        "MRPC",
        "QQP",
        "QNLI",
        "WNLI",
    ]
    assert [word for line in short for word in line if word in BY_NAME] == [
        "STS-B",
        "MNLI-m",
        "MNLI-mm",
        "RTE",
        "AX",
    ]  # of 20 rows each
    found = read_zip(tmp_path / "it.zip")
    assert list(found) == ["STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv", "AX.tsv"]
    for lines in found.values():
        assert lines[0] == ["index", "prediction"]
        assert [int(number) for number, _ in lines[1:]] == list(range(20))
    assert {word for _, word in found["RTE.tsv"][1:]} <= {"entailment", "not_entailment"}
    assert {word for _, word in found["AX.tsv"][1:]} <= {"entailment", "neutral", "contradiction"}
    assert all(0 <= float(word) <= 5 and len(word) == 5 for _, word in found["STS-B.tsv"][1:])
    assert found["MNLI-m.tsv"] == found["MNLI-mm.tsv"] == found["AX.tsv"]  # the same texts here


def test_other_test_row_numbers_are_named(run_cli: RunCli, done: Path, tmp_path: Path) -> None:
    """A wrong number of test rows is named along with the official one."""
    result = run_cli(
        "submit", runs(done)["rte"].run_id, "--out", str(tmp_path / "it.zip"), *folders(done)
    )
    assert result.code == 3
    assert any(names_all(line, "RTE") and figures(line) == [20, 3_000] for line in result.lines)


def test_last_exit_predicts_by_default(run_cli: RunCli, done: Path, tmp_path: Path) -> None:
    """The last exit predicts unless a policy or a budget is named.

    At a threshold where no example exits early the predictions are the last exit's; where all
    exit early, they are the exported model's."""
    run_id = runs(done)["rte"].run_id
    outs = {}
    for name, words in {
        "last": [],
        "none": ["--threshold", "0"],
        "all": ["--threshold", "9"],
    }.items():
        outs[name] = tmp_path / f"{name}.zip"
        assert (
            run_cli("submit", run_id, "--out", str(outs[name]), "-q", *words, *folders(done)).code
            == 3
        )
    assert outs["last"].read_bytes() == outs["none"].read_bytes()
    words = ["--results-dir", str(done / "results"), "--cache-dir", str(done / "cache")]
    model = str(tmp_path / "model")
    assert run_cli("export", run_id, "--out", model, *words, "--threshold", "9").code == 0
    rows = [(f"the film {number}", f"it was {number * 'not '}") for number in range(20)]
    predictions = load(model).predict(rows)
    assert {prediction.exit for prediction in predictions} == {1}
    assert [word for _, word in read_zip(outs["all"])["RTE.tsv"][1:]] == [
        prediction.answer for prediction in predictions
    ]


def test_exported_regression_predicts_submission_numbers(
    run_cli: RunCli, done: Path, tmp_path: Path
) -> None:
    """An exported regression predicts the numbers of the submission."""
    run_id = runs(done)["stsb"].run_id
    early = ["--threshold", "1"]
    assert (
        run_cli(
            "submit", run_id, "--out", str(tmp_path / "it.zip"), "-q", *early, *folders(done)
        ).code
        == 3
    )
    words = ["--results-dir", str(done / "results"), "--cache-dir", str(done / "cache"), *early]
    assert run_cli("export", run_id, "--out", str(tmp_path / "model"), *words).code == 0
    model = load(tmp_path / "model")
    assert (model.card.labels, model.card.rule.policy) == ((), "patience")
    predictions = model.predict(
        [(f"the film {number}", f"it was {number * 'not '}") for number in range(20)], 3
    )
    numbers = [min(max(float(prediction.answer), 0.0), 5.0) for prediction in predictions]
    assert [
        float(word) for _, word in read_zip(tmp_path / "it.zip")["STS-B.tsv"][1:]
    ] == pytest.approx(numbers, abs=0.00051)
    assert {prediction.probability for prediction in predictions} == {None}
    text = run_cli("predict", str(tmp_path / "model"), "a", "b", "--threads", "1").out.split("\t")
    assert len(text) == 3


def test_submit_mistakes_write_nothing(run_cli: RunCli, done: Path, tmp_path: Path) -> None:
    """Wrong input to submit gives a one-line error and writes nothing."""
    rte, stsb = runs(done)["rte"].short_id, runs(done)["stsb"].short_id
    options = "--methods bert --tasks demo-pair --limit 8 --epochs 1 --no-latency -q"
    assert run_cli("run", *options.split(), *folders(done)).code == 0
    demo = runs(done)["demo-pair"].short_id
    (tmp_path / "there.zip").write_text("here")
    cases: list[tuple[list[str], int, list[object]]] = [
        ([rte, rte], 2, [rte, "rte"]),
        ([demo], 2, [demo, "demo-pair"]),
        (["abcd"], 2, ["abcd"]),
        ([], 2, ["RUN_ID"]),
        ([stsb, "--policy", "entropy", "--threshold", "0.1"], 2, [("entropy", "patience")]),
        ([rte, "--threshold", "-1"], 2, [("entropy", "-1.0", 0)]),
        (
            [rte, "--out", str(tmp_path / "there.zip")],
            2,
            [tmp_path / "there.zip", "--out", "--force"],
        ),
        ([rte, "--out", str(tmp_path / "it.tar")], 2, ["--out", tmp_path / "it.tar", ".zip"]),
        ([rte, "--data-dir", str(tmp_path)], 2, [tmp_path / "RTE" / "test.tsv", "--data-dir"]),
        ([rte, "--cache-dir", str(tmp_path / "none")], 3, [rte, tmp_path / "none", "harness run"]),
        ([rte, "--out", str(tmp_path / "there.zip" / "it.zip")], 2, [tmp_path / "there.zip"]),
    ]
    before = everything_under(tmp_path)
    for words, code, names in cases:
        assert_one_line(
            run_cli("submit", *folders(done), "-q", "--out", str(tmp_path / "it.zip"), *words),
            code,
            names,
        )
        assert everything_under(tmp_path) == before
