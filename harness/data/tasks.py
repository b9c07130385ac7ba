"""Tasks, their files, and the splits that every method and seed shares."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.data import demo
from harness.data.glue import GLUE
from harness.data.sources import CustomFiles, GlueSource
from harness.errors import unknown
from harness.evaluation.external_metrics import ExternalMetric


@dataclass(frozen=True)
class Task:
    """A task: its labels, its metrics, and where its rows come from."""

    name: str
    labels: tuple[str, ...]
    """Class names in index order; empty for a regression."""
    values: tuple[str, ...]
    """What the files write for each label, in the same order."""
    metrics: tuple[str, ...]
    """The first is the main one."""
    source: GlueSource | None
    """None for the demo tasks, which are made in code, and for a user's own."""
    scale: float = 1.0
    """Regression: labels are divided by it in training, so that they lie in [0, 1]."""
    phrases: bool = False
    """The train file holds the phrases of its sentences: whole sentences are held out, with all that occurs inside them."""
    about: str = ""
    own: CustomFiles | None = None
    """The files of a user's own task."""
    bounds: tuple[float, float] | None = None
    """Regression: the smallest and the largest label; None: 0 to `scale`."""
    code: tuple[ExternalMetric, ...] = ()
    """Metrics of other people's code, for the scores of exits alone."""

    @property
    def classes(self) -> int:
        """Outputs of a model for this task; 1 is a regression."""
        return len(self.labels) or 1

    @property
    def regression(self) -> bool:
        """Whether labels are numbers."""
        return not self.labels


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
            about="questions that ask the same",
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
            Task(name, labels, labels, ("accuracy",), None, about="made in code, for a first look")
            for name, labels in demo.LABELS.items()
        ),
    )
}

GROUPS: dict[str, tuple[str, ...]] = {
    "glue": tuple(GLUE),
    "demo": tuple(demo.LABELS),
}


def known_tasks() -> Mapping[str, Task]:
    """Return the tasks that can be named, without those of a user's own files."""
    return TASKS


def task_groups() -> Mapping[str, tuple[str, ...]]:
    """Return the groups of tasks that can be named, with the names of their members."""
    return GROUPS


def find_task(name: str) -> Task:
    """Return the task of that name.

    Raises: HarnessError for an unknown name.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def find_tasks(names: Iterable[str]) -> list[Task]:
    """Tasks by name, groups (glue, demo) replaced by their members, each once.

    Raises: HarnessError for an unknown name.
    """
    expanded = [member for name in names for member in GROUPS.get(name, (name,))]
    wrong = [name for name in expanded if name not in TASKS]
    if wrong:
        raise unknown("task", wrong[0], [*TASKS, *GROUPS])
    return [TASKS[name] for name in dict.fromkeys(expanded)]
