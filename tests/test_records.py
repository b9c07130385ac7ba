"""Records as JSON and back, and the MACs of paths through a model."""

import json
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.messages import assert_message
from support.synthetic import make_exit, make_latency, make_record

from harness import records
from harness.errors import ExitCode, IncompleteError
from harness.files.typed_json import MAX_INTEGER, SCHEMA, from_json, to_json
from harness.records import (
    RECORD_BYTES,
    Costs,
    ExitMeasurement,
    Polynomial,
    Quartiles,
    RunRecord,
    RunSpec,
    SplitScores,
    TaskSummary,
    Trial,
)

KINDS = [
    kind
    for kind in vars(records).values()
    if is_dataclass(kind) and kind.__module__ == records.__name__
]

quick = settings(deadline=None, max_examples=30)

WORDS = st.text('aä🙂 ."\\', max_size=8)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)


@dataclass(frozen=True)
class Numbers:
    """Floats without a range."""

    one: float
    other: float
    third: float


def example(kind: Any, with_optional: bool) -> Any:
    """Return a value of the annotated type, in which optional parts are given or None."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(
            **{field.name: example(hints[field.name], with_optional) for field in fields(kind)}
        )
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return example(inner, with_optional) if with_optional else None
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        return tuple(example(arguments[0], with_optional) for _ in range(2))
    if origin is dict:
        return {
            "one": example(arguments[1], with_optional),
            "other": example(arguments[1], with_optional),
        }
    return {int: SCHEMA, float: 0.1, str: "text ä", bool: True, object: [1, {"inner": None}]}[kind]


def objects(value: object, where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of all values in parsed JSON, except inside free-form settings."""
    if where and where[-1] in ("settings", "changed"):
        return
    yield where
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from objects(item, (*where, key))


def at(value: Any, where: tuple[str | int, ...]) -> Any:
    for key in where:
        value = value[key]
    return value


@pytest.fixture
def record() -> RunRecord:
    return make_record(
        "deebert",
        1,
        [
            make_exit(2, {"accuracy": 0.5}, 10.5, 1.0, 2.0),
            make_exit(4, {"accuracy": 0.75}, 20, 3.0, 4.0),
        ],
    )


@pytest.fixture
def content() -> Any:
    """A record with every optional part, as parsed JSON."""
    return json.loads(to_json(example(RunRecord, with_optional=True)))


