"""A user's own task, described by a TOML file; nothing in it runs. And what a record keeps of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.custom_files import FORMATS
from harness.data.sources import CustomFiles
from harness.data.tasks import Task, find_task, find_tasks, known_tasks, task_groups
from harness.errors import HarnessError, IncompleteError, unknown
from harness.evaluation.external_metrics import PREFIX, ExternalMetric, check_evaluate
from harness.evaluation.metrics import METRICS
from harness.files.digests import file_digest
from harness.files.toml import read_toml
from harness.files.typed_json import shows
from harness.records import RunRecord, TaskSummary

KEYS = (
    "name", "about", "train", "dev", "dev_share", "text", "label", "labels", "values", "regression", "scale", "range", "metrics",
)  # fmt: skip

REGRESSION_METRICS = ("pearson", "spearman")
TWO_CLASS_METRICS = ("f1", "matthews")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


def choose_tasks(names: Sequence[str] | None, own: Sequence[Task]) -> dict[str, Task]:
    """Name -> task: those of these names, and the user's own, which may stand among the names. With neither, the demo's.

    Raises: HarnessError for an unknown name.
    """
    mine = {task.name: task for task in own}
    found: dict[str, Task] = {}
    for name in names if names is not None else [] if own else ["demo"]:
        found |= (
            {name: mine[name]} if name in mine else {task.name: task for task in find_tasks([name])}
        )
    return found | mine


def read_task_files(paths: Sequence[Path], allow_code: bool) -> tuple[Task, ...]:
    """The tasks of several files.

    Raises: HarnessError for a mistake in one of them, or a name that two have.
    """
    tasks = tuple(read_task_file(path, allow_code) for path in paths)
    names = [task.name for task in tasks]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise HarnessError(f"{path}: name {name!r} is also another task file's")
    return tasks


def read_task_file(path: Path, allow_code: bool = False) -> Task:
    """The task that a file describes; paths in it are relative to its folder.

    Raises: HarnessError naming file, key, got and wanted.
    """
    values = read_toml(path, "--task-file")
    table = _Table(path, values)
    for key in values:
        if key not in KEYS:
            raise HarnessError(f"{path}: {unknown('key', key, KEYS)}")
    labels, written = _labels(table)
    scale, bounds = _range(table, regression=not labels)
    metrics, code = _metrics(table, len(labels), allow_code)
    return Task(
        _name(table),
        labels,
        written,
        metrics,
        None,
        scale=scale,
        about=table.text("about") if "about" in values else "a task of your own",
        own=_files(table),
        bounds=bounds,
        code=code,
    )


def summary(task: Task) -> TaskSummary | None:
    """What a record keeps of a user's own task; None for the others, which every reader knows."""
    return (
        TaskSummary(task.labels, task.metrics, task.scale, len(task.own.texts))
        if task.own is not None
        else None
    )


def task_of(record: RunRecord) -> Task:
    """The task of a record: of the table, or as its record describes it.

    Raises: IncompleteError for an own task of unknown metrics; HarnessError for a task that is neither here nor described.
    """
    own = record.own_task
    if own is None:
        return find_task(record.spec.task)
    wrong = [name for name in own.metrics if name not in METRICS]
    if wrong or not own.metrics:
        raise IncompleteError(
            f"run {record.run_id}: {unknown('metric', ', '.join(wrong), METRICS)}"
        )
    return Task(record.spec.task, own.labels, own.labels, own.metrics, None, scale=own.scale)


@dataclass(frozen=True)
class _Table:
    """A task file's keys."""

    path: Path
    values: dict[str, object]

    def wrong(self, key: str, wanted: str) -> HarnessError:
        """The error for a value of another kind, or a key that is not there."""
        if key not in self.values:
            return HarnessError(f"{self.path}: key {key} is missing, wanted {wanted}")
        return HarnessError(
            f"{self.path}: key {key}: got {str(self.values[key])[:60]!r}, wanted {wanted}"
        )

    def text(self, key: str, wanted: str = "a text") -> str:
        """A text that is not empty."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, wanted)
        return value

    def texts(self, key: str, wanted: str) -> tuple[str, ...]:
        """One text, or a list of different ones."""
        value = self.values.get(key)
        found = [value] if isinstance(value, str) else value
        if (
            not isinstance(found, list)
            or not found
            or not all(isinstance(one, str) and one.strip() for one in found)
        ):
            raise self.wrong(key, wanted)
        if len(set(found)) != len(found):
            raise self.wrong(key, "each once")
        return tuple(found)

    def number(self, key: str, wanted: str) -> float:
        """A number."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, wanted)
        return float(value)


def _name(table: _Table) -> str:
    name = table.text("name", "a name for the results folder")
    if not _NAME.fullmatch(name):
        raise table.wrong("name", "up to 40 of a-z, 0-9, - and _, the first a letter or digit")
    if name in known_tasks() or name in task_groups():
        raise table.wrong("name", "one that is not a built-in task's or group's")
    return name


