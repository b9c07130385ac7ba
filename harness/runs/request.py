"""A grid as a user describes it, in names and numbers, and the cells that it consists of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.corpus import Corpus, corpus_tasks
from harness.data.custom_tasks import choose_tasks
from harness.data.tasks import Task
from harness.methods.compute import Compute
from harness.methods.registry import CHECKPOINT, find_reference
from harness.methods.settings import Setting, configure
from harness.runs.cell import Cell, Options
from harness.runs.grid import choose_backbone, plan, plan_checkpoint
from harness.store.stage_cache import cache_folder

DEFAULT_METHODS = ("bert", "deebert", "pabee")
"""Methods of a grid for which none are named."""


@dataclass(frozen=True)
class GridRequest:
    """A grid as a user describes it."""

    methods: Sequence[str] = DEFAULT_METHODS
    tasks: Sequence[str] | None = None
    """Tasks and groups; None: the custom tasks, or without any the demo tasks."""
    custom_tasks: Sequence[Task] = ()
    backbone: str | None = None
    """None: the default backbone of the tasks."""
    checkpoint: str | None = None
    """Folder or hub id of a fine-tuned classifier, for the method `checkpoint`."""
    seeds: Sequence[int] = (1,)
    settings: Sequence[Setting] = ()
    default_settings: Sequence[Setting] = ()
    """Settings that need not apply to a method of the grid; `settings` override them."""
    train_rows: Mapping[str, int] = field(default_factory=dict)
    """Task -> number of training examples."""
    max_length: int = 128
    limit: int | None = None
    """Number of examples per split; None: all."""
    data_dir: Path | None = None
    corpus: tuple[Path, ...] = ()
    vectors: Path | None = None
    batch_size: int = 32
    latency_s: float = 10.0
    """Seconds of timing at each batch size; 0: latency is not measured."""
    reference: str = "bert"
    results_dir: Path = Path("results")
    cache_dir: Path | None = None
    """None: the user's cache folder."""

    def chosen_tasks(self) -> dict[str, Task]:
        """Return the tasks by name.

        Raises: HarnessError if a name is unknown.
        """
        return choose_tasks(self.tasks, self.custom_tasks)


def plan_request(request: GridRequest, compute: Compute) -> tuple[list[Cell], Options]:
    """Return the cells of the grid and the settings that they share.

    Raises: HarnessError for an unknown name, an invalid setting, or missing weights.
    """
    tasks = request.chosen_tasks()
    every_task = tuple(tasks.values())
    grid = configure(request.methods, request.settings, request.default_settings)
    cells: list[Cell] = []
    if request.checkpoint is not None:
        cells = plan_checkpoint(
            grid.pop(CHECKPOINT),
            every_task,
            request.checkpoint,
            request.seeds[0],
            request.max_length,
            request.limit,
        )
    if grid:
        planned = plan(
            grid,
            every_task,
            choose_backbone(request.backbone, every_task),
            request.seeds,
            request.max_length,
            dict(request.train_rows),
            request.limit,
        )
        cells = [*planned, *cells]
    return cells, Options(
        data_dir=request.data_dir,
        results_dir=request.results_dir,
        cache_dir=cache_folder(request.cache_dir),
        compute=compute,
        batch_size=request.batch_size,
        latency_s=request.latency_s,
        reference=find_reference(request.reference, grid),
        corpus=Corpus(request.corpus, request.data_dir, corpus_tasks(list(tasks)), request.limit),
        vectors=request.vectors,
    )
