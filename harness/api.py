"""The functions of the Python interface: run grids, read results, compare, draw and predict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.frames import Runs, frame
from harness.analysis.selection import no_runs, runs_of
from harness.errors import IncompleteError
from harness.files.text import option_text
from harness.records import RunRecord
from harness.report.overview import comparisons_of, render
from harness.report.overview_csv import comparisons_frame
from harness.report.plots import Picture, check_ending, draw, save
from harness.store.results import Problem, ResultsStore

if TYPE_CHECKING:
    import pandas

    from harness.data.tasks import Task
    from harness.predict.exported import Exported

StrPath = str | Path


@dataclass(frozen=True)
class Results:
    """Stored runs of a results folder: every record, exit, curve and timing.

    In a notebook they are shown as the report's tables.
    """

    store: ResultsStore
    records: tuple[RunRecord, ...]
    """The runs, sorted by task, method and seed."""
    problems: tuple[Problem, ...] = ()
    """Run folders that cannot be read."""

    def __len__(self) -> int:
        return len(self.records)

    def select(
        self,
        tasks: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
        backbones: Sequence[str] | None = None,
    ) -> "Results":
        """Return the runs of these tasks or groups, methods and backbones; None means all.

        Raises: HarnessError for a name without runs.
        """
        kept = runs_of(self.records, tasks, methods, backbones)
        return Results(self.store, tuple(kept), self.problems)

    def to_frame(self, level: str = "run", reference: str | None = "bert") -> "pandas.DataFrame":
        """Return a tidy table with one row a run, an exit, a point or an example.

        `level` is `run`, `exit`, `point` (a dynamic method at each budget) or `example` (each dev
        example at each exit). Scores are fractions; the names of other columns have their units.
        Budgets and latency ratios of points are relative to the `reference` method.

        Raises: HarnessError for an unknown level; IncompleteError if a trace cannot be read.
        """
        return frame(level, Runs(self.store, self.records, reference))

    def report(self, form: str = "markdown", reference: str | None = "bert") -> str:
        """Return the report as `harness report` prints it: markdown, latex, csv or json.

        Raises: IncompleteError if there are no runs or a trace cannot be read.
        """
        return render(self.store, list(self.records), reference, form)

    def _repr_markdown_(self) -> str:
        return self.report() if self.records else f"no runs in {self.store.root}"


def load_results(
    folder: StrPath = "results",
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
) -> Results:
    """Read the runs of a results folder, all or those of some tasks, methods and backbones.

    Raises: IncompleteError if there is no run; HarnessError for a name without runs.
    """
    store = ResultsStore(Path(folder))
    records, problems = store.records()
    if not records:
        raise no_runs(store)
    return Results(store, tuple(records), tuple(problems)).select(tasks, methods, backbones)


def compare(results: Results, reference: str | None = "bert") -> "pandas.DataFrame":
    """Compare methods: one row a method and operating point of each task, averaged over seeds.

    The rows are those of the report's main tables, the majority-class baseline included. Ratios
    are those of the `reference` method to the row's.

    Raises: IncompleteError if there are no runs or a trace cannot be read.
    """
    return comparisons_frame(comparisons_of(results.store, results.records, reference))


def plot(
    results: Results,
    out: StrPath,
    kind: str = "tradeoff",
    x: str = "macs",
    y: str | None = None,
    budget: str = "1/2",
    reference: str | None = "bert",
) -> Path:
    """Draw the runs as `harness plot` does, write the picture, and return its path.

    `kind` is tradeoff, exits or histogram; `x` is macs or latency; `y` is a metric. The ending of
    `out` (.svg, .png, .pdf) chooses the format.

    Raises: HarnessError for an unknown name or a missing matplotlib; IncompleteError if there is
        nothing to draw.
    """
    path = Path(out)
    check_ending(path)
    comparisons = comparisons_of(results.store, results.records, reference)
    save(draw(comparisons, Picture(kind, x, y, budget)), path)
    return path


def run(
    methods: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    backbone: str | None = None,
    *,
    seeds: Sequence[int] = (1,),
    settings: Mapping[str, object] | None = None,
    task_files: Sequence[StrPath] = (),
    data_dir: StrPath | None = None,
    corpus: Sequence[StrPath] = (),
    vectors: StrPath | None = None,
    train_rows: Mapping[str, int] | None = None,
    max_length: int = 128,
    batch_size: int = 32,
    limit: int | None = None,
    latency_seconds: float = 10.0,
    reference: str = "bert",
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    results_dir: StrPath = "results",
    cache_dir: StrPath | None = None,
    verbosity: int = 0,
) -> list[RunRecord]:
    """Fit methods on tasks, measure every exit, store the runs and return their records.

    The arguments are the options of `harness run`, with the same defaults: by default bert, deebert
    and pabee on the demo tasks. `settings` maps names of --set to values, for example
    `{"all.epochs": 3}`. `latency_seconds=0` measures no latency. A negative `verbosity` shows no
    progress. Runs that are already stored are read, not fitted again.

    Raises: HarnessError for invalid arguments or missing data; IncompleteError if a cell failed,
        after the others have run.
    """
    from harness.data.custom_tasks import read_task_files
    from harness.methods.compute import make_compute
    from harness.methods.settings import parse_setting
    from harness.runs.grid import Failure, run_grid
    from harness.runs.request import DEFAULT_METHODS, GridRequest, plan_request

    custom: tuple[Task, ...] = read_task_files(_paths(task_files), allow_code=False)
    request = GridRequest(
        methods=DEFAULT_METHODS if methods is None else methods,
        tasks=tasks,
        custom_tasks=custom,
        backbone=backbone,
        seeds=seeds,
        settings=[
            parse_setting(f"{key}={option_text(value)}") for key, value in (settings or {}).items()
        ],
        train_rows=train_rows or {},
        max_length=max_length,
        limit=limit,
        data_dir=None if data_dir is None else Path(data_dir),
        corpus=_paths(corpus),
        vectors=None if vectors is None else Path(vectors),
        batch_size=batch_size,
        latency_s=latency_seconds,
        reference=reference,
        results_dir=Path(results_dir),
        cache_dir=None if cache_dir is None else Path(cache_dir),
    )
    cells, options = plan_request(request, make_compute(device, precision, threads, verbosity))
    records: list[RunRecord] = []
    failures: list[Failure] = []
    run_grid(cells, options, lambda _, record, stored: records.append(record), failures.append)
    if failures:
        raise IncompleteError("; ".join(f"{one.label}: {one.reason}" for one in failures))
    return records


def load_model(folder: StrPath, device: str = "cpu") -> "Exported":
    """Load a model that `harness export` wrote.

    Raises: HarnessError if the folder does not hold one.
    """
    from harness.predict.exported import load

    return load(Path(folder), device)


def _paths(paths: Iterable[StrPath]) -> tuple[Path, ...]:
    return tuple(Path(path) for path in paths)
