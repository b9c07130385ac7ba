"""Custom tasks: a TOML file describes them, and a record keeps a summary. No code in them runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.custom_files import FORMATS, CustomFiles
from harness.data.hub_data import HubData
from harness.data.sources import CustomSource, Unavailable
from harness.data.tasks import Task, find_task, find_tasks, known_tasks, task_groups
from harness.errors import HarnessError, IncompleteError, unknown
from harness.evaluation.external_metrics import PREFIX, ExternalMetric, check_evaluate
from harness.evaluation.metrics import METRICS
from harness.files.digests import file_digest
from harness.files.text import read_toml, same_text
from harness.files.typed_json import is_displayable
from harness.records import RunRecord, TaskSummary

KEYS = (
    "name", "about", "train", "dev", "dev_share", "text", "label", "labels", "values",
    "regression", "scale", "range", "metrics", "hub", "config", "revision", "files",
)  # fmt: skip

REGRESSION_METRICS = ("pearson", "spearman")
TWO_CLASS_METRICS = ("f1",)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def choose_tasks(names: Sequence[str] | None, custom: Sequence[Task]) -> dict[str, Task]:
    """Return the tasks of these names and all custom tasks; without either, the demo tasks.

    Raises: HarnessError if a name is unknown.
    """
    by_name = {task.name: task for task in custom}
    chosen: dict[str, Task] = {}
    for name in names if names is not None else [] if custom else ["demo"]:
        tasks = [by_name[name]] if name in by_name else find_tasks([name])
        chosen |= {task.name: task for task in tasks}
    return chosen | by_name


def read_task_files(paths: Sequence[Path], allow_code: bool) -> tuple[Task, ...]:
    """Read several task files.

    Raises: HarnessError if a file is invalid, or two tasks have the same name.
    """
    tasks = tuple(read_task_file(path, allow_code) for path in paths)
    names = [task.name for task in tasks]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise HarnessError(f"{path}: name {name!r} is also the name of another task file")
    return tasks


def read_task_file(path: Path, allow_code: bool = False) -> Task:
    """Read a task file; the paths in it are relative to its folder.

    Raises: HarnessError that names the file and the key, and says what was got and expected.
    """
    values = read_toml(path, "--task-file")
    table = _Table(path, values)
    for key in values:
        if key not in KEYS:
            raise HarnessError(f"{path}: {unknown('key', key, KEYS)}")
    labels, values_in_files = _labels(table)
    scale, bounds = _range(table, regression=not labels)
    metrics, external_metrics = _metrics(table, len(labels), allow_code)
    return Task(
        _name(table),
        labels,
        values_in_files,
        metrics,
        _source(table),
        scale=scale,
        about=table.text("about") if "about" in values else "a custom task",
        bounds=bounds,
        external_metrics=external_metrics,
    )


def summary(task: Task) -> TaskSummary | None:
    """Return what a record keeps of a custom task; None for a built-in one."""
    if not isinstance(task.source, CustomSource):
        return None
    return TaskSummary(
        task.labels,
        task.metrics,
        task.scale,
        task.source.texts,
        task.source.columns,
        task.source.label,
        task.values,
        task.bounds,
    )


def task_of(record: RunRecord) -> Task:
    """Return the task of a record: a built-in one, or a custom one as the record describes it.

    Raises: IncompleteError if a custom task has unknown metrics; HarnessError if the task is
        neither built in nor described.
    """
    described = record.own_task
    if described is None:
        return find_task(record.spec.task)
    unsupported = [name for name in described.metrics if name not in METRICS]
    if unsupported or not described.metrics:
        raise IncompleteError(
            f"run {record.short_id}: {unknown('metric', ', '.join(unsupported), METRICS)}"
        )
    return Task(
        record.spec.task,
        described.labels,
        described.values or described.labels,
        described.metrics,
        Unavailable(described.texts),
        scale=described.scale,
        bounds=described.bounds,
    )


@dataclass(frozen=True)
class _Table:
    """Values of a task file, read key by key."""

    path: Path
    values: dict[str, object]

    def error(self, key: str, expected: str) -> HarnessError:
        """Return the error for a value of another kind, or for a missing key."""
        if key not in self.values:
            return HarnessError(f"{self.path}: key {key} is missing, expected {expected}")
        return HarnessError(
            f"{self.path}: key {key}: got {str(self.values[key])[:60]!r}, expected {expected}"
        )

    def text(self, key: str, expected: str = "a text") -> str:
        """Return a text that is not empty."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, expected)
        return value

    def texts(self, key: str, expected: str) -> tuple[str, ...]:
        """Return a list of distinct texts; a single text counts as a list of one."""
        value = self.values.get(key)
        found = [value] if isinstance(value, str) else value
        if (
            not isinstance(found, list)
            or not found
            or not all(isinstance(one, str) and one.strip() for one in found)
        ):
            raise self.error(key, expected)
        if len(set(map(same_text, found))) != len(found):
            raise self.error(key, "distinct texts")
        return tuple(found)

    def number(self, key: str, expected: str) -> float:
        """Return a number."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, expected)
        return float(value)


def _name(table: _Table) -> str:
    name = table.text("name", "a name for the results folder")
    if not _NAME.fullmatch(name):
        raise table.error("name", "up to 40 of a-z, 0-9, - and _, the first a letter or digit")
    if name in known_tasks() or name in task_groups():
        raise table.error("name", "a name other than those of built-in tasks and groups")
    return name


def _labels(table: _Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the class names and their spelling in the files; both are empty for a regression."""
    regression = table.values.get("regression", False)
    if not isinstance(regression, bool):
        raise table.error("regression", "true or false")
    if regression:
        for key in ("labels", "values"):
            if key in table.values:
                raise table.error(key, "no such key: with regression = true labels are numbers")
        return (), ()
    labels = table.texts(
        "labels", 'the names of the classes, such as ["no", "yes"], or regression = true'
    )
    if len(labels) < 2:
        raise table.error("labels", "two or more labels")
    if not all(map(is_displayable, labels)):
        raise table.error(
            "labels", "names of visible characters; values may give their spelling in the files"
        )
    values = (
        table.texts("values", "the spelling of each label in the files")
        if "values" in table.values
        else labels
    )
    if len(values) != len(labels):
        raise table.error("values", f"{len(labels)}, one for each of labels")
    return labels, values


