"""Committed figures follow from the committed traces and specs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.command_line import RunCli
from support.committed import (
    ABLATED,
    ABLATIONS,
    OTHER_PROBLEMS,
    PROBLEMS,
    RECORDS,
    ROOT,
    STORE,
    each_run,
    method_of,
)
from support.readme import PAGES
from support.simulation import simulate

from harness import load_results, plot
from harness.analysis.differences import DEFAULT_ROW
from harness.data.tasks import GROUPS, TASKS
from harness.evaluation.curves import sweep, thresholds_from
from harness.evaluation.metrics import scores
from harness.evaluation.policies import make_policy
from harness.gate.baseline import read_baseline
from harness.measure.macs import piece_costs
from harness.models.backbones import BACKBONES
from harness.records import FIXED_LENGTH, RECORD_BYTES, RunRecord
from harness.report.differences import render_differences
from harness.report.overview import BEGIN, END, render
from harness.store.results import RECORD, ResultsStore


def test_committed_results_are_complete() -> None:
    assert not PROBLEMS + OTHER_PROBLEMS
    assert RECORDS


@each_run
def test_exit_scores_follow_from_trace(store: ResultsStore, record: RunRecord) -> None:
    """The scores of each exit follow from the trace."""
    trace = store.trace(record)
    assert [measured.layer for measured in record.exits] == trace.exit_layers.tolist()
    recomputed = scores(
        TASKS[record.spec.task].metrics, trace.predictions().astype(np.float64), trace.labels
    )
    for name, values in recomputed.items():
        assert [measured.scores[name] for measured in record.exits] == pytest.approx(
            values.tolist(), abs=1e-12
        )


@pytest.mark.slow
@each_run
def test_costs_follow_from_the_spec(store: ResultsStore, record: RunRecord) -> None:
    with torch.device("meta"):
        model = method_of(record).build(BACKBONES[record.spec.backbone], TASKS[record.spec.task])
        assert piece_costs(model) == record.costs
    lengths = store.trace(record).lengths
    for measured in record.exits:
        assert measured.macs == pytest.approx(
            record.costs.static(measured.layer - 1, lengths).mean(), rel=1e-12
        )
        assert measured.macs_128 == record.costs.static(measured.layer - 1, FIXED_LENGTH)
        assert measured.parameters == model.truncated(measured.layer).parameter_count()
    assert record.parameters == model.parameter_count()


@each_run
def test_curves_match_simulation_by_example(store: ResultsStore, record: RunRecord) -> None:
    """Curves match the simulation half-way, between two thresholds of each policy."""
    if record.policy is None:
        assert len(record.exits) == 1
        return
    task, dev, selection = (
        TASKS[record.spec.task],
        store.trace(record),
        store.trace(record, "selection"),
    )
    for name in ["patience"] if task.regression else ["patience", "entropy", "confidence"]:
        policy = make_policy(record, task.classes, name)
        thresholds = thresholds_from(policy, selection)
        half = len(thresholds) // 2
        threshold = (
            thresholds[half] if name == "patience" else thresholds[half - 1 : half + 1].mean()
        )
        curve = sweep(policy, dev, record.costs, task.metrics, np.array([threshold]))
        exits = simulate(name, dev, record.costs, threshold, record.tolerance)
        assert (
            curve.left[0].tolist()
            == np.bincount([one.exit for one in exits], minlength=len(record.exits)).tolist()
        )
        assert curve.macs[0] == pytest.approx(np.mean([one.macs for one in exits]), rel=1e-12)
        assert curve.layers[0] == pytest.approx(np.mean([one.layers for one in exits]), rel=1e-12)
        simulated = scores(
            task.metrics, np.array([one.prediction for one in exits], dtype=np.float64), dev.labels
        )
        for metric, score in simulated.items():
            assert curve.scores[metric][0] == pytest.approx(float(score), abs=1e-12)


@each_run
def test_committed_record_is_small(store: ResultsStore, record: RunRecord) -> None:
    """A committed record is small."""
    assert (
        store.folder(record.spec.task, record.spec.method, record.run_id) / RECORD
    ).stat().st_size <= RECORD_BYTES


def test_deebert_last_exit_is_bert() -> None:
    """The last exit of DeeBERT is the BERT run."""
    cells = {(r.spec.task, r.spec.seed, r.data.rows["train"], r.spec.method): r for r in RECORDS}
    pairs = [
        (cells[(*key[:3], "bert")], deebert)
        for key, deebert in cells.items()
        if key[3] == "deebert"
    ]
    assert pairs
    for bert, deebert in pairs:
        assert np.array_equal(STORE.trace(bert).logits[-1], STORE.trace(deebert).logits[-1])


def mean_score(task: str, method: str, layer: int = 6, metric: str = "") -> float:
    """Return the mean over at least three seeds of a score at an exit on minilm."""
    cells = [
        r
        for r in RECORDS
        if (r.spec.task, r.spec.method, r.spec.backbone) == (task, method, "minilm")
        and r.spec.limit is None
    ]
    assert len({record.spec.seed for record in cells}) >= 3
    name = metric or TASKS[task].metrics[0]
    return float(
        np.mean(
            [
                exit_.scores[name]
                for record in cells
                for exit_ in record.exits
                if exit_.layer == layer
            ]
        )
    )


def test_reference_reaches_independent_scores() -> None:
    """The reference scores like an independent fine-tuning of the backbone.

    Another program reached F1 0.852 on MRPC, and 0.866 on SST-2 with 15,000 examples; the
    reference has 10,000."""
    assert 0.85 <= mean_score("mrpc", "bert") <= 0.88
    assert 0.86 <= mean_score("sst2", "bert") <= 0.90


def test_half_of_pabee_is_enough() -> None:
    """Half of PABEE's layers are nearly as good as all."""
    assert mean_score("sst2", "pabee", layer=3) >= mean_score("sst2", "pabee") - 0.04


