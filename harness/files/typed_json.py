"""Frozen dataclasses as JSON and back, every field checked. Standard library only."""

import ast
import inspect
import json
import math
import sys
import types
import unicodedata
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from harness.errors import IncompleteError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = 2
"""Version of the form of a run's record. A reader refuses every other one."""

LARGEST = 2**63 - 1
"""Of whole numbers."""

DEEPEST = 20
"""Of lists and objects in one another, where a field may hold anything."""

UNSHOWN = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, halves of a pair, and line ends: in names and labels they would break a line of a report."""

TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Unicode's marks that turn the direction of the letters after them."""

T = TypeVar("T")


def to_json(value: "DataclassInstance") -> str:
    """JSON text of a frozen dataclass: a line a field, in their order; without those that are None unless told."""
    unsaid = {field.name for field in fields(value) if field.default is None and getattr(value, field.name) is None}
    fields_ = {name: item for name, item in asdict(value).items() if name not in unsaid}
    lines = (f"{json.dumps(name)}: {json.dumps(item, separators=(',', ':'), allow_nan=False)}" for name, item in fields_.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def from_json(kind: type[T], text: str, source: str) -> T:
    """Read it back.

    Raises: IncompleteError naming `source` and the field when the text is not JSON, of another schema, or does not fit.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise IncompleteError(f"{source} is not JSON: {error}") from None
    schema = value.get("schema", SCHEMA) if isinstance(value, dict) else None
    if type(schema) is int and schema != SCHEMA:
        advice = "update harness" if schema > SCHEMA else "delete its folder and run it again"
        raise IncompleteError(f"{source} has schema {schema}, this version reads {SCHEMA}: {advice}")
    return cast(T, _build(kind, value, source))


def _refuse(constant: str) -> float:
    """NaN and Infinity, which Python reads, are not JSON."""
    raise ValueError(f"{constant} is no number")


def _build(kind: object, value: object, where: str) -> object:
    """`value` (parsed JSON) as an instance of the annotation `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = [a for a in arguments if a is not type(None)]
        return _build(kind, value, where)
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        if len(kinds) != len(value):
            raise IncompleteError(f"{where}: {len(value)} values, expected {len(kinds)}")
        return tuple(_build(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {checked(k, where): _build(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is object or (origin is Literal and value in arguments):
        return checked(value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:
            raise IncompleteError(f"{where}: {str(value)[:40]} is not a finite number")
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return checked(value, where)
    raise IncompleteError(f"{where}: got {type(value).__name__} {str(value)[:40]!r}, expected {kind}")


def shows(text: str) -> bool:
    """Whether a text can stand on a line of a report without breaking it or turning what follows."""
    return not any(unicodedata.category(letter) in UNSHOWN or unicodedata.bidirectional(letter) in TURNING for letter in text)


def checked(value: object, where: str, texts: bool = True, room: int = DEEPEST) -> object:
    """The value, whose numbers, and those inside, can be computed with; and whose texts, unless told, `shows`.

    Raises: IncompleteError.
    """
    if room == 0:
        raise IncompleteError(f"{where}: lists or objects in one another, {DEEPEST} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise IncompleteError(f"{where}: {value} is not a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise IncompleteError(f"{where}: {str(value)[:40]} is too large a number")
    if texts and isinstance(value, str) and not shows(value):
        raise IncompleteError(f"{where}: {ascii(value)[:40]} has characters that do not show")
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        checked(item, where, texts, room - 1)
    return value


def _build_dataclass(kind: type, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise IncompleteError(f"{where}: got {type(value).__name__}, expected an object with {kind.__name__}'s fields")
    hints, names = get_type_hints(kind), {f.name for f in fields(kind)}
    missing = sorted(f.name for f in fields(kind) if f.name not in value and f.default is MISSING)
    if missing or set(value) - names:
        raise IncompleteError(f"{where}: does not fit {kind.__name__}: missing {missing}, unexpected {sorted(set(value) - names)}")
    return kind(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()})


@cache
def field_notes(kind: type) -> dict[str, str]:
    """Field of a dataclass, inherited ones too -> the docstring under it."""
    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if is_dataclass(base)]):
        (body,) = [node for node in ast.parse(inspect.cleandoc(inspect.getsource(base))).body if isinstance(node, ast.ClassDef)]
        found |= {
            field.target.id: inspect.cleandoc(note.value.value)
            for field, note in zip(body.body, body.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant) and isinstance(note.value.value, str)
        }
    return found