def _labels(table: _Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes, and what the files write for them; nothing for a regression."""
    regression = table.values.get("regression", False)
    if not isinstance(regression, bool):
        raise table.wrong("regression", "true or false")
    if regression:
        for key in ("labels", "values"):
            if key in table.values:
                raise table.wrong(key, "none: regression = true says that labels are numbers")
        return (), ()
    labels = table.texts(
        "labels", 'the names of the classes, such as ["no", "yes"], or regression = true'
    )
    if len(labels) < 2:
        raise table.wrong("labels", "two or more")
    if not all(map(shows, labels)):
        raise table.wrong(
            "labels", "names that show on a line; values says what the files write for each"
        )
    values = (
        table.texts("values", "what the files write for each label")
        if "values" in table.values
        else labels
    )
    if len(values) != len(labels):
        raise table.wrong("values", f"{len(labels)}, one for each of labels")
    return labels, values


def _range(table: _Table, regression: bool) -> tuple[float, tuple[float, float] | None]:
    """What labels are divided by in training, and the smallest and largest label."""
    given = [key for key in ("scale", "range") if key in table.values]
    if not regression:
        if given:
            raise table.wrong(given[0], "none: it is for regression = true")
        return 1.0, None
    if len(given) != 1:
        got = " and ".join(given) or "neither scale nor range"
        raise HarnessError(
            f"{table.path}: got {got}, wanted scale = 5.0 (labels from 0 to 5) or range = [1.0, 5.0]"
        )
    if "scale" in given:
        scale = table.number("scale", "the largest label (the smallest is 0)")
        if not 0 < scale < float("inf"):
            raise table.wrong("scale", "a number above 0")
        return scale, None
    limits = table.values["range"]
    if (
        not isinstance(limits, list)
        or len(limits) != 2
        or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in limits)
    ):
        raise table.wrong("range", "two numbers, the smallest and the largest label")
    low, high = map(float, limits)
    if not -float("inf") < low < high < float("inf"):
        raise table.wrong("range", "the smaller number first")
    return max(abs(low), abs(high)), (low, high)


def _metrics(
    table: _Table, classes: int, allow_code: bool
) -> tuple[tuple[str, ...], tuple[ExternalMetric, ...]]:
    """Ours, the first of which chooses epochs and thresholds, and other people's code. Where only code is named, accuracy (on a regression
    Pearson's correlation) chooses."""
    fitting = [name for name in METRICS if (name in REGRESSION_METRICS) == (classes == 0)]
    usable = [name for name in fitting if classes == 2 or name not in TWO_CLASS_METRICS]
    names = table.texts("metrics", f"one or more of {', '.join(usable)}, or {PREFIX}NAME")
    for name in names:
        if not name.startswith(PREFIX) and name not in METRICS:
            raise HarnessError(
                f"{table.path}: key metrics: {unknown('metric', name, METRICS)}; or {PREFIX}NAME"
            )
        if name in METRICS and name not in usable:
            kind = f"{classes} classes" if classes else "a regression"
            raise HarnessError(
                f"{table.path}: key metrics: {name} is not for {kind}, wanted one or more of {', '.join(usable)}"
            )
    code = [name for name in names if name.startswith(PREFIX)]
    if code and not allow_code:
        raise HarnessError(
            f"{table.path}: key metrics: {code[0]} runs code that is not this program's: allow it by --allow-metric-code"
        )
    ours = tuple(name for name in names if name in METRICS)
    return ours or (usable[0],), tuple(_code(table, name) for name in code)


def _code(table: _Table, name: str) -> ExternalMetric:
    check_evaluate(name)
    place = name.removeprefix(PREFIX)
    if not place.startswith("."):
        return ExternalMetric(name, "")
    given = table.path.parent / place
    script = given / f"{given.name}.py" if given.is_dir() else given
    if not script.is_file():
        raise HarnessError(f"{table.path}: key metrics: {name}: there is no file {script}")
    return ExternalMetric(name, file_digest(script))


def _files(table: _Table) -> CustomFiles:
    texts = table.texts("text", "the name of the text's column, or of two")
    if len(texts) > 2:
        raise table.wrong("text", "one or two columns")
    label = table.text("label", "the name of the label's column")
    if label in texts:
        raise table.wrong("label", "a column that is not the text's")
    dev = _file(table, "dev") if "dev" in table.values else None
    share = (
        table.number("dev_share", "a number between 0 and 1")
        if "dev_share" in table.values
        else None
    )
    if (dev is None) == (share is None):
        both = "both dev and dev_share" if dev is not None else "neither dev nor dev_share"
        raise HarnessError(
            f"{table.path}: got {both}, wanted a file as dev, or dev_share = 0.1, the share of train that is dev"
        )
    if share is not None and not 0 < share < 1:
        raise table.wrong("dev_share", "a number between 0 and 1")
    return CustomFiles(table.path.parent, _file(table, "train"), dev, share, texts, label)


def _file(table: _Table, key: str) -> Path:
    path = table.path.parent / table.text(key, f"a file ({', '.join(FORMATS)})")
    if path.suffix not in FORMATS:
        raise table.wrong(key, f"a file that ends in {', '.join(FORMATS)}")
    if not path.is_file():
        raise HarnessError(f"{table.path}: key {key}: there is no file {path}")
    return path
