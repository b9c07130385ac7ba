"""`harness export` and `harness predict`: an exported model predicts as in its trace, in a fresh
process and for any batch size; hostile folders give a one-line error."""

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import LABELS, write_checkpoint
from support.command_line import RunCli, assert_names, assert_one_line
from support.custom_tasks import reviews, write_csv, write_task
from support.messages import figures, names_all
from support.synthetic import TouchesAFile, everything_under, one_line

from harness.analysis.operating_points import BUDGETS, chosen_thresholds, policy_of
from harness.data import demo
from harness.errors import HarnessError
from harness.evaluation.curves import exit_indices
from harness.evaluation.policies import Rule, exit_scores, make_policy
from harness.predict.exported import Exported, load
from harness.predict.inputs import text_rows
from harness.records import RunRecord
from harness.store.results import ResultsStore

QUICK = "run --tasks demo-pair --threads 1 --precision fp32 --epochs 2 --limit 64 --no-latency -q"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store runs of two methods on 64 rows of demo-pair, and of a checkpoint."""
    from harness.__main__ import main

    folder = tmp_path_factory.mktemp("done")
    folders = ["--results-dir", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    assert main([*QUICK.split(), "--methods", "bert,deebert", *folders]) == 0
    write_checkpoint(folder / "mine", "electra", LABELS)
    words = "--tasks demo-single --max-length 24 --limit 16 --threads 1 --no-latency -q"
    checkpoint = ["--checkpoint", str(folder / "mine")]
    assert main(["run", *checkpoint, *words.split(), *folders]) == 0
    return folder


def record_of(done: Path, method: str) -> RunRecord:
    return {record.spec.method: record for record in ResultsStore(done / "results").records()[0]}[
        method
    ]


@pytest.fixture
def export(run_cli: RunCli, done: Path, tmp_path: Path) -> Callable[..., Path]:
    """Export a method's run and return the folder."""

    def call(method: str, *words: str) -> Path:
        out = tmp_path / f"my-{method}"
        folders = ["--results-dir", str(done / "results"), "--cache-dir", str(done / "cache")]
        result = run_cli(
            "export", record_of(done, method).run_id, "--out", str(out), *folders, *words
        )
        assert result.code == 0, result
        return out

    return call


def dev_rows(task: str) -> list[tuple[str, ...]]:
    return [row.texts for row in demo.demo_rows(task, "dev")]


# --- predictions


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_predictions_are_those_of_the_trace(
    done: Path, export: Callable[..., Path], batch_size: int
) -> None:
    """An exported model predicts as in its trace at the threshold, for any batch size.

    The threshold lies in the widest gap between the middle entropies of the first exit: some
    examples exit there, and rounding moves none."""
    record, store = record_of(done, "deebert"), ResultsStore(done / "results")
    trace, policy = store.trace(record), make_policy(Rule("entropy"), 2)
    entropies = np.sort(-exit_scores(policy, trace.logits)[0])[16:-16]
    widest = np.diff(entropies).argmax()
    model = load(export("deebert", "--threshold", str(entropies[widest : widest + 2].mean())))
    assert model.card.rule.policy == "entropy"
    exits = exit_indices(policy, trace.logits, np.array([model.card.rule.threshold]))[0]
    assert len(set(exits)) > 1, "some examples exit early"
    logits = trace.logits[exits, np.arange(64)]
    predictions = model.predict(dev_rows("demo-pair")[:64], batch_size)
    decided = np.abs(np.diff(logits)[:, 0]) > 1e-4
    assert [one.exit for one in predictions] == trace.exit_layers[exits].tolist()
    for one, row, unambiguous in zip(predictions, logits, decided, strict=True):
        weights = np.exp(row.astype(np.float64))
        if unambiguous:
            assert one.answer == model.card.labels[row.argmax()]
        assert one.probability == pytest.approx(weights.max() / weights.sum(), abs=1e-4)
        assert one.milliseconds > 0
    right = [
        model.card.labels[int(label)] == one.answer
        for label, one in zip(trace.labels, predictions, strict=True)
    ]
    assert model.card.scores["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
    ("words", "budget"),
    [([], "1/2"), (["--budget-share", "0.75"], "3/4"), (["--budget-share", "1"], "1")],
)
def test_threshold_is_chosen_within_budget(
    done: Path, export: Callable[..., Path], words: list[str], budget: str
) -> None:
    """The best threshold on calibration within the budget is chosen."""
    record, store = record_of(done, "deebert"), ResultsStore(done / "results")
    rule = load(export("deebert", *words)).card.rule
    assert (rule.policy, rule.threshold) == (
        "entropy",
        chosen_thresholds(store, record, policy_of(record), record, BUDGETS)[budget],
    )


