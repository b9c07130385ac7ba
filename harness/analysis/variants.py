"""Which stored runs stand together: what they must share to be compared, and which of them are one row."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

from harness.analysis.conditions import by_condition
from harness.records import RunRecord, canonical, flat, variant

_DIGEST = re.compile("[0-9a-f]{16,64}")
"""A fingerprint of a file, of which its first digits are enough to tell it from another."""

PLACE = ("device", "threads")
"""Where a run ran, by the names that rows have it by."""

READ_BY_SETTINGS = ("sources.corpus", "sources.checkpoint")
"""Sources of which a run has none where its settings make the method read none: that needs no saying beside them."""


def standing(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that tables show: of several of one variant and seed under one condition the newest model's."""
    return [
        run for _, group in by_condition(records) for runs in labels(group).values() for run in runs
    ]


def labels(
    records: Sequence[RunRecord], reference: str | None = None
) -> dict[str, list[RunRecord]]:
    """Label -> runs of one condition that differ in their seed alone.

    A row is called as its method, followed by the settings that differ from the method's own and that not all rows of the method share.
    Runs on another processor, or with other threads, are another row: a mean over seeds is of one place. Of several runs of one seed there
    the newest model's stands, and of its runs the one that was timed against `reference`.
    """
    found: dict[str, dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record.spec.method][canonical(variant(record))].append(record)
    labelled: dict[str, list[RunRecord]] = {}
    for method, variants in found.items():
        groups = [_one_a_seed(group, reference) for group in variants.values()]
        described = [described_by(group[0]) for group in groups]
        names = _row_names(method, described)
        if len(set(names)) < len(
            names
        ):  # the defaults of a method have changed between two versions
            names = _row_names(method, [one._replace(changed=None) for one in described])
        labelled |= dict(zip(names, groups, strict=True))
    return labelled


def _row_names(method: str, variants: Sequence["Variant"]) -> list[str]:
    """The names of rows; numbers are written in full where two names would be the same."""
    apart = telling(variants)
    names = [row_name(method, own) for own in apart]
    return [
        row_name(method, own, str) if names.count(name) > 1 else name
        for name, own in zip(names, apart, strict=True)
    ]


def _one_a_seed(records: list[RunRecord], reference: str | None) -> list[RunRecord]:
    """One run a seed, in the order of seeds."""
    seeds = sorted({record.spec.seed for record in records})
    return [
        shown([record for record in records if record.spec.seed == seed], reference)
        for seed in seeds
    ]


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


class Variant(NamedTuple):
    """What may set a run apart from other runs of its method on its backbone, by flat names."""

    settings: dict[str, object]
    """All hyper-parameters."""
    changed: dict[str, object] | None
    """Those that differ from the method's own; None where the record does not say it."""
    further: dict[str, object]
    """What is not a setting: what the method learned from beside the rows, where it ran."""


def described_by(record: RunRecord) -> Variant:
    """The variant of a record."""
    where = record.environment
    further = flat(
        {"sources": asdict(record.data.sources), "device": where.device, "threads": where.threads}
    )
    return Variant(flat(record.spec.settings), record.changed, further)


def telling(variants: Sequence[Variant]) -> list[dict[str, object]]:
    """What sets each of several variants of a method apart: where it differs from the method's own settings, less what all of them share.

    Where a variant does not say how it differs from the method's own, all settings in which the variants differ are given.
    """
    given = _given(variants)
    shared, usual = _shared(given), _usual_place(given)
    return [
        {
            name: value
            for name, value in own.items()
            if name not in shared and not (name in usual and usual[name] == value)
        }
        for own in given
    ]


def _usual_place(given: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The device and the number of threads of most variants, which need no saying beside the others'."""
    counts = {name: Counter(own[name] for own in given if name in own) for name in PLACE}
    return {
        name: value
        for name, of in counts.items()
        for value, count in of.items()
        if 2 * count > of.total()
    }


def shared_settings(records: Sequence[RunRecord]) -> str:
    """A sentence with what all runs of a method on a backbone share and is not the method's own; empty where there is none."""
    methods: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        methods[record.spec.method, record.spec.backbone].append(record)
    said = []
    for (method, _), runs in methods.items():
        variants = [described_by(run) for run in runs]
        if any(one.changed is None for one in variants):
            continue
        given = _given([one._replace(further=_without_place(one.further)) for one in variants])
        shared = _shared(given)
        said += (
            [row_name(method, {name: value for name, value in given[0].items() if name in shared})]
            if shared
            else []
        )
    return f" Set: {'; '.join(said)}." if said else ""


def _without_place(further: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in further.items() if name not in PLACE}


def _given(variants: Sequence[Variant]) -> list[dict[str, object]]:
    """For each variant all that may tell it apart, without sources of which there is one at most: who reads it is told by the settings."""
    if all(one.changed is not None for one in variants):
        given = [dict(one.changed or {}) for one in variants]
    else:
        names = dict.fromkeys(name for one in variants for name in one.settings)
        given = [{name: one.settings.get(name) for name in names} for one in variants]
    alone = [
        name
        for name in READ_BY_SETTINGS
        if len({one.further.get(name) for one in variants} - {None}) < 2
    ]
    for own, one in zip(given, variants, strict=True):
        own |= {
            name: value
            for name, value in one.further.items()
            if value is not None and name not in alone
        }
    return given


def _shared(given: Sequence[Mapping[str, object]]) -> set[str]:
    """The names that all have, with one value."""
    names = set.intersection(*map(set, given)) if given else set()
    return {name for name in names if len({_comparable(own[name]) for own in given}) == 1}


def _comparable(value: object) -> object:
    """A value that is equal where it means the same: 1 and 1.0, but not 1 and true."""
    if isinstance(value, list):
        return tuple(map(_comparable, value))
    if isinstance(value, dict):
        return tuple(sorted((name, _comparable(inner)) for name, inner in value.items()))
    return str(value) if isinstance(value, bool) else value
