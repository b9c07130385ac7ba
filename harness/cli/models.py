"""The command line's words about models that are fitted already. Like cli.py it imports inside functions."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.data import offline_option
from harness.cli.options import (
    POLICY_NAMES,
    cache_option,
    compute_options,
    data_option,
    results_option,
    together,
    verbosity_options,
)
from harness.errors import ExitCode, HarnessError

checkpoint_options = together(
    click.option("--checkpoint", metavar="FOLDER|HUB_ID",
                 help="Measure a fine-tuned classifier, which is its own backbone; nothing is trained."),
    click.option("--labels", metavar="A,B", help="Its classes in its own order, where its config.json does not name them."),
)  # fmt: skip
backbone_option = click.option(
    "--backbone",
    metavar="NAME|FOLDER|HUB_ID",
    help="For a run on a local folder.  [default: the run's]",
)
batch_option = click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)


@click.command("export")
@click.argument("run_id")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR"
)
@click.option("--policy", type=POLICY_NAMES, help="[default: the method's own]")
@click.option(
    "--threshold",
    type=float,
    help="In the policy's unit.  [default: the best on calibration within the budget]",
)
@click.option(
    "--budget-share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Of the run's own full MACs.  [default: 0.5]",
)
@click.option("--force", is_flag=True, help="Replace an exported model that is there.")
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
    force: bool,
    backbone: str | None,
    results_dir: Path,
    cache_dir: Path | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Put a run's model into a folder of its own, with its tokenizer, its rule for leaving, labels and scores: all that predict needs.

    \b
    Example:
      harness export 3f2a --out my-model --budget-share 0.5
    """
    from harness.analysis.operating_points import exit_rule
    from harness.methods.restore import model_folder, run_backbone
    from harness.predict.export import check_free, export
    from harness.store.results import ResultsStore
    from harness.store.stage_cache import cache_folder

    store = ResultsStore(results_dir)
    record = store.find(run_id)
    check_free(out, force)
    model_folder(record, cache_folder(cache_dir))
    rule = exit_rule(store, record, policy, threshold, budget_share)
    found = run_backbone(record, backbone or record.spec.backbone)
    card = export(store, record, rule, found, cache_folder(cache_dir), out, force)
    leaves = "" if rule.policy is None else f", {rule.policy} {rule.threshold:g}"
    click.echo(
        f"{out}: {card.method} on {card.task}{leaves}: "
        + ", ".join(f"{name} {value:.3f}" for name, value in card.scores.items())
    )
    return ExitCode.OK


@click.command("submit")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID...")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE.zip"
)
@click.option(
    "--policy", type=POLICY_NAMES, help="Let rows leave early.  [default: the last exit answers]"
)
@click.option("--threshold", type=float, help="In the policy's unit.")
@click.option(
    "--budget-share",
    type=click.FloatRange(0, 1, min_open=True),
    help="In the place of a threshold, as in export.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
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
    """Answer GLUE's test rows with stored runs, one a task, and write what the leaderboard takes. Exit code 3: it wants more tasks or rows.

    The models come from the cache folder, the rows from the test files of --data-dir or from the hub.

    \b
    Example:
      harness submit 3f2a 81bc --out submission.zip --data-dir GLUE_DIR
    """
    from harness.methods.compute import make_compute
    from harness.predict.submission import SubmitOptions, submit
    from harness.store.results import ResultsStore
    from harness.store.stage_cache import cache_folder

    if out.suffix != ".zip":
        raise HarnessError(f"--out {out}: wanted a name that ends with .zip")
    if out.exists() and not force:
        raise HarnessError(f"{out} is there: give another --out, or --force to replace it")
    store = ResultsStore(results_dir)
    compute = make_compute(device, "fp32", threads, verbose - quiet)
    options = SubmitOptions(
        policy, threshold, budget_share, backbone, data_dir, cache_folder(cache_dir), batch_size
    )
    done = submit(store, [store.find(run_id) for run_id in run_ids], out, compute, options)
    click.echo(
        f"{out}: " + ", ".join(f"{file.entry.name} {len(file.words):,} rows" for file in done.files)
    )
    lacking = done.lacking()
    for reason in lacking:
        click.echo(f"harness: {reason}", err=True)
    return ExitCode.INCOMPLETE if lacking else ExitCode.OK


@click.command("predict")
@click.argument("model", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("texts", metavar="[TEXT ...]", nargs=-1)
@click.option("--file", "path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", envvar="HARNESS_PREDICT_FILE",
              help="Rows to answer: .tsv, .jsonl, or a text a line.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text", envvar="HARNESS_PREDICT_FORMAT",
              show_default=True)  # fmt: skip
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
    """Answer texts with an exported model: the label or number, the exit, its probability, milliseconds in the model (a batch's are shared
    by its rows).

    For a task of two texts they stand in pairs, the first and the second. A line of a .tsv file holds one or two texts between tabs, from
    the first line on; of a .jsonl file a text, a list of one or two, or an object with "text" and perhaps "second". A row's number is its
    line's; empty lines have no row.

    \b
    Examples:
      harness predict my-model "a fine film" "a dull one"
      harness predict my-model --file rows.tsv --format csv --batch-size 8
    """
    import torch

    from harness.methods.compute import make_compute
    from harness.predict.exported import load
    from harness.predict.inputs import rows_of, text_rows
    from harness.report.listings import answers_text

    if (path is None) != bool(texts):
        raise HarnessError(
            f"got {'--file and a text' if texts else 'neither a text nor --file'}, wanted one of them"
        )
    rows = text_rows(path) if path is not None else []
    compute = make_compute(device, "fp32", threads, verbose - quiet)
    torch.set_num_threads(compute.threads)
    loaded = load(model, compute.device.type)
    rows = rows or rows_of(texts, loaded.card.texts)
    tokens = loaded.encode([row.texts for row in rows])
    if tokens.truncated:
        compute.progress.info(
            f"harness: warning: {tokens.truncated} of {len(rows)} rows were cut at {loaded.card.max_length} tokens"
        )
    answers = loaded.answer_tokens(tokens, batch_size)
    click.echo(
        answers_text([row.line for row in rows], [answer._asdict() for answer in answers], form),
        nl=False,
    )
    return ExitCode.OK
