"""The table of methods: the only place that tells the harness where their code is.

A new method is a frozen dataclass that implements `protocol.Method`, and a row here.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import unknown
from harness.methods.protocol import Method
from harness.models.format import ModelFormat


@dataclass(frozen=True)
class MethodEntry:
    """One row of the table of methods."""

    target: str
    """Location of the instance, as module:object."""
    about: str
    source: str


TINYBERT = "Jiao et al., Findings of EMNLP 2020"

METHODS: dict[str, MethodEntry] = {
    "bert": MethodEntry(
        "baselines.bert:BERT",
        "plain fine-tuning, one exit: the reference",
        "Devlin et al., NAACL 2019",
    ),
    "deebert": MethodEntry(
        "baselines.deebert:DEEBERT",
        "exits trained on the frozen fine-tuned model, entropy",
        "Xin et al., ACL 2020",
    ),
    "pabee": MethodEntry(
        "baselines.pabee:PABEE", "all exits trained jointly, patience", "Zhou et al., NeurIPS 2020"
    ),
    "costeff": MethodEntry(
        "costeff.pipeline:COSTEFF",
        "half the width at full depth, an exit after every layer, entropy",
        "Shen et al., EMNLP 2022",
    ),
    "costeff-2x": MethodEntry(
        "costeff.pipeline:COSTEFF", "another name for costeff", "Shen et al., EMNLP 2022"
    ),
    "costeff-8x": MethodEntry(
        "costeff.pipeline:COSTEFF_8X",
        "costeff with an eighth of BERT-base's parameters",
        "Shen et al., EMNLP 2022",
    ),
    "tinybert": MethodEntry(
        "baselines.tinybert:TINYBERT",
        "shallow and narrow, intermediate-layer distillation",
        TINYBERT,
    ),
    "tinybert-6l": MethodEntry(
        "baselines.tinybert:TINYBERT_6L", "tinybert with half the layers, full width", TINYBERT
    ),
    "tinybert-half": MethodEntry(
        "baselines.tinybert:TINYBERT_HALF",
        "tinybert with two thirds of the layers, half the width",
        TINYBERT,
    ),
    "tinybert-paper": MethodEntry(
        "baselines.tinybert:TINYBERT_PAPER",
        "tinybert with the paper's schedule: takes days on a CPU",
        TINYBERT,
    ),
    "distilbert": MethodEntry(
        "baselines.distilbert:DISTILBERT",
        "every other layer, distilled in pre-training",
        "Sanh et al., 2019",
    ),
    "distilbert-kd": MethodEntry(
        "baselines.distilbert:DISTILBERT_KD",
        "distilbert, distilled in fine-tuning too",
        "Sanh et al., 2019",
    ),
    "checkpoint": MethodEntry(
        "baselines.checkpoint:CHECKPOINT",
        "a classifier that is already fine-tuned: --checkpoint",
        "see its model card",
    ),
}

CHECKPOINT = "checkpoint"
"""Name of the method of `--checkpoint`."""

MODEL_FORMAT = "baselines.encoders.weights"


def known_methods() -> Mapping[str, MethodEntry]:
    """Return the table of methods and presets by name."""
    return METHODS


def find_method(name: str) -> MethodEntry:
    """Return the entry of a method or preset without importing its code.

    Raises: HarnessError if the name is unknown.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def load_method(name: str) -> Method:
    """Import and return the method or preset of that name.

    Raises: HarnessError if the name is unknown.
    """
    module, _, attribute = find_method(name).target.partition(":")
    method: Method = getattr(importlib.import_module(module), attribute)
    return method


def model_format() -> ModelFormat:
    """Return the module that saves and loads models."""
    module: ModelFormat = importlib.import_module(MODEL_FORMAT)
    return module


@dataclass(frozen=True)
class Reference:
    """The method that ratios are relative to."""

    name: str
    method: Method
    """Configured as in the grid, or with its defaults if the grid does not contain it."""


def find_reference(name: str, grid: dict[str, Method]) -> Reference | None:
    """Return the reference of that name, or None for the name `none`.

    Raises: HarnessError if the method is unknown.
    """
    if name == "none":
        return None
    return Reference(name, grid[name] if name in grid else load_method(name))
