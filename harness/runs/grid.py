"""Plan a grid of cells and run it."""

import ctypes
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.analysis.diagnostics import random_weights_warning
from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.data.word_vectors import read_vectors
from harness.errors import ExitCode, HarnessError, counted, first_line
from harness.evaluation.external_metrics import load_external_metric
from harness.files.atomic import check_writable
from harness.files.digests import written_fields
from harness.methods.protocol import Method
from harness.methods.registry import CHECKPOINT
from harness.models.backbones import DEFAULT_BACKBONE, DEMO_BACKBONE, Backbone, find_backbone
from harness.progress import duration
from harness.records import RunRecord, RunSpec
from harness.runs.cell import (
    Cell,
    DataKey,
    Options,
    is_stored,
    load_cell_data,
    plan_cell,
    run_cell,
)
from harness.runs.outlook import CellPlan, Outlook

CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""Name in torch's RuntimeError when the CPU is out of memory."""


def choose_backbone(name: str | None, tasks: Sequence[Task]) -> Backbone:
    """Return the backbone of this name, or without a name the default backbone of the tasks.

    The demo tasks' default is small and random, that of all other tasks is pre-trained.

    Raises: HarnessError if the name is unknown, if it is missing and the tasks have different
    defaults, or if the weights cannot be found.
    """
    is_default = name is None
    if name is None:
        defaults = {DEMO_BACKBONE if task.is_demo else DEFAULT_BACKBONE for task in tasks}
        if len(defaults) > 1:
            raise HarnessError(
                f"the demo tasks' default backbone is {DEMO_BACKBONE}, that of the other tasks "
                f"{DEFAULT_BACKBONE}: give --backbone to run both kinds of tasks together"
            )
        (name,) = defaults
    backbone = find_backbone(name)
    try:
        _ = backbone.folder  # without the weights, nothing else needs to be read
    except HarnessError as error:
        if not is_default:
            raise
        raise HarnessError(f"without --backbone, {name} is used, but {error}") from None
    return backbone


def plan(
    methods: dict[str, Method],
    tasks: Sequence[Task],
    backbone: Backbone,
    seeds: Sequence[int],
    max_length: int,
    train_rows: dict[str, int],
    limit: int | None,
) -> list[Cell]:
    """Return the cells of a grid, task by task and seed by seed."""
    resolved = {name: method.resolved(backbone) for name, method in methods.items()}
    return [
        Cell(
            RunSpec(
                name,
                task.name,
                backbone.name,
                seed,
                train_rows.get(task.name),
                max_length,
                limit,
                written_fields(method),
            ),
            task,
            method,
            backbone,
        )
        for task in tasks
        for seed in seeds
        for name, method in resolved.items()
    ]


def plan_checkpoint(
    method: Method,
    tasks: Sequence[Task],
    location: str,
    seed: int,
    max_length: int,
    limit: int | None,
) -> list[Cell]:
    """Return the cells of a fine-tuned classifier in a folder or on the hub, one per task.

    The classifier is its own backbone, and nothing depends on the seed.

    Raises: HarnessError if its classes are not those of a task.
    """
    backbone = find_backbone(location)
    cells = plan({CHECKPOINT: method}, tasks, backbone, [seed], max_length, {}, limit)
    with torch.device("meta"):
        for cell in cells:
            cell.method.build(cell.backbone, cell.task)
    return cells


@dataclass(frozen=True)
class Failure:
    """A cell, or all cells of a task, that ended without a record."""

    label: str
    reason: str
    code: ExitCode
    cells: int = 1


def run_grid(
    cells: Sequence[Cell],
    options: Options,
    done: Callable[[Cell, RunRecord, bool], None],
    failed: Callable[[Failure], None],
    started: Callable[[int], None] = lambda cells: None,
) -> None:
    """Run every cell and call `done` or `failed` after each; a failure does not stop the others.

    `started` is called with the number of cells that have data, after `failed` for the others.

    Raises: HarnessError, before anything is fitted, if a folder cannot be written, no task has
    data, or an external input or metric cannot be read.
    """
    check_writable(options.results_dir, "results")
    check_writable(options.cache_dir, "cache")
    torch.set_num_threads(options.compute.threads)
    keep_freed_memory()
    data, failures = load_grid_data(cells, options)
    check_external_inputs(cells, options)
    check_external_metrics(cells)
    runnable = [cell for cell in cells if cell.rows in data]
    for failure in failures:
        failed(failure)
    started(len(runnable))
    for warning in _backbone_warnings(runnable):
        options.compute.progress.info(f"harness: warning: {warning}")
    outlook = _outlook(runnable, data, options)
    options.compute.progress.time_left = outlook.text
    for number, cell in enumerate(runnable, start=1):
        outlook.start_cell(number)
        try:
            record, stored = run_cell(cell, data[cell.rows], options, outlook)
        except Exception as error:  # the other cells still run
            options.compute.progress.debug(traceback.format_exc())
            failed(_failure(cell, error))
        else:
            outlook.end_cell()
            done(cell, record, stored)
            rest_s = outlook.rest_s()
            if rest_s and not stored:
                left = counted(sum(later > number for later in outlook.cells), "cell")
                options.compute.progress.info(f"harness: {left} left, about {duration(rest_s)}")


