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
from types import SimpleNamespace

import numpy as np
import pytest
from support.command_line import RunCli, assert_names, assert_one_line
from support.custom_tasks import reviews, write_csv, write_task
from support.messages import figures, names_all
from support.stored_runs import record_of
from support.synthetic import everything_under, one_line

from harness.analysis.operating_points import BUDGETS, chosen_thresholds, policy_of
from harness.data import demo
from harness.errors import HarnessError
from harness.evaluation.curves import exit_indices
from harness.evaluation.policies import Rule, exit_scores, make_policy
from harness.measure.inference import EarlyPredictions, ExitScore, predict_early
from harness.models.multi_exit import Batch, MultiExitModel
from harness.predict import predictions
from harness.predict.exported import load
from harness.store.results import ResultsStore


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
    record, store = record_of(done / "results", "deebert"), ResultsStore(done / "results")
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
    record, store = record_of(done / "results", "deebert"), ResultsStore(done / "results")
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
    record, store = record_of(done / "results", method), ResultsStore(done / "results")
    model = load(export(method, *words))
    trace = store.trace(record)
    predictions = model.predict(dev_rows(record.spec.task)[: len(trace.ids)], 5)
    assert {one.exit for one in predictions} == {trace.exit_layers[-1]}
    assert [one.answer for one in predictions] == [
        model.card.labels[int(index)] for index in trace.predictions()[-1]
    ]
    assert model.card.scores == record.exits[-1].scores


@pytest.mark.parametrize("layers", [1, 4])
def test_static_model_of_an_exit_is_exported(
    done: Path, export: Callable[..., Path], layers: int
) -> None:
    """`--exit N` exports the first N layers, which predict as that exit does in the trace."""
    record, store = record_of(done / "results", "deebert"), ResultsStore(done / "results")
    model = load(export("deebert", "--exit", str(layers)))
    trace = store.trace(record)
    index = trace.exit_layers.tolist().index(layers)
    predictions = model.predict(dev_rows("demo-pair")[: len(trace.ids)])
    assert {one.exit for one in predictions} == {layers}
    decided = np.abs(np.diff(trace.logits[index])[:, 0]) > 1e-4
    expected = trace.predictions()[index]
    assert all(
        one.answer == model.card.labels[int(label)]
        for one, label, unambiguous in zip(predictions, expected, decided, strict=True)
        if unambiguous
    )
    card, measured = model.card, record.exits[index]
    assert (card.scores, card.layers) == (measured.scores, layers)
    assert card.macs == pytest.approx(measured.macs, abs=0.1)
    assert card.full_scores == record.exits[-1].scores
    assert len(model.model.layers) == layers
    assert model.model.parameter_count() == measured.parameters


def test_export_shows_the_full_model_beside(
    run_cli: RunCli, done: Path, export: Callable[..., Path]
) -> None:
    """The line and the README of an early exit have the full model's score, too."""
    record = record_of(done / "results", "deebert")
    folder = export("deebert", "--exit", "2")
    card = load(folder).card
    full = record.exits[-1].scores["accuracy"]
    assert names_all(card.compared_with_full(), f"{full:.3f}", 2, 4)
    assert f"| {100 * card.scores['accuracy']:.1f} | {100 * full:.1f} |" in (
        folder / "README.md"
    ).read_text(encoding="utf-8")
    whole = load(export("bert")).card
    assert figures(whole.compared_with_full()) == [round(whole.scores["accuracy"], 3), 4.0]


def test_first_predictions_are_warm(
    run_cli: RunCli, export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest examples are predicted once before the milliseconds are taken."""
    folder = export("bert")
    lengths: list[int] = []
    clock = SimpleNamespace(now=0.0)

    def slow_at_first(
        model: MultiExitModel, batch: Batch, policy: ExitScore, threshold: float
    ) -> EarlyPredictions:
        lengths.append(batch.ids.shape[1])
        clock.now += 0.3 if len(lengths) <= 2 else 0.001  # the first of all is made by `load`
        return predict_early(model, batch, policy, threshold)

    monkeypatch.setattr(predictions, "predict_early", slow_at_first)
    fake_time = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(predictions, "time", fake_time)
    texts = ["anna was happy", "anna smiled", "ben ran to the market", "ben was slow"]
    result = run_cli("predict", str(folder), *texts, "--batch-size", "1", "--format", "json")
    assert (len(lengths), lengths[1]) == (4, max(lengths))
    assert {row["milliseconds"] for row in json.loads(result.out)} == {1.0}


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


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1),
        ({"labels": '["bad", "good"]', "values": '["no", "yes"]'}, 1),
        ({"metrics": '["f1", "accuracy"]'}, 2),
    ],
)
def test_labelled_file_is_scored(
    run_cli: RunCli, tmp_path: Path, changes: dict[str, str | None], count: int
) -> None:
    """`predict --file` reads the task's own file, and scores as the run did on dev."""
    path = write_task(tmp_path / "task", changes)
    write_csv(tmp_path / "task" / "train.csv", reviews(500))
    write_csv(tmp_path / "task" / "dev.csv", reviews(60, 500))
    folders = ["--results-dir", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache")]
    words = "--methods bert --epochs 1 --threads 1 --no-latency -q"
    assert run_cli("run", "--task-file", str(path), *words.split(), *folders).code == 0
    record = record_of(tmp_path / "results", "bert")
    model = str(tmp_path / "model")
    assert run_cli("export", record.run_id, "--out", model, *folders).code == 0
    dev = tmp_path / "task" / "dev.csv"
    result = run_cli("predict", model, "--file", str(dev), "--format", "csv", "--threads", "1")
    assert (result.code, len(list(csv.DictReader(io.StringIO(result.out))))) == (0, 60)
    scores = record.exits[-1].scores
    assert len(scores) == count
    assert figures(result.err) == [*(round(score, 3) for score in scores.values()), 60]
    dev.write_text(dev.read_text().replace("yes", "perhaps"))
    assert_one_line(
        run_cli("predict", model, "--file", str(dev)), 2, ["dev.csv", "perhaps", "no", "yes"]
    )
    write_csv(dev, [(text, "") for text, _ in reviews(3)], ("review", "other"))
    unlabelled = run_cli("predict", model, "--file", str(dev))
    assert (unlabelled.code, unlabelled.err, len(unlabelled.out.splitlines())) == (0, "", 3)
    write_csv(dev, [("review 1", "yes"), ("review 2", ""), ("review 3", "no")])
    partly = run_cli("predict", model, "--file", str(dev))
    assert (partly.code, len(partly.out.splitlines())) == (0, 3)
    assert figures(partly.err)[-1] == 2


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


def test_predict_reads_standard_input(
    run_cli: RunCli, export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(export("bert"))
    (texts,) = dev_rows("demo-pair")[:1]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\t".join(texts).encode())))
    piped = json.loads(run_cli("predict", folder, "--file", "-", "--format", "json").out)
    typed = json.loads(run_cli("predict", folder, *texts, "--format", "json").out)
    assert [one["answer"] for one in piped] == [one["answer"] for one in typed]


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
    bert, deebert = (
        record_of(done / "results", "bert").short_id,
        record_of(done / "results", "deebert").short_id,
    )
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
        (
            [deebert, "--backbone", "minilm"],
            4,
            [deebert, record_of(done / "results", "deebert").data.backbone],
        ),
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
