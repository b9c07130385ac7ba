"""Methods by name, and their settings with `--set`."""

import ast
import importlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from support.messages import assert_message, names_all, names_in_order

from harness.data.tasks import TASKS
from harness.errors import HarnessError
from harness.evaluation.policies import POLICIES
from harness.methods import settings as settings_module
from harness.methods.protocol import Method
from harness.methods.registry import CHECKPOINT, METHODS, load_method, model_format
from harness.methods.settings import Setting, changed_settings, configure, parse_setting
from harness.models.backbones import BACKBONES, Backbone
from harness.models.batches import collate


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    epochs: int = 3
    family: ClassVar[str] = "inner"

    def fit(self) -> None: ...


@dataclass(frozen=True)
class Outer:
    epochs: int | None = None
    rate: float = 0.5
    on: bool = False
    kind: Literal["plain", "dense"] = "dense"
    rates: tuple[float, ...] | None = None
    sizes: tuple[int, ...] = (1,)
    note: str = ""
    inner: Inner = Inner()
    second: Inner = Inner(rate=0.25)
    family: ClassVar[str] = "outer"

    def fit(self) -> None: ...

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate {self.rate}: wanted a positive number")


GRID: dict[str, object] = {"outer": Outer(), "preset": Outer(rate=1.0), "inner": Inner(rate=2.0)}


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use methods of this test, so that settings are tested without the published methods."""
    monkeypatch.setattr(settings_module, "load_method", GRID.__getitem__)


def with_settings(names: Sequence[str], *settings: str) -> dict[str, object]:
    return dict(configure(names, [parse_setting(text) for text in settings]))


def refused(names: Sequence[str], *settings: str) -> str:
    """Return the one-line error message."""
    with pytest.raises(HarnessError) as error:
        with_settings(names, *settings)
    return assert_message(error)


# --- parsing a setting


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("bert.epochs=3", Setting("bert", ("epochs",), "3")),
        ("deebert.teacher.epochs=3", Setting("deebert", ("teacher", "epochs"), "3")),
        ("all.learning_rates=1e-5,2e-5", Setting("all", ("learning_rates",), "1e-5,2e-5")),
        ("a.b=c=d.e", Setting("a", ("b",), "c=d.e")),
        ("a.b=", Setting("a", ("b",), "")),
    ],
)
def test_setting_splits_into_path_and_value(text: str, setting: Setting) -> None:
    """A setting is parsed into target, path and value."""
    assert parse_setting(text) == setting
    assert str(setting) == f"--set {text}"


@pytest.mark.parametrize(
    "text", ["", "bert", "bert.epochs", "epochs=3", "=3", ".epochs=3", "bert.=3", "bert..epochs=3"]
)
def test_malformed_setting_shows_the_form(text: str) -> None:
    """A malformed setting is an error that shows the right form."""
    with pytest.raises(HarnessError) as error:
        parse_setting(text)
    assert f"--set {text}" in assert_message(error, "METHOD.FIELD=VALUE", "all.FIELD=VALUE")


# --- the methods that a setting applies to


def test_only_named_field_is_set(grid: None) -> None:
    """The field of the named method is set, and nothing else changes."""
    assert with_settings(["outer", "preset"], "outer.rate=4") == {
        "outer": Outer(rate=4.0),
        "preset": Outer(rate=1.0),
    }


def test_nested_field_is_set_by_path(grid: None) -> None:
    """A nested field is set by its path."""
    assert with_settings(["outer"], "outer.inner.epochs=9") == {
        "outer": Outer(inner=Inner(epochs=9))
    }


def test_family_reaches_nested_methods(grid: None) -> None:
    """A family name applies to each nested method of the family and to the method of that name."""
    changed = with_settings(["outer", "inner"], "inner.epochs=9")
    assert changed == {
        "outer": Outer(inner=Inner(epochs=9), second=Inner(rate=0.25, epochs=9)),
        "inner": Inner(rate=2.0, epochs=9),
    }


def test_all_reaches_every_method(grid: None) -> None:
    """`all` applies to every method that has the field, including nested ones."""
    changed = with_settings(["outer", "inner"], "all.epochs=9", "all.note=x")
    nested = {"inner": Inner(epochs=9), "second": Inner(rate=0.25, epochs=9)}
    assert changed == {
        "outer": Outer(epochs=9, note="x", **nested),
        "inner": Inner(rate=2.0, epochs=9),
    }


def test_later_setting_wins_over_earlier(grid: None) -> None:
    assert with_settings(["inner"], "all.epochs=5", "inner.epochs=6") == {
        "inner": Inner(rate=2.0, epochs=6)
    }


def test_setting_equal_value_is_allowed(grid: None) -> None:
    """Setting a field to its current value is allowed."""
    assert with_settings(["inner"], "inner.epochs=3") == {"inner": Inner(rate=2.0)}


def test_repeated_name_is_one_method(grid: None) -> None:
    """A repeated name gives one method, and the order is kept."""
    assert list(with_settings(["preset", "outer", "preset"])) == ["preset", "outer"]


def test_configure_changes_no_table(grid: None) -> None:
    with_settings(["outer"], "outer.rate=4", "inner.epochs=9")
    assert GRID["outer"] == Outer()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("preset.rate=3", ["preset", "all", "inner", "outer"]),
        ("innner.epochs=3", ["innner", "inner", "inner"]),
        ("all.epoch=3", ["epoch", "epochs", "epochs"]),
        ("outer.epoch=3", ["epoch", "epochs", "epochs"]),
        ("outer.inner.rat=3", ["rat", "rate", "rate"]),
        ("outer.epochs.more=3", ["more", "epochs"]),
        ("outer.family=x", ["family", "epochs", "rate"]),
    ],
)
def test_unreachable_setting_lists_near_matches(grid: None, text: str, names: list[str]) -> None:
    """A setting that applies to no method is an error with near matches.

    The near matches follow the unknown name, then all known names."""
    message = refused(["outer"], text)
    assert message.startswith(f"--set {text}: ")
    assert names_in_order(message.removeprefix(f"--set {text}: "), *names)


# --- values


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("epochs=7", {"epochs": 7}),
        ("epochs=none", {"epochs": None}),
        ("epochs=auto", {"epochs": None}),
        ("rate=3", {"rate": 3.0}),
        ("rate=1e-5", {"rate": 1e-5}),
        ("on=true", {"on": True}),
        ("on=Yes", {"on": True}),
        ("on=1", {"on": True}),
        ("kind=plain", {"kind": "plain"}),
        ("rates=1e-5,2e-5", {"rates": (1e-5, 2e-5)}),
        ("rates=3", {"rates": (3.0,)}),
        ("rates=none", {"rates": None}),
        ("sizes=3,4,5", {"sizes": (3, 4, 5)}),
        ("note=a=b c", {"note": "a=b c"}),
    ],
)
def test_value_takes_type_of_field(grid: None, text: str, changes: dict[str, object]) -> None:
    """A value is converted to the type of the field."""
    (got,) = with_settings(["outer"], f"outer.{text}").values()
    assert got == Outer(**changes)
    (name,) = changes
    assert type(getattr(got, name)) is type(changes[name])


@pytest.mark.parametrize("word", ["false", "No", "0"])
def test_false_has_three_spellings(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """`false`, `no` and `0` are false, in upper or lower case."""
    monkeypatch.setattr(settings_module, "load_method", {"outer": Outer(on=True)}.__getitem__)
    assert with_settings(["outer"], f"outer.on={word}") == {"outer": Outer()}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("epochs=3.5", ["3.5"]),
        ("epochs=", []),
        ("rate=fast", ["fast"]),
        ("rate=none", ["none"]),
        ("rate=nan", ["nan"]),
        ("rate=inf", ["inf"]),
        ("on=maybe", ["maybe", "true", "false"]),
        ("kind=plian", ["plian", "plain", "dense"]),
        ("rates=1e-5,", []),
        ("sizes=1,two", ["two"]),
        ("inner=3", ["rate", "epochs"]),
        ("rate=-1", ["-1.0", "positive"]),
    ],
)
def test_invalid_value_is_named(grid: None, text: str, names: list[str]) -> None:
    """A value of the wrong type or range is an error that names value and allowed values."""
    message = refused(["outer"], f"outer.{text}")
    assert message.startswith(f"--set outer.{text}: ")
    assert names_in_order(message.removeprefix(f"--set outer.{text}: "), *names)


# --- the published methods


def test_unknown_method_lists_all_names() -> None:
    """An unknown method is an error with near matches and all names."""
    assert names_in_order(refused(["bert", "debert"]), "debert", "deebert", *sorted(METHODS))


def test_bert_settings_reach_teachers() -> None:
    """Settings of bert apply to bert and to the teacher of deebert."""
    changed = configure(["bert", "deebert", "pabee"], [parse_setting("bert.epochs=7")])
    assert asdict(changed["bert"])["epochs"] == 7
    assert asdict(changed["deebert"])["teacher"]["epochs"] == 7
    assert asdict(changed["deebert"])["epochs"] is None
    assert changed["pabee"] == load_method("pabee")


def test_bert_settings_need_a_target() -> None:
    """Settings of bert apply to a teacher without bert in the grid, but need some target."""
    changed = configure(["deebert"], [parse_setting("bert.head=plain")])["deebert"]
    assert (
        changed == configure(["deebert"], [parse_setting("deebert.teacher.head=plain")])["deebert"]
    )
    assert names_all(
        refused(["pabee"], "bert.head=plain").removeprefix("--set bert.head=plain"),
        "bert",
        "pabee",
        "all",
    )


def test_all_settings_keep_stages_shared() -> None:
    """With settings for all methods deebert still shares the stage of bert."""
    changed = configure(
        ["bert", "deebert"], [parse_setting("all.batch_size=16"), parse_setting("all.head=plain")]
    )
    assert changed["deebert"].teacher == changed["bert"]


OUT_OF_RANGE = [
    *("epochs=0", "epochs=-1", "batch_size=0", "accumulation=0"),
    *("warmup=1", "warmup=-0.1", "warmup=nan"),
    *("learning_rates=0", "learning_rates=1e-5,-1e-5", "learning_rates=nan", "learning_rates=inf"),
    *("weight_decay=-1", "weight_decay=nan"),
    *("clip=0", "clip=-1", "clip=nan", "clip=inf"),
    *("tolerance=0", "tolerance=-1", "tolerance=nan", "tolerance=inf"),
]
CASES = [
    (name, text)
    for name in METHODS
    for text in OUT_OF_RANGE
    if hasattr(load_method(name), text.partition("=")[0])
]


@pytest.mark.parametrize(("name", "text"), CASES)
def test_out_of_range_parameter_repeats_setting(name: str, text: str) -> None:
    """A hyper-parameter out of range is an error that starts with the setting."""
    assert refused([name], f"{name}.{text}").startswith(f"--set {name}.{text}: ")


def test_nested_out_of_range_is_refused() -> None:
    """A nested hyper-parameter out of range is an error."""
    assert refused(["deebert"], "bert.epochs=0").startswith("--set bert.epochs=0: ")
    assert refused(["deebert"], "deebert.teacher.clip=0").startswith(
        "--set deebert.teacher.clip=0: "
    )


@pytest.mark.parametrize("name", METHODS)
def test_methods_fulfil_their_protocol(name: str) -> None:
    """Every entry is a frozen dataclass that implements the protocol."""
    method = load_method(name)
    assert is_dataclass(method)
    with pytest.raises(FrozenInstanceError):
        method.tolerance = 1.0
    assert method.family in METHODS
    assert method.policy is None or method.policy in POLICIES
    assert method.tolerance > 0
    revisions = method.revisions()
    assert revisions
    assert all(
        isinstance(stage, str) and isinstance(number, int) and number >= 1
        for stage, number in revisions.items()
    )
    assert callable(method.fit)
    assert METHODS[name].about
    assert METHODS[name].source


@pytest.mark.parametrize("name", METHODS)
def test_method_settings_survive_json(name: str) -> None:
    """The settings of every entry can be written as JSON."""
    settings = asdict(load_method(name))
    assert list(json.loads(json.dumps(settings, allow_nan=False))) == list(settings)


def test_methods_of_table_differ() -> None:
    """No two methods of the table are equal."""
    loaded = [
        load_method(name)
        for name in {entry.target: name for name, entry in METHODS.items()}.values()
    ]
    assert len({(type(method), json.dumps(asdict(method))) for method in loaded}) == len(loaded)


@pytest.mark.parametrize("task", ["rte", "stsb"])
@pytest.mark.parametrize("name", METHODS)
def test_built_model_predicts_for_both_kinds(name: str, task: str, micro: Backbone) -> None:
    """A model with random weights predicts for a classification and a regression."""
    model = load_method(name).build(micro, TASKS[task]).eval()
    batch = collate(
        micro.encode([("anna was happy", "anna smiled"), ("ben", "ben sang")], 16), np.arange(2)
    )
    with torch.inference_mode():
        logits = model(batch).logits
    exits = 1 if load_method(name).policy is None else len(model.exit_layers)
    assert logits.shape == (exits, 2, TASKS[task].classes)
    assert model.exit_layers[-1] == len(model.layers)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", METHODS)
def test_policy_means_several_exits(name: str, micro: Backbone) -> None:
    """A method has several exits if it has a policy, and one exit otherwise."""
    method = load_method(name)
    assert (len(method.build(micro, TASKS["rte"]).exit_layers) > 1) == (method.policy is not None)


def method_classes(method: Method) -> set[type]:
    """Return the method's class, its dataclass parents, and those of its nested methods."""
    classes = {kind for kind in type(method).__mro__ if is_dataclass(kind)}
    nested = [getattr(method, field.name) for field in fields(method)]
    return classes.union(*(method_classes(value) for value in nested if is_dataclass(value)))


