"""Which stored runs stand together: what they must share to be compared, and which of them are one row."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache

from harness.analysis.conditions import by_condition
from harness.methods.registry import METHODS, load_method
from harness.models.backbones import BACKBONES
from harness.records import RunRecord, canonical, flat, variant

_DIGEST = re.compile("[0-9a-f]{16,64}")
"""A fingerprint of a file, of which its first digits are enough to tell it from another."""

READ_BY_SETTINGS = ("sources.corpus", "sources.checkpoint")
"""Sources of which a run has none where its settings make the method read none: that needs no saying beside them."""


def standing(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that tables show: of several of one variant and seed under one condition the newest model's."""
    return [run for _, group in by_condition(records) for runs in labels(group).values() for run in runs]


def labels(records: Sequence[RunRecord], reference: str | None = None) -> dict[str, list[RunRecord]]:
    """Label -> runs of one condition that differ in their seed alone. One variant of a method, the plain one, is called as the method, the
    others by what sets them apart from it.

    Runs on another processor, or with other threads, are another row: a mean over seeds is of one place. Of several runs of one seed there
    the newest model's stands, and of its runs the one that was timed against `reference`.
    """
    found: dict[str, dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record.spec.method][canonical(variant(record))].append(record)
    labelled = {}
    for method, variants in found.items():
        groups = [_one_a_seed(group, reference) for group in variants.values()]
        runs = [run for group in groups for run in group]
        apart = telling(method, runs[0].spec.backbone, [variant(run) for run in runs])
        of_run = {run.run_id: own for run, own in zip(runs, apart, strict=True)}
        for group in groups:
            own = of_run[group[0].run_id]
            label = row_name(method, own)
            labelled[row_name(method, own, str) if label in labelled else label] = group
    return labelled


def _one_a_seed(records: list[RunRecord], reference: str | None) -> list[RunRecord]:
    """One run a seed, in the order of seeds."""
    seeds = sorted({record.spec.seed for record in records})
    return [shown([record for record in records if record.spec.seed == seed], reference) for seed in seeds]


def shown(runs: Sequence[RunRecord], reference: str | None) -> RunRecord:
    """Of several runs of one variant and seed the one that stands for them: of the model that was fitted last, known by its last stage's
    key.

    So what a raised revision gave takes the place of the older model's scores, timed or not. Among runs of that model one timed against
    the reference comes before one timed otherwise or not at all, then the newest. A model is as old as its first run.
    """
    since: dict[str, str] = {}
    for record in runs:
        since[_model(record)] = min(record.created, since.get(_model(record), record.created))

    def rank(record: RunRecord) -> tuple[str, str, bool, bool, str]:
        timed = record.latency
        against = timed is not None and timed.reference == reference
        return since[_model(record)], _model(record), against, timed is not None, record.created

    return max(runs, key=rank)


def _model(record: RunRecord) -> str:
    """The content address of the run's fitted model."""
    return record.stages[-1].report.key


def words(value: object) -> str:
    """A setting's value, short."""
    if isinstance(value, list):
        return "/".join(map(words, value))
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:8]
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)


def row_name(method: str, own: Mapping[str, object], said: Callable[[object], str] = words) -> str:
    """The method, with the settings that set a run apart in brackets."""
    suffix = ", ".join(f"{name}={said(value)}" for name, value in own.items())
    return f"{method} ({suffix})" if suffix else method


def telling(method: str, backbone: str, variants: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """For each of several variants (`records.variant`) of a method, one a run, what sets it apart from the plain one among them, flat."""
    settings = _comparable(variants)
    plain = _plain(method, backbone, settings)
    return [_apart(own, plain) for own in settings]


def settings_of_plain(records: Sequence[RunRecord]) -> str:
    """A sentence with the settings of each method's plain run that are not the method's own, and what it read where others read something
    else; empty where there is none."""
    methods: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        methods[record.spec.method, record.spec.backbone].append(record)
    said = []
    for (method, backbone), runs in methods.items():
        plain = _plain(method, backbone, _comparable([variant(run) for run in runs]))
        read = {name: value for name, value in plain.items() if name.startswith("sources.") and value is not None}
        own = _changed(method, backbone, plain) | read
        said += [row_name(method, own)] if own else []
    return f" Set: {'; '.join(said)}." if said else ""


def _comparable(variants: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Flat, without sources of which there is one at most: who reads it and who none is told by the settings."""
    settings = [flat(one) for one in variants]
    alone = [name for name in READ_BY_SETTINGS if len({one.get(name) for one in settings} - {None}) < 2]
    return [{name: value for name, value in one.items() if name not in alone} for one in settings]


def _apart(own: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    """What `own` has that `other` has not."""
    return {name: own.get(name) for name in {**other, **own} if own.get(name) != other.get(name)}


def _plain(method: str, backbone: str, settings: Sequence[dict[str, object]]) -> dict[str, object]:
    """The variant from which most others differ in one thing alone, as ablations do; of equals the nearest to the method's own settings,
    then the one with most runs."""
    texts = [canonical(one) for one in settings]
    distinct = dict(zip(texts, settings, strict=True))

    def rank(text: str) -> tuple[int, int, int, str]:
        near = sum(len(_apart(other, distinct[text])) == 1 for other in distinct.values())
        return near, -len(_changed(method, backbone, distinct[text])), texts.count(text), text

    return distinct[max(distinct, key=rank)]


def _changed(method: str, backbone: str, settings: Mapping[str, object]) -> dict[str, object]:
    """The flat settings that are not the method's own on that backbone. What a method or a backbone that is not in our tables takes by
    itself is not known, and not said."""
    usual = _usual(method, backbone)
    return {name: value for name, value in settings.items() if name in usual and canonical({name: value}) != canonical({name: usual[name]})}


@cache
def _usual(method: str, backbone: str) -> dict[str, object]:
    """A method's own settings on a backbone of the table, on another those that do not depend on it."""
    if method not in METHODS:
        return {}
    own = load_method(method)
    found = flat(asdict(own.settled(BACKBONES[backbone]) if backbone in BACKBONES else own))
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
    return plain if backbone in BACKBONES else {name: value for name, value in plain.items() if value is not None}
