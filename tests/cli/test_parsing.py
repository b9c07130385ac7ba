"""What the words of the command line, of the environment and of a grid's file mean."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from support.command_line import RUN, Say
from support.synthetic import everything_under

from harness.cli.app import cli
from harness.cli.options import variables
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


def cells(answer: str) -> list[list[str]]:
    """Method, seed and run of each line of a dry run."""
    return [[word for place, word in enumerate(line.split()) if place in (1, 3, 5)] for line in answer.splitlines()[2:]]


def test_a_file_says_the_same_as_the_command_line(say: Say, grid: str) -> None:
    words = ["--methods", "bert,pabee", "--tasks", "demo-pair", "--seeds", "1,2", "--limit", "8", "--threads", "1", "--no-latency"]
    words += ["--dry-run", "--train-rows", "demo-pair=4", "--set", "all.learning_rates=0.001,0.002", "--set", "pabee.epochs=2"]
    from_file, typed = say("run", "--config", grid), say("run", *words)
    assert (from_file.code, from_file.err) == (0, "")
    assert from_file.out == typed.out
    assert len(cells(typed.out)) == 4


def test_the_command_line_overrides_the_environment_and_that_the_file(say: Say, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def seeds(*words: str) -> set[str]:
        return {seed for _, seed, _ in cells(say("run", "--config", grid, *words).out)}

    assert seeds() == {"1", "2"}
    monkeypatch.setenv("HARNESS_RUN_SEEDS", "3")
    assert seeds() == {"3"}
    assert seeds("--seeds", "4,5") == {"4", "5"}


def test_a_setting_of_the_command_line_comes_after_the_files(say: Say, grid: str) -> None:
    runs = [cells(say("run", "--config", grid, *words).out) for words in ([], ["--set", "pabee.epochs=2"], ["--set", "pabee.epochs=5"])]
    assert runs[0] == runs[1]
    assert [one == other for one, other in zip(runs[0], runs[2], strict=True)] == [True, False, True, False]


def test_what_the_file_says_of_other_methods_and_tasks_is_left_out(say: Say, grid: str) -> None:
    answer = say("run", "--config", grid, "--methods", "bert", "--tasks", "demo-single")
    assert (answer.code, answer.err) == (0, "")
    typed = say("run", "--config", grid, "--train-rows", "mrpc=4")
    assert typed.code == 2
    assert "mrpc" in typed.err


def test_every_option_of_run_may_come_from_the_environment(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = say(*RUN, "--set", "bert.epochs=2", "--set", "bert.clip=2", "--dry-run")
    variables = {"METHODS": "bert", "TASKS": "demo-pair", "LIMIT": "8", "LATENCY": "false", "DRY_RUN": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"HARNESS_RUN_{name}", value)
    monkeypatch.setenv("HARNESS_THREADS", "1")
    monkeypatch.setenv("HARNESS_SET", "bert.epochs=2 bert.clip=2")
    assert say("run").out == typed.out


def commands(group: click.Group, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name), command


def test_the_variable_of_every_option_has_the_options_own_name() -> None:
    """HARNESS_RUN_SEEDS is --seeds of `harness run`; one that several commands share does without the command."""
    assert isinstance(cli, click.Group)
    wrong, looked_at, known = [], 0, variables(cli)
    for names, command in commands(cli):
        for option in command.params:
            if not isinstance(option, click.Option):
                continue
            looked_at += 1
            word = max(option.opts, key=len).lstrip("-").replace("-", "_").upper()
            own = "_".join(["HARNESS", *map(str.upper, names), word])
            read = option.envvar or "_".join(["HARNESS", *map(str.upper, names), str(option.name).upper()])
            if read not in (own, f"HARNESS_{word}") or read not in known:
                wrong.append(f"{' '.join(names)} --{word.lower()}: {read}")
    assert wrong == []
    assert looked_at > 80


def test_a_variable_of_no_option_is_said(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RUN_SEED", "5")
    answer = say("list", "tasks")
    assert answer.err == "harness: warning: HARNESS_RUN_SEED is no option's variable: did you mean HARNESS_RUN_SEEDS?\n"
    assert answer.code == 0
    assert say("list", "tasks", "-q").err == ""


def test_clicks_own_names_of_shared_options_are_options_too(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LIST_RESULTS_DIR", "nowhere")
    answer = say("list", "runs")
    assert (answer.code, answer.err) == (0, "")
    assert "no runs in nowhere" in answer.out


@pytest.mark.parametrize(
    ("option", "typed", "wanted"),
    [
        ("--methods", "bert,dee", ["bert,deebert"]),
        ("--tasks", "mr", ["mrpc"]),
        ("--backbone", "bert-large", ["bert-large-uncased"]),
        ("--methods", "nobody", []),
    ],
)
def test_names_between_commas_are_completed(option: str, typed: str, wanted: list[str]) -> None:
    completion = ShellComplete(cli, {}, "harness", "_HARNESS_COMPLETE")
    assert [item.value for item in completion.get_completions(["run", option], typed)] == wanted


def test_a_task_file_may_come_from_the_environment(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"a text {number},{'ab'[number % 2]}\n" for number in range(900)))
    keys = ('name = "mine"', 'train = "rows.csv"', "dev_share = 0.1", 'text = "text"', 'label = "label"', 'labels = ["a", "b"]')
    (tmp_path / "mine.toml").write_text("\n".join((*keys, 'metrics = "accuracy"')))
    monkeypatch.setenv("HARNESS_RUN_TASK_FILE", str(tmp_path / "mine.toml"))
    answer = say("run", "--methods", "bert", "--limit", "8", "--dry-run")
    assert (answer.code, answer.out.splitlines()[2].split()[:2]) == (0, ["mine", "bert"])


def test_settings_of_the_environment_stand_between_blanks_or_in_quotes(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("run", "--methods", "costeff", "--dry-run")
    typed = say(*words, "--set", "costeff.importance=last exit", "--set", "costeff.effort=2")
    monkeypatch.setenv("HARNESS_SET", "'costeff.importance=last exit' costeff.effort=2")
    assert say(*words).out == typed.out
    monkeypatch.setenv("HARNESS_SET", "'costeff.importance=last")
    answer = say(*words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "HARNESS_SET" in answer.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds = [1", "is not TOML"),
        ("seedz = 1", "unknown option 'seedz': did you mean seeds"),
        ("config = 'other.toml'", "unknown option 'config'"),
        ("seeds = 1979-05-27", "seeds: got a date"),
        ("seeds = [[1]]", "seeds: got a list"),
        ("seeds = 'one'", "got 'one', wanted whole numbers"),
        ("limit = 'few'", "'few' is not a valid integer"),
        ("set = {pabee = {epochz = 2}}", "unknown field 'epochz'"),
        ("set = {nobody = {epochs = 2}}", "nobody"),
        ("set = 'pabee'", "wanted METHOD.FIELD=VALUE"),
        ("train-rows = {nothing = 5}", "nothing"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path: Path, say: Say, text: str, words: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    before = everything_under(tmp_path)
    answer = say("run", "--config", str(path), "--methods", "bert")
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.lines
    assert words in line
    assert everything_under(tmp_path) == before


def test_tables_and_lists_become_words(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text("a_b = [1, 2.5, true]\nmany = ['x', 'y']\none = 'z'\nset = {costeff-8x = {heads = 0.5, teacher.epochs = 3}}\n")
    found = read_grid(path, {"a-b": False, "many": True, "one": True, "set": True})
    assert found == {"a-b": "1,2.5,true", "many": ["x", "y"], "one": ["z"], "set": ["costeff-8x.heads=0.5", "costeff-8x.teacher.epochs=3"]}
