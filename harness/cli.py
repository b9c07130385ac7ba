"""The command line. Each command imports what it needs in its body, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import __version__
from harness.cli_cache import cache_command
from harness.cli_data import allow_code_option, fetch, fetch_options, offline_option, task_file_option
from harness.cli_models import checkpoint_options, export_command, predict_command, submit_command
from harness.cli_options import (
    FROM_FILE,
    POLICY_NAMES,
    PREFIX,
    cache_option,
    compute_options,
    config_option,
    data_option,
    form_option,
    names_completed,
    reference_option,
    results_option,
    settings_option,
    verbosity_options,
)
from harness.cli_results import check_command, report_command, schema_command
from harness.errors import ExitCode, HarnessError

if TYPE_CHECKING:
    from harness.tasks import Task

MOST = 999_999_999
"""Of rows or tokens: what an option takes a record can say."""


def _methods() -> list[str]:
    from harness.methods import METHODS

    return sorted(METHODS)


def _tasks() -> list[str]:
    from harness.tasks import GROUPS, TASKS

    return [*GROUPS, *TASKS]


def _backbones() -> list[str]:
    from harness.backbones import BACKBONES

    return list(BACKBONES)


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
    "--tasks", metavar="A,B", shell_complete=names_completed(_tasks), help="Tasks or groups: see harness list tasks.  [default: demo]"
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
@click.option("--train-rows", multiple=True, metavar="TASK=N", help="Train on N rows, the same for all methods and seeds.")
@click.option("--seeds", default="1", show_default=True, metavar="1,2,3")
@settings_option
@click.option("--epochs", type=click.IntRange(1), help="The same as --set all.epochs=N.")
@click.option("--max-length", type=click.IntRange(4, MOST), default=128, show_default=True, help="Tokens after which a text is cut.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True,
              help="Rows in an evaluation batch and of the second latency figure.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
              help="Of training; auto is bf16 where the processor has it. Scores and latency are in fp32.")  # fmt: skip
@compute_options
@click.option("--limit", type=click.IntRange(1, MOST), help="A quick look at N rows per split; never averaged with full runs.")
@click.option("--latency/--no-latency", default=True, show_default=True, help="Measure wall-clock latency.")
@click.option("--latency-seconds", type=click.FloatRange(0, 3600, min_open=True), default=10.0, show_default=True,
              help="Spent on timing at each batch size; 5 to 40 rounds.")  # fmt: skip
@reference_option
@click.option("--tracker", metavar="NAME", help="An accelerate tracker: tensorboard, wandb, ... (logs in the cache folder).")
@results_option
@cache_option
@click.option("--dry-run", is_flag=True, help="Show the cells and whether they are stored; fit nothing.")
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
    from harness.backbones import find_backbone
    from harness.corpus import Corpus, corpus_tasks
    from harness.grid import plan, plan_checkpoint, run_and_tell, show_plan
    from harness.methods import CHECKPOINT, configure, parse_setting
    from harness.options import cache_folder, labels_setting, methods_in, names_in, numbers_in, reference_named, rows_of
    from harness.own_tasks import choose_tasks
    from harness.run import Options, make_compute

    wanted = [*([f"all.epochs={epochs}"] if epochs else []), *settings, *labels_setting(labels, checkpoint)]
    spare = click.get_current_context().meta[FROM_FILE]
    chosen = choose_tasks(names_in("--tasks", tasks) if tasks is not None else None, own_tasks)
    grid = configure(methods_in(methods, checkpoint), *([parse_setting(text) for text in words] for words in (wanted, spare["set"])))
    rows, numbers = rows_of(train_rows, list(chosen), spare["train-rows"]), numbers_in("--seeds", seeds)
    asked = tuple(chosen.values())
    given = [] if checkpoint is None else plan_checkpoint(grid.pop(CHECKPOINT), asked, checkpoint, numbers[0], max_length, limit)
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


@click.command("sweep")
@click.argument("run_id")
@click.option("--policy", type=POLICY_NAMES, help="[default: the method's own]")
@click.option("--points", type=click.IntRange(2), default=20, show_default=True, help="Quantiles of the scores on selection.")
@click.option("--tolerance", type=click.FloatRange(0, 1e9, min_open=True), help="Patience on a regression, in label units.")
@form_option
@results_option
@verbosity_options
def sweep_command(
    run_id: str, policy: str | None, points: int, tolerance: float | None, form: str, results_dir: Path, verbose: bool, quiet: bool
) -> int:
    """The curve of a policy over thresholds, from the stored trace: no model, no data.

    \b
    Example:
      harness sweep 3f2a --policy entropy
    """
    from harness.listing import curve_table
    from harness.store import ResultsStore

    store = ResultsStore(results_dir)
    record = store.find(run_id)
    click.echo(curve_table(store, record, policy, points, tolerance, form), nl=False)
    return ExitCode.OK


@click.command("time")
@click.argument("run_id")
@click.option("--policy", type=POLICY_NAMES, help="[default: the method's own]")
@click.option("--threshold", type=float, required=True, help="In the policy's unit: nats, probability, agreements.")
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--rounds", type=click.IntRange(3), default=5, show_default=True, help="Interleaved passes over the rows.")
@click.option("--limit", type=click.IntRange(1), help="Time the first N dev rows.")
@click.option("--backbone", metavar="NAME|FOLDER|HUB_ID", help="For a run on a local folder.  [default: the run's]")
@click.option("--store/--no-store", "keep", default=True, show_default=True, envvar="HARNESS_TIME_STORE",
              help="Keep the timing beside the run, for the report.")  # fmt: skip
@compute_options
@reference_option
@data_option
@offline_option
@results_option
@cache_option
@verbosity_options
def time_command(
    run_id: str,
    policy: str | None,
    threshold: float,
    batch_size: int,
    precision: str,
    rounds: int,
    limit: int | None,
    backbone: str | None,
    keep: bool,
    device: str,
    threads: int | None,
    reference: str,
    data_dir: Path | None,
    results_dir: Path,
    cache_dir: Path | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Time live early exit, where rows really leave the batch, against the reference model on the same dev rows.

    The reference has its default settings; milliseconds are per batch. The run's model and dev rows come from the cache folder; with
    --data-dir the rows come from the task's files.

    \b
    Example:
      harness time 3f2a --policy entropy --threshold 0.3 --batch-size 1
    """
    from harness.live import LiveOptions, time_run
    from harness.options import cache_folder, reference_named
    from harness.report import live_caption, timing_table
    from harness.run import make_compute, resolve_precision
    from harness.store import ResultsStore, check_writable

    store = ResultsStore(results_dir)
    record = store.find(run_id)
    if keep:
        check_writable(results_dir, "results")
    compute = make_compute(device, "auto", threads or record.environment.threads, verbose - quiet)
    options = LiveOptions(
        policy=policy,
        threshold=threshold,
        batch_size=batch_size,
        rounds=rounds,
        limit=limit,
        precision=resolve_precision(precision, compute.device),
        reference=reference_named(reference, {}),
        backbone=backbone or record.spec.backbone,
        data_dir=data_dir,
        cache_dir=cache_folder(cache_dir),
    )
    timing = time_run(record, compute, options)
    click.echo(f"{live_caption(record.constant_scores)}\n\n{timing_table([(record, timing)]).as_text('github')}")
    if keep:
        store.add_timing(record, timing)
    return ExitCode.OK


