"""The command line: help and output of the commands."""

import csv
import io
import itertools
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from support.command_line import RUN, RunCli, assert_one_line, assert_suggests, planned
from support.messages import names_all
from support.stored_runs import DYNAMIC, REGRESSION, SINGLE, store_run
from support.synthetic import everything_under, random_trace

import harness
from harness.cli.app import cli
from harness.cli.options import POLICY
from harness.data.tasks import TASKS
from harness.evaluation.curves import sweep
from harness.evaluation.policies import POLICIES, Rule, make_policy
from harness.methods.registry import METHODS
from harness.models.backbones import BACKBONES

pytestmark = pytest.mark.usefixtures("own_folders")


# --- help and version


@pytest.mark.parametrize("command", [None, *cli.commands])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_an_example(run_cli: RunCli, command: str | None, option: str) -> None:
    result = run_cli(*([command] if command else []), option)
    assert result.code == 0
    assert result.err == ""
    assert any(
        line.strip().startswith(f"harness {command or 'run'}") for line in result.out.splitlines()
    )


def test_group_help_lists_every_command(run_cli: RunCli) -> None:
    out = run_cli("--help").out
    assert all(f"\n  {name} " in out for name in cli.commands)


def test_version_option_prints_the_version(run_cli: RunCli) -> None:
    result = run_cli("--version")
    assert (result.code, result.err) == (0, "")
    assert harness.__version__ in result.out


def test_help_is_fast() -> None:
    """Help is fast in a fresh process.

    The bound is 0.15 s of CPU time, or three times a bare interpreter's on a slow or loaded
    machine; the best of five turns counts."""

    def seconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare, help_ = zip(
        *((seconds("-c", "pass"), seconds("-m", "harness", "--help")) for _ in range(5)),
        strict=True,
    )
    assert min(help_) < max(0.15, 3 * min(bare)), (bare, help_)


def test_exit_code_reaches_the_shell() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "harness", "rnu"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "rnu" in result.stderr


def test_bare_command_shows_the_help(run_cli: RunCli) -> None:
    result = run_cli()
    assert result.code in (0, 2)
    assert any(
        line.strip().startswith("harness run") for line in (result.out + result.err).splitlines()
    )


def test_all_policies_are_offered() -> None:
    option = click.Option(["--policy"], type=POLICY)
    context = click.Context(click.Command("sweep"))
    assert option.type.get_metavar(option, context) == f"[{'|'.join(POLICIES)}]"
    completed = [item.value for item in option.type.shell_complete(context, option, "e")]
    assert completed == ["entropy"]


# --- output of the commands


@pytest.mark.parametrize(
    ("what", "key", "names"),
    [
        ("methods", "method", METHODS),
        ("tasks", "task", TASKS),
        ("backbones", "backbone", BACKBONES),
    ],
)
def test_lists_name_every_table_entry(
    run_cli: RunCli, what: str, key: str, names: dict[str, object]
) -> None:
    result = run_cli("list", what, "--format", "json")
    assert (result.code, result.err) == (0, "")
    rows = json.loads(result.out)
    assert [row[key] for row in rows] == list(names)
    text = run_cli("list", what).out
    assert all(f"{name} " in text for name in names)


def test_runs_are_listed_with_cells(run_cli: RunCli, stored: str) -> None:
    result = run_cli("list", "runs", "--format", "json", "--results-dir", stored)
    assert (result.code, result.err) == (0, "")
    cells = [
        (row["run"], row["task"], row["method"], row["exits"]) for row in json.loads(result.out)
    ]
    expected = [
        (SINGLE, "rte", "bert", 1),
        (DYNAMIC, "rte", "deebert", 2),
        (REGRESSION, "stsb", "pabee", 2),
    ]
    assert cells == [(record.run_id, *cell) for record, *cell in expected]


