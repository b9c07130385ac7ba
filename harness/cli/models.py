"""The commands export, submit and predict. Imports are inside functions, as in app.py."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.data import offline_option
from harness.cli.options import (
    POLICY,
    UnsplitVariable,
    cache_option,
    combine_options,
    compute_options,
    data_option,
    results_option,
    verbosity_options,
)
from harness.errors import ExitCode, HarnessError, counted

checkpoint_options = combine_options(
    click.option(
        "--checkpoint",
        metavar="FOLDER|HUB_ID",
        help="Fine-tuned classifier to measure on its own backbone, without training.",
    ),
    click.option(
        "--labels",
        multiple=True,
        type=UnsplitVariable(),
        metavar="A,B",
        help="Classes of the checkpoint in its own order, if its config.json does not name them. "
        "Repeat the option or use double quotes for a name with a comma.",
    ),
)
backbone_option = click.option(
    "--backbone",
    metavar="NAME|FOLDER|HUB_ID",
    help="The backbone again, if the run's was a local folder.  [default: the run's]",
)
batch_option = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Examples per batch.",
)


@click.command("export")
@click.argument("run_id")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder to export to.",
)
@click.option("--policy", type=POLICY, help="Exit policy.  [default: the method's own]")
@click.option(
    "--threshold",
    type=float,
    help="Threshold in the policy's unit: nats, probability or agreements.  "
    "[default: the best on calibration within the budget]",
)
@click.option(
    "--budget-share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Budget as a share of the run's own full MACs.  [default: 0.5]",
)
@click.option(
    "--exit",
    "layers",
    type=click.IntRange(1),
    metavar="N",
    envvar="HARNESS_EXPORT_EXIT",
    help="Export the static model of the first N layers, without early exit.",
)
@click.option("--force", is_flag=True, help="Replace an existing exported model.")
@backbone_option
@offline_option
@results_option
@cache_option
@verbosity_options
def export_command(
    run_id: str,
    out: Path,
    policy: str | None,
    threshold: float | None,
    budget_share: float | None,
    layers: int | None,
    force: bool,
    backbone: str | None,
    results_dir: Path,
    cache_dir: Path | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Export a run's model with everything that harness predict needs.

    The folder holds the model, its tokenizer, exit rule, labels and scores.

    \b
    Examples:
      harness export 3f2a --out my-model --budget-share 0.5
      harness export 3f2a --out short-model --exit 2
    """
    from harness.analysis.diagnostics import sanity_checks
    from harness.analysis.operating_points import exit_rule
    from harness.evaluation.policies import Rule
    from harness.methods.restore import model_folder, run_backbone
    from harness.predict.export import check_free, export
    from harness.store.results import ResultsStore
    from harness.store.stage_cache import cache_folder

    store = ResultsStore(results_dir)
    record = store.find(run_id)
    check_free(out, force)
    model_folder(record, cache_folder(cache_dir))
    if layers is None:
        rule = exit_rule(store, record, policy, threshold, budget_share)
    elif (policy, threshold, budget_share) != (None, None, None):
        raise HarnessError(
            f"--exit {layers}: a static model has no early exit: "
            "give no --policy, --threshold or --budget-share"
        )
    else:
        rule = Rule(tolerance=record.tolerance)
    found = run_backbone(record, backbone or record.spec.backbone)
    card = export(store, record, rule, found, cache_folder(cache_dir), out, force, layers)
    how = "" if layers is None else f", exit {layers}"
    how = how if rule.policy is None else f", {rule.policy} {rule.threshold:g}"
    click.echo(f"{out}: {card.method} on {card.task}{how}: {card.compared_with_full()}")
    for warning in () if quiet else sanity_checks(store, record):
        click.echo(f"harness: warning: {warning}", err=True)
    return ExitCode.OK


