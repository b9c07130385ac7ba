"""Options from the command line, the environment and a grid file."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from support.command_line import RUN, Planned, RunCli, assert_names, assert_one_line, planned
from support.messages import names_all
from support.synthetic import everything_under

from harness.cli.app import cli
from harness.cli.options import environment_variables
from harness.cli.parsing import read_grid

pytestmark = pytest.mark.usefixtures("own_folders")

GRID = """
methods = ["bert", "pabee"]
tasks = "demo-pair"
seeds = [1, 2]
limit = 8
threads = 1
latency = false
dry-run = true
train-rows = {demo-pair = 4, mrpc = 9}

[set]
all.learning_rates = [1e-3, 2e-3]
deebert.teacher.epochs = 3

[set.pabee]
epochs = 2
"""


@pytest.fixture
def grid(tmp_path: Path) -> str:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return str(path)


def test_file_equals_the_command_line(run_cli: RunCli, grid: str) -> None:
    """A grid file gives the same cells as the command line."""
    words = [
        "--methods",
        "bert,pabee",
        "--tasks",
        "demo-pair",
        "--seeds",
        "1,2",
        "--limit",
        "8",
        "--threads",
        "1",
        "--no-latency",
    ]
    words += [
        "--dry-run",
        "--train-rows",
        "demo-pair=4",
        "--set",
        "all.learning_rates=0.001,0.002",
        "--set",
        "pabee.epochs=2",
    ]
    from_file, typed = run_cli("run", "--config", grid), run_cli("run", *words)
    assert (from_file.code, from_file.err) == (0, "")
    assert from_file.out == typed.out
    assert len(planned(typed.out)) == 4


def test_command_line_overrides_environment_and_file(
    run_cli: RunCli, grid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line overrides the environment, which overrides the file."""

    def seeds(*words: str) -> set[str]:
        return {cell.seed for cell in planned(run_cli("run", "--config", grid, *words).out)}

    assert seeds() == {"1", "2"}
    monkeypatch.setenv("HARNESS_RUN_SEEDS", "3")
    assert seeds() == {"3"}
    assert seeds("--seeds", "4,5") == {"4", "5"}


def test_typed_setting_follows_the_file(run_cli: RunCli, grid: str) -> None:
    """A setting on the command line overrides that of the file."""

    def cells(*words: str) -> list[Planned]:
        return planned(run_cli("run", "--config", grid, *words).out)

    assert cells() == cells("--set", "pabee.epochs=2")
    changed = cells("--set", "pabee.epochs=5")
    assert [one == other for one, other in zip(cells(), changed, strict=True)] == [
        True,
        False,
        True,
        False,
    ]


def test_settings_of_others_are_dropped(run_cli: RunCli, grid: str) -> None:
    """The file's settings of other methods and tasks are ignored."""
    result = run_cli("run", "--config", grid, "--methods", "bert", "--tasks", "demo-single")
    assert (result.code, result.err) == (0, "")
    assert_one_line(
        run_cli("run", "--config", grid, "--train-rows", "mrpc=4"), 2, ["mrpc", "demo-pair"]
    )


