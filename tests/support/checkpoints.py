"""Fine-tuned classifiers in folders."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from support.families import LIBRARY, randomised, write_family
from torch import nn
from transformers import AutoModelForSequenceClassification

from harness.data.tasks import TASKS


def write_checkpoint(
    folder: Path,
    case: str,
    names: Sequence[str] | None,
    count: int = 2,
    positions: int | None = None,
) -> nn.Module:
    """Save a random classifier as the library does, and return it."""
    config = type(LIBRARY[case][1])(**LIBRARY[case][1].to_dict())
    config.num_labels = count
    config.max_position_embeddings = positions or config.max_position_embeddings
    if names is not None:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
    library = randomised(AutoModelForSequenceClassification.from_config(config))
    write_family(folder, case, library)
    (folder / "config.json").write_text(config.to_json_string(), encoding="utf-8")
    return library


def predict_always(folder: Path, index: int) -> None:
    """Make the checkpoint predict one class for every example."""
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"].zero_()
    tensors["classifier.bias"] = torch.eye(len(tensors["classifier.bias"]))[index]
    save_file(tensors, folder / "model.safetensors")


LABELS = TASKS["demo-single"].labels
