"""The command rerun. Imports are inside functions, as in app.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.data import offline_option, pretraining_options, task_file_option
from harness.cli.options import cache_option, data_option, results_option, verbosity_options

if TYPE_CHECKING:
    from harness.data.tasks import Task


@click.command("rerun")
@click.argument("run_id")
@click.option(
    "--out-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("rerun"),
    show_default=True,
    help="Results folder of the new run.",
)
@click.option(
    "--backbone",
    metavar="FOLDER",
    help="Folder of the run's backbone or checkpoint, if it is not found by its name.",
)
@data_option
@task_file_option("rerun")
@pretraining_options
@offline_option
@results_option
@cache_option
@verbosity_options
def rerun_command(
    run_id: str,
    out_dir: Path,
    backbone: str | None,
    data_dir: Path | None,
    own_tasks: tuple[Task, ...],
    corpus: tuple[Path, ...],
    glove: Path | None,
    results_dir: Path,
    cache_dir: Path | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Fit a stored run again, with its settings, and check that it gets the same run id.

    The new run is stored in another folder. Stages that are still in the cache are not fitted
    again; give an empty --cache-dir to fit all of them. Exit code 4: data, backbone, device or
    settings differ from those of the run.

    \b
    Example:
      harness rerun 3f2a --data-dir GLUE_DIR --cache-dir new-cache
    """
    from harness.measure.idle_threads import let_idle_threads_sleep

    let_idle_threads_sleep()  # before anything imports torch

    from harness.cli.output import run_and_print
    from harness.methods.compute import make_compute
    from harness.records import PRECISION_OPTIONS
    from harness.runs.again import Paths, plan_again
    from harness.store.results import ResultsStore

    record = ResultsStore(results_dir).find(run_id)
    environment = record.environment
    precision = PRECISION_OPTIONS[environment.precision]
    compute = make_compute(environment.device_type, precision, environment.threads, verbose - quiet)
    paths = Paths(out_dir, cache_dir, data_dir, corpus, glove, own_tasks, backbone)
    cell, options = plan_again(record, paths, compute)
    return run_and_print([cell], options)