def test_environment_may_set_every_option(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of run may be set in the environment."""
    typed = run_cli(*RUN, "--set", "bert.epochs=2", "--set", "bert.clip=2", "--dry-run")
    environment_variables = {
        "METHODS": "bert",
        "TASKS": "demo-pair",
        "LIMIT": "8",
        "LATENCY": "false",
        "DRY_RUN": "1",
    }
    for name, value in environment_variables.items():
        monkeypatch.setenv(f"HARNESS_RUN_{name}", value)
    monkeypatch.setenv("HARNESS_THREADS", "1")
    monkeypatch.setenv("HARNESS_SET", "bert.epochs=2 bert.clip=2")
    assert run_cli("run").out == typed.out


def commands(
    group: click.Group, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name), command


def test_variables_have_their_options_names() -> None:
    """The variable of every option has the option's own name.

    HARNESS_RUN_SEEDS is --seeds of `harness run`; the variable of a shared option may omit the
    command."""
    assert isinstance(cli, click.Group)
    mismatches, checked, known = [], 0, environment_variables(cli)
    for names, command in commands(cli):
        for option in command.params:
            if not isinstance(option, click.Option):
                continue
            checked += 1
            word = max(option.opts, key=len).lstrip("-").replace("-", "_").upper()
            full_name = "_".join(["HARNESS", *map(str.upper, names), word])
            by_click = "_".join(["HARNESS", *map(str.upper, names), str(option.name).upper()])
            given = option.envvar or by_click
            read = {given} if isinstance(given, str) else set(given)
            if not read <= {full_name, f"HARNESS_{word}"} & known:
                mismatches.append(f"{' '.join(names)} --{word.lower()}: {read}")
    assert mismatches == []
    assert checked > 80


def test_unknown_variable_is_warned_about(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that belongs to no option causes a warning."""
    monkeypatch.setenv("HARNESS_RUN_SEED", "5")
    result = run_cli("list", "tasks")
    assert (result.code, len(result.lines)) == (0, 1)
    assert_names(result.err, "HARNESS_RUN_SEED", "HARNESS_RUN_SEEDS")
    assert run_cli("list", "tasks", "-q").err == ""


def test_click_variable_names_work(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared options may also be set by click's own variable names."""
    monkeypatch.setenv("HARNESS_LIST_RESULTS_DIR", "nowhere")
    result = run_cli("list", "runs")
    assert (result.code, result.err) == (0, "")
    assert names_all(result.out, "nowhere")


@pytest.mark.parametrize(
    ("option", "typed", "expected"),
    [
        ("--methods", "bert,dee", ["bert,deebert"]),
        ("--tasks", "mr", ["mrpc"]),
        ("--backbone", "bert-large", ["bert-large-uncased"]),
        ("--methods", "nobody", []),
    ],
)
def test_comma_separated_names_are_completed(option: str, typed: str, expected: list[str]) -> None:
    completion = ShellComplete(cli, {}, "harness", "_HARNESS_COMPLETE")
    assert [item.value for item in completion.get_completions(["run", option], typed)] == expected


def test_environment_may_name_task_file(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task file may be named in the environment."""
    (tmp_path / "rows.csv").write_text(
        "text,label\n" + "".join(f"a text {number},{'ab'[number % 2]}\n" for number in range(900))
    )
    keys = (
        'name = "mine"',
        'train = "rows.csv"',
        "dev_share = 0.1",
        'text = "text"',
        'label = "label"',
        'labels = ["a", "b"]',
    )
    (tmp_path / "mine.toml").write_text("\n".join((*keys, 'metrics = "accuracy"')))
    monkeypatch.setenv("HARNESS_RUN_TASK_FILE", str(tmp_path / "mine.toml"))
    result = run_cli("run", "--methods", "bert", "--limit", "8", "--dry-run")
    assert result.code == 0
    assert [(cell.task, cell.method) for cell in planned(result.out)] == [("mine", "bert")]


def test_environment_settings_may_be_quoted(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings in the environment are separated by blanks and may be quoted."""
    words = ("run", "--methods", "costeff", "--dry-run")
    typed = run_cli(*words, "--set", "costeff.importance=last exit", "--set", "costeff.effort=2")
    monkeypatch.setenv("HARNESS_SET", "'costeff.importance=last exit' costeff.effort=2")
    assert run_cli(*words).out == typed.out
    monkeypatch.setenv("HARNESS_SET", "'costeff.importance=last")
    assert_one_line(run_cli(*words), 2, ["HARNESS_SET", "costeff.importance"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("seeds = [1", ["grid.toml", "TOML"]),
        ("seedz = 1", ["grid.toml", "seedz", "seeds"]),
        ("config = 'other.toml'", ["grid.toml", "config"]),
        ("seeds = 1979-05-27", ["grid.toml", "seeds"]),
        ("seeds = [[1]]", ["grid.toml", "seeds"]),
        ("seeds = 'one'", ["--seeds", "one"]),
        ("limit = 'few'", ["--limit", "few"]),
        ("set = {pabee = {epochz = 2}}", ["epochz", "epochs"]),
        ("set = {nobody = {epochs = 2}}", ["nobody"]),
        ("set = 'pabee'", ["--set pabee", "METHOD.FIELD=VALUE"]),
        ("train-rows = {nosuch = 5}", ["nosuch"]),
    ],
)
def test_invalid_grid_file_is_one_line(
    tmp_path: Path, run_cli: RunCli, text: str, names: list[str]
) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    before = everything_under(tmp_path)
    assert_one_line(run_cli("run", "--config", str(path), "--methods", "bert"), 2, names)
    assert everything_under(tmp_path) == before


def test_tables_and_lists_become_option_values(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        "a_b = [1, 2.5, true]\nmany = ['x', 'y']\none = 'z'\n"
        "set = {costeff-8x = {heads = 0.5, teacher.epochs = 3}}\n"
    )
    found = read_grid(path, {"a-b": False, "many": True, "one": True, "set": True})
    assert found == {
        "a-b": "1,2.5,true",
        "many": ["x", "y"],
        "one": ["z"],
        "set": ["costeff-8x.heads=0.5", "costeff-8x.teacher.epochs=3"],
    }