@click.command("submit")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID...")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE.zip",
    help="File to write.",
)
@click.option(
    "--policy",
    type=POLICY,
    help="Policy for early exit.  [default: predict at the last exit]",
)
@click.option(
    "--threshold",
    type=float,
    help="Threshold in the policy's unit: nats, probability or agreements.",
)
@click.option(
    "--budget-share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Budget instead of a threshold, as in export.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@batch_option
@backbone_option
@compute_options
@data_option
@offline_option
@results_option
@cache_option
@verbosity_options
def submit_command(
    run_ids: tuple[str, ...],
    out: Path,
    policy: str | None,
    threshold: float | None,
    budget_share: float | None,
    force: bool,
    batch_size: int,
    backbone: str | None,
    device: str,
    threads: int | None,
    data_dir: Path | None,
    results_dir: Path,
    cache_dir: Path | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Predict GLUE's test examples with stored runs and write a leaderboard submission.

    Give one run per task. Exit code 3: the leaderboard requires more tasks or examples.

    The models come from the cache folder, the examples from the test files of --data-dir or from
    the hub.

    \b
    Example:
      harness submit 3f2a 81bc --out submission.zip --data-dir GLUE_DIR
    """
    from harness.methods.compute import make_compute
    from harness.predict.submission import SubmitOptions, submit
    from harness.store.results import ResultsStore
    from harness.store.stage_cache import cache_folder

    if out.suffix != ".zip":
        raise HarnessError(f"--out {out}: expected a name that ends in .zip")
    if out.exists() and not force:
        raise HarnessError(f"{out} exists: give another --out, or --force to replace it")
    store = ResultsStore(results_dir)
    compute = make_compute(device, "fp32", threads, verbose - quiet)
    options = SubmitOptions(
        policy, threshold, budget_share, backbone, data_dir, cache_folder(cache_dir), batch_size
    )
    done = submit(store, [store.find(run_id) for run_id in run_ids], out, compute, options)
    click.echo(
        f"{out}: "
        + ", ".join(f"{file.entry.name} {counted(len(file.words), 'row')}" for file in done.files)
    )
    reasons = done.problems()
    for line in done.clipped() + reasons:
        click.echo(f"harness: {line}", err=True)
    return ExitCode.INCOMPLETE if reasons else ExitCode.OK


@click.command("predict")
@click.argument("model", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("texts", metavar="[TEXT ...]", nargs=-1)
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    metavar="FILE|-",
    envvar="HARNESS_PREDICT_FILE",
    help="Examples to predict: .csv, .tsv, .jsonl, .parquet, or one text per line; - is standard "
    "input.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    envvar="HARNESS_PREDICT_FORMAT",
    show_default=True,
    help="Output format.",
)
@batch_option
@compute_options
@verbosity_options
def predict_command(
    model: Path,
    texts: tuple[str, ...],
    path: Path | None,
    form: str,
    batch_size: int,
    device: str,
    threads: int | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Predict the labels of texts with an exported model.

    Each prediction is a label (for a regression, a number), followed by the exit that made it, the
    label's probability and the milliseconds in the model: an equal part of its batch's time.

    For a task on text pairs, give the texts in pairs. A .csv or .parquet file, a .tsv file with a
    header, and the objects of a .jsonl file have the columns of the custom task's files, or else
    "text", perhaps "second", and perhaps "label". The scores on labelled examples are printed to
    standard error. Without a header, each line of a .tsv file holds one or two tab-separated
    texts; a line of a .jsonl file may also hold a text, or a list of one or two. Other files and
    standard input (--file -) have lines of one text, or of two that a tab separates. An example is
    numbered by its line; empty lines are skipped.

    \b
    Examples:
      harness predict my-model "a fine film" "a dull one"
      harness predict my-model --file rows.tsv --format csv --batch-size 8
    """
    import torch

    from harness.evaluation.metrics import scores_text
    from harness.methods.compute import make_compute
    from harness.predict.exported import load
    from harness.predict.inputs import rows_from_texts, text_rows
    from harness.report.listings import predictions_text

    if (path is None) != bool(texts):
        raise HarnessError(
            f"got {'both --file and a text' if texts else 'neither --file nor a text'}: give one"
        )
    compute = make_compute(device, "fp32", threads, verbose - quiet)
    torch.set_num_threads(compute.threads)
    loaded = load(model, compute.device.type)
    rows = (
        rows_from_texts(texts, loaded.card.texts)
        if path is None
        else text_rows(path, loaded.card.texts, loaded.columns())
    )
    tokens = loaded.encode([row.texts for row in rows])
    if tokens.truncated:
        compute.progress.info(
            f"harness: warning: {tokens.truncated} of {counted(len(rows), 'example')} truncated "
            f"to {loaded.card.max_length} tokens"
        )
    labelled = [index for index, row in enumerate(rows) if row.label is not None]
    expected = loaded.expected([rows[index] for index in labelled], str(path))
    loaded.warm_up(tokens, batch_size)
    predictions = loaded.predict_tokens(tokens, batch_size)
    fields = [prediction._asdict() for prediction in predictions]
    click.echo(predictions_text([row.line for row in rows], fields, form), nl=False)
    if labelled:
        found = loaded.scores([predictions[index] for index in labelled], expected)
        count = counted(len(labelled), "labelled example")
        click.echo(f"harness: {scores_text(found)} on {count}", err=True)
    return ExitCode.OK
