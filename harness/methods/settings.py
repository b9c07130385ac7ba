"""Methods by name, and the settings that a user may change. The only place where harness names a method."""

import json
import math
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from harness.errors import HarnessError, unknown
from harness.files.typed_json import LARGEST
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
    """A method of the grid, the family of a nested method, or all."""
    path: tuple[str, ...]
    value: str

    def __str__(self) -> str:
        return f"--set {'.'.join((self.target, *self.path))}={self.value}"


def parse_setting(text: str) -> Setting:
    """Read TARGET.FIELD[.FIELD]=VALUE.

    Raises: HarnessError when it is not of that form.
    """
    name, equals, value = text.partition("=")
    target, *path = name.split(".")
    if not equals or not path or not all((target, *path)):
        raise HarnessError(f"--set {text}: wanted METHOD.FIELD=VALUE or all.FIELD=VALUE")
    return Setting(target, tuple(path), value)


def configure(
    names: Sequence[str], settings: Sequence[Setting], spare: Sequence[Setting] = ()
) -> dict[str, Method]:
    """The methods of a grid with the settings applied, each setting checked against names and types. Of the `spare` ones, which the others
    override, those that reach no method of this grid are checked against all methods and left out.

    Raises: HarnessError for an unknown method or field, a value of the wrong type, or a setting that reaches no method.
    """
    methods = {name: load_method(name) for name in dict.fromkeys(names)}
    for setting in spare:
        if _reach(methods, setting):
            methods = _applied(methods, setting)
        else:
            configure(list(known_methods()), [setting])
    for setting in settings:
        changed = _applied(methods, setting)
        if not _reach(methods, setting):
            raise _unreached(methods, setting)
        methods = changed
    return methods


def changed_settings(name: str, method: Method, backbone: "Backbone") -> dict[str, object]:
    """The settings, by their names with dots, in which a settled method differs from the one of that name on the backbone.

    Where the method of that name cannot be had on the backbone as it is, its fields that are None say nothing.
    """
    own = load_method(name)
    try:
        known = flat(_json_ready(own.resolved(backbone)))
    except HarnessError:
        known = {
            field: value for field, value in flat(_json_ready(own)).items() if value is not None
        }
    now = flat(_json_ready(method))
    return {
        field: value
        for field, value in now.items()
        if canonical({field: value}) != canonical({field: known.get(field)})
    }


def _json_ready(method: Method) -> dict[str, object]:
    """The settings as a record has them once it is read: lists in the place of tuples."""
    values: dict[str, object] = json.loads(json.dumps(asdict(method)))
    return values


def _applied(methods: dict[str, Method], setting: Setting) -> dict[str, Method]:
    return {name: _apply(method, setting, root=name) for name, method in methods.items()}


def _reach(methods: dict[str, Method], setting: Setting) -> bool:
    return any(_reaches(method, setting, root=name) for name, method in methods.items())


def _nested(method: "DataclassInstance") -> dict[str, "DataclassInstance"]:
    """Field name -> the methods nested directly in this one."""
    values = {f.name: getattr(method, f.name) for f in fields(method)}
    return {
        name: value
        for name, value in values.items()
        if hasattr(value, "family") and hasattr(value, "fit")
    }


def _aims_at(method: "DataclassInstance", setting: Setting, root: str | None) -> bool:
    """Whether the setting names this method: by its name in the grid, by its family when nested, or as one of all."""
    if setting.target == "all":
        return setting.path[0] in {f.name for f in fields(method)}
    return setting.target == (root if root is not None else getattr(method, "family", None))


def _reaches(method: "DataclassInstance", setting: Setting, root: str | None) -> bool:
    inner = any(_reaches(value, setting, None) for value in _nested(method).values())
    return _aims_at(method, setting, root) or inner


def _apply(method: M, setting: Setting, root: str | None) -> M:
    changes = {name: _apply(value, setting, None) for name, value in _nested(method).items()}
    method = replace(method, **changes)
    return _replace_at(method, setting.path, setting) if _aims_at(method, setting, root) else method


def _replace_at(value: M, path: tuple[str, ...], setting: Setting) -> M:
    names = [f.name for f in fields(value)] if is_dataclass(value) else []
    if not names:
        raise HarnessError(
            f"{setting}: unknown field {path[0]!r}: {setting.path[-len(path) - 1]} has none that can be set here"
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


def _unreached(methods: dict[str, Method], setting: Setting) -> HarnessError:
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


_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _parse(kind: object, text: str, setting: Setting) -> object:
    """The text as a value of the field's annotation.

    Raises: HarnessError with both the text and the type wanted.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text.lower() in ("none", "auto") and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        if is_dataclass(inner):
            raise HarnessError(f"{setting}: this field can be set from Python alone")
        return _parse(inner, text, setting)
    if origin is Literal:
        if text not in arguments:
            raise HarnessError(f"{setting}: {unknown('value', text, arguments)}")
        return text
    if origin is tuple:
        return tuple(_parse(arguments[0], part, setting) for part in text.split(","))
    if kind is bool:
        if text.lower() not in _WORDS:
            raise HarnessError(f"{setting}: got {text!r}, wanted true or false")
        return _WORDS[text.lower()]
    if kind is str:
        return text
    if kind in (int, float):
        try:
            number = kind(text)
            finite = math.isfinite(number) and (kind is float or abs(number) <= LARGEST)
        except (ValueError, OverflowError):
            finite = False
        if not finite:
            raise HarnessError(
                f"{setting}: got {text!r}, wanted {'a whole number' if kind is int else 'a finite number'}"
            )
        return number
    own = ", ".join(f.name for f in fields(kind)) if is_dataclass(kind) else ""
    raise HarnessError(
        f"{setting}: this field has fields of its own, which are set one by one: {own}"
    )
