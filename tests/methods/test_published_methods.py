"""Methods of the table: their settings, protocol and documentation."""

import ast
import importlib
import inspect
import json
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.messages import names_all, names_in_order
from support.method_settings import refused

from harness.data.tasks import TASKS
from harness.evaluation.policies import POLICIES
from harness.methods.protocol import Method
from harness.methods.registry import CHECKPOINT, METHODS, load_method, model_format
from harness.methods.settings import changed_settings, configure, parse_setting
from harness.models.backbones import BACKBONES, Backbone
from harness.models.batches import collate


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