def test_reference_ratio_is_one() -> None:
    """The reference timed against its own shape takes equally long.

    Two models of one shape in the same rounds differ only by timing noise."""
    ratios = [
        record.latency.reference_ratio["1"][-1].median
        for record in RECORDS
        if record.spec.method == "bert" and record.latency
    ]
    assert ratios
    assert np.allclose(ratios, 1.0, atol=0.1)


def shown_in(file: str) -> str:
    """Return the text between the report markers of a file."""
    return (ROOT / file).read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def test_results_page_shows_committed_report() -> None:
    assert shown_in("results/README.md") == render(STORE, RECORDS, "bert", "markdown").strip()


def test_readme_shows_committed_figures() -> None:
    """The rows in README are rows of the report, with fewer columns."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (header, *rows) = re.findall(
        r"^\| (?:method \| point|`?\w+`? \| (?:exit \d|MACs)).*$", readme, re.M
    )
    names = cells_of(header)
    report = shown_in("results/README.md").partition("### mrpc on minilm")[2]
    full_header, *full = re.findall(r"^\| .*\|$", report.partition("Curve:")[0], re.M)
    found = {
        tuple(cells[cells_of(full_header).index(name)] for name in names)
        for cells in map(cells_of, full)
    }
    shown = {tuple(cells_of(row)) for row in rows}
    assert len(shown) == 4
    assert shown <= found


def cells_of(row: str) -> list[str]:
    return [cell.strip().strip("`") for cell in row.strip("|").split("|")]


def test_readme_is_short() -> None:
    """A visitor reads a page: at most 150 lines and 8 KB."""
    readme = (ROOT / "README.md").read_bytes()
    assert len(readme.splitlines()) <= 150
    assert len(readme) <= 8_192


def test_links_lead_to_files() -> None:
    """Every link of README and the pages to a file of the repository leads to one."""
    pages = (*PAGES, ROOT / "results" / "README.md", ROOT / "results" / "ablations.md")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (page.parent / target).is_file(), f"{page}: {target}"


def test_picture_shows_committed_records(tmp_path: Path) -> None:
    """The picture is drawn from the records by the version of matplotlib that make installs."""
    tasks = ("mrpc", "sst2")
    plot(load_results(ROOT / "results", tasks), tmp_path / "tradeoff.svg")
    picture = (ROOT / "docs" / "tradeoff.svg").read_text(encoding="utf-8")
    assert (tmp_path / "tradeoff.svg").read_text(encoding="utf-8") == picture


def test_ablations_file_shows_their_records() -> None:
    """The ablations file shows the report on its records."""
    assert (
        shown_in("results/ablations.md")
        == render_differences(ABLATIONS, ABLATED, DEFAULT_ROW, "bert", "markdown").strip()
    )


# --- the baselines


def test_committed_runs_pass_committed_baseline(run_cli: RunCli) -> None:
    """The committed runs match the committed baseline."""
    baseline = str(ROOT / "results" / "baseline.json")
    result = run_cli(
        "check", "--baseline", baseline, "--results-dir", str(STORE.root), "--format", "json"
    )
    assert result.code == 0, result
    cells = json.loads(result.out)["cells"]
    assert len(cells) == len(RECORDS)
    assert [cell for cell in cells if cell["findings"]] == []
    assert min(cell["compared"] for cell in cells) > 0


def test_demo_baseline_covers_every_cell() -> None:
    """The demo's baseline has every cell of make demo, which CI runs and checks."""
    (command,) = re.findall(
        r"^\t\$\(RUN\)/(harness run .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    words = dict(zip(command.split()[2::2], command.split()[3::2], strict=True))
    runs = read_baseline(ROOT / "tests" / "fixtures" / "demo_baseline.json").runs
    expected = {
        (task, method)
        for task in GROUPS[words["--tasks"]]
        for method in words["--methods"].split(",")
    }
    assert {(run.spec.task, run.spec.method) for run in runs} == expected
    assert {
        (run.spec.backbone, run.environment.precision, run.environment.threads) for run in runs
    } == {(words["--backbone"], {"fp32": "float32"}[words["--precision"]], int(words["--threads"]))}
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    commands = "\n".join(steps)
    assert all(
        part in commands for part in ("lint", "test", "demo", "check", "results/baseline.json")
    )
