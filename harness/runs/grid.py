"""A grid of cells: what is to be run, and running it."""

import ctypes
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from harness.data.dataset import TaskData
from harness.data.tasks import Task
from harness.data.word_vectors import read_vectors
from harness.errors import ExitCode, HarnessError, first_line
from harness.evaluation.external_metrics import load_external_metric
from harness.files.atomic import check_writable
from harness.methods.protocol import Method
from harness.methods.registry import CHECKPOINT
from harness.models.backbones import Backbone, find_backbone
from harness.records import RunRecord, RunSpec
from harness.runs.cell import Cell, Options, RowsOf, load_cell_data, run_cell

CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""What torch's RuntimeError names when there is no memory left on the processor's side."""


def plan(
    methods: dict[str, Method],
    tasks: Sequence[Task],
    backbone: Backbone,
    seeds: Sequence[int],
    max_length: int,
    train_rows: dict[str, int],
    limit: int | None,
) -> list[Cell]:
    """The cells of a grid, task by task, seed by seed."""
    ready = {name: method.resolved(backbone) for name, method in methods.items()}
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
                asdict(method),
            ),
            task,
            method,
            backbone,
        )
        for task in tasks
        for seed in seeds
        for name, method in ready.items()
    ]


def plan_checkpoint(
    method: Method, tasks: Sequence[Task], place: str, seed: int, max_length: int, limit: int | None
) -> list[Cell]:
    """The cells of a fine-tuned classifier in a folder or on the hub, its own backbone: one a task, as nothing depends on the seed.

    Raises: HarnessError when its classes are not a task's.
    """
    cells = plan({CHECKPOINT: method}, tasks, find_backbone(place), [seed], max_length, {}, limit)
    with torch.device("meta"):
        for cell in cells:
            cell.method.build(cell.backbone, cell.task)
    return cells


@dataclass(frozen=True)
class Failure:
    """A cell, or all cells of a task, that have no record."""

    label: str
    reason: str
    code: ExitCode
    cells: int = 1


def run_grid(
    cells: Sequence[Cell],
    options: Options,
    done: Callable[[Cell, RunRecord, bool], None],
    failed: Callable[[Failure], None],
) -> None:
    """Run every cell, and call `done` or `failed` after it; a failing one does not stop the others.

    Raises: HarnessError when nothing could be written or no task's data are there, before anything is fitted.
    """
    check_writable(options.results_dir, "results")
    check_writable(options.cache_dir, "cache")
    torch.set_num_threads(options.compute.threads)
    keep_freed_memory()
    data, failures = load_grid_data(cells, options)
    check_sources(cells, options)
    check_external_metrics(cells)
    for failure in failures:
        failed(failure)
    for number, cell in enumerate(cells, start=1):
        if cell.rows not in data:
            continue
        try:
            record, stored = run_cell(
                cell, data[cell.rows], options, f"[{number}/{len(cells)}] {cell.label}"
            )
        except Exception as error:  # whatever it is, the other cells still run
            options.compute.progress.debug(traceback.format_exc())
            failed(_failure(cell, error))
        else:
            done(cell, record, stored)


def check_sources(cells: Sequence[Cell], options: Options) -> None:
    """Read what methods pre-train on before anything is fitted.

    Raises: HarnessError for what cannot be read, or is given and read by no method.
    """
    external_inputs = [cell.method.external_inputs() for cell in cells]
    corpus, vectors = (
        any(read.corpus for read in external_inputs),
        any(read.vectors for read in external_inputs),
    )
    if options.corpus.files and not corpus:
        raise HarnessError("--corpus: no method of this grid pre-trains")
    if options.vectors is not None:
        if not vectors:
            raise HarnessError("--glove: no method of this grid augments its rows")
        read_vectors(options.vectors)
    if corpus:
        _ = options.corpus.data


def check_external_metrics(cells: Sequence[Cell]) -> None:
    """Load other people's metrics before anything is fitted.

    Raises: HarnessError for one that is not to be had.
    """
    tasks = {cell.task.name: cell.task for cell in cells}
    for task in tasks.values():
        for metric in task.external_metrics:
            load_external_metric(metric)


def keep_freed_memory() -> None:
    """Let the C library (glibc) keep what is freed: large tensors come and go at every step, and each new page costs a fault.

    A step of MiniLM on 32 rows of 55 tokens had 25,000 faults before and 3,000 after, and took 5 to 12 % less processor time; peak memory
    is the same.
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
        advice = "try --set all.accumulation=2 (training), a smaller --batch-size (scoring) or --max-length"
        return Failure(cell.label, f"out of memory: {reason}; {advice}", ExitCode.INCOMPLETE)
    return Failure(cell.label, f"internal error: {type(error).__name__}: {reason}", ExitCode.BUG)


def load_grid_data(
    cells: Sequence[Cell], options: Options
) -> tuple[dict[RowsOf, TaskData], list[Failure]]:
    """The rows of each task, encoded; and a failure for each task whose data are missing or malformed.

    Raises: HarnessError when that is so for every task.
    """
    data: dict[RowsOf, TaskData] = {}
    failures: list[Failure] = []
    for rows, cell in {cell.rows: cell for cell in cells}.items():
        try:
            data[rows] = load_cell_data(cell, options.data_dir)
            for remark in data[rows].remarks:
                options.compute.progress.info(f"harness: warning: {rows.task}: {remark}")
        except HarnessError as error:
            mine = sum(other.rows == rows for other in cells)
            failures.append(Failure(rows.task, str(error), ExitCode.INCOMPLETE, mine))
    if not data:
        raise HarnessError("; ".join(_by_reason(failures)))
    return data, failures


def _by_reason(failures: Sequence[Failure]) -> list[str]:
    """What went wrong, each reason once, with the names that it does not hold itself."""
    labels: dict[str, list[str]] = {}
    for failure in failures:
        labels.setdefault(failure.reason, []).append(failure.label)
    return [
        said if all(name in said for name in names) else f"{', '.join(names)}: {said}"
        for said, names in labels.items()
    ]
