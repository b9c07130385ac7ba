"""`harness run --checkpoint`: a user's own classifier from its folder to its record and the report."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import LABELS, write_checkpoint
from support.command_line import Say
from support.families import write_words
from support.glue_files import glue_rows, write_glue
from support.readme import README
from support.stored_runs import record_in
from support.synthetic import everything_under

from harness.records import RunRecord
from harness.store.results import ResultsStore

pytestmark = pytest.mark.usefixtures("own_folders")

QUICK = ["--tasks", "demo-single", "--limit", "40", "--max-length", "32", "--threads", "1", "--no-latency"]
QUICK += ["--results-dir", "results", "--cache-dir", "cache"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "mine", "bert", LABELS)
    write_words(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_checkpoint_of_the_hub_is_measured_from_its_cache_and_is_the_folders(say: Say, folder: Path, hub_cache: Path) -> None:
    """Its name is OWNER/NAME; of a repository that is not cached one line says so."""
    snapshot = hub_cache / "models--somebody--films" / "snapshots" / ("1" * 40)
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1" * 40)
    for place in ("mine", "somebody/films"):
        answer = say("run", "--checkpoint", place, *QUICK, "--offline")
        assert answer.code == 0, answer
    mine, theirs = sorted(ResultsStore(Path("results")).records()[0], key=lambda record: record.spec.backbone)
    assert theirs.spec.backbone == "somebody/films"
    assert np.array_equal(trace_of(mine), trace_of(theirs))
    answer = say("run", "--checkpoint", "somebody/else", *QUICK)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "somebody/else is neither cached nor to be had from the hub: this is offline" in answer.err


def answer_always(folder: Path, place: int) -> None:
    """Make the checkpoint give one class to every row."""
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"].zero_()
    tensors["classifier.bias"] = torch.eye(len(tensors["classifier.bias"]))[place]
    save_file(tensors, folder / "model.safetensors")


def trace_of(record: RunRecord) -> np.ndarray:
    return ResultsStore(Path("results")).trace(record).logits


def test_a_checkpoint_is_measured_without_training(say: Say, folder: Path) -> None:
    answer = say("run", "--checkpoint", "mine", *QUICK, "--seeds", "1,2,3")
    assert answer.code == 0, answer
    assert answer.out.startswith("[1/1] demo-single checkpoint seed 1: accuracy ")
    record = record_in(Path("results"))
    assert (record.spec.method, record.spec.backbone, record.policy) == ("checkpoint", "mine", None)
    assert record.spec.settings["labels"] == list(LABELS)
    assert record.spec.settings["fingerprint"] == record.data.backbone
    assert [use.report.steps for use in record.stages] == [0]
    assert "stored already" in say("run", "--checkpoint", "mine", *QUICK).out
    shutil.move("mine", "elsewhere")
    shutil.copytree("elsewhere", Path("deep") / "mine")  # another place of the same content
    assert "stored already" in say("run", "--checkpoint", "deep/mine", *QUICK).out
    assert "### demo-single on mine" in say("report").out


def test_labels_of_the_command_line_permute_the_answers_and_are_another_run(say: Say, folder: Path) -> None:
    say("run", "--checkpoint", "mine", *QUICK)
    plain = trace_of(record_in(Path("results")))
    shutil.rmtree("results")
    answer = say("run", "--checkpoint", "mine", *QUICK, "--labels", ",".join(label.upper() for label in LABELS[::-1]))
    assert answer.code == 0, answer
    assert np.array_equal(trace_of(record_in(Path("results"))), plain[..., ::-1])


def test_other_weights_are_another_run(say: Say, folder: Path) -> None:
    say("run", "--checkpoint", "mine", *QUICK)
    answer_always(folder, 0)
    assert "stored already" not in say("run", "--checkpoint", "mine", *QUICK).out


def test_methods_that_are_named_stand_beside_the_checkpoint_on_their_own_backbone(say: Say, folder: Path) -> None:
    answer = say("run", "--checkpoint", "mine", "--methods", "bert,pabee", *QUICK, "--seeds", "1,2", "--dry-run")
    assert (answer.code, answer.err) == (0, "")
    assert [line.split()[1:4] for line in answer.out.splitlines()[2:]] == [
        ["bert", "tiny", "1"], ["pabee", "tiny", "1"], ["bert", "tiny", "2"], ["pabee", "tiny", "2"], ["checkpoint", "mine", "1"],
    ]  # fmt: skip


def test_a_checkpoint_in_a_folder_of_a_backbones_name_has_its_own_rows(say: Say, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "tiny", "roberta", LABELS)
    answer = say("run", "--checkpoint", "./tiny", "--methods", "bert", "--backbone", "tiny", *QUICK)
    assert answer.code == 0, answer
    by_method = {record.spec.method: record for record in ResultsStore(Path("results")).records()[0]}
    assert by_method["bert"].data.backbone != by_method["checkpoint"].data.backbone
    assert by_method["bert"].data.dev_tokens != by_method["checkpoint"].data.dev_tokens


def test_one_answer_to_all_and_a_score_below_the_constant_are_warned_about(say: Say, folder: Path) -> None:
    """The constant answer is train's majority class; the other one is always below it, or level."""
    for place in (0, 1):
        shutil.rmtree("results", ignore_errors=True)
        answer_always(folder, place)
        answer = say("run", "--checkpoint", "mine", *QUICK)
        record = record_in(Path("results"))
        score, constant = record.exits[-1].scores["accuracy"], record.constant_scores["accuracy"]
        assert f"harness: warning: demo-single checkpoint seed 1: all 40 rows get one answer, {LABELS[place]}" in answer.lines
        assert any("is below the constant answer's" in line for line in answer.lines) == (score < constant)
        assert f"**Warning**, checkpoint (run {record.run_id}): " in say("report").out
        (comparison,) = json.loads(say("report", "--format", "json").out)["comparisons"]
        assert comparison["warnings"][0].startswith(f"**Warning**, checkpoint (run {record.run_id}): ")
        assert say("run", "--checkpoint", "mine", "-q", *QUICK).err == ""