def test_settings_are_listed_in_full(run_cli: RunCli) -> None:
    """Each setting of a method is listed with its value, choices and description."""
    rows = {
        row["setting"]: row
        for row in json.loads(run_cli("list", "methods", "costeff-8x", "--format", "json").out)
    }
    flat = {
        row["method"]: row["settings"]
        for row in json.loads(run_cli("list", "methods", "-v", "--format", "json").out)
    }["costeff-8x"]
    assert {f"costeff-8x.{name}" for name in flat} - set(rows) == {"costeff-8x.epochs_table"}, (
        "which can only be set from Python"
    )
    assert {name: row["value"] for name, row in rows.items()} == {
        name: flat[name.removeprefix("costeff-8x.")] for name in rows
    }
    assert rows["costeff-8x.rounds"]["choices"] == ["iterative", "one"]
    assert rows["costeff-8x.pooling"]["choices"] == ["cls", "mean"]
    assert all(row["about"] for row in rows.values())
    lines = run_cli("list", "methods", "costeff-8x").out.splitlines()
    (index,) = [
        index for index, line in enumerate(lines) if line.startswith("costeff-8x.rounds=iterative ")
    ]
    assert names_all(lines[index].partition(" ")[2], "iterative", "one")
    assert str(rows["costeff-8x.rounds"]["about"]).startswith(lines[index + 1].strip())
    assert "costeff-8x.equilibrium=true" in lines
    assert any(
        line.startswith("costeff-8x.pooling=none ") and names_all(line, "cls", "mean")
        for line in lines
    )


def test_unlistable_names_are_one_line(run_cli: RunCli) -> None:
    result = run_cli("list", "methods", "costef")
    assert_one_line(result, 2, ["costef", *METHODS])
    assert_suggests(result.err, "costeff", METHODS)
    assert_one_line(run_cli("list", "tasks", "mrpc"), 2, ["tasks", "mrpc"])


def test_verbose_lists_method_settings(run_cli: RunCli) -> None:
    """Methods are listed with their settings if -v is given."""
    rows = {
        row["method"]: row.get("settings", {})
        for row in json.loads(run_cli("list", "methods", "-v", "--format", "json").out)
    }
    assert (rows["pabee"]["clip"], rows["pabee"]["epochs"], rows["deebert"]["teacher.warmup"]) == (
        1.0,
        None,
        0.1,
    )
    assert "teacher.warmup=0.1" in run_cli("list", "methods", "-v").out
    assert "warmup" not in run_cli("list", "methods").out


def test_listed_runs_show_differing_settings(run_cli: RunCli, stored: str) -> None:
    """Runs of a method are listed with the settings that differ."""
    other = replace(
        SINGLE,
        run_id="51e1" + "0" * 12,
        spec=replace(SINGLE.spec, settings={**SINGLE.spec.settings, "epochs": 5}),
    )
    store_run(Path(stored), other)
    rows = json.loads(run_cli("list", "runs", "--format", "json", "--results-dir", stored).out)
    assert [row["settings"] for row in rows] == [{"epochs": 3}, {"epochs": 5}, {}, {}]
    assert [row["threads"] for row in rows] == [2] * 4


def test_empty_results_folder_is_not_created(run_cli: RunCli, tmp_path: Path) -> None:
    """An empty results folder lists nothing and is not created."""
    assert json.loads(run_cli("list", "runs", "--format", "json").out) == []
    (line,) = run_cli("list", "runs").out.splitlines()
    assert names_all(line, "results")
    assert not (tmp_path / "results").exists()


def test_flops_of_bert_base_are_published(run_cli: RunCli) -> None:
    """FLOPs of BERT-base at 128 tokens follow from the published shape:

    12 (4 t d^2 + 2 t^2 d + 2 t d f) + d^2 + 2 d with d = 768, f = 3072, t = 128."""
    result = run_cli(
        "flops", "bert", "--backbone", "bert-base-uncased", "--length", "128", "--format", "json"
    )
    assert (result.code, result.err) == (0, "")
    (row,) = json.loads(result.out)
    assert row["exit"] == 12
    assert row["parameters"] == 109_483_778
    assert row["static MACs"] == row["path MACs"] == 11_174_217_216
    assert row["static FLOPs"] == row["path FLOPs"] == 22_348_434_432


