"""Frozen dataclasses as JSON and back, with every field checked.

pydantic reads them by their annotations: types are strict (but an integer is accepted as a float),
unknown fields are errors, and a type may carry a range (`Annotated[float, Gt(0)]`).
`check_value` and `EXTRA_LIMITS` refuse the values that pydantic accepts and this project does not.
"""

import ast
import inspect
import json
import math
import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast

from harness.errors import IncompleteError
from harness.files.digests import written_fields

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic_core import CoreSchema, SchemaValidator, ValidationError

SCHEMA: Literal[2] = 2
"""Version of the format of a run's record. A reader refuses any other version."""

MAX_INTEGER = 2**63 - 1
"""Largest integer that is accepted."""

MAX_DEPTH = 20
"""Largest number of nested levels, the innermost value included, in a field of any JSON value."""

HIDDEN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""Control characters, line separators and marks that change the direction of text.

They are written as the inside of a regular expression's character class. In a name or a label they
would break a line of a report."""

SURROGATES = r"\ud800-\udfff"
"""Surrogates: halves of a pair that are not characters and cannot be written as UTF-8."""

_NOT_DISPLAYABLE = re.compile(f"[{HIDDEN}{SURROGATES}]")

EXTRA_LIMITS: dict[object, dict[str, object]] = {
    "str": {"pattern": f"^[^{HIDDEN}]*$"},
    "int": {"ge": -MAX_INTEGER, "le": MAX_INTEGER},
    "float": {"allow_inf_nan": False},
}
"""Type in a pydantic schema -> constraints added to it."""

MAX_ERRORS_SHOWN = 3
"""Largest number of fields that an error message names."""

T = TypeVar("T")


def to_json(value: "DataclassInstance") -> str:
    """Return the JSON text of a frozen dataclass, with one line per field in their order.

    A field that is None is omitted if None is its default.
    """
    omitted = {
        field.name
        for field in fields(value)
        if field.default is None and getattr(value, field.name) is None
    }
    fields_ = {name: item for name, item in written_fields(value).items() if name not in omitted}
    lines = (
        f"{json.dumps(name)}: {json.dumps(item, separators=(',', ':'), allow_nan=False)}"
        for name, item in fields_.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def from_json(kind: type[T], text: str, source: str) -> T:
    """Read a dataclass back.

    Raises: IncompleteError naming `source` and the field if the text is not JSON, has another
    schema version, or does not match the dataclass.
    """
    from pydantic_core import ValidationError

    try:
        return cast(
            T, _validator(cast(type, kind)).validate_json(text, strict=True, extra="forbid")
        )
    except ValidationError as error:
        raise IncompleteError(_message(error, text, source)) from None


@cache
def _validator(kind: type) -> "SchemaValidator":
    """Return pydantic's validator of a dataclass with `EXTRA_LIMITS`; it is built once."""
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(cast("CoreSchema", _limited(TypeAdapter(kind).core_schema)))


def _limited(schema: object) -> object:
    """Return the schema with `EXTRA_LIMITS`, and `check_value` wherever any value is accepted."""
    if isinstance(schema, list):
        return [_limited(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    free = {"type": "function-after", "function": {"type": "no-info", "function": check_value}}
    if schema.get("type") == "any":
        return free | {"schema": schema}
    inner = {name: _limited(part) for name, part in schema.items()}
    if schema.get("type") == "dict" and schema["values_schema"]["type"] == "any":
        # One check of the whole dictionary is faster than one of each value.
        return free | {"schema": inner | {"values_schema": schema["values_schema"]}}
    expected = inner.get("expected")
    if isinstance(expected, list) and all(type(one) is int for one in expected):
        return {"type": "chain", "steps": [{"type": "int"}, inner]}  # 2.0 and true equal integers
    return EXTRA_LIMITS.get(inner.get("type"), {}) | inner


def _message(error: "ValidationError", text: str, source: str) -> str:
    """Return a one-line message that says what is wrong with a file and names the field."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as not_json:
        return f"{source} is not JSON: {not_json}"
    schema = value.get("schema", SCHEMA) if isinstance(value, dict) else None
    if type(schema) is int and schema != SCHEMA:
        advice = (
            "update harness" if schema > SCHEMA else "delete its folder and run the command again"
        )
        return f"{source} has schema {schema}, but this version reads schema {SCHEMA}: {advice}"
    try:
        check_value(value, source)
    except ValueError as found:
        return str(found)
    first = error.errors(include_url=False)[:MAX_ERRORS_SHOWN]
    fields_ = "; ".join(_field(one["loc"], one["type"], one["msg"], one["input"]) for one in first)
    return f"{source} is not a valid {error.title}: {fields_}"


def _field(location: Iterable[int | str], kind: str, message: str, got: object) -> str:
    """Return the location of a field in its file, its value, and pydantic's message."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:60]}" for part in location)
    value = "" if kind == "missing" else f"got {type(got).__name__} {ascii(got)[:40]}, "
    return f"{where}: {value}{message}" if where else f"{value}{message}"


def _refuse(constant: str) -> float:
    """Refuse NaN and Infinity, which Python reads although JSON does not have them."""
    raise ValueError(f"{constant} is not a JSON number")


def is_displayable(text: str) -> bool:
    """Return whether a text can be shown in a report without breaking its line."""
    return text.isprintable() or _NOT_DISPLAYABLE.search(text) is None


def check_value(
    value: object, where: str = "", texts: bool = True, depth: int = MAX_DEPTH
) -> object:
    """Return a JSON or TOML value after checking the numbers and texts in it at every depth.

    Numbers must be finite and not too large. Texts must be displayable, unless `texts` is False.
    Raises: ValueError starting with `where` if a check fails or the nesting exceeds `depth`.
    """
    found = _problem(value, texts, depth)
    if found is not None:
        raise ValueError(f"{where}{found.location}: {found.message}")
    return value


class _Problem(NamedTuple):
    location: str
    message: str


def _problem(value: object, texts: bool, depth: int) -> _Problem | None:
    """Return the first problem of a value, or None. Locations are built only for a problem."""
    if depth == 0:
        message = f"lists or objects are nested too deep; the limit is {MAX_DEPTH} levels"
        return _Problem("", message)
    if isinstance(value, str):
        if not texts or is_displayable(value):
            return None
        return _Problem("", f"{ascii(value)[:40]} contains characters that cannot be shown")
    if isinstance(value, float):
        return None if math.isfinite(value) else _Problem("", f"{value} is not a finite number")
    if isinstance(value, int):
        large = abs(value) > MAX_INTEGER
        return _Problem("", f"{str(value)[:40]} is too large a number") if large else None
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        for name in value:
            if (found := _problem(name, texts, 1)) is not None:
                return found
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        if (found := _problem(item, texts, depth - 1)) is not None:
            part = f"[{name}]" if isinstance(value, list) else f".{name}"
            return _Problem(part + found.location, found.message)
    return None


@cache
def field_docstrings(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, including inherited fields."""
    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if is_dataclass(base)]):
        (body,) = [
            node
            for node in ast.parse(inspect.cleandoc(inspect.getsource(base))).body
            if isinstance(node, ast.ClassDef)
        ]
        found |= {
            field.target.id: _unwrapped(docstring.value.value)
            for field, docstring in zip(body.body, body.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(docstring, ast.Expr)
            and isinstance(docstring.value, ast.Constant)
            and isinstance(docstring.value.value, str)
        }
    return found


def _unwrapped(docstring: str) -> str:
    """Return a docstring with one line per paragraph."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(docstring))