def _range(table: _Table, regression: bool) -> tuple[float, tuple[float, float] | None]:
    """Return the divisor of labels in training, and the smallest and the largest label."""
    given = [key for key in ("scale", "range") if key in table.values]
    if not regression:
        if given:
            raise table.error(given[0], "no such key: it needs regression = true")
        return 1.0, None
    if len(given) != 1:
        got = " and ".join(given) or "neither scale nor range"
        raise HarnessError(
            f"{table.path}: got {got}, expected scale = 5.0 (labels from 0 to 5) "
            "or range = [1.0, 5.0]"
        )
    if "scale" in given:
        scale = table.number("scale", "the largest label (the smallest is 0)")
        if not 0 < scale < float("inf"):
            raise table.error("scale", "a number above 0")
        return scale, None
    limits = table.values["range"]
    if (
        not isinstance(limits, list)
        or len(limits) != 2
        or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in limits)
    ):
        raise table.error("range", "two numbers, the smallest and the largest label")
    low, high = map(float, limits)
    if not -float("inf") < low < high < float("inf"):
        raise table.error("range", "two different finite numbers, the smaller first")
    return max(abs(low), abs(high)), (low, high)


def _metrics(
    table: _Table, classes: int, allow_code: bool
) -> tuple[tuple[str, ...], tuple[ExternalMetric, ...]]:
    """Return the built-in metrics and the external ones.

    The first built-in metric selects epochs and thresholds. If only external metrics are named, it
    is accuracy, or Pearson's correlation on a regression.
    """
    fitting = [name for name in METRICS if (name in REGRESSION_METRICS) == (classes == 0)]
    usable = [name for name in fitting if classes == 2 or name not in TWO_CLASS_METRICS]
    names = table.texts("metrics", f"one or more of {', '.join(usable)}, or {PREFIX}NAME")
    if classes > 2:  # F1 of several classes is their mean
        names = tuple(dict.fromkeys("macro_f1" if name == "f1" else name for name in names))
    for name in names:
        if not name.startswith(PREFIX) and name not in METRICS:
            raise HarnessError(
                f"{table.path}: key metrics: {unknown('metric', name, METRICS)}; or {PREFIX}NAME"
            )
        if name in METRICS and name not in usable:
            kind = f"{classes} classes" if classes else "a regression"
            raise HarnessError(
                f"{table.path}: key metrics: {name} does not suit {kind}, "
                f"expected one or more of {', '.join(usable)}"
            )
    external = [name for name in names if name.startswith(PREFIX)]
    if external and not allow_code:
        raise HarnessError(
            f"{table.path}: key metrics: {external[0]} runs code from outside the harness: "
            "allow it with --allow-metric-code"
        )
    built_in = tuple(name for name in names if name in METRICS)
    return built_in or (usable[0],), tuple(_external_metric(table, name) for name in external)