@pytest.mark.parametrize("method", ["bert", "checkpoint"])
def test_single_exit_model_uses_last_layer(
    done: Path, export: Callable[..., Path], method: str
) -> None:
    """A model with one exit predicts at its last layer."""
    words = ["--backbone", str(done / "mine")] if method == "checkpoint" else []
    record, store = record_of(done, method), ResultsStore(done / "results")
    model = load(export(method, *words))
    trace = store.trace(record)
    predictions = model.predict(dev_rows(record.spec.task)[: len(trace.ids)], 5)
    assert {one.exit for one in predictions} == {trace.exit_layers[-1]}
    assert [one.answer for one in predictions] == [
        model.card.labels[int(index)] for index in trace.predictions()[-1]
    ]
    assert model.card.scores == record.exits[-1].scores


def test_no_rows_have_no_predictions(export: Callable[..., Path]) -> None:
    assert load(export("bert")).predict([]) == []


@pytest.mark.slow
def test_fresh_process_gives_same_predictions(export: Callable[..., Path], tmp_path: Path) -> None:
    """A fresh process that has only the folder gives the same predictions."""
    folder = export("deebert")
    rows = dev_rows("demo-pair")[:9]
    (tmp_path / "rows.tsv").write_text(
        "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8"
    )
    (tmp_path / "empty").mkdir()
    folders = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "HF_HOME"), str(tmp_path / "empty"))
    words = ["predict", str(folder), "--file", str(tmp_path / "rows.tsv"), "--format", "json"]
    words += ["--threads", "1", "--batch-size", "4"]
    command = [sys.executable, "-m", "harness", *words]
    environment = os.environ | folders | {"HARNESS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    child = subprocess.run(
        command,
        cwd=tmp_path / "empty",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (child.returncode, child.stderr) == (0, "")
    here = load(folder).predict(rows)
    found = json.loads(child.stdout)
    assert [(row["row"], row["answer"], row["exit"]) for row in found] == [
        (number, one.answer, one.exit) for number, one in enumerate(here, start=1)
    ]
    assert list((tmp_path / "empty").iterdir()) == []


def test_formats_of_predict_agree(run_cli: RunCli, export: Callable[..., Path]) -> None:
    folder = str(export("deebert"))
    words = ("predict", folder, "anna was happy", "anna smiled", "--threads", "1")
    (row,) = json.loads(run_cli(*words, "--format", "json").out)
    (table,) = csv.DictReader(io.StringIO(run_cli(*words, "--format", "csv").out))
    label, exit_, probability, milliseconds = run_cli(*words).out.rstrip("\n").split("\t")
    assert (table["answer"], table["exit"], table["row"]) == (row["answer"], str(row["exit"]), "1")
    assert label == row["answer"]
    assert (figures(exit_), figures(probability)) == ([row["exit"]], [round(row["probability"], 3)])
    assert figures(milliseconds)[0] > 0


def test_text_pairs_stay_together(run_cli: RunCli, export: Callable[..., Path]) -> None:
    """For a task of pairs, texts on the command line are grouped in pairs."""
    options = "--threads 1 --format json --batch-size 1"
    words = ("predict", str(export("deebert")), *options.split())
    texts = [("anna was happy", "anna smiled"), ("ben ran", "ben was slow")]
    found = json.loads(run_cli(*words, *(text for row in texts for text in row)).out)
    single = [json.loads(run_cli(*words, *row).out)[0] for row in texts]
    assert [row["row"] for row in found] == [1, 2]
    assert [(row["answer"], row["exit"]) for row in found] == [
        (row["answer"], row["exit"]) for row in single
    ]


def test_truncated_rows_are_counted(run_cli: RunCli, export: Callable[..., Path]) -> None:
    """A warning names the number of truncated rows and the maximum length."""
    result = run_cli("predict", str(export("bert")), "anna " * 300, "ben", "--threads", "1")
    assert (result.code, len(result.lines)) == (0, 1)
    assert figures(result.err) == [1, 1, 128]


def test_custom_task_needs_no_file(run_cli: RunCli, tmp_path: Path) -> None:
    """A run on a custom task is exported without the task's file.

    The record holds the number of texts per row; for older records without it, rows of one and of
    two texts are accepted."""
    path = write_task(tmp_path / "task", {"dev": None, "dev_share": "0.1"})
    write_csv(tmp_path / "task" / "train.csv", reviews(500))
    folders = ["--results-dir", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache")]
    words = "--methods bert --limit 8 --epochs 1 --threads 1 --no-latency -q"
    assert run_cli("run", "--task-file", str(path), *words.split(), *folders).code == 0
    shutil.rmtree(tmp_path / "task")
    (record,), _ = ResultsStore(tmp_path / "results").records()
    assert run_cli("export", record.run_id, "--out", str(tmp_path / "model"), *folders).code == 0
    model = load(tmp_path / "model")
    assert (model.card.task, model.card.labels, model.card.texts) == ("reviews", ("no", "yes"), 1)
    (line,) = [
        line
        for line in (tmp_path / "model" / "README.md").read_text().splitlines()
        if line.startswith("harness predict ")
    ]
    assert (shlex.split(line)[2], len(shlex.split(line)[3:])) == (".", 1), "one text"
    predictions = json.loads(
        run_cli("predict", str(tmp_path / "model"), "fine", "dull", "awful", "--format", "json").out
    )
    assert [row["row"] for row in predictions] == [1, 2, 3]
    with pytest.raises(HarnessError) as caught:
        model.predict([("fine", "dull")])
    assert_names(one_line(caught), "reviews", (1, 2, 1))
    older = replace(model, card=replace(model.card, texts=None))
    either = older.predict([("fine",), ("fine", "dull")])
    assert {one.answer for one in either} <= {"no", "yes"}


# --- files of rows


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.txt", "one\ttab\n\ntwo\n", [(1, ("one\ttab",)), (3, ("two",))]),
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
    assert text_rows(tmp_path / name) == rows


@pytest.mark.parametrize(
    ("per_row", "rows"),
    [(1, [(1, ("one\ttwo",)), (3, ("three",))]), (2, [(1, ("one", "two")), (3, ("three",))])],
)
def test_rows_of_standard_input(
    monkeypatch: pytest.MonkeyPatch, per_row: int, rows: list[tuple[int, tuple[str, ...]]]
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"one\ttwo\n\nthree\n"))
    monkeypatch.setattr("sys.stdin", stream)
    assert text_rows(Path("-"), per_row) == rows


def test_predict_reads_standard_input(
    run_cli: RunCli, export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(export("bert"))
    (texts,) = dev_rows("demo-pair")[:1]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\t".join(texts).encode())))
    piped = json.loads(run_cli("predict", folder, "--file", "-", "--format", "json").out)
    typed = json.loads(run_cli("predict", folder, *texts, "--format", "json").out)
    assert [one["answer"] for one in piped] == [one["answer"] for one in typed]


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
        ("a.csv", b"text\nfine\n", [".tsv", ".jsonl"]),
    ],
)
def test_file_of_rows_must_fit(tmp_path: Path, name: str, text: bytes, names: list[object]) -> None:
    """An invalid file of rows gives a one-line error."""
    (tmp_path / name).write_bytes(text)
    with pytest.raises(HarnessError) as caught:
        text_rows(tmp_path / name)
    assert_names(one_line(caught), tmp_path / name, *names)


