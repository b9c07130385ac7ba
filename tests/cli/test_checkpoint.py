"""`harness run --checkpoint`: a custom classifier, from its folder to its record and the report."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import LABELS, predict_always, write_checkpoint
from support.command_line import RUN_ID, RunCli, assert_names, assert_one_line, planned
from support.custom_tasks import reviews, write_csv, write_task
from support.families import write_words
from support.glue_files import glue_rows, write_glue
from support.messages import figures, names_all
from support.readme import README
from support.stored_runs import record_in
from support.synthetic import everything_under

from harness.records import RunRecord
from harness.store.results import ResultsStore

pytestmark = pytest.mark.usefixtures("own_folders")

QUICK = [
    "--tasks",
    "demo-single",
    "--limit",
    "40",
    "--max-length",
    "32",
    "--threads",
    "1",
    "--no-latency",
]
QUICK += ["--results-dir", "results", "--cache-dir", "cache"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "mine", "bert", LABELS)
    write_words(tmp_path / "mine")
    return tmp_path / "mine"


def test_hub_checkpoint_equals_its_folder(run_cli: RunCli, folder: Path, hub_cache: Path) -> None:
    """A cached checkpoint of the hub, named OWNER/NAME, gives the same trace as its folder.

    A repository that is not cached is reported in one line."""
    snapshot = hub_cache / "models--somebody--films" / "snapshots" / ("1" * 40)
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1" * 40)
    for checkpoint in ("mine", "somebody/films"):
        result = run_cli("run", "--checkpoint", checkpoint, *QUICK, "--offline")
        assert result.code == 0, result
    local, remote = sorted(
        ResultsStore(Path("results")).records()[0], key=lambda record: record.spec.backbone
    )
    assert remote.spec.backbone == "somebody/films"
    assert np.array_equal(trace_of(local), trace_of(remote))
    assert_one_line(run_cli("run", "--checkpoint", "somebody/else", *QUICK), 2, ["somebody/else"])


def is_stored(run_cli: RunCli, checkpoint: str) -> bool:
    """Return whether a run of the checkpoint is stored, and assert that it is not repeated."""
    (cell,) = planned(run_cli("run", "--checkpoint", checkpoint, *QUICK, "--dry-run").out)
    before = everything_under(Path("results"))
    assert run_cli("run", "--checkpoint", checkpoint, *QUICK).code == 0
    assert (everything_under(Path("results")) == before) == cell.stored
    return cell.stored


def trace_of(record: RunRecord) -> np.ndarray:
    return ResultsStore(Path("results")).trace(record).logits


def test_checkpoint_is_measured_without_training(run_cli: RunCli, folder: Path) -> None:
    result = run_cli("run", "--checkpoint", "mine", *QUICK, "--seeds", "1,2,3")
    assert result.code == 0, result
    assert_names(result.out, "[1/1]", "demo-single", "checkpoint", 1, "accuracy")
    record = record_in(Path("results"))
    assert (record.spec.method, record.spec.backbone, record.policy) == ("checkpoint", "mine", None)
    assert record.spec.settings["labels"] == list(LABELS)
    assert record.spec.settings["fingerprint"] == record.data.backbone
    assert [use.report.steps for use in record.stages] == [0]
    assert is_stored(run_cli, "mine")
    shutil.move("mine", "elsewhere")
    shutil.copytree("elsewhere", Path("deep") / "mine")  # another folder with the same content
    assert is_stored(run_cli, "deep/mine")
    report = run_cli("report").out
    assert_names(report.splitlines()[0], "###", "demo-single", "mine")
    assert "Not trained here" in report
    assert "Trained" not in report


def test_labels_permute_the_predictions(run_cli: RunCli, folder: Path) -> None:
    """Labels of the command line permute the logits and make another run."""
    run_cli("run", "--checkpoint", "mine", *QUICK)
    unpermuted = trace_of(record_in(Path("results")))
    shutil.rmtree("results")
    result = run_cli(
        "run",
        "--checkpoint",
        "mine",
        *QUICK,
        "--labels",
        ",".join(label.upper() for label in LABELS[::-1]),
    )
    assert result.code == 0, result
    assert np.array_equal(trace_of(record_in(Path("results"))), unpermuted[..., ::-1])


COMMAS = ["bad, or worse", "good"]


@pytest.mark.parametrize(
    "options",
    [
        ["--labels", '"bad, or worse",good'],
        ["--labels", "bad, or worse", "--labels", "good"],
        ["--config", "grid.toml"],
    ],
    ids=["quoted", "repeated", "file"],
)
def test_class_names_may_contain_commas(
    run_cli: RunCli, folder: Path, options: list[str], tmp_path: Path
) -> None:
    write_csv(
        tmp_path / "train.csv", [(text, COMMAS[i % 2]) for i, (text, _) in enumerate(reviews(900))]
    )
    labels = {"labels": json.dumps(COMMAS), "dev": None, "dev_share": "0.1"}
    path = write_task(tmp_path, labels)
    Path("grid.toml").write_text(f"labels = {json.dumps(COMMAS)}\n")
    words = ["--checkpoint", "mine", "--task-file", str(path), *QUICK[2:]]
    result = run_cli("run", *words, *options)
    assert result.code == 0, result
    assert record_in(Path("results")).spec.settings["labels"] == COMMAS


def test_variable_of_labels_is_one_value(
    run_cli: RunCli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spaces in HARNESS_RUN_LABELS do not separate names."""
    monkeypatch.setenv("HARNESS_RUN_LABELS", f" {LABELS[1]} , {LABELS[0]} ")
    assert run_cli("run", "--checkpoint", "mine", *QUICK).code == 0
    assert record_in(Path("results")).spec.settings["labels"] == list(LABELS[::-1])


