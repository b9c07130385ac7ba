"""The runs that form one row of a comparison, and the name of the row."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.synthetic import identified, single, timed

from harness.analysis.comparison import compare
from harness.analysis.variants import runs_by_row, shared_settings
from harness.evaluation.statistics import Mean
from harness.records import RunRecord, Sources
from harness.store.results import ResultsStore


def varied(
    record: RunRecord,
    settings: dict[str, object],
    seed: int | None = None,
    changed: dict[str, object] | None = None,
) -> RunRecord:
    spec = replace(record.spec, settings=settings, seed=record.spec.seed if seed is None else seed)
    return identified(replace(record, spec=spec, changed=changed))


TEACHER: dict[str, object] = {"epochs": 3, "rates": [0.1, 0.2]}
OWN: dict[str, object] = {"general": True, "augmentation": 20, "hidden": True, "epochs": 3}
"""The method's own settings."""


def rows_of(changes: Sequence[dict[str, object]], known: bool = True) -> list[str]:
    """Return the row name of each run, given its changes to the method's own settings."""
    runs = [
        varied(single("tinybert", 1), OWN | changed, changed=changed if known else None)
        for changed in changes
    ]
    named = {
        run.run_id: name
        for name, group in runs_by_row([*runs, single("bert", 1)]).items()
        for run in group
    }
    return [named[run.run_id] for run in runs]


def test_row_is_named_by_its_changes() -> None:
    assert rows_of([{"general": False}, {}]) == ["tinybert (general=False)", "tinybert"]


def test_shared_changes_are_not_named() -> None:
    assert rows_of([{"general": False, "epochs": 7}, {"general": False}]) == [
        "tinybert (epochs=7)",
        "tinybert",
    ]
    assert rows_of([{"general": False}, {"general": False, "hidden": False}]) == [
        "tinybert",
        "tinybert (hidden=False)",
    ]
    both: dict[str, object] = {"general": False, "hidden": False}
    assert rows_of(
        [{}, {"general": False}, {"augmentation": 0}, both, both | {"augmentation": 0}]
    ) == [
        "tinybert",
        "tinybert (general=False)",
        "tinybert (augmentation=0)",
        "tinybert (general=False, hidden=False)",
        "tinybert (general=False, hidden=False, augmentation=0)",
    ]


def test_unknown_changes_show_all_differences() -> None:
    """Older records do not say which settings differ from the method's own.

    One such record among others is enough."""
    assert rows_of([{"general": False}, {}], known=False) == [
        "tinybert (general=False)",
        "tinybert (general=True)",
    ]
    known, older = (
        varied(single("tinybert", 1), OWN, changed={}),
        varied(single("tinybert", 1), OWN | {"epochs": 4}),
    )
    assert list(runs_by_row([known, older])) == ["tinybert (epochs=3)", "tinybert (epochs=4)"]


def test_changed_defaults_hide_no_row() -> None:
    """Two runs have the method's own settings, which changed between two versions."""
    now, before = (
        varied(single("tinybert", 1), OWN | {"epochs": epochs}, changed={}) for epochs in (3, 5)
    )
    assert list(runs_by_row([now, before])) == ["tinybert (epochs=3)", "tinybert (epochs=5)"]


def rows_in(sentence: str) -> list[str]:
    """Return the rows with settings that a sentence names."""
    return re.findall(r"\S+ \([^)]*\)", sentence)


def test_sources_distinguish_rows() -> None:
    """The sources that were read name a row where the settings do not.

    A method that reads no corpus has none; each of two corpora is named, and so are word vectors
    other than the backbone's own."""
    base = varied(single("tinybert", 1), {"general": True}, changed={})
    without = varied(base, {"general": False}, changed={"general": False})
    one, two, vectors = (
        identified(replace(base, data=replace(base.data, sources=sources)))
        for sources in (Sources(corpus="a"), Sources(corpus="b"), Sources(corpus="a", vectors="c"))
    )
    assert list(runs_by_row([one, without])) == ["tinybert", "tinybert (general=False)"]
    assert list(runs_by_row([one, vectors])) == ["tinybert", "tinybert (sources.vectors=c)"]
    assert shared_settings([one, vectors]) == ""
    assert rows_in(shared_settings([vectors])) == ["tinybert (sources.vectors=c)"]
    known = identified(
        replace(base, data=replace(base.data, sources=Sources(vectors="0123456789abcdef" * 4)))
    )
    assert list(runs_by_row([base, known])) == ["tinybert", "tinybert (sources.vectors=01234567)"]
    assert list(runs_by_row([one, two, without])) == [
        "tinybert (sources.corpus=a)",
        "tinybert (sources.corpus=b)",
        "tinybert (general=False)",
    ]


