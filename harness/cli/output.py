"""Output that needs torch: the plan of a grid, a line for each cell, the table of MACs."""

from collections.abc import Sequence

import click
from tabulate import tabulate

from harness.analysis.diagnostics import sanity_checks
from harness.errors import ExitCode, IncompleteError, counted
from harness.evaluation.metrics import scores_text
from harness.measure.macs import piece_costs
from harness.methods.compute import device_name
from harness.models.multi_exit import MultiExitModel
from harness.records import RunRecord, short_id
from harness.report.listings import table
from harness.runs.cell import Cell, Options, run_id
from harness.runs.estimate import estimate_minutes
from harness.runs.grid import Failure, check_external_inputs, load_grid_data, run_grid
from harness.store.results import ResultsStore


def _with_path_exits(model: MultiExitModel, layers: int) -> MultiExitModel:
    """Return the model of the first `layers` layers, with all their exits."""
    return MultiExitModel(
        model.embedding,
        list(model.layers)[:layers],
        [model.exit_after(index) for index in range(layers)],
    )


def flops_table(model: MultiExitModel, length: int, form: str) -> str:
    """Return parameters, MACs and FLOPs up to each exit, as markdown, csv or json.

    They hold for one example of `length` tokens: for the static (truncated) model, and for the
    path with all exits on the way.
    """
    costs = piece_costs(model)
    rows = [
        {
            "exit": layer,
            "parameters": model.truncated(layer).parameter_count(),
            "path parameters": _with_path_exits(model, layer).parameter_count(),
            "static MACs": costs.static(layer - 1, length),
            "static FLOPs": 2 * costs.static(layer - 1, length),
            "path MACs": costs.path(layer - 1, length),
            "path FLOPs": 2 * costs.path(layer - 1, length),
        }
        for layer in model.exit_layers
    ]
    return table(rows, form)


def show_plan(cells: Sequence[Cell], options: Options) -> ExitCode:
    """Print the cells, whether they are stored, and the fitting time expected from earlier runs."""
    store = ResultsStore(options.results_dir)
    data, failures = load_grid_data(cells, options)
    check_external_inputs(cells, options)
    planned = [
        (cell, run_id(cell, data[cell.rows], options)) for cell in cells if cell.rows in data
    ]
    stored = [store.holds(cell.spec.task, cell.spec.method, identity) for cell, identity in planned]
    specs = [(cell.spec, is_stored) for (cell, _), is_stored in zip(planned, stored, strict=True)]
    tokens = {rows.task: float(part.train.tokens.lengths.sum()) for rows, part in data.items()}
    minutes = estimate_minutes(
        specs, tokens, store.records()[0], options.compute, device_name(options.compute.device)
    )
    estimates = iter(["?" if time is None else f"{time:.1f}" for time in minutes])
    rows = [
        [
            cell.spec.task,
            cell.spec.method,
            cell.spec.backbone,
            cell.spec.seed,
            len(data[cell.rows].train),
            short_id(identity),
            *(["stored", "-"] if is_stored else ["to run", next(estimates)]),
        ]
        for (cell, identity), is_stored in zip(planned, stored, strict=True)
    ]
    click.echo(
        tabulate(
            rows,
            ["task", "method", "backbone", "seed", "train rows", "run", "state", "minutes"],
            disable_numparse=True,
        )
    )
    if any(minutes):
        unknown = f", {counted(minutes.count(None), 'cell')} unknown" if None in minutes else ""
        click.echo(
            f"about {counted(round(sum(filter(None, minutes))), 'minute')} of fitting, "
            f"estimated from earlier runs{unknown}; measuring not included"
        )
    elif minutes:
        click.echo("minutes: ? (there is no earlier run of these methods to estimate from)")
    for failure in failures:
        _print_failure(failure)
    return ExitCode.INCOMPLETE if failures else ExitCode.OK


def run_and_print(cells: Sequence[Cell], options: Options) -> ExitCode:
    """Run the cells, and print a line for each on standard output."""
    finished = total = 0
    failures: list[Failure] = []

    def started(runnable: int) -> None:
        nonlocal total
        total = runnable
        left_out = len(cells) - runnable
        missing = f", {counted(left_out, 'cell')} without data left out" if left_out else ""
        if total > 1 or missing:
            options.compute.progress.info(f"harness: {counted(total, 'cell')} to run{missing}")

    def done(cell: Cell, record: RunRecord, stored: bool) -> None:
        nonlocal finished
        finished += 1
        last = record.exits[-1]
        how = "already stored" if stored else f"{record.seconds:.0f} s"
        click.echo(
            f"[{finished}/{total}] {cell.label}: {scores_text(last.scores)} at exit "
            f"{last.layer}; run {record.short_id} ({how})"
        )
        for warning in (*record.remarks, *_warnings(record, options)):
            options.compute.progress.info(f"harness: warning: {cell.label}: {warning}")

    def failed(failure: Failure) -> None:
        nonlocal finished
        finished += bool(total)
        failures.append(failure)
        _print_failure(failure)

    run_grid(cells, options, done, failed, started)
    if failures:
        lost = sum(failure.cells for failure in failures)
        remediable = any(failure.code != ExitCode.USER for failure in failures)
        advice = "; run the same command to try again" if remediable else ""
        click.echo(f"harness: {lost} of {counted(len(cells), 'cell')} failed{advice}", err=True)
        return _exit_code(failures, some_done=lost < len(cells))
    options.compute.progress.info(f"harness: cells stored in {options.results_dir}: {len(cells)}")
    return ExitCode.OK


def _warnings(record: RunRecord, options: Options) -> list[str]:
    """Return the failed sanity checks of a run, or only the error if its trace is damaged."""
    try:
        return sanity_checks(ResultsStore(options.results_dir), record)
    except IncompleteError as error:
        return [str(error)]


def _print_failure(failure: Failure) -> None:
    click.echo(f"harness: {failure.label}: {failure.reason}", err=True)


def _exit_code(failures: Sequence[Failure], some_done: bool) -> ExitCode:
    """Return BUG if a bug failed a cell, the code that all cells share, or else INCOMPLETE."""
    codes = {failure.code for failure in failures}
    if ExitCode.BUG in codes:
        return ExitCode.BUG
    return codes.pop() if len(codes) == 1 and not some_done else ExitCode.INCOMPLETE