def test_other_weights_are_another_run(run_cli: RunCli, folder: Path) -> None:
    run_cli("run", "--checkpoint", "mine", *QUICK)
    predict_always(folder, 0)
    assert not is_stored(run_cli, "mine")


def test_methods_run_beside_the_checkpoint(run_cli: RunCli, folder: Path) -> None:
    """Named methods run beside the checkpoint, on their own backbone."""
    result = run_cli(
        "run",
        "--checkpoint",
        "mine",
        "--methods",
        "bert,pabee",
        *QUICK,
        "--seeds",
        "1,2",
        "--dry-run",
    )
    assert (result.code, result.err) == (0, "")
    assert [(cell.method, cell.backbone, cell.seed) for cell in planned(result.out)] == [
        ("bert", "tiny", "1"),
        ("pabee", "tiny", "1"),
        ("bert", "tiny", "2"),
        ("pabee", "tiny", "2"),
        ("checkpoint", "mine", "1"),
    ]


def test_checkpoint_has_separate_rows(run_cli: RunCli, tmp_path: Path) -> None:
    """A checkpoint in a folder named like a backbone has its own encoded rows."""
    write_checkpoint(tmp_path / "tiny", "roberta", LABELS)
    result = run_cli(
        "run", "--checkpoint", "./tiny", "--methods", "bert", "--backbone", "tiny", *QUICK
    )
    assert result.code == 0, result
    by_method = {
        record.spec.method: record for record in ResultsStore(Path("results")).records()[0]
    }
    assert by_method["bert"].data.backbone != by_method["checkpoint"].data.backbone
    assert by_method["bert"].data.dev_tokens != by_method["checkpoint"].data.dev_tokens


def test_suspicious_scores_are_warned_about(run_cli: RunCli, folder: Path) -> None:
    """A constant prediction and a score below the majority-class baseline are warned about.

    The baseline predicts train's majority class; the other class never scores above it."""
    for predicted in (0, 1):
        shutil.rmtree("results", ignore_errors=True)
        predict_always(folder, predicted)
        result = run_cli("run", "--checkpoint", "mine", *QUICK)
        record = record_in(Path("results"))
        score, majority = record.exits[-1].scores["accuracy"], record.constant_scores["accuracy"]
        warnings = [line for line in result.lines if names_all(line, "demo-single", "checkpoint")]
        assert any(names_all(line, LABELS[predicted]) and 40 in figures(line) for line in warnings)
        assert not any(
            names_all(line, LABELS[1 - predicted]) and 40 in figures(line) for line in warnings
        )
        both = {round(score, 3), round(majority, 3)}
        assert any(
            names_all(line, "accuracy") and both <= {round(figure, 3) for figure in figures(line)}
            for line in warnings
        ) == (score < majority)
        (comparison,) = json.loads(run_cli("report", "--format", "json").out)["comparisons"]
        assert_names(comparison["warnings"][0], "checkpoint", record.short_id)
        assert all(warning in run_cli("report").out for warning in comparison["warnings"])
        assert run_cli("run", "--checkpoint", "mine", "-q", *QUICK).err == ""


