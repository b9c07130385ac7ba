"""The commands sweep, time and flops. Imports are inside functions, as in app.py."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.data import offline_option
from harness.cli.options import (
    POLICY,
    backbone_variables,
    cache_option,
    compute_options,
    data_option,
    format_option,
    reference_option,
    results_option,
    settings_option,
    verbosity_options,
)
from harness.errors import ExitCode, HarnessError


@click.command("sweep")
@click.argument("run_id")
@click.option("--policy", type=POLICY, help="Exit policy.  [default: the method's own]")
@click.option(
    "--points",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="Number of thresholds: quantiles of the exit scores on the selection split.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1e9, min_open=True),
    help="Patience on a regression task: predictions that differ by less, in label units, agree.",
)
@format_option
@results_option
@verbosity_options
def sweep_command(
    run_id: str,
    policy: str | None,
    points: int,
    tolerance: float | None,
    form: str,
    results_dir: Path,
    verbose: bool,
    quiet: bool,
) -> int:
    """Print a policy's curve over thresholds from the stored trace, without model or data.

    \b
    Example:
      harness sweep 3f2a --policy entropy
    """
    from harness.report.listings import curve_table
    from harness.store.results import ResultsStore

    store = ResultsStore(results_dir)
    record = store.find(run_id)
    click.echo(curve_table(store, record, policy, points, tolerance, form), nl=False)
    return ExitCode.OK


@click.command("time")
@click.argument("run_id")
@click.option("--policy", type=POLICY, help="Exit policy.  [default: the method's own]")
@click.option(
    "--threshold",
    type=float,
    required=True,
    help="Threshold in the policy's unit: nats, probability or agreements.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Examples per batch.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Precision of inference.",
)
@click.option(
    "--rounds",
    type=click.IntRange(3),
    default=5,
    show_default=True,
    help="Number of interleaved passes over the examples.",
)
@click.option("--limit", type=click.IntRange(1), help="Time only the first N dev examples.")
@click.option(
    "--backbone",
    metavar="NAME|FOLDER|HUB_ID",
    help="The backbone again, if the run's was a local folder.  [default: the run's]",
)
@click.option(
    "--store/--no-store",
    "keep",
    default=True,
    show_default=True,
    envvar="HARNESS_TIME_STORE",
    help="Store the timing with the run, for the report.",
)
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
    """Time live early exit against the reference model on the same dev examples.

    Examples that exit are removed from the batch. The reference has its default settings;
    milliseconds are per batch. The run's model and dev examples come from the cache folder; with
    --data-dir the examples come from the task's files.

    \b
    Example:
      harness time 3f2a --policy entropy --threshold 0.3 --batch-size 1
    """
    from harness.files.atomic import check_writable
    from harness.measure.live import LiveOptions, time_run
    from harness.methods.compute import make_compute, resolve_precision
    from harness.methods.registry import find_reference
    from harness.report.timings import live_caption, timing_table
    from harness.store.results import ResultsStore
    from harness.store.stage_cache import cache_folder

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
        reference=find_reference(reference, {}),
        backbone=backbone or record.spec.backbone,
        data_dir=data_dir,
        cache_dir=cache_folder(cache_dir),
    )
    timing = time_run(record, compute, options)
    table = timing_table([(record, timing)]).as_text("github")
    click.echo(f"{live_caption(record.constant_scores)}\n\n{table}")
    if keep:
        store.add_timing(record, timing)
    return ExitCode.OK


@click.command("flops")
@click.argument("method")
@click.option(
    "--backbone",
    default="bert-base-uncased",
    show_default=True,
    metavar="NAME|FOLDER|HUB_ID",
    envvar=backbone_variables("flops"),
    show_envvar=True,
    help="Backbone; see harness list backbones.",
)
@click.option(
    "--length",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Tokens per example.",
)
@click.option(
    "--task", default="sst2", show_default=True, help="Task that sets the number of classes."
)
@settings_option
@format_option
@verbosity_options
def flops_command(
    method: str,
    backbone: str,
    length: int,
    task: str,
    settings: tuple[str, ...],
    form: str,
    verbose: bool,
    quiet: bool,
) -> int:
    """Print the parameters and MACs up to each exit, without loading weights.

    \b
    Example:
      harness flops deebert --backbone bert-base-uncased --length 128
    """
    import torch

    from harness.cli.output import flops_table
    from harness.data.tasks import find_tasks
    from harness.methods.settings import configure, parse_setting
    from harness.models.backbones import find_backbone

    configured = configure([method], [parse_setting(text) for text in settings])[method]
    chosen = find_tasks([task])
    if len(chosen) != 1:
        raise HarnessError(
            f"--task {task} is a group: give one of {', '.join(member.name for member in chosen)}"
        )
    found = find_backbone(backbone)
    if length > found.shape.positions:
        raise HarnessError(
            f"--length {length}: backbone {found.name} takes at most {found.shape.positions} tokens"
        )
    with torch.device("meta"):
        model = configured.build(found, chosen[0])
        text = flops_table(model, length, form)
    click.echo(text, nl=False)
    return ExitCode.OK