def test_three_formats_hold_same_figures(run_cli: RunCli, stored: str) -> None:
    words = ("sweep", "d1e0", "--results-dir", stored)
    rows = json.loads(run_cli(*words, "--format", "json").out)
    table = list(csv.DictReader(io.StringIO(run_cli(*words, "--format", "csv").out)))
    assert [{name: float(value) for name, value in row.items()} for row in table] == rows
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in run_cli(*words).out.splitlines()[2:]
    ]
    assert header == list(rows[0])
    shown = [[float(cell.replace(",", "")) for cell in line] for line in lines]
    assert shown == [pytest.approx(list(row.values()), rel=1e-5) for row in rows]


def test_sweep_lines_are_distinct_points(run_cli: RunCli, stored: str) -> None:
    """Every line of a sweep is a distinct point, and its threshold is exact.

    Of neighbouring thresholds with the same exits only the first is listed; a sweep at the listed
    thresholds gives the same exits."""
    rows = json.loads(
        run_cli("sweep", "d1e0", "--points", "200", "--format", "json", "--results-dir", stored).out
    )
    assert len(rows) < 202
    assert all(one["MMACs"] < other["MMACs"] for one, other in itertools.pairwise(rows))
    policy, trace = (
        make_policy(Rule("entropy"), 2),
        random_trace(0, [exit_.layer for exit_ in DYNAMIC.exits]),
    )
    again = sweep(
        policy,
        trace,
        DYNAMIC.costs,
        ("accuracy",),
        np.array([row["entropy (nats)"] for row in rows]),
    )
    assert (again.macs / 1e6).tolist() == [row["MMACs"] for row in rows]


@pytest.mark.parametrize("policy", POLICIES)
def test_sweep_knows_every_policy(run_cli: RunCli, stored: str, policy: str) -> None:
    """A sweep prints the curve of every policy."""
    result = run_cli(
        "sweep", "d1e0", "--policy", policy, "--format", "json", "--results-dir", stored
    )
    assert (result.code, result.err) == (0, "")
    rows = json.loads(result.out)
    assert rows[-1]["layers"] == 4.0
    assert all(0 <= row["accuracy"] <= 1 and 2 <= row["layers"] <= 4 for row in rows)


def test_dry_run_fits_nothing(run_cli: RunCli, tmp_path: Path) -> None:
    """A dry run shows the cells and fits nothing."""
    result = run_cli(
        *RUN,
        "--methods",
        "bert,deebert",
        "--dry-run",
        "--results-dir",
        "results",
        "--cache-dir",
        "cache",
    )
    assert (result.code, result.err) == (0, "")
    cells = planned(result.out)
    assert [
        (cell.task, cell.method, cell.backbone, cell.seed, cell.rows, cell.stored) for cell in cells
    ] == [("demo-pair", method, "tiny", "1", "8", False) for method in ("bert", "deebert")]
    assert everything_under(tmp_path / "results") == everything_under(tmp_path / "cache") == {}


def test_dry_run_shows_stored_run(run_cli: RunCli, tmp_path: Path) -> None:
    """A stored run is shown as stored by a dry run."""
    words = [*RUN, "--dry-run", "--results-dir", "results", "--cache-dir", "cache"]
    (cell,) = planned(run_cli(*words).out)
    assert not cell.stored
    assert run_cli(*[word for word in words if word != "--dry-run"]).code == 0
    (folder,) = (tmp_path / "results" / "demo-pair" / "bert").iterdir()
    assert folder.name.startswith(cell.run)
    assert planned(run_cli(*words).out) == [cell._replace(stored=True)]
