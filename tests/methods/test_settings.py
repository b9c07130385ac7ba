"""Methods by name, and their settings with `--set`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from support.messages import assert_message, names_in_order
from support.method_settings import refused, with_settings

from harness.errors import HarnessError
from harness.methods import settings as settings_module
from harness.methods.settings import Setting, parse_setting


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