@pytest.mark.parametrize("with_optional", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_dataclasses_survive_json(kind: type, with_optional: bool) -> None:
    """Every dataclass is read back from JSON unchanged."""
    value = example(kind, with_optional)
    text = to_json(value)
    back = from_json(kind, text, "x.json")
    assert back == value
    assert to_json(back) == text


def test_every_record_part_is_tested() -> None:
    """The parts of a record are among the dataclasses tested."""
    assert {RunRecord, RunSpec, Costs, Quartiles, Trial} <= set(KINDS)


@quick
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_json_exactly(value: float) -> None:
    """Floats are read back exactly."""
    numbers = Numbers(value, -value, value / 3)
    assert from_json(Numbers, to_json(numbers), "x.json") == numbers


@quick
@given(st.integers(-MAX_INTEGER, MAX_INTEGER))
def test_macs_survive_json_exactly(value: int) -> None:
    """MACs are read back exactly, however large."""
    assert from_json(Polynomial, to_json(Polynomial(value, 0, 1)), "x.json") == Polynomial(
        value, 0, 1
    )


@quick
@given(st.dictionaries(WORDS, JSON_VALUES, max_size=4))
def test_settings_survive_json_unchanged(values: dict[str, object]) -> None:
    """Free-form settings are read back unchanged."""
    spec = RunSpec("bert", "rte", "tiny", 1, None, 128, None, values)
    assert from_json(RunSpec, to_json(spec), "x.json") == spec


def test_integers_are_read_as_floats() -> None:
    """An integer in a float field is read as a float."""
    back = from_json(Quartiles, '{"q1": 1, "median": 2, "q3": 3}', "x.json")
    assert [type(value) for value in (back.q1, back.median, back.q3)] == [float] * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_infinite_number_is_not_written(value: float, record: RunRecord) -> None:
    """A number that is not finite is not written."""
    with pytest.raises(ValueError, match="JSON"):
        to_json(replace(record, seconds=value))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_unrepresentable_number_is_refused(number: str, record: RunRecord) -> None:
    """A number that no float can hold is refused."""
    text = to_json(record).replace('"seconds": 60.5', f'"seconds": {number}')
    assert number in text
    with pytest.raises(IncompleteError) as caught:
        from_json(RunRecord, text, "x.json")
    assert_message(caught, "x.json", code=ExitCode.INCOMPLETE)


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", '{"schema": 1,}', "[" * 100_000, '{"a":' * 100_000]
)
def test_invalid_json_is_refused(text: str) -> None:
    """Text that is not JSON is refused."""
    with pytest.raises(IncompleteError) as caught:
        from_json(RunRecord, text, "x.json")
    assert_message(caught, "x.json", code=ExitCode.INCOMPLETE)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', "true"])
def test_json_must_be_an_object(text: str) -> None:
    """JSON that is not an object is refused."""
    with pytest.raises(IncompleteError) as caught:
        from_json(RunRecord, text, "x.json")
    assert_message(caught, "x.json", code=ExitCode.INCOMPLETE)


def test_newer_schema_is_refused_first(record: RunRecord) -> None:
    """A newer schema is refused before anything else."""
    newer = {"schema": SCHEMA + 1, "a field of the future": 1}
    with pytest.raises(IncompleteError) as caught:
        from_json(RunRecord, json.dumps(newer), "x.json")
    assert_message(caught, "x.json", "schema", SCHEMA + 1, SCHEMA, code=ExitCode.INCOMPLETE)


@pytest.mark.parametrize("schema", [float(SCHEMA), True, str(SCHEMA), None])
def test_schema_is_an_integer(content: Any, schema: object) -> None:
    """2.0 equals 2 in Python, but is not a schema number."""
    with pytest.raises(IncompleteError) as caught:
        from_json(RunRecord, json.dumps(content | {"schema": schema}), "x.json")
    assert_message(caught, "x.json", "schema", code=ExitCode.INCOMPLETE)


def test_older_schema_has_own_advice(content: Any) -> None:
    """Older and newer schemas have different advice."""
    messages = []
    for schema in (SCHEMA - 1, SCHEMA + 1):
        with pytest.raises(IncompleteError) as caught:
            from_json(RunRecord, json.dumps(content | {"schema": schema}), "x.json")
        message = assert_message(
            caught, "x.json", "schema", schema, SCHEMA, code=ExitCode.INCOMPLETE
        )
        messages.append(re.sub(r"\d+", "", message))
    assert (
        messages[0] != messages[1]
    )  # run again for an older schema, update harness for a newer one


def test_optional_parts_are_omitted(record: RunRecord) -> None:
    """Optional fields are omitted from records that do not have them."""
    text = to_json(record)
    assert "own_task" not in text
    assert "mismatched" not in text
    last_exit = replace(
        record,
        own_task=TaskSummary(("no", "yes"), ("accuracy",), 1.0),
        mismatched=SplitScores({"accuracy": 0.5}, ({"accuracy": 0.25},)),
    )
    assert from_json(RunRecord, to_json(last_exit), "x.json") == last_exit


LATER = [
    "batch_size",
    "latency_seconds",
    "wait_policy",
    "sources",
    "corpus",
    "vectors",
    "checkpoint",
    "own_task",
    "mismatched",
    "remarks",
    "texts",
    "columns",
    "label",
    "values",
    "bounds",
    "changed",
]
"""Fields that older records of the schema do not have."""


def test_missing_field_is_named(content: Any) -> None:
    """A missing field is named, at any depth."""
    tried = 0
    for where in list(objects(content)):
        if not where or isinstance(where[-1], int) or where[-1] in ("one", "other"):
            continue
        parent = at(content, where[:-1])
        original = parent.pop(where[-1])
        if where[-1] in LATER:
            assert (
                from_json(RunRecord, json.dumps(content), "x.json").data.backbone
                == content["data"]["backbone"]
            )
            parent[where[-1]] = original
            continue
        with pytest.raises(IncompleteError) as caught:
            from_json(RunRecord, json.dumps(content), "x.json")
        assert_message(caught, "x.json", *where, code=ExitCode.INCOMPLETE)
        parent[where[-1]] = original
        tried += 1
    assert tried > 100


def test_unexpected_field_is_named(content: Any) -> None:
    """An unexpected field is named, at any depth."""
    tried = 0
    for where in list(objects(content)):
        target = at(content, where)
        if not isinstance(target, dict) or "one" in target:
            continue
        target["mystery"] = 1
        with pytest.raises(IncompleteError) as caught:
            from_json(RunRecord, json.dumps(content), "x.json")
        assert_message(caught, "x.json", *where, "mystery", code=ExitCode.INCOMPLETE)
        del target["mystery"]
        tried += 1
    assert tried > 20


@pytest.mark.parametrize("bad_value", [{"no": ["such"]}, [[1]], "text", True, None], ids=str)
def test_mistyped_value_is_located(bad_value: object, content: Any) -> None:
    """A value of the wrong type is refused and located.

    Each value is tried in every field of a record that cannot hold it."""
    optional = {"train_rows", "limit", "policy", "latency", "reference", *LATER}
    refused = 0
    for where in list(objects(content))[1:]:
        parent, key = at(content, where[:-1]), where[-1]
        original = parent[key]
        may_be_none = (
            key in optional
            or (where[0] == "costs" and where[-2:-1] == ("exits",))
            or (where[0] == "search" and key != "chosen")
        )
        if (bad_value is None and may_be_none) or (
            isinstance(bad_value, str | bool) and type(bad_value) is type(original)
        ):
            continue
        parent[key] = bad_value
        with pytest.raises(IncompleteError) as caught:
            from_json(RunRecord, json.dumps(content), "x.json")
        parent[key] = original
        assert_message(caught, "x.json", *where, code=ExitCode.INCOMPLETE)
        refused += 1
    assert refused > 100


def test_path_macs_include_passed_exits() -> None:
    """The MACs of a path include earlier exits; those of a truncated model do not.

    At 4 tokens: embedding 1+8+48, layers 10, 20, 1+4+16, exits after the second (7) and third
    (2*16) layer."""
    costs = Costs(
        embedding=Polynomial(1, 2, 3),
        layers=(Polynomial(10, 0, 0), Polynomial(0, 5, 0), Polynomial(1, 1, 1)),
        exits=(None, Polynomial(7, 0, 0), Polynomial(0, 0, 2)),
    )
    assert costs.static(1, 4) == 57 + 10 + 20 + 7
    assert costs.path(1, 4) == 57 + 10 + 20 + 7
    assert costs.static(2, 4) == 57 + 10 + 20 + 21 + 32
    assert costs.path(2, 4) == 57 + 10 + 20 + 21 + 7 + 32
    with pytest.raises(AssertionError, match=r"\b0\b"):
        costs.static(0, 4)


@quick
@given(st.integers(1, 5), st.data())
def test_path_adds_exits_on_way(layers: int, data: st.DataObject) -> None:
    """A path costs the truncated model plus each earlier exit."""
    polynomials = st.builds(Polynomial, *[st.integers(0, 1000)] * 3)
    exits = [data.draw(st.none() | polynomials) for _ in range(layers - 1)] + [
        data.draw(polynomials)
    ]
    costs = Costs(
        data.draw(polynomials), tuple(data.draw(polynomials) for _ in range(layers)), tuple(exits)
    )
    length = data.draw(st.integers(1, 512))
    for layer, last_exit in enumerate(exits):
        if last_exit is not None:
            passed = sum(exit_.at(length) for exit_ in exits[:layer] if exit_ is not None)
            assert costs.path(layer, length) - costs.static(layer, length) == passed


def test_repeated_layer_is_charged_twice() -> None:
    """A layer that runs twice is counted twice."""
    shared, free = Polynomial(0, 9, 0), Polynomial(0, 0, 0)
    assert Costs(free, (shared, shared), (None, free)).static(1, 10) == 180


def test_polynomials_are_exact_on_integers() -> None:
    """Polynomials are exact on integers and work on arrays of lengths."""
    assert Polynomial(1, 2, 3).at(10**12) == 1 + 2 * 10**12 + 3 * 10**24
    lengths = np.array([0, 1, 2, 512])
    at_lengths = Polynomial(1, 2, 3).at(lengths)
    assert at_lengths.dtype == np.int64
    assert at_lengths.tolist() == [1, 6, 17, 1 + 1024 + 3 * 512 * 512]


def test_costs_accept_arrays_of_lengths() -> None:
    """Costs at an array of lengths are those of each length."""
    costs = Costs(
        Polynomial(1, 2, 3),
        (Polynomial(4, 5, 6), Polynomial(7, 8, 9)),
        (Polynomial(1, 1, 0), Polynomial(2, 0, 2)),
    )
    lengths = np.arange(1, 65)
    for layer in (0, 1):
        assert costs.static(layer, lengths).tolist() == [
            costs.static(layer, int(length)) for length in lengths
        ]
        assert costs.path(layer, lengths).tolist() == [
            costs.path(layer, int(length)) for length in lengths
        ]


@pytest.mark.parametrize(
    ("layers", "max_bytes"), [(6, 6_144), (12, RECORD_BYTES), (24, 2 * RECORD_BYTES)]
)
def test_record_with_many_exits_is_small(layers: int, max_bytes: int) -> None:
    """The record of a model with an exit after every layer is small."""
    costs = Costs(
        Polynomial(0, 0, 0),
        (Polynomial(0, 12_582_912, 2_048),) * layers,
        (Polynomial(1_050_624, 0, 0),) * layers,
    )
    quartiles = Quartiles(123.4, 234.5, 345.6)
    sizes = {"1": quartiles, "32": quartiles}
    exits = tuple(
        ExitMeasurement(
            layer,
            {"f1": 0.8123456789012345, "accuracy": 0.7123456789012345},
            1.2345678901e10,
            39_000_000_000,
            335_000_000,
            sizes,
            sizes,
        )
        for layer in range(1, layers + 1)
    )
    ratios = dict.fromkeys(sizes, (quartiles,) * layers)
    latency = replace(
        make_latency("bert", 12.0, [1.0]),
        reference_ms=sizes,
        reference_ratio=ratios,
        path_ratio=ratios,
    )
    record = replace(make_record("deebert", 1, exits, "entropy"), costs=costs, latency=latency)
    assert len(to_json(record)) <= max_bytes
