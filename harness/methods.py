"""Methods by name, and the settings that a user may change. The only place where harness names a method."""

import importlib
import math
import types
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from harness.errors import HarnessError, unknown
from harness.tasks import Task
from harness.typed_json import LARGEST

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import DataclassInstance

    from harness.backbones import Backbone
    from harness.model import MultiExitModel
    from harness.stages import Fitted, Work
    from harness.tasks import TaskData

M = TypeVar("M", bound="DataclassInstance")


@dataclass(frozen=True)
class Reads:
    """What a method learns from beside the task and the backbone."""

    corpus: bool = False
    """The sentences of --corpus."""
    vectors: bool = False
    """The word vectors of --glove."""
    checkpoint: str | None = None
    """A published student: a backbone of the table."""


class Method(Protocol):
    """A frozen dataclass of hyper-parameters with one verb. A preset is another instance; a teacher is a nested method."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    """What `dataclasses.fields`, `replace` and `asdict` ask for."""
    family: ClassVar[str]
    """What `--set FAMILY.FIELD` calls this method when it is nested in another."""
    policy: ClassVar[str | None]
    """The exit policy that its paper uses; None for a model with one exit."""
    tolerance: float
    """Regression: the largest difference, in label units, that patience calls agreement."""

    def revisions(self) -> dict[str, int]:
        """Stage name -> revision of every stage that `fit` uses; a raised revision makes new runs of old ones."""
        ...

    def reads(self) -> Reads:
        """What `fit` reads beside the task and the backbone; it is part of what names a run."""
        ...

    def settled(self, backbone: "Backbone") -> Self:
        """The method, nested ones too, with the backbone's own values (epochs, learning rates, ...) where a field is None.

        So a record's settings name every hyper-parameter that was used, and a changed table makes new runs.
        """
        ...

    def untrained(self, backbone: "Backbone", task: Task) -> "MultiExitModel":
        """A model of the final shape with random weights: what `harness flops` counts."""
        ...

    def fit(self, data: "TaskData", backbone: "Backbone", work: "Work") -> "Fitted":
        """Train, or reuse what is cached."""
        ...


class ModelFormat(Protocol):
    """How a model is kept in a folder (safetensors and a config)."""

    def save_model(self, model: "MultiExitModel", folder: "Path") -> None:
        """Write the model."""
        ...

    def load_model(self, folder: "Path") -> "MultiExitModel":
        """Read it back, in evaluation mode, on the CPU."""
        ...

    def check_model(self, folder: "Path") -> None:
        """Of a folder from elsewhere: whether its config describes its tensors, found out before anything of their size is made.

        Raises: IncompleteError when it does not.
        """
        ...


@dataclass(frozen=True)
class MethodEntry:
    """A row of the table."""

    target: str
    """module:object of the instance."""
    about: str
    source: str


TINYBERT = "Jiao et al., Findings of EMNLP 2020"

METHODS: dict[str, MethodEntry] = {
    "bert": MethodEntry("baselines.bert:BERT", "plain fine-tuning, one exit: the reference", "Devlin et al., NAACL 2019"),
    "deebert": MethodEntry("baselines.deebert:DEEBERT", "exits trained on the frozen fine-tuned model, entropy", "Xin et al., ACL 2020"),
    "pabee": MethodEntry("baselines.pabee:PABEE", "all exits trained jointly, patience", "Zhou et al., NeurIPS 2020"),
    "costeff": MethodEntry(
        "costeff.pipeline:COSTEFF", "slender in width by half, an exit after every layer, entropy", "Shen et al., EMNLP 2022"
    ),
    "costeff-2x": MethodEntry("costeff.pipeline:COSTEFF", "another name of costeff", "Shen et al., EMNLP 2022"),
    "costeff-8x": MethodEntry("costeff.pipeline:COSTEFF_8X", "costeff with an eighth of BERT-base's parameters", "Shen et al., EMNLP 2022"),
    "tinybert": MethodEntry("baselines.tinybert:TINYBERT", "shallow and narrow, learns its teacher's inside", TINYBERT),
    "tinybert-6l": MethodEntry("baselines.tinybert:TINYBERT_6L", "tinybert with half the layers, full width", TINYBERT),
    "tinybert-half": MethodEntry("baselines.tinybert:TINYBERT_HALF", "tinybert with two thirds of the layers, half the width", TINYBERT),
    "tinybert-paper": MethodEntry("baselines.tinybert:TINYBERT_PAPER", "tinybert by the paper's schedule: days on a CPU", TINYBERT),
    "distilbert": MethodEntry("baselines.distilbert:DISTILBERT", "every other layer, distilled in pre-training", "Sanh et al., 2019"),
    "distilbert-kd": MethodEntry("baselines.distilbert:DISTILBERT_KD", "distilbert, taught in fine-tuning too", "Sanh et al., 2019"),
    "checkpoint": MethodEntry("baselines.checkpoint:CHECKPOINT", "a classifier that is fine-tuned already: --checkpoint", "its owners"),
}

CHECKPOINT = "checkpoint"
"""The method of `--checkpoint`."""

MODEL_FORMAT = "baselines.weights"


def load_method(name: str) -> Method:
    """The method or preset of that name.

    Raises: HarnessError for an unknown name.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    module, _, attribute = METHODS[name].target.partition(":")
    method: Method = getattr(importlib.import_module(module), attribute)
    return method


def model_format() -> ModelFormat:
    """The module that saves and loads models."""
    module: ModelFormat = importlib.import_module(MODEL_FORMAT)
    return module


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


def configure(names: Sequence[str], settings: Sequence[Setting], spare: Sequence[Setting] = ()) -> dict[str, Method]:
    """The methods of a grid with the settings applied, each setting checked against names and types. Of the `spare` ones, which the others
    override, those that reach no method of this grid are checked against all methods and left out.

    Raises: HarnessError for an unknown method or field, a value of the wrong type, or a setting that reaches no method.
    """
    methods = {name: load_method(name) for name in dict.fromkeys(names)}
    for setting in spare:
        if _reach(methods, setting):
            methods = _applied(methods, setting)
        else:
            configure(list(METHODS), [setting])
    for setting in settings:
        changed = _applied(methods, setting)
        if not _reach(methods, setting):
            raise _unreached(methods, setting)
        methods = changed
    return methods


def _applied(methods: dict[str, Method], setting: Setting) -> dict[str, Method]:
    return {name: _apply(method, setting, root=name) for name, method in methods.items()}


def _reach(methods: dict[str, Method], setting: Setting) -> bool:
    return any(_reaches(method, setting, root=name) for name, method in methods.items())


def _nested(method: "DataclassInstance") -> dict[str, "DataclassInstance"]:
    """Field name -> the methods nested directly in this one."""
    values = {f.name: getattr(method, f.name) for f in fields(method)}
    return {name: value for name, value in values.items() if hasattr(value, "family") and hasattr(value, "fit")}


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
        raise HarnessError(f"{setting}: unknown field {path[0]!r}: {setting.path[-len(path) - 1]} has none that can be set here")
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
    inner = {getattr(value, "family", "") for method in methods.values() for value in _nested(method).values()}
    return HarnessError(f"{setting}: {unknown('method of this grid', setting.target, [*methods, *inner, 'all'])}")


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
            raise HarnessError(f"{setting}: got {text!r}, wanted {'a whole number' if kind is int else 'a finite number'}")
        return number
    own = ", ".join(f.name for f in fields(kind)) if is_dataclass(kind) else ""
    raise HarnessError(f"{setting}: this field has fields of its own, which are set one by one: {own}")