# --- wrong input


def test_predict_mistakes_are_one_line(
    run_cli: RunCli, export: Callable[..., Path], tmp_path: Path
) -> None:
    folder = str(export("deebert"))
    (tmp_path / "one.txt").write_text("a\n")
    cases: list[tuple[list[str], list[object]]] = [
        ([folder], ["--file"]),
        ([folder, "a", "b", "c"], [3]),
        ([folder, "a", "--file", str(tmp_path / "one.txt")], ["--file"]),
        ([folder, "a"], [1]),
        ([folder, "a", "b\udcff"], [1, "UTF-8"]),
        ([folder, "--file", str(tmp_path / "nowhere.txt")], [tmp_path / "nowhere.txt"]),
        ([str(tmp_path), "a"], [tmp_path, "harness.json", "harness export"]),
        (
            [str(tmp_path / "nowhere"), "a"],
            [tmp_path / "nowhere", "harness.json", "harness export"],
        ),
    ]
    for words, names in cases:
        assert_one_line(run_cli("predict", *words), 2, names)


def test_export_mistakes_write_nothing(run_cli: RunCli, done: Path, tmp_path: Path) -> None:
    """Wrong input to export gives a one-line error and writes nothing."""
    bert, deebert = record_of(done, "bert").run_id, record_of(done, "deebert").run_id
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("here")
    cases: list[tuple[list[str], int, list[object]]] = [
        ([bert, "--policy", "entropy"], 2, [bert]),
        ([deebert, "--threshold", "-1"], 2, [("entropy", "-1.0", 0)]),
        (
            [deebert, "--threshold", "0.1", "--budget-share", "0.5"],
            2,
            ["--threshold 0.1", "--budget-share 0.5"],
        ),
        ([deebert, "--budget-share", "0.01"], 2, [deebert, "entropy", 0.01, "--budget-share"]),
        ([deebert, "--out", str(tmp_path / "there")], 2, [tmp_path / "there", "--out", "--force"]),
        (
            [deebert, "--out", str(tmp_path / "there"), "--force"],
            2,
            [tmp_path / "there", "--force"],
        ),
        ([deebert, "--out", str(tmp_path / "file" / "below")], 3, [tmp_path / "file" / "below"]),
        (
            [deebert, "--cache-dir", str(tmp_path / "none")],
            3,
            [deebert, tmp_path / "none", "harness run"],
        ),
        ([deebert, "--backbone", "minilm"], 4, [deebert, record_of(done, "deebert").data.backbone]),
        (["../../etc"], 2, [("../../etc", 4, 16)]),
    ]
    before = everything_under(tmp_path)
    for words, code, names in cases:
        folders = ["--results-dir", str(done / "results"), "--cache-dir", str(done / "cache")]
        folders += ["--out", str(tmp_path / "new")]
        assert_one_line(run_cli("export", words[0], *folders, *words[1:]), code, names)
        assert everything_under(tmp_path) == before
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_force_replaces_the_whole_model(
    run_cli: RunCli, done: Path, export: Callable[..., Path]
) -> None:
    folder = export("deebert")
    (folder / "leftover").write_text("old")
    names = set(
        everything_under(export("deebert", "--force", "--policy", "patience", "--threshold", "2"))
    )
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "harness.json",
        "README.md",
    }
    assert (load(folder).card.rule.policy, load(folder).card.rule.threshold) == ("patience", 2.0)
    assert names_all((folder / "README.md").read_text(), "deebert", "demo-pair", "patience", 2)