def test_damaged_trace_stops_nothing(run_cli: RunCli, folder: Path) -> None:
    """A stored run with a damaged trace does not stop the command."""
    run_cli("run", "--checkpoint", "mine", *QUICK)
    record = record_in(Path("results"))
    (Path("results") / "demo-single" / "checkpoint" / record.run_id / "trace.npz").write_bytes(
        b"PK"
    )
    result = run_cli("run", "--checkpoint", "mine", *QUICK)
    assert (result.code, len(result.lines)) == (0, 2)
    assert_names(result.lines[0], "demo-single", "checkpoint", "trace.npz")


# --- the README


def test_readme_commands_run(
    run_cli: RunCli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the README run, on a small random model and without timing."""
    block = re.findall(r"```\n(harness run --checkpoint .*?)```", README, re.DOTALL)[0]
    (program,) = re.findall(r"```python\n([^`]*load_model[^`]*)```", README)
    write_checkpoint(tmp_path / "my-checkpoint", "bert", ("negative", "positive"), positions=128)
    write_checkpoint(tmp_path / "nameless", "bert", None, positions=128)
    for name, first in (("train", 0), ("dev", 1_000)):
        write_glue(tmp_path / "GLUE_DIR", "sst2", name, glue_rows("sst2", first, 450))
    (tmp_path / "GLUE_DIR" / "SST-2" / "test.tsv").write_text("index\tsentence\n0\ta fine film\n")
    (tmp_path / "rows.jsonl").write_text('"a fine film"\n["dull"]\n')
    run_id, codes = "", []
    for line in block.splitlines():
        _, command, *words = shlex.split(line.replace("RUN_ID", run_id))
        quick = {"run": ["--limit", "8", "--no-latency", "--threads", "1"], "export": []}.get(
            command, ["--threads", "1"]
        )
        result = run_cli(command, *words, *quick, "-q")
        codes.append((command, result.code))
        run_id = run_id or (RUN_ID.findall(result.out) or [""])[0]
    assert codes == [
        ("run", 0),
        ("run", 0),
        ("export", 0),
        ("predict", 0),
        ("predict", 0),
        ("submit", 3),
    ]
    exec(program, {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] in ("negative", "positive") for line in lines] == [True, True]


MISTAKES: list[tuple[list[str], list[object]]] = [
    (["--checkpoint", "nowhere"], ["nowhere"]),
    (["--checkpoint", "mine", "--labels", "good"], [(1, "good", "demo-single", 2, *LABELS)]),
    (
        ["--checkpoint", "mine", "--labels", "good,bad"],
        [("good", "bad", "demo-single"), *LABELS, "--labels"],
    ),
    (["--checkpoint", "mine", "--labels", ","], ["--labels"]),
    (["--labels", "good,bad"], ["--labels good,bad", "--checkpoint"]),
    (["--methods", "checkpoint"], ["tiny", "--checkpoint"]),
    (["--checkpoint", "mine", "--tasks", "mnli"], [(2, "mnli", 3)]),
    (["--checkpoint", "mine", "--tasks", "stsb"], [(2, "stsb", 1)]),
    (["--checkpoint", "nameless"], ["LABEL_0", "LABEL_1", "--labels " + ",".join(LABELS)]),
]


@pytest.mark.parametrize(
    ("words", "names"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES]
)
def test_mistakes_are_found_before_reading(
    run_cli: RunCli, folder: Path, words: list[str], names: list[object]
) -> None:
    """A mistake is reported in one line before anything is read."""
    write_checkpoint(Path("nameless"), "bert", None)
    assert_one_line(run_cli("run", *QUICK, *words), 2, names)
    assert everything_under(Path("results")) == {}
