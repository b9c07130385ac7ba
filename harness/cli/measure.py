"""The commands sweep, time and flops. They import what they need in their bodies, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.data import offline_option
from harness.cli.options import (
    POLICY_NAMES,
    cache_option,
    compute_options,
    data_option,
    form_option,
    reference_option,
    results_option,
    settings_option,
    verbosity_options,
)
from harness.errors import ExitCode, HarnessError


@click.command("sweep")
@click.argument("run_id")
@click.option("--policy", type=POLICY_NAMES, help="[default: the method's own]")
@click.option(
    "--points",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="Quantiles of the scores on selection.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1e9, min_open=True),
    help="Patience on a regression, in label units.",
)
@form_option
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
    """The curve of a policy over thresholds, from the stored trace: no model, no data.

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
@click.option("--policy", type=POLICY_NAMES, help="[default: the method's own]")
@click.option(
    "--threshold",
    type=float,
    required=True,
    help="In the policy's unit: nats, probability, agreements.",
)
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(3),
    default=5,
    show_default=True,
    help="Interleaved passes over the rows.",
)
@click.option("--limit", type=click.IntRange(1), help="Time the first N dev rows.")
@click.option(
    "--backbone",
    metavar="NAME|FOLDER|HUB_ID",
    help="For a run on a local folder.  [default: the run's]",
)
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
    from harness.files.atomic import check_writable
    from harness.measure.live import LiveOptions, time_run
    from harness.methods.compute import make_compute, resolve_precision
    from harness.methods.registry import reference_named
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
        reference=reference_named(reference, {}),
        backbone=backbone or record.spec.backbone,
        data_dir=data_dir,
        cache_dir=cache_folder(cache_dir),
    )
    timing = time_run(record, compute, options)
    click.echo(
        f"{live_caption(record.constant_scores)}\n\n{timing_table([(record, timing)]).as_text('github')}"
    )
    if keep:
        store.add_timing(record, timing)
    return ExitCode.OK


@click.command("flops")
@click.argument("method")
@click.option(
    "--backbone", default="bert-base-uncased", show_default=True, metavar="NAME|FOLDER|HUB_ID"
)
@click.option("--length", type=click.IntRange(1), default=128, show_default=True, help="Tokens.")
@click.option("--task", default="sst2", show_default=True, help="Fixes the number of classes.")
@settings_option
@form_option
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
    """Parameters and MACs to each exit, from the shape alone: no weights.

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
            f"--task {task} is a group: wanted one of {', '.join(member.name for member in chosen)}"
        )
    found = find_backbone(backbone)
    if length > found.shape.positions:
        raise HarnessError(
            f"--length {length}: backbone {found.name} takes up to {found.shape.positions} tokens"
        )
    with torch.device("meta"):
        model = configured.build(found, chosen[0])
        text = flops_table(model, length, form)
    click.echo(text, nl=False)
    return ExitCode.OK