# --- hostile folders


def change(folder: Path, name: str, path: list[str], value: object) -> None:
    content = json.loads((folder / name).read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / name).write_text(json.dumps(content))


HOSTILE: list[tuple[str, list[str], object]] = [
    ("config.json", ["shape", "hidden"], 10**12),
    ("config.json", ["shape", "vocabulary"], 10**15),
    ("config.json", ["shape", "vocabulary"], 2**80),
    ("config.json", ["shape", "hidden"], -8),
    ("config.json", ["shape", "hidden"], 0),
    ("config.json", ["shape", "heads"], [4] * 5_000),
    ("config.json", ["shape", "heads"], []),
    ("config.json", ["shape", "ffn"], [512]),
    ("config.json", ["shape", "activation"], "__import__('os')"),
    ("config.json", ["classes"], 3),
    ("config.json", ["exits"], [None, None, None, None]),
    ("config.json", ["more"], 1),
    ("config.json", ["shape", "head_size"], 1.5),
    ("harness.json", ["labels"], ["a", "b", "c"]),
    ("harness.json", ["labels"], ["a\u001b[2J", "b"]),
    ("harness.json", ["form"], 2),
    ("harness.json", ["max_length"], 10**9),
    ("harness.json", ["rule", "policy"], "os.system"),
    ("harness.json", ["rule", "threshold"], None),
    ("harness.json", ["rule", "threshold"], -1.0),
    ("harness.json", ["shape", "vocabulary"], 3),
]


