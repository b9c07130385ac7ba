"""The form of our JSON files as JSON Schema (draft 2020-12), made from the dataclasses that are written and read."""

import inspect
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Literal, Union, get_args, get_origin, get_type_hints

from harness.files.typed_json import SCHEMA, field_notes

Schema = dict[str, object]

PLAIN: dict[object, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    object: {},
}


def schema_of(kind: type) -> Schema:
    """The schema of a file: what `typed_json.from_json` accepts, no more and no less."""
    found: dict[str, Schema] = {}
    top = _reference(kind, found)
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind.__name__, **top, "$defs": found}
    if "schema" in {field.name for field in fields(kind)}:
        version = found[kind.__name__]["properties"]
        assert isinstance(version, dict)
        version["schema"] = {"const": SCHEMA, "description": "Version of this form; a reader refuses every other one."}
    return about


def _reference(kind: type, found: dict[str, Schema]) -> Schema:
    """A dataclass by its name; its definition and those of what it holds are added to `found`."""
    if kind.__name__ not in found:
        found[kind.__name__] = {}  # so that a class that holds itself ends
        hints, notes, members = get_type_hints(kind), field_notes(kind), fields(kind)
        found[kind.__name__] = {
            "type": "object",
            "description": inspect.getdoc(kind) or "",
            "properties": {
                member.name: _of(hints[member.name], found) | ({"description": notes[member.name]} if member.name in notes else {})
                for member in members
            },
            "required": [member.name for member in members if member.default is MISSING],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _of(kind: object, found: dict[str, Schema]) -> Schema:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return _reference(kind, found)
    if origin in (Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if option is type(None) else _of(option, found) for option in arguments]}
    if origin is tuple and arguments[1:] == (...,):
        return {"type": "array", "items": _of(arguments[0], found)}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_of(part, found) for part in arguments], "items": False, "minItems": len(arguments)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1], found)}
    if origin is Literal:
        return {"enum": list(arguments)}
    return dict(PLAIN[kind])
