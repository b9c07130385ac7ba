"""JSON values that are accepted or refused, beyond what pydantic itself checks."""

import json
import sys
import unicodedata
from dataclasses import dataclass

import pytest

from harness.errors import IncompleteError
from harness.files.typed_json import MAX_DEPTH, MAX_INTEGER, from_json, is_displayable

DIRECTION_MARKS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Bidirectional classes of the marks that change the direction of text."""


@dataclass(frozen=True)
class Values:
    """One field of each kind."""

    text: str = ""
    whole: int = 0
    number: float = 0.0
    flag: bool = False
    names: tuple[str, ...] = ()
    pair: tuple[int, float] = (0, 0.0)
    by_name: dict[str, int] | None = None
    anything: object = None


def breaks_a_line(letter: str) -> bool:
    return (
        unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(letter) in DIRECTION_MARKS
    )


LETTERS = [chr(number) for number in range(sys.maxunicode + 1)]
HIDDEN = [letter for letter in LETTERS if breaks_a_line(letter)]


def read(**fields: object) -> Values:
    return from_json(Values, json.dumps(fields), "x.json")


def test_hidden_characters_match_unicode() -> None:
    assert [letter for letter in LETTERS if not is_displayable(letter)] == HIDDEN
    assert len(HIDDEN) > 2000


def test_every_other_character_is_read() -> None:
    text = "".join(letter for letter in LETTERS if not breaks_a_line(letter))
    assert read(text=text, anything=[text, {text: text}], by_name={text: 1}).text == text


@pytest.mark.parametrize("position", ["text", "names", "key", "anything", "key of anything"])
def test_hidden_characters_are_refused_everywhere(position: str) -> None:
    for letter in [letter for letter in HIDDEN if ord(letter) < 0x10000][
        :: 1 if position == "text" else 50
    ]:
        text = f"a{letter}b"
        values: dict[str, object] = {
            "text": {"text": text},
            "names": {"names": ["a", text]},
            "key": {"by_name": {text: 1}},
            "anything": {"anything": [text]},
            "key of anything": {"anything": {text: 1}},
        }[position]
        with pytest.raises(IncompleteError) as caught:
            read(**values)
        assert str(caught.value).startswith(f"x.json.{next(iter(values))}")
        assert ascii(text) in str(caught.value)


@pytest.mark.parametrize("number", [MAX_INTEGER, -MAX_INTEGER])
def test_largest_integers_are_read(number: int) -> None:
    assert read(whole=number, anything=number) == Values(whole=number, anything=number)


@pytest.mark.parametrize("field", ["whole", "anything", "by_name"])
@pytest.mark.parametrize("number", [MAX_INTEGER + 1, -MAX_INTEGER - 1, 10**400])
def test_larger_integers_are_refused(field: str, number: int) -> None:
    with pytest.raises(IncompleteError, match=f"^x.json.{field}.*{str(number)[:20]}"):
        read(**{field: {"a": number} if field == "by_name" else number})


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ["number", "anything"])
def test_infinite_number_is_refused(field: str, number: str) -> None:
    with pytest.raises(IncompleteError, match=r"^x\.json"):
        from_json(Values, f'{{"{field}": {number}}}', "x.json")


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth else 0


def test_free_form_values_have_depth_limit() -> None:
    assert read(anything=nested(MAX_DEPTH - 1)).anything == nested(MAX_DEPTH - 1)
    with pytest.raises(IncompleteError, match=f"^x.json.anything.*{MAX_DEPTH}"):
        read(anything=nested(MAX_DEPTH))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 1), ("text", None), ("text", True), ("text", []),
        ("whole", "1"), ("whole", 1.0), ("whole", 1.5), ("whole", True), ("whole", None),
        ("number", "1"), ("number", True), ("number", None), ("number", []),
        ("flag", 1), ("flag", 0), ("flag", "true"), ("flag", None),
        ("names", "ab"), ("names", {"a": "b"}), ("names", [1]), ("names", None),
        ("pair", [1]), ("pair", [1, 1.0, 2]), ("pair", [1.5, 1.0]),
        ("by_name", []), ("by_name", {"a": "1"}), ("by_name", {"a": True}), ("by_name", [["a", 1]]),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused(field: str, value: object) -> None:
    with pytest.raises(IncompleteError, match=rf"^x\.json .*Values: \.{field}"):
        read(**{field: value})


def test_integers_and_lists_are_converted() -> None:
    values = read(
        number=1, names=["a"], pair=[1, 2], by_name={"a": 1}, anything=[1, 1.5, "a", None, True]
    )
    assert values == Values(
        number=1.0,
        names=("a",),
        pair=(1, 2.0),
        by_name={"a": 1},
        anything=[1, 1.5, "a", None, True],
    )
    assert [type(number) for number in (values.number, *values.pair)] == [float, int, float]


def test_one_line_names_all_fields() -> None:
    with pytest.raises(IncompleteError) as caught:
        read(whole="many", number=[], more=1)
    assert all(
        name in str(caught.value)
        for name in ("x.json", ".whole", "'many'", ".number", "[]", ".more")
    )
    assert "\n" not in str(caught.value)