def test_seeds_form_one_sorted_group() -> None:
    """The seeds of one variant form one group, in order."""
    runs = [single("bert", seed) for seed in (10, 2, 1)]
    assert {
        name: [record.spec.seed for record in group] for name, group in runs_by_row(runs).items()
    } == {"bert": [1, 2, 10]}


SAME_MEANING: list[tuple[dict[str, object], dict[str, object]]] = [
    ({"rate": 1}, {"rate": 1.0}),
    ({"rates": [1]}, {"rates": [1.0]}),
    ({"teacher": {"rate": 0}}, {"teacher": {"rate": 0.0}}),
    ({}, {"limit": None}),
    ({"teacher": None}, {"limit": None}),
]
"""Equal settings written differently: an older record may lack a field, or have 1 for 1.0."""


@pytest.mark.parametrize(
    "variants", [*SAME_MEANING, [part for pair in SAME_MEANING for part in pair]], ids=str
)
def test_every_run_is_in_one_row(variants: Sequence[dict[str, object]]) -> None:
    """Every run is in exactly one row, whatever its settings.

    No row may replace another with the same name."""
    base = single("bert", 1)
    runs = [varied(base, own, seed) for seed, own in enumerate(variants)]
    kept = [record.run_id for group in runs_by_row(runs).values() for record in group]
    assert sorted(kept) == sorted(record.run_id for record in runs)


def fitted(record: RunRecord, key: str, day: int) -> RunRecord:
    """Return a run of the model with this key, created on this day of the month."""
    use = record.stages[-1]
    stages = (*record.stages[:-1], replace(use, report=replace(use.report, key=key)))
    return identified(replace(record, stages=stages, created=f"2026-11-{day:02}T12:00:00+00:00"))


def test_newest_model_of_seed_is_selected(store: ResultsStore) -> None:
    """If a seed was fitted twice, the newest model is selected, timed or not.

    A raised revision gives a new model of the same cell beside the old one, whose score must not be
    shown."""
    old = timed(fitted(single("bert", 1, 0.1), "old", 20), "bert", 1.0)
    new = fitted(single("bert", 1, 0.2), "new", 21)
    for runs in ([old, new], [new, old]):
        (comparison,) = compare(store, runs, "bert")
        assert comparison.records == (new,)
        assert comparison.rows[0].scores["accuracy"].mean == 0.2
        assert comparison.rows[0].latency_ratio is None
    again = timed(fitted(single("bert", 1, 0.1), "old", 22), "bert", 1.0)
    assert compare(store, [again, new, old], "bert")[0].records == (new,)
    other_seed = timed(fitted(single("bert", 2, 0.4), "other", 1), "bert", 1.0)
    assert compare(store, [old, new, other_seed], "bert")[0].records == (new, other_seed)


def test_run_timed_against_reference_is_selected(store: ResultsStore) -> None:
    """The run that was timed against the reference is selected among several of one model.

    Then comes one that was timed at all, then the newest."""
    model = single("bert", 1)
    against, otherwise, untimed, later = (fitted(model, "same", day) for day in (1, 2, 3, 4))
    against, otherwise = timed(against, "bert", 1.0), timed(otherwise, "pabee", 2.0)
    by_preference = [against, otherwise, later, untimed]
    for index in range(4):
        for runs in (by_preference[index:], by_preference[index:][::-1]):
            assert compare(store, runs, "bert")[0].records == (by_preference[index],)
    (comparison,) = compare(store, by_preference, "bert")
    assert comparison.rows[0].latency_ratio == Mean(1.0, None, 1)


def test_shared_changed_settings_are_named() -> None:
    """Changed settings that all runs of a method share are named."""
    base = single("costeff", 1)
    own: dict[str, object] = {
        "effort": 0.3,
        "growth": 1.12,
        "learning_rates": [5e-5, 1e-4],
        "rounds": "iterative",
    }
    changed: dict[str, object] = {"effort": 0.3, "learning_rates": [5e-5, 1e-4]}
    runs = [
        varied(base, own, changed=changed),
        varied(base, own | {"rounds": "one"}, 2, changed | {"rounds": "one"}),
        varied(single("bert", 1), {}, changed={}),
    ]
    assert rows_in(shared_settings(runs)) == ["costeff (effort=0.3, learning_rates=5e-05/0.0001)"]
    assert shared_settings([single("bert", 1), single("no-method-of-ours", 1)]) == ""


def test_long_numbers_shorten_unless_ambiguous() -> None:
    """Long numbers are shortened in a name unless two names would be the same."""
    shares = (0.5, 0.25, 0.3212890625, 0.3212890626)
    groups = runs_by_row(
        [
            varied(single("costeff", 1), {"heads": share}, changed={"heads": share})
            for share in shares
        ]
    )
    names = [
        "costeff (heads=0.5)",
        "costeff (heads=0.25)",
        "costeff (heads=0.3212890625)",
        "costeff (heads=0.3212890626)",
    ]
    assert list(groups) == names