@click.command("flops")
@click.argument("method")
@click.option("--backbone", default="bert-base-uncased", show_default=True, metavar="NAME|FOLDER|HUB_ID")
@click.option("--length", type=click.IntRange(1), default=128, show_default=True, help="Tokens.")
@click.option("--task", default="sst2", show_default=True, help="Fixes the number of classes.")
@settings_option
@form_option
@verbosity_options
def flops_command(
    method: str, backbone: str, length: int, task: str, settings: tuple[str, ...], form: str, verbose: bool, quiet: bool
) -> int:
    """Parameters and MACs to each exit, from the shape alone: no weights.

    \b
    Example:
      harness flops deebert --backbone bert-base-uncased --length 128
    """
    import torch

    from harness.backbones import find_backbone
    from harness.flops import flops_table
    from harness.methods import configure, parse_setting
    from harness.tasks import find_tasks

    configured = configure([method], [parse_setting(text) for text in settings])[method]
    chosen = find_tasks([task])
    if len(chosen) != 1:
        raise HarnessError(f"--task {task} is a group: wanted one of {', '.join(member.name for member in chosen)}")
    found = find_backbone(backbone)
    if length > found.shape.positions:
        raise HarnessError(f"--length {length}: backbone {found.name} takes up to {found.shape.positions} tokens")
    with torch.device("meta"):
        model = configured.untrained(found, chosen[0])
        text = flops_table(model, length, form)
    click.echo(text, nl=False)
    return ExitCode.OK


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "auto_envvar_prefix": PREFIX}


COMMANDS = [
    *(cache_command, check_command, export_command, flops_command, predict_command, report_command, run_command),
    *(schema_command, submit_command, sweep_command, time_command),
]


@click.group(commands=COMMANDS, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Accuracy, FLOPs and measured latency of early-exit and compressed BERTs, under one interface.

    Each option is an environment variable too: HARNESS_RUN_SEEDS=1,2 is run --seeds 1,2.

    \b
    Examples:
      harness run                                         # a first look: needs no data, no network
      harness run --methods bert,deebert --tasks mrpc --backbone minilm --data-dir GLUE_DIR
      harness report --format markdown
    """


@cli.command("list")
@click.argument("what", type=click.Choice(["methods", "tasks", "backbones", "runs"]))
@click.argument("method", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", envvar="HARNESS_LIST_FORMAT", show_default=True)
@results_option
@verbosity_options
def list_command(what: str, method: str | None, form: str, results_dir: Path, verbose: bool, quiet: bool) -> int:
    """What there is: methods (-v: with the settings that --set takes; of one METHOD: what each of them is), tasks, backbones, or the runs
    in the results folder.

    \b
    Examples:
      harness list methods costeff
      harness list runs --format json
    """
    import json

    from harness.listing import backbones, methods, runs, settings, settings_text, tasks, text
    from harness.store import Problem, ResultsStore

    problems: list[Problem] = []
    if method is not None and what != "methods":
        raise HarnessError(f"list {what} takes no further name: {method}")
    if method is not None:
        rows = settings(method)
    elif what == "runs":
        records, problems = ResultsStore(results_dir).records()
        rows = runs(records)
    else:
        rows = methods(verbose) if what == "methods" else {"tasks": tasks, "backbones": backbones}[what]()
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        words = settings_text if method is not None else text
        click.echo(words(rows) if rows else f"no {what} in {results_dir}")
    for problem in problems:
        click.echo(f"harness: {problem.folder}: {problem.reason}", err=True)
    return ExitCode.INCOMPLETE if problems else ExitCode.OK


fetch_command = cli.command("fetch")(fetch_options(verbosity_options(fetch)))
