"""Which stored runs stand together: what they must share to be compared, and which of them are one row."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache

from harness.backbones import BACKBONES
from harness.methods import METHODS, load_method
from harness.records import RunRecord, canonical, flat, telling, variant


@dataclass(frozen=True)
class Condition:
    """What two runs must share to stand in one table. Not the processor: scores and MACs do not depend on it beyond rounding, and latency
    is a ratio to the reference on the run's own."""

    task: str
    backbone: str
    train_rows: int | None
    limit: int | None
    max_length: int
    data: str
    splits: str
    weights: str
    precision: str


def by_condition(records: Sequence[RunRecord]) -> list[tuple[Condition, list[RunRecord]]]:
    """Runs that can stand in one table, together, in the order of the tasks' names."""
    groups: dict[Condition, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[condition(record)].append(record)
    return sorted(groups.items(), key=lambda item: json.dumps(item[0].__dict__, default=str))


def standing(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that tables show: of several of one variant and seed under one condition the newest model's."""
    return [run for _, group in by_condition(records) for runs in labels(group).values() for run in runs]


def condition(record: RunRecord) -> Condition:
    """What the record can be compared under."""
    spec, data, where = record.spec, record.data, record.environment
    return Condition(
        task=spec.task,
        backbone=spec.backbone,
        train_rows=spec.train_rows,
        limit=spec.limit,
        max_length=spec.max_length,
        data=data.data,
        splits=data.splits,
        weights=data.backbone,
        precision=where.precision,
    )


def title(where: Condition, all_: Sequence[Condition]) -> str:
    """Task and backbone, and what sets this table apart from others of the same."""
    quick = f", quick look at {where.limit} rows" if where.limit else ""
    like = [other for other in all_ if (other.task, other.backbone, other.limit) == (where.task, where.backbone, where.limit)]
    words = {
        "train_rows": f"{where.train_rows or 'all'} training rows",
        "max_length": f"cut at {where.max_length} tokens",
        "data": f"data {where.data}",
        "splits": f"splits {where.splits}",
        "weights": f"weights {where.weights}",
        "precision": f"trained in {where.precision}",
    }
    differing = [said for name, said in words.items() if len({getattr(other, name) for other in like}) > 1]
    return ", ".join([f"{where.task} on {where.backbone}{quick}", *differing])


def labels(records: Sequence[RunRecord], reference: str | None = None) -> dict[str, list[RunRecord]]:
    """Label -> runs that differ in their seed alone. Variants of one method are told apart by the settings that differ; what more than half
    of them share goes without saying.

    Runs on another processor, or with other threads, are another row: a mean over seeds is of one place. Of several runs of one seed there
    the newest model's stands, and of its runs the one that was timed against `reference`.
    """
    found: dict[str, dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record.spec.method][canonical(variant(record))].append(record)
    labelled = {}
    for method, variants in found.items():
        groups = [_one_a_seed(group, reference) for group in variants.values()]
        for group, own in zip(groups, telling([variant(group[0]) for group in groups]), strict=True):
            label = row_name(method, own)
            labelled[row_name(method, own, str) if label in labelled else label] = group
    return labelled


def _one_a_seed(records: list[RunRecord], reference: str | None) -> list[RunRecord]:
    """One run a seed, in the order of seeds: of the model that was fitted last, known by its last stage's key.

    So what a raised revision gave takes the place of the older model's scores, timed or not. Among runs of that model one timed against
    the reference comes before one timed otherwise or not at all, then the newest. A model is as old as its first run.
    """
    since: dict[str, str] = {}
    for record in records:
        since[_model(record)] = min(record.created, since.get(_model(record), record.created))

    def rank(record: RunRecord) -> tuple[str, str, bool, bool, str]:
        timed = record.latency
        against = timed is not None and timed.reference == reference
        return since[_model(record)], _model(record), against, timed is not None, record.created

    ordered = sorted(records, key=rank)
    return [record for _, record in sorted({record.spec.seed: record for record in ordered}.items())]


def _model(record: RunRecord) -> str:
    """The content address of the run's fitted model."""
    return record.stages[-1].report.key


def _short(value: object) -> str:
    if isinstance(value, list):
        return "/".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) and not value.is_integer() else str(value)


def row_name(method: str, own: Mapping[str, object], words: Callable[[object], str] = _short) -> str:
    """The method, with the settings that set a run apart in brackets."""
    suffix = ", ".join(f"{name}={words(value)}" for name, value in own.items())
    return f"{method} ({suffix})" if suffix else method


def changed(record: RunRecord) -> dict[str, object]:
    """The settings of a run that are not the method's own on that backbone, flat. What a method or a backbone that is not in our tables
    takes by itself is not known, and not said."""
    usual, settings = _usual(record.spec.method, record.spec.backbone), flat(record.spec.settings)
    known = {name: value for name, value in settings.items() if name in usual}
    return {name: value for name, value in known.items() if canonical({name: value}) != canonical({name: usual[name]})}


def shared_settings(records: Sequence[RunRecord]) -> str:
    """A sentence with the settings that all runs of a method have in common and that are not its own; empty where there is none."""
    methods: dict[str, list[dict[str, object]]] = defaultdict(list)
    for record in records:
        methods[record.spec.method].append(changed(record))
    said = []
    for method, (first, *others) in methods.items():
        common = {name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)}
        said += [row_name(method, common)] if common else []
    return f" Set: {'; '.join(said)}." if said else ""


@cache
def _usual(method: str, backbone: str) -> dict[str, object]:
    """A method's own settings on a backbone of the table, on another those that do not depend on it."""
    if method not in METHODS:
        return {}
    own = load_method(method)
    found = flat(asdict(own.settled(BACKBONES[backbone]) if backbone in BACKBONES else own))
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
    return plain if backbone in BACKBONES else {name: value for name, value in plain.items() if value is not None}