def test_a_stored_run_whose_trace_is_damaged_stops_nothing(say: Say, folder: Path) -> None:
    say("run", "--checkpoint", "mine", *QUICK)
    record = record_in(Path("results"))
    (Path("results") / "demo-single" / "checkpoint" / record.run_id / "trace.npz").write_bytes(b"PK")
    answer = say("run", "--checkpoint", "mine", *QUICK)
    assert (answer.code, len(answer.lines)) == (0, 2)
    assert "trace.npz cannot be read" in answer.lines[0]


# --- the README


def test_the_commands_of_the_readme_run(say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a small random model, a few rows and no clock."""
    block = re.findall(r"```\n(harness run --checkpoint .*?)```", README, re.DOTALL)[0]
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    write_checkpoint(tmp_path / "my-checkpoint", "bert", ("negative", "positive"), positions=128)
    write_checkpoint(tmp_path / "nameless", "bert", None, positions=128)
    for name, first in (("train", 0), ("dev", 1_000)):
        write_glue(tmp_path / "GLUE_DIR", "sst2", name, glue_rows("sst2", first, 450))
    (tmp_path / "GLUE_DIR" / "SST-2" / "test.tsv").write_text("index\tsentence\n0\ta fine film\n")
    (tmp_path / "rows.jsonl").write_text('"a fine film"\n["dull"]\n')
    run_id, codes = "", []
    for line in block.splitlines():
        _, command, *words = shlex.split(line.replace("RUN_ID", run_id))
        quick = {"run": ["--limit", "8", "--no-latency", "--threads", "1"], "export": []}.get(command, ["--threads", "1"])
        answer = say(command, *words, *quick, "-q")
        codes.append((command, answer.code))
        run_id = run_id or answer.out.partition("run ")[2].partition(" ")[0]
    assert codes == [("run", 0), ("run", 0), ("export", 0), ("predict", 0), ("predict", 0), ("submit", 3)]
    exec(program, {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] in ("negative", "positive") for line in lines] == [True, True]


MISTAKES = [
    (["--checkpoint", "nowhere"], ["unknown backbone 'nowhere'"]),
    (["--checkpoint", "mine", "--labels", "good"], ["1 class (good)", "demo-single", "2"]),
    (["--checkpoint", "mine", "--labels", "good,bad"], ["good, bad", "demo-single", "--labels"]),
    (["--checkpoint", "mine", "--labels", ","], ["--labels", "names nothing"]),
    (["--labels", "good,bad"], ["--labels good,bad", "--checkpoint"]),
    (["--methods", "checkpoint"], ["backbone tiny is random", "--checkpoint"]),
    (["--checkpoint", "mine", "--tasks", "mnli"], ["2 classes", "mnli", "3"]),
    (["--checkpoint", "mine", "--tasks", "stsb"], ["2 classes", "stsb", "1 output"]),
    (["--checkpoint", "nameless"], ["LABEL_0, LABEL_1", "--labels " + ",".join(LABELS)]),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_before_anything_is_read(say: Say, folder: Path, words: list[str], said: list[str]) -> None:
    write_checkpoint(Path("nameless"), "bert", None)
    answer = say("run", *QUICK, *words)
    assert (answer.code, answer.out, len(answer.lines)) == (2, "", 1), answer
    assert all(word in answer.err for word in said), answer.err
    assert everything_under(Path("results")) == {}
