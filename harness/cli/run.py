"""The command `harness run`. It imports what it needs in its body, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.data import allow_code_option, offline_option, task_file_option
from harness.cli.models import checkpoint_options
from harness.cli.options import (
    FROM_FILE,
    cache_option,
    compute_options,
    config_option,
    data_option,
    names_completed,
    reference_option,
    results_option,
    settings_option,
    verbosity_options,
)

if TYPE_CHECKING:
    from harness.data.tasks import Task

MOST = 999_999_999
"""Of rows or tokens: what an option takes a record can say."""


def _methods() -> list[str]:
    from harness.methods.registry import known_methods

    return sorted(known_methods())


def _tasks() -> list[str]:
    from harness.data.tasks import known_tasks, task_groups

    return [*task_groups(), *known_tasks()]


def _backbones() -> list[str]:
    from harness.models.backbones import listed_backbones

    return list(listed_backbones())


@click.command("run")
@config_option
@click.option(
    "--methods",
    metavar="A,B",
    shell_complete=names_completed(_methods),
    help="See harness list methods.  [default: bert,deebert,pabee; none with --checkpoint]",
)
@checkpoint_options
@click.option(
    "--tasks",
    metavar="A,B",
    shell_complete=names_completed(_tasks),
    help="Tasks or groups: see harness list tasks.  [default: demo]",
)
@task_file_option
@allow_code_option
@click.option(
    "--backbone",
    default="tiny",
    show_default=True,
    metavar="NAME|FOLDER|HUB_ID",
    shell_complete=names_completed(_backbones),
    help="See harness list backbones.",
)
@data_option
@offline_option
@click.option("--corpus", multiple=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Sentences to pre-train on, one a line; may be repeated.  [default: the tasks' training parts]")  # fmt: skip
@click.option("--glove", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Word vectors for data augmentation.  [default: the backbone's own input embeddings]")  # fmt: skip
@click.option(
    "--train-rows",
    multiple=True,
    metavar="TASK=N",
    help="Train on N rows, the same for all methods and seeds.",
)
@click.option("--seeds", default="1", show_default=True, metavar="1,2,3")
@settings_option
@click.option("--epochs", type=click.IntRange(1), help="The same as --set all.epochs=N.")
@click.option(
    "--max-length",
    type=click.IntRange(4, MOST),
    default=128,
    show_default=True,
    help="Tokens after which a text is cut.",
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True,
              help="Rows in an evaluation batch and of the second latency figure.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
              help="Of training; auto is bf16 where the processor has it. Scores and latency are in fp32.")  # fmt: skip
@compute_options
@click.option(
    "--limit",
    type=click.IntRange(1, MOST),
    help="A quick look at N rows per split; never averaged with full runs.",
)
@click.option(
    "--latency/--no-latency", default=True, show_default=True, help="Measure wall-clock latency."
)
@click.option("--latency-seconds", type=click.FloatRange(0, 3600, min_open=True), default=10.0, show_default=True,
              help="Spent on timing at each batch size; 5 to 40 rounds.")  # fmt: skip
@reference_option
@click.option(
    "--tracker",
    metavar="NAME",
    help="An accelerate tracker: tensorboard, wandb, ... (logs in the cache folder).",
)
@results_option
@cache_option
@click.option(
    "--dry-run", is_flag=True, help="Show the cells and whether they are stored; fit nothing."
)
@verbosity_options
def run_command(
    methods: str | None,
    checkpoint: str | None,
    labels: str | None,
    tasks: str | None,
    own_tasks: tuple[Task, ...],
    backbone: str,
    data_dir: Path | None,
    corpus: tuple[Path, ...],
    glove: Path | None,
    train_rows: tuple[str, ...],
    seeds: str,
    settings: tuple[str, ...],
    epochs: int | None,
    max_length: int,
    batch_size: int,
    precision: str,
    device: str,
    threads: int | None,
    limit: int | None,
    latency: bool,
    latency_seconds: float,
    reference: str,
    tracker: str | None,
    results_dir: Path,
    cache_dir: Path | None,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    """Fit methods on tasks, measure every exit, store records. An interrupted run goes on where it was.

    \b
    Examples:
      harness run --methods bert,deebert,pabee --tasks mrpc,sst2 --backbone minilm --train-rows sst2=10000 --seeds 1,2,3
      harness run --tasks rte --backbone minilm --data-dir GLUE_DIR --set all.head=plain --set pabee.epochs=5
      harness run --tasks glue --data-dir GLUE_DIR --methods bert,pabee --backbone minilm --limit 64 --offline
      harness run --config grid.toml
    """
    from harness.cli.output import run_and_tell, show_plan
    from harness.cli.parsing import labels_setting, methods_in, names_in, numbers_in, rows_of
    from harness.data.corpus import Corpus, corpus_tasks
    from harness.data.custom_tasks import choose_tasks
    from harness.methods.compute import make_compute
    from harness.methods.registry import CHECKPOINT, reference_named
    from harness.methods.settings import configure, parse_setting
    from harness.models.backbones import find_backbone
    from harness.runs.cell import Options
    from harness.runs.grid import plan, plan_checkpoint
    from harness.store.stage_cache import cache_folder

    wanted = [
        *([f"all.epochs={epochs}"] if epochs else []),
        *settings,
        *labels_setting(labels, checkpoint),
    ]
    spare = click.get_current_context().meta[FROM_FILE]
    chosen = choose_tasks(names_in("--tasks", tasks) if tasks is not None else None, own_tasks)
    grid = configure(
        methods_in(methods, checkpoint),
        *([parse_setting(text) for text in words] for words in (wanted, spare["set"])),
    )
    rows, numbers = (
        rows_of(train_rows, list(chosen), spare["train-rows"]),
        numbers_in("--seeds", seeds),
    )
    asked = tuple(chosen.values())
    given = (
        []
        if checkpoint is None
        else plan_checkpoint(grid.pop(CHECKPOINT), asked, checkpoint, numbers[0], max_length, limit)
    )
    cells = [*plan(grid, asked, find_backbone(backbone), numbers, max_length, rows, limit), *given]
    options = Options(
        data_dir=data_dir,
        results_dir=results_dir,
        cache_dir=cache_folder(cache_dir),
        compute=make_compute(device, precision, threads, verbose - quiet, tracker),
        batch_size=batch_size,
        latency_s=latency_seconds if latency else 0.0,
        reference=reference_named(reference, grid),
        corpus=Corpus(corpus, data_dir, corpus_tasks(list(chosen)), limit),
        vectors=glove,
    )
    return (show_plan if dry_run else run_and_tell)(cells, options)