CLASSES = sorted(
    {kind for name in METHODS for kind in method_classes(load_method(name))},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_hyper_parameter_is_documented(kind: type) -> None:
    """Every hyper-parameter has a docstring."""
    tree = ast.parse(Path(inspect.getsourcefile(kind) or "").read_text(encoding="utf-8"))
    (body,) = [
        node.body
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    ]
    for index, node in enumerate(body):
        if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
            after = body[index + 1]
            documented = (
                isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            )
            assert documented, f"{kind.__name__}.{ast.unparse(node.target)}"


def test_model_format_saves_and_loads() -> None:
    for name in ("save_model", "load_model"):
        assert callable(getattr(model_format(), name))


@pytest.mark.parametrize("name", METHODS)
def test_table_targets_exist_as_objects(name: str) -> None:
    """Every target in the table names an object of a module."""
    module, _, attribute = METHODS[name].target.partition(":")
    assert getattr(importlib.import_module(module), attribute) is load_method(name)


def test_changed_settings_exclude_defaults() -> None:
    backbone = BACKBONES["tiny"]
    for name in METHODS:
        if name != CHECKPOINT:
            assert changed_settings(name, load_method(name).resolved(backbone), backbone) == {}
    chosen = configure(
        ["costeff", "deebert"], [parse_setting("all.epochs=7"), parse_setting("costeff.effort=0.3")]
    )
    changes = [
        changed_settings(name, method.resolved(backbone), backbone)
        for name, method in chosen.items()
    ]
    assert changes == [{"effort": 0.3, "teacher.epochs": 7}, {"epochs": 7, "teacher.epochs": 7}]


def test_changed_settings_depend_on_the_backbone() -> None:
    """Values from the run's backbone are defaults, those of another backbone are changes.

    A list stands for a tuple."""
    method = load_method("costeff").resolved(BACKBONES["minilm"])
    assert changed_settings("costeff", method, BACKBONES["minilm"]) == {}
    other = changed_settings("costeff", method, BACKBONES["tiny"])
    assert (other["pooling"], other["learning_rates"]) == ("mean", [5e-5, 1e-4, 2e-4])


def test_unresolvable_defaults_are_still_compared() -> None:
    """A default that cannot be resolved on the backbone is still compared where it has values.

    CostEff needs a setting on a backbone whose embedding is already factorised."""
    backbone = replace(BACKBONES["tiny"], shape=replace(BACKBONES["tiny"].shape, embedding_size=32))
    method = configure(["costeff"], [parse_setting("costeff.rank=1")])["costeff"].resolved(backbone)
    changed = changed_settings("costeff", method, backbone)
    assert changed["rank"] == 1
    assert "heads" not in changed