def _outlook(cells: Sequence[Cell], data: Mapping[DataKey, TaskData], options: Options) -> Outlook:
    """Plan the cells that are not stored, each without the stages that earlier cells fit.

    All cells have data.
    """
    plans: dict[int, CellPlan] = {}
    planned: set[str] = set()
    for number, cell in enumerate(cells, start=1):
        try:
            if is_stored(cell, data[cell.rows], options):
                continue
            plan = plan_cell(cell, data[cell.rows], options)
        except Exception:  # the cell fails by itself, and the others run
            options.compute.progress.debug(traceback.format_exc())
            plan = CellPlan(None, 0.0)
        own = [stage for stage in plan.stages or () if stage.key not in planned]
        planned |= {stage.key for stage in own}
        plans[number] = plan if plan.stages is None else plan._replace(stages=own)
    return Outlook(plans, len(cells))


def _backbone_warnings(cells: Iterable[Cell]) -> list[str]:
    """Return a warning for each random backbone of a task that is not a demo task."""
    names = [cell.backbone.name for cell in cells if cell.backbone.random and not cell.task.is_demo]
    return [random_weights_warning(name) for name in dict.fromkeys(names)]


def check_external_inputs(cells: Sequence[Cell], options: Options) -> None:
    """Read the external inputs of the methods, so that errors appear before anything is fitted.

    Raises: HarnessError for an input that cannot be read, or that is given but not used.
    """
    external_inputs = [cell.method.external_inputs() for cell in cells]
    reads_corpus = any(inputs.corpus for inputs in external_inputs)
    reads_vectors = any(inputs.vectors for inputs in external_inputs)
    if options.corpus.files and not reads_corpus:
        raise HarnessError("--corpus: none of the --methods uses a corpus: leave it out")
    if options.vectors is not None:
        if not reads_vectors:
            raise HarnessError("--glove: none of the --methods uses word vectors: leave it out")
        read_vectors(options.vectors)
    if reads_corpus:
        _ = options.corpus.data


def check_external_metrics(cells: Sequence[Cell]) -> None:
    """Load the external metrics, so that errors appear before anything is fitted.

    Raises: HarnessError if a metric is not available.
    """
    tasks = {cell.task.name: cell.task for cell in cells}
    for task in tasks.values():
        for metric in task.external_metrics:
            load_external_metric(metric)


def keep_freed_memory() -> None:
    """Let the C library (glibc) keep freed memory, because each new page costs a page fault.

    Large tensors are allocated and freed at every step. A step of MiniLM on 32 examples of 55
    tokens had 25,000 page faults before and 3,000 after, and took 5 to 12 % less CPU time; peak
    memory is the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        for parameter in (m_trim_threshold, m_mmap_threshold):
            mallopt(parameter, 2**31 - 1)


def _failure(cell: Cell, error: Exception) -> Failure:
    reason = first_line(error)
    if isinstance(error, HarnessError):
        return Failure(cell.label, reason, error.exit_code)
    if isinstance(error, OSError):
        return Failure(cell.label, f"{error.strerror or reason}", ExitCode.INCOMPLETE)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or CPU_OUT_OF_MEMORY in reason:
        advice = (
            "try --set all.accumulation=2 (training), a smaller --batch-size (scoring) "
            "or a smaller --max-length"
        )
        return Failure(cell.label, f"out of memory: {reason}; {advice}", ExitCode.INCOMPLETE)
    return Failure(cell.label, f"internal error: {type(error).__name__}: {reason}", ExitCode.BUG)


def load_grid_data(
    cells: Sequence[Cell], options: Options
) -> tuple[dict[DataKey, TaskData], list[Failure]]:
    """Return the encoded data of the tasks, and a failure for each task without usable data.

    Raises: HarnessError if no task has usable data.
    """
    data: dict[DataKey, TaskData] = {}
    failures: list[Failure] = []
    for key, cell in {cell.rows: cell for cell in cells}.items():
        try:
            data[key] = load_cell_data(cell, options.data_dir)
            for remark in data[key].remarks:
                options.compute.progress.info(f"harness: warning: {key.task}: {remark}")
        except HarnessError as error:
            affected = sum(other.rows == key for other in cells)
            failures.append(Failure(key.task, str(error), ExitCode.INCOMPLETE, affected))
    if not data:
        raise HarnessError("; ".join(_by_reason(failures)))
    return data, failures


def _by_reason(failures: Sequence[Failure]) -> list[str]:
    """Return each reason once, prefixed with its tasks unless it names them itself."""
    labels: dict[str, list[str]] = {}
    for failure in failures:
        labels.setdefault(failure.reason, []).append(failure.label)
    return [
        reason if all(name in reason for name in names) else f"{', '.join(names)}: {reason}"
        for reason, names in labels.items()
    ]
