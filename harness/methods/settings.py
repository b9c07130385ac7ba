"""Methods by name, and the settings that a user may change with `--set`."""

import json
import math
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from harness.errors import HarnessError, unknown
from harness.files.text import parse_number, split_quoted
from harness.files.typed_json import MAX_INTEGER
from harness.methods.protocol import Method
from harness.methods.registry import known_methods, load_method
from harness.records import canonical, flat

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from harness.models.backbones import Backbone

M = TypeVar("M", bound="DataclassInstance")


@dataclass(frozen=True)
class Setting:
    """One `--set TARGET.FIELD[.FIELD]=VALUE`."""

    target: str
    """Name of a method of the grid, family of a nested method, or `all`."""
    path: tuple[str, ...]
    value: str

    def __str__(self) -> str:
        return f"--set {'.'.join((self.target, *self.path))}={self.value}"


def parse_setting(text: str) -> Setting:
    """Read TARGET.FIELD[.FIELD]=VALUE.

    Raises: HarnessError if the text does not have that form.
    """
    name, equals, value = text.partition("=")
    target, *path = name.split(".")
    if not equals or not path or not all((target, *path)):
        example = f"all.{text}" if equals and target and not path else "all.epochs=3"
        raise HarnessError(
            f"--set {text}: expected METHOD.FIELD=VALUE or all.FIELD=VALUE, such as {example}"
        )
    return Setting(target, tuple(path), value)


def configure(
    names: Sequence[str], settings: Sequence[Setting], defaults: Sequence[Setting] = ()
) -> dict[str, Method]:
    """Return the methods of a grid with the settings applied and checked against names and types.

    The settings override the `defaults`. A default that applies to no method of this grid is
    checked against all methods and left out.

    Raises: HarnessError for an unknown method or field, a value of the wrong type, or a setting
    that applies to no method.
    """
    methods = {name: load_method(name) for name in dict.fromkeys(names)}
    for setting in defaults:
        if _applies_to_any(methods, setting):
            methods = _apply_to_all(methods, setting)
        else:
            configure(list(known_methods()), [setting])
    for setting in settings:
        changed = _apply_to_all(methods, setting)
        if not _applies_to_any(methods, setting):
            raise _unused_setting(methods, setting)
        methods = changed
    return methods


def changed_settings(name: str, method: Method, backbone: "Backbone") -> dict[str, object]:
    """Return the settings in which a resolved method differs from the default of that name.

    The keys are dotted field names. The default is resolved on the same backbone; if it cannot be,
    its None fields are not compared.
    """
    default = load_method(name)
    try:
        default_values = flat(_json_ready(default.resolved(backbone)))
    except HarnessError:
        default_values = {
            field: value for field, value in flat(_json_ready(default)).items() if value is not None
        }
    values = flat(_json_ready(method))
    return {
        field: value
        for field, value in values.items()
        if canonical({field: value}) != canonical({field: default_values.get(field)})
    }


def _json_ready(method: Method) -> dict[str, object]:
    """Return the settings as they are read from a record, with lists instead of tuples."""
    values: dict[str, object] = json.loads(json.dumps(asdict(method)))
    return values


def _apply_to_all(methods: dict[str, Method], setting: Setting) -> dict[str, Method]:
    return {name: _apply(method, setting, root=name) for name, method in methods.items()}


def _applies_to_any(methods: dict[str, Method], setting: Setting) -> bool:
    return any(_applies_to(method, setting, root=name) for name, method in methods.items())


def _nested(method: "DataclassInstance") -> dict[str, "DataclassInstance"]:
    """Return the methods nested directly in this one, by field name."""
    values = {f.name: getattr(method, f.name) for f in fields(method)}
    return {
        name: value
        for name, value in values.items()
        if hasattr(value, "family") and hasattr(value, "fit")
    }


def _is_target(method: "DataclassInstance", setting: Setting, root: str | None) -> bool:
    """Return whether the setting targets this method.

    A method of the grid is targeted by name, a nested one by family, both by `all`.
    """
    if setting.target == "all":
        return setting.path[0] in {f.name for f in fields(method)}
    return setting.target == (root if root is not None else getattr(method, "family", None))


def _applies_to(method: "DataclassInstance", setting: Setting, root: str | None) -> bool:
    inner = any(_applies_to(value, setting, None) for value in _nested(method).values())
    return _is_target(method, setting, root) or inner


def _apply(method: M, setting: Setting, root: str | None) -> M:
    changes = {name: _apply(value, setting, None) for name, value in _nested(method).items()}
    method = replace(method, **changes)
    return (
        _replace_at(method, setting.path, setting) if _is_target(method, setting, root) else method
    )


def _replace_at(value: M, path: tuple[str, ...], setting: Setting) -> M:
    names = [f.name for f in fields(value)] if is_dataclass(value) else []
    if not names:
        raise HarnessError(
            f"{setting}: unknown field {path[0]!r}: "
            f"{setting.path[-len(path) - 1]} has no fields that can be set here"
        )
    if path[0] not in names:
        raise HarnessError(f"{setting}: {unknown('field', path[0], names)}")
    if path[1:]:
        inner = _replace_at(getattr(value, path[0]), path[1:], setting)
    else:
        inner = _parse(get_type_hints(type(value))[path[0]], setting.value, setting)
    try:
        return replace(value, **{path[0]: inner})
    except ValueError as error:
        raise HarnessError(f"{setting}: {error}") from None


def _unused_setting(methods: dict[str, Method], setting: Setting) -> HarnessError:
    if setting.target == "all":
        names = {f.name for method in methods.values() for f in fields(method)}
        return HarnessError(f"{setting}: {unknown('field', setting.path[0], names)}")
    inner = {
        getattr(value, "family", "")
        for method in methods.values()
        for value in _nested(method).values()
    }
    return HarnessError(
        f"{setting}: {unknown('method of this grid', setting.target, [*methods, *inner, 'all'])}"
    )


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _parse(kind: object, text: str, setting: Setting) -> object:
    """Convert the text to the type of the field's annotation.

    Raises: HarnessError that names the text and the expected type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text.lower() in ("none", "auto") and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        if is_dataclass(inner):
            raise HarnessError(f"{setting}: this field can be set only from Python")
        return _parse(inner, text, setting)
    if origin is Literal:
        if text not in arguments:
            raise HarnessError(f"{setting}: {unknown('value', text, arguments)}")
        return text
    if origin is tuple:
        return tuple(_parse(arguments[0], part, setting) for part in split_quoted(text))
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise HarnessError(f"{setting}: got {text!r}, expected true or false")
        return _BOOLEANS[text.lower()]
    if kind is str:
        return text
    if kind in (int, float):
        try:
            number = parse_number(int, text) if kind is int else parse_number(float, text)
            finite = math.isfinite(number) and (kind is float or abs(number) <= MAX_INTEGER)
        except (ValueError, OverflowError):
            finite = False
        if not finite:
            expected = "an integer" if kind is int else "a finite number"
            raise HarnessError(f"{setting}: got {text!r}, expected {expected}")
        return number
    names = ", ".join(f.name for f in fields(kind)) if is_dataclass(kind) else ""
    raise HarnessError(f"{setting}: set the fields of {setting.path[-1]} one by one: {names}")