def _external_metric(table: _Table, name: str) -> ExternalMetric:
    check_evaluate(name)
    location = name.removeprefix(PREFIX)
    if not location.startswith("."):
        return ExternalMetric(name, "")
    path = table.path.parent / location
    script = path / f"{path.name}.py" if path.is_dir() else path
    if not script.is_file():
        raise HarnessError(f"{table.path}: key metrics: {name}: there is no file {script}")
    return ExternalMetric(name, file_digest(script), table.path.parent)


def _source(table: _Table) -> CustomSource:
    columns = table.texts("text", "the name of the text column, or of two")
    if len(columns) > 2:
        raise table.error("text", "the name of one text column, or of two")
    label = table.text("label", "the name of the label column")
    if label in columns:
        raise table.error("label", "a column other than the text columns")
    share = (
        table.number("dev_share", "a number between 0 and 1")
        if "dev_share" in table.values
        else None
    )
    if ("dev" in table.values) == (share is not None):
        both = "neither dev nor dev_share" if share is None else "both dev and dev_share"
        kind = "split" if "hub" in table.values else "file"
        raise HarnessError(
            f"{table.path}: got {both}, expected a {kind} as dev, or dev_share = 0.1, "
            "the share of train that becomes dev"
        )
    if share is not None and not 0 < share < 1:
        raise table.error("dev_share", "a number between 0 and 1")
    if "hub" in table.values:
        return _hub_data(table, share, columns, label)
    for key in ("config", "revision", "files"):
        if key in table.values:
            raise table.error(key, 'no such key: it needs hub = "OWNER/NAME"')
    dev = _file(table, "dev") if "dev" in table.values else None
    return CustomFiles(share, columns, label, _file(table, "train"), dev)


def _hub_data(table: _Table, share: float | None, columns: tuple[str, ...], label: str) -> HubData:
    repository = table.text("hub", "a data set's OWNER/NAME on the hub")
    if not _REPOSITORY.fullmatch(repository):
        raise table.error("hub", "a data set's OWNER/NAME on the hub")
    commit = "the 40 hexadecimal digits of a commit, which fixes the rows"
    revision = table.text("revision", commit)
    if not _COMMIT.fullmatch(revision):
        raise table.error("revision", commit)
    return HubData(
        share,
        columns,
        label,
        repository,
        table.text("config") if "config" in table.values else None,
        revision,
        table.texts("files", "patterns of the files to download, such as data/*.parquet")
        if "files" in table.values
        else None,
        table.text("train", "the name of a split") if "train" in table.values else "train",
        table.text("dev", "the name of a split") if "dev" in table.values else None,
    )


def _file(table: _Table, key: str) -> Path:
    path = table.path.parent / table.text(key, f"a file ({', '.join(FORMATS)})")
    if path.suffix.lower() not in FORMATS:
        raise table.error(key, f"a file that ends in {', '.join(FORMATS)}")
    if not path.is_file():
        raise HarnessError(f"{table.path}: key {key}: there is no file {path}")
    return path
