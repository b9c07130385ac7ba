"""The runs that form one row of a table, and the name of the row."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

from harness.analysis.conditions import by_condition
from harness.records import RunRecord, canonical, flat, variant

_DIGEST = re.compile("[0-9a-f]{16,64}")
"""A file's fingerprint, whose first digits are enough to identify it."""

HARDWARE = ("device", "threads")
"""Names in a row's label for the hardware that a run used."""

SOURCES_IMPLIED_BY_SETTINGS = ("sources.corpus", "sources.checkpoint")
"""Sources that a run lacks if its settings make the method read none. The settings already say so,
and so the source is not named as well."""


def selected_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs that tables show: for each condition, variant and seed, one run of the newest
    model."""
    return [
        run
        for _, group in by_condition(records)
        for runs in runs_by_row(group).values()
        for run in runs
    ]


def runs_by_row(
    records: Sequence[RunRecord], reference: str | None = None
) -> dict[str, list[RunRecord]]:
    """Return row name -> the runs of one condition that differ only in their seed.

    A row's name is the method's, followed by the settings that differ from the method's defaults
    and that not all rows of the method share. Runs on another processor or with another number of
    threads form a row of their own: a mean over seeds never mixes hardware. If a seed has several
    runs, the newest model counts, and of its runs the one that was timed against `reference`.
    """
    found: dict[str, dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record.spec.method][canonical(variant(record))].append(record)
    rows: dict[str, list[RunRecord]] = {}
    for method, groups in found.items():
        runs = [_one_per_seed(group, reference) for group in groups.values()]
        variants = [variant_of(group[0]) for group in runs]
        names = _row_names(method, variants)
        # the same name twice: the method's defaults changed between two versions
        if len(set(names)) < len(names):
            names = _row_names(method, [one._replace(changed=None) for one in variants])
        rows |= dict(zip(names, runs, strict=True))
    return rows


def _row_names(method: str, variants: Sequence["Variant"]) -> list[str]:
    """Return the names of rows; numbers are written in full where two names would be the same."""
    settings = distinguishing_settings(variants)
    names = [row_name(method, own) for own in settings]
    return [
        row_name(method, own, str) if names.count(name) > 1 else name
        for name, own in zip(names, settings, strict=True)
    ]


def _one_per_seed(records: list[RunRecord], reference: str | None) -> list[RunRecord]:
    """Return one run per seed, in the order of seeds."""
    seeds = sorted({record.spec.seed for record in records})
    return [
        selected_run([record for record in records if record.spec.seed == seed], reference)
        for seed in seeds
    ]


def selected_run(runs: Sequence[RunRecord], reference: str | None) -> RunRecord:
    """Select one of several runs of one variant and seed.

    It is a run of the model that was fitted last; a model is identified by the key of its last
    stage and is as old as its first run. So the scores after a raised revision replace the older
    model's, timed or not. Among runs of that model, one timed against the reference comes first,
    then one timed otherwise, then the newest.
    """
    first_run: dict[str, str] = {}
    for record in runs:
        key = _model_key(record)
        first_run[key] = min(record.created, first_run.get(key, record.created))

    def rank(record: RunRecord) -> tuple[str, str, bool, bool, str]:
        timed, key = record.latency, _model_key(record)
        against_reference = timed is not None and timed.reference == reference
        return first_run[key], key, against_reference, timed is not None, record.created

    return max(runs, key=rank)


def _model_key(record: RunRecord) -> str:
    """Return the content address of the run's fitted model."""
    return record.stages[-1].report.key


def short_text(value: object) -> str:
    """Return a setting's value as short text."""
    if isinstance(value, list):
        return "/".join(map(short_text, value))
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:8]
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)


def row_name(
    method: str, settings: Mapping[str, object], as_text: Callable[[object], str] = short_text
) -> str:
    """Return the method's name, followed by the distinguishing settings in brackets."""
    suffix = ", ".join(f"{name}={as_text(value)}" for name, value in settings.items())
    return f"{method} ({suffix})" if suffix else method


