"""The command `harness run`. Imports are inside functions, as in app.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.data import (
    allow_code_option,
    offline_option,
    pretraining_options,
    task_file_option,
)
from harness.cli.models import checkpoint_options
from harness.cli.options import (
    CONFIG_KEY,
    backbone_variables,
    cache_option,
    compute_options,
    config_option,
    data_option,
    name_completion,
    reference_option,
    results_option,
    settings_option,
    verbosity_options,
)

if TYPE_CHECKING:
    from harness.data.tasks import Task

LARGEST_COUNT = 999_999_999
"""Largest number of examples or tokens that an option accepts."""


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
    shell_complete=name_completion(_methods),
    help="Methods; see harness list methods.  [default: bert,deebert,pabee; none with "
    "--checkpoint]",
)
@checkpoint_options
@click.option(
    "--tasks",
    metavar="A,B",
    shell_complete=name_completion(_tasks),
    help="Tasks or groups; see harness list tasks.  [default: demo]",
)
@task_file_option("run")
@allow_code_option
@click.option(
    "--backbone",
    metavar="NAME|FOLDER|HUB_ID",
    envvar=backbone_variables("run"),
    show_envvar=True,
    shell_complete=name_completion(_backbones),
    help="Backbone; see harness list backbones.  [default: bert-base-uncased; for the demo tasks "
    "tiny, which is random]",
)
@data_option
@offline_option
@pretraining_options
@click.option(
    "--train-rows",
    multiple=True,
    metavar="TASK=N",
    help="Train on N examples, the same for all methods and seeds.",
)
@click.option(
    "--seeds", default="1", show_default=True, metavar="1,2,3", help="Seeds; one run for each."
)
@settings_option
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Training epochs; the same as --set all.epochs=N. Stages with a schedule of their own "
    "have settings of their own: see harness list methods METHOD.",
)
@click.option(
    "--max-length",
    type=click.IntRange(4, LARGEST_COUNT),
    default=128,
    show_default=True,
    help="Truncate each example to this many tokens.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Batch size of evaluation and of the second latency figure.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Precision of training; auto is bf16 if the processor supports it. Scores and latency "
    "are in fp32.",
)
@compute_options
@click.option(
    "--limit",
    type=click.IntRange(1, LARGEST_COUNT),
    help="Use only N examples per split; such runs are never averaged with full ones.",
)
@click.option(
    "--latency/--no-latency", default=True, show_default=True, help="Measure wall-clock latency."
)
@click.option(
    "--latency-seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds of timing at each batch size, in at most 40 rounds; large models need the time "
    "of three.",
)
@reference_option
@click.option(
    "--tracker",
    metavar="NAME",
    help="Tracker of accelerate: tensorboard, wandb, ... (logs go to the cache folder).",
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
    labels: tuple[str, ...],
    tasks: str | None,
    own_tasks: tuple[Task, ...],
    backbone: str | None,
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
    """Fit methods on tasks, measure every exit and store the records.

    The grid has one cell for each task, method and seed, and stores one run for each cell. An
    interrupted run resumes where it stopped. Two parts are held out of the training rows:
    selection, to choose epochs and learning rates, and calibration, to choose thresholds. Dev is
    only scored.

    \b
    Examples:
      harness run --methods bert,pabee --tasks mrpc,sst2 --backbone minilm --seeds 1,2,3
      harness run --tasks sst2 --backbone minilm --train-rows sst2=10000
      harness run --tasks rte --data-dir GLUE_DIR --set all.head=plain --set pabee.epochs=5
      harness run --tasks glue --data-dir GLUE_DIR --methods bert,pabee --limit 64 --offline
      harness run --config grid.toml
    """
    from harness.measure.idle_threads import let_idle_threads_sleep

    let_idle_threads_sleep()  # before anything imports torch

    from harness.cli.output import run_and_print, show_plan
    from harness.cli.parsing import (
        labels_setting,
        optional_names,
        parse_integers,
        parse_methods,
        parse_train_rows,
    )
    from harness.methods.compute import make_compute
    from harness.methods.settings import parse_setting
    from harness.runs.request import DEFAULT_METHODS, GridRequest, plan_request

    overrides = [
        *([f"all.epochs={epochs}"] if epochs else []),
        *settings,
        *labels_setting(labels, checkpoint),
    ]
    defaults = click.get_current_context().meta[CONFIG_KEY]
    request = GridRequest(
        methods=parse_methods(methods, checkpoint, DEFAULT_METHODS),
        tasks=optional_names("--tasks", tasks),
        custom_tasks=own_tasks,
        backbone=backbone,
        checkpoint=checkpoint,
        seeds=parse_integers("--seeds", seeds),
        settings=[parse_setting(text) for text in overrides],
        default_settings=[parse_setting(text) for text in defaults["set"]],
        max_length=max_length,
        limit=limit,
        data_dir=data_dir,
        corpus=corpus,
        vectors=glove,
        batch_size=batch_size,
        latency_s=latency_seconds if latency else 0.0,
        reference=reference,
        results_dir=results_dir,
        cache_dir=cache_dir,
    )
    rows = parse_train_rows(train_rows, list(request.chosen_tasks()), defaults["train-rows"])
    compute = make_compute(device, precision, threads, verbose - quiet, tracker)
    cells, options = plan_request(replace(request, train_rows=rows), compute)
    return (show_plan if dry_run else run_and_print)(cells, options)
