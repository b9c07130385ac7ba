"""Frozen dataclasses as JSON and back, every field checked.

pydantic reads them by their annotations: strict types (an integer may stand for a float), no further fields, and the
ranges that stand beside a field (`Annotated[float, Gt(0)]`). What it lets pass and we do not, `checked` names.
"""

import ast
import inspect
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from harness.errors import IncompleteError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic_core import CoreSchema, SchemaValidator, ValidationError

SCHEMA: Literal[2] = 2
"""Version of the form of a run's record. A reader refuses every other one."""

LARGEST = 2**63 - 1
"""The largest whole number."""

DEEPEST = 20
"""How deep lists and objects may stand in one another, where a field may hold anything."""

HIDDEN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""Control characters, line ends, and marks that turn the letters after them, as a regular expression has a class of
characters. In names and labels they would break a line of a report."""

SURROGATES = r"\ud800-\udfff"
"""Halves of a pair, which are no characters and cannot be written as UTF-8."""

_NOT_SHOWN = re.compile(f"[{HIDDEN}{SURROGATES}]")

NARROWER: dict[object, dict[str, object]] = {
    "str": {"pattern": f"^[^{HIDDEN}]*$"},
    "int": {"ge": -LARGEST, "le": LARGEST},
    "float": {"allow_inf_nan": False},
}
"""Type of a pydantic schema -> what it accepts less than pydantic."""

MOST_ERRORS = 3
"""A message names so many fields."""

T = TypeVar("T")


def to_json(value: "DataclassInstance") -> str:
    """Return the JSON text of a frozen dataclass: a line a field, in their order; without those that are None unless told."""
    unsaid = {
        field.name
        for field in fields(value)
        if field.default is None and getattr(value, field.name) is None
    }
    fields_ = {name: item for name, item in asdict(value).items() if name not in unsaid}
    lines = (
        f"{json.dumps(name)}: {json.dumps(item, separators=(',', ':'), allow_nan=False)}"
        for name, item in fields_.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def from_json(kind: type[T], text: str, source: str) -> T:
    """Read a dataclass back.

    Raises: IncompleteError naming `source` and the field when the text is not JSON, of another schema, or does not fit.
    """
    from pydantic_core import ValidationError

    try:
        return cast(
            T, _validator(cast(type, kind)).validate_json(text, strict=True, extra="forbid")
        )
    except ValidationError as error:
        raise IncompleteError(_explained(error, text, source)) from None


@cache
def _validator(kind: type) -> "SchemaValidator":
    """pydantic's validator of a dataclass, made once, narrowed."""
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(cast("CoreSchema", _narrowed(TypeAdapter(kind).core_schema)))


def _narrowed(schema: object) -> object:
    """The schema with the bounds of `NARROWER`, and `checked` where it accepts anything."""
    if isinstance(schema, list):
        return [_narrowed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _narrowed(part) for name, part in schema.items()}
    if inner.get("type") == "any":
        return {
            "type": "function-after",
            "function": {"type": "no-info", "function": checked},
            "schema": inner,
        }
    return NARROWER.get(inner.get("type"), {}) | inner


def _explained(error: "ValidationError", text: str, source: str) -> str:
    """Return what is wrong with a file in one line, the field named."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as not_json:
        return f"{source} is not JSON: {not_json}"
    schema = value.get("schema", SCHEMA) if isinstance(value, dict) else None
    if type(schema) is int and schema != SCHEMA:
        advice = "update harness" if schema > SCHEMA else "delete its folder and run it again"
        return f"{source} has schema {schema}, this version reads {SCHEMA}: {advice}"
    try:
        checked(value, source)
    except ValueError as found:
        return str(found)
    wrong = error.errors(include_url=False)[:MOST_ERRORS]
    return f"{source} is no {error.title}: {'; '.join(_field(one['loc'], one['type'], one['msg'], one['input']) for one in wrong)}"


def _field(place: Iterable[int | str], kind: str, message: str, got: object) -> str:
    """Return the place of a field in its file, what it holds, and pydantic's own message."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:60]}" for part in place)
    held = "" if kind == "missing" else f"got {type(got).__name__} {ascii(got)[:40]}, "
    return f"{where}: {held}{message}" if where else f"{held}{message}"


def _refuse(constant: str) -> float:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{constant} is no number")


def shows(text: str) -> bool:
    """Return whether a text can stand on a line of a report without breaking it or turning what follows."""
    return text.isprintable() or _NOT_SHOWN.search(text) is None


def checked(value: object, where: str = "", texts: bool = True, room: int = DEEPEST) -> object:
    """Return a value of JSON or TOML whose numbers, and those inside, can be computed with; and whose texts `shows`.

    Without `texts` they may be any. Raises: ValueError with `where` in front.
    """
    if room == 0:
        raise ValueError(f"{where}: lists or objects in one another, {DEEPEST} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is not a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{where}: {str(value)[:40]} is too large a number")
    if texts and isinstance(value, str) and not shows(value):
        raise ValueError(f"{where}: {ascii(value)[:40]} has characters that do not show")
    if isinstance(value, dict):
        for name, item in value.items():
            checked(name, where, texts, 1)
            checked(item, f"{where}.{name}", texts, room - 1)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            checked(item, f"{where}[{place}]", texts, room - 1)
    return value


@cache
def field_notes(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, inherited ones too."""
    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if is_dataclass(base)]):
        (body,) = [
            node
            for node in ast.parse(inspect.cleandoc(inspect.getsource(base))).body
            if isinstance(node, ast.ClassDef)
        ]
        found |= {
            field.target.id: inspect.cleandoc(note.value.value)
            for field, note in zip(body.body, body.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(note, ast.Expr)
            and isinstance(note.value, ast.Constant)
            and isinstance(note.value.value, str)
        }
    return found
