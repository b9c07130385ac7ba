"""Tasks by name: labels, metrics, and the source of their rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.data import demo
from harness.data.glue import GLUE
from harness.data.sources import CustomSource, Source
from harness.errors import unknown
from harness.evaluation.external_metrics import ExternalMetric


@dataclass(frozen=True)
class Task:
    """A classification or regression task."""

    name: str
    labels: tuple[str, ...]
    """Class names in index order; empty for a regression."""
    values: tuple[str, ...]
    """Spelling of each class in the files, in the same order."""
    metrics: tuple[str, ...]
    """Metric names; the first is the main one."""
    source: Source
    scale: float = 1.0
    """Regression: divisor that brings labels into [0, 1] for training."""
    phrases: bool = False
    """Whether the train file holds the phrases of its sentences.

    Whole sentences are then held out, together with every phrase that occurs inside them.
    """
    about: str = ""
    """Description in a few words."""
    bounds: tuple[float, float] | None = None
    """Regression: smallest and largest label; None means 0 to `scale`."""
    external_metrics: tuple[ExternalMetric, ...] = ()
    """Metrics from outside the harness, which score exits on dev but choose no epoch or
    threshold."""

    @property
    def classes(self) -> int:
        """Number of outputs of a model for this task; 1 for a regression."""
        return len(self.labels) or 1

    @property
    def regression(self) -> bool:
        """Whether labels are numbers."""
        return not self.labels

    @property
    def label_range(self) -> tuple[float, float]:
        """Smallest and largest label of a regression."""
        return self.bounds or (0.0, self.scale)

    @property
    def custom(self) -> bool:
        """Whether a user's task file describes the task."""
        return isinstance(self.source, CustomSource)

    @property
    def is_demo(self) -> bool:
        """Whether the examples are generated in code."""
        return isinstance(self.source, demo.DemoSource)


_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "cola",
            ("unacceptable", "acceptable"),
            ("0", "1"),
            ("matthews",),
            GLUE["cola"],
            about="grammatical acceptability",
        ),
        Task(
            "sst2",
            ("negative", "positive"),
            ("0", "1"),
            ("accuracy",),
            GLUE["sst2"],
            phrases=True,
            about="sentiment of film reviews",
        ),
        Task(
            "mrpc",
            ("not_equivalent", "equivalent"),
            ("0", "1"),
            ("f1", "accuracy"),
            GLUE["mrpc"],
            about="paraphrase of news sentences",
        ),
        Task(
            "stsb",
            (),
            (),
            ("pearson", "spearman"),
            GLUE["stsb"],
            scale=5.0,
            about="similarity of sentences, 0 to 5",
        ),
        Task(
            "qqp",
            ("not_duplicate", "duplicate"),
            ("0", "1"),
            ("f1", "accuracy"),
            GLUE["qqp"],
            about="questions with the same meaning",
        ),
        Task(
            "mnli",
            _NLI,
            _NLI,
            ("accuracy",),
            GLUE["mnli"],
            about="textual entailment in several genres",
        ),
        Task(
            "qnli",
            _ENTAILMENT,
            _ENTAILMENT,
            ("accuracy",),
            GLUE["qnli"],
            about="whether a sentence answers a question",
        ),
        Task(
            "rte", _ENTAILMENT, _ENTAILMENT, ("accuracy",), GLUE["rte"], about="textual entailment"
        ),
        Task(
            "wnli",
            _ENTAILMENT[::-1],
            ("0", "1"),
            ("accuracy",),
            GLUE["wnli"],
            about="coreference as entailment",
        ),
        *(
            Task(
                name,
                labels,
                labels,
                ("accuracy",),
                demo.DemoSource(name),
                about="generated in code, for a first look",
            )
            for name, labels in demo.LABELS.items()
        ),
    )
}

GROUPS: dict[str, tuple[str, ...]] = {
    "glue": tuple(GLUE),
    "demo": tuple(demo.LABELS),
}


def known_tasks() -> Mapping[str, Task]:
    """Return the built-in tasks by name."""
    return TASKS


def task_groups() -> Mapping[str, tuple[str, ...]]:
    """Return the groups of built-in tasks: name -> names of the members."""
    return GROUPS


def find_task(name: str) -> Task:
    """Return the built-in task of this name.

    Raises: HarnessError if the name is unknown.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def find_tasks(names: Iterable[str]) -> list[Task]:
    """Return the tasks of these names, each once; a group (glue, demo) gives all its members.

    Raises: HarnessError if a name is unknown.
    """
    expanded = [member for name in names for member in GROUPS.get(name, (name,))]
    for name in expanded:
        if name not in TASKS:
            raise unknown("task", name, [*TASKS, *GROUPS])
    return [TASKS[name] for name in dict.fromkeys(expanded)]