@pytest.mark.parametrize(
    ("name", "path", "value"),
    HOSTILE,
    ids=[f"{'.'.join(path)}={str(value)[:20]}" for _, path, value in HOSTILE],
)
def test_wrong_config_is_one_line(
    export: Callable[..., Path], name: str, path: list[str], value: object
) -> None:
    """An invalid configuration gives a one-line error."""
    folder = export("deebert")
    change(folder, name, path, value)
    with pytest.raises(HarnessError) as caught:
        load(folder)
    assert one_line(caught)


def test_damaged_files_run_nothing(export: Callable[..., Path], tmp_path: Path) -> None:
    """Damaged, large and missing files give a one-line error, and no code is run."""
    folder = export("deebert")
    intact = {name: (folder / name).read_bytes() for name in everything_under(folder)}
    tensors = load_file(folder / "model.safetensors")
    torch.save(TouchesAFile(tmp_path / "touched"), tmp_path / "pickle")
    save_file({**tensors, "more": torch.zeros(1)}, tmp_path / "more")
    save_file(
        {name: tensor.fill_(float("nan")) for name, tensor in tensors.items()}, tmp_path / "nan"
    )
    wrong = [
        *(
            ("model.safetensors", (tmp_path / name).read_bytes())
            for name in ("pickle", "more", "nan")
        ),
        ("model.safetensors", intact["model.safetensors"][:-10]),
        ("tokenizer.json", b"{}"),
        ("harness.json", b"[" * 100_000),
        ("config.json", b" " * 2**21),
        *((name, None) for name in ("config.json", "model.safetensors", "tokenizer.json")),
    ]
    for name, content in wrong:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(HarnessError) as caught:
            load(folder)
        assert one_line(caught), (name, content)
        (folder / name).write_bytes(intact[name])
    assert not (tmp_path / "touched").exists()
    assert isinstance(load(folder), Exported)


def test_earlier_export_predicts_the_same(run_cli: RunCli) -> None:
    """A model exported by an earlier version predicts the same.

    The folder and its predictions were written at commit c906dcd."""
    folder = Path(__file__).parents[1] / "fixtures" / "exported_small"
    words = ["--file", str(folder / "rows.txt"), "--format", "csv", "--threads", "1"]
    result = run_cli("predict", str(folder), *words)
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))
    found = list(csv.DictReader(io.StringIO(result.out)))
    assert [(row["answer"], row["exit"]) for row in found] == [
        (row["answer"], row["exit"]) for row in wanted
    ]
    assert len({row["exit"] for row in wanted}) > 1
    assert [float(row["probability"]) for row in found] == pytest.approx(
        [float(row["probability"]) for row in wanted], abs=1e-4
    )