class Variant(NamedTuple):
    """Everything that can distinguish a run from others of its method and backbone, flattened."""

    settings: dict[str, object]
    """All hyper-parameters."""
    changed: dict[str, object] | None
    """Hyper-parameters that differ from the method's defaults; None if the record lacks them."""
    extra: dict[str, object]
    """Anything but settings: the sources from which the method learned, and the hardware."""


def variant_of(record: RunRecord) -> Variant:
    """Return the variant of a record."""
    environment = record.environment
    extra = flat(
        {
            "sources": asdict(record.data.sources),
            "device": environment.device,
            "threads": environment.threads,
        }
    )
    return Variant(flat(record.spec.settings), record.changed, extra)


def distinguishing_settings(variants: Sequence[Variant]) -> list[dict[str, object]]:
    """Return the settings that distinguish each of several variants of a method.

    They are those that differ from the method's defaults, except those that all variants share. If
    a record does not name its changed settings, they are all settings in which the variants differ.
    """
    candidates = _candidates(variants)
    shared, usual = _shared(candidates), _usual_hardware(candidates)
    return [
        {
            name: value
            for name, value in own.items()
            if name not in shared and not (name in usual and usual[name] == value)
        }
        for own in candidates
    ]


def _usual_hardware(candidates: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return the device and the number of threads of most variants, which row names leave out."""
    counts = {name: Counter(own[name] for own in candidates if name in own) for name in HARDWARE}
    return {
        name: value
        for name, counter in counts.items()
        for value, count in counter.items()
        if 2 * count > counter.total()
    }


def shared_settings(records: Sequence[RunRecord]) -> str:
    """Return a sentence with the settings that all runs of a method on a backbone share and that
    differ from the method's defaults; empty if there are none."""
    methods: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        methods[record.spec.method, record.spec.backbone].append(record)
    names = []
    for (method, _), runs in methods.items():
        variants = [variant_of(run) for run in runs]
        if any(one.changed is None for one in variants):
            continue
        candidates = _candidates(
            [one._replace(extra=_without_hardware(one.extra)) for one in variants]
        )
        shared = _shared(candidates)
        names += (
            [
                row_name(
                    method, {name: value for name, value in candidates[0].items() if name in shared}
                )
            ]
            if shared
            else []
        )
    return f" Changed from the defaults: {'; '.join(names)}." if names else ""


def _without_hardware(extra: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in extra.items() if name not in HARDWARE}


def _candidates(variants: Sequence[Variant]) -> list[dict[str, object]]:
    """Return for each variant everything that may distinguish it.

    A source that the settings imply is left out if all variants that have one have the same."""
    if all(one.changed is not None for one in variants):
        candidates = [dict(one.changed or {}) for one in variants]
    else:
        names = dict.fromkeys(name for one in variants for name in one.settings)
        candidates = [{name: one.settings.get(name) for name in names} for one in variants]
    implied = [
        name
        for name in SOURCES_IMPLIED_BY_SETTINGS
        if len({one.extra.get(name) for one in variants} - {None}) < 2
    ]
    for own, one in zip(candidates, variants, strict=True):
        own |= {
            name: value
            for name, value in one.extra.items()
            if value is not None and name not in implied
        }
    return candidates


def _shared(candidates: Sequence[Mapping[str, object]]) -> set[str]:
    """Return the names that all candidates have with the same value."""
    names = set.intersection(*map(set, candidates)) if candidates else set()
    return {name for name in names if len({_comparable(own[name]) for own in candidates}) == 1}


def _comparable(value: object) -> object:
    """Return a value that is equal where it means the same: 1 and 1.0, but not 1 and true."""
    if isinstance(value, list):
        return tuple(map(_comparable, value))
    if isinstance(value, dict):
        return tuple(sorted((name, _comparable(inner)) for name, inner in value.items()))
    return str(value) if isinstance(value, bool) else value
