"""Load pretrained checkpoints into the encoder, and save and load our own models.

Each tensor of a checkpoint is loaded, reported as left out, or an error. Our models are saved as
safetensors and a config.
"""

import pickle
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import load_model as load_tensors
from safetensors.torch import save_model as save_tensors
from torch import Tensor

from baselines.encoders.encoder import EncoderModel, ExitHead, ModelConfig
from baselines.encoders.tensor_names import NAMES
from harness.errors import HarnessError, IncompleteError, first_line, reason
from harness.files.atomic import atomic_write
from harness.files.digests import file_digest
from harness.files.typed_json import from_json, to_json
from harness.models.backbones import Backbone
from harness.models.checkpoint_files import CONFIG, WEIGHTS, weight_files
from harness.models.multi_exit import MultiExitModel
from harness.records import RANDOM_WEIGHTS, WeightsReport

MAX_LAYERS = 512
"""Largest number of layers accepted in a model folder from elsewhere."""


def pretrained(backbone: Backbone, config: ModelConfig) -> tuple[EncoderModel, WeightsReport]:
    """Return a model of this config with the backbone's weights and fresh exits.

    A random backbone has random weights. With [CLS] pooling, the checkpoint's [CLS] pooler becomes
    the dense pooler of the exits.
    Raises: HarnessError naming the tensors that are missing, unexpected or of another shape.
    """
    model = EncoderModel(config)
    if backbone.folder is None:
        return model, WeightsReport(0, (), (RANDOM_WEIGHTS,))
    tensors, names = _tensors(backbone, backbone.folder), NAMES[backbone.family]
    targets = names.encoder_tensors(config.shape)
    poolers = [
        f"exits.{i}.pooler" for i, head in enumerate(config.exits) if head in ("dense", "shared")
    ]
    if config.pooling == "cls" and poolers and f"{names.pooler}.weight" in tensors:
        targets |= {
            f"{names.pooler}.{kind}": [f"{pooler}.{kind}" for pooler in poolers]
            for kind in ("weight", "bias")
        }
    if config.masked_lm and names.has_masked_lm(tensors):
        targets |= names.masked_lm_tensors()
    return model, _load(model, tensors, targets, backbone)


def fine_tuned(
    backbone: Backbone, config: ModelConfig, positions: tuple[int, ...]
) -> tuple[EncoderModel, WeightsReport]:
    """Return a model of this config with one dense exit and a fine-tuned classifier's weights.

    Output i of the model is output `positions[i]` of the checkpoint.

    Raises: HarnessError as `pretrained` does.
    """
    model = EncoderModel(config)
    assert backbone.folder is not None
    names = NAMES[backbone.family]
    targets = names.encoder_tensors(config.shape) | names.head_tensors(
        f"exits.{config.shape.layers - 1}"
    )
    report = _load(model, _tensors(backbone, backbone.folder), targets, backbone)
    (head,) = exit_heads(model)
    with torch.no_grad():
        for parameter in head.classifier.parameters():
            parameter.copy_(parameter[list(positions)])
    return model, report


def has_masked_lm_head(backbone: Backbone) -> bool:
    """Return whether the backbone's checkpoint holds its masked-LM head."""
    if backbone.folder is None:
        return False
    names = NAMES[backbone.family]
    keys: list[str] = []
    for path in _safetensors(backbone, backbone.folder):
        with safe_open(path, "pt") as file:
            keys += file.keys()
    return names.has_masked_lm(map(names.normalised, keys))


def _tensors(backbone: Backbone, folder: Path) -> dict[str, Tensor]:
    """Return the backbone's tensors by normalised name.

    Raises: HarnessError if a file cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for path in _safetensors(backbone, folder):
        try:
            tensors |= load_file(path)
        except (OSError, SafetensorError) as error:
            raise HarnessError(
                f"backbone {backbone.name}: {path} cannot be read: {reason(error)}"
            ) from None
    normalised = NAMES[backbone.family].normalised
    return {normalised(name): tensor for name, tensor in tensors.items()}


def _safetensors(backbone: Backbone, folder: Path) -> tuple[Path, ...]:
    """Return the paths of the backbone's weights as safetensors.

    A pickled file is converted the first time, into a file next to it.

    Raises: HarnessError if a pickled file holds anything but tensors, or the folder cannot be
    written.
    """
    if not backbone.pickled:
        return weight_files(folder, WEIGHTS)
    pickled = folder / backbone.weights_name
    path = folder / f"{pickled.stem}.{file_digest(pickled)[:16]}.safetensors"
    if path.is_file():
        return (path,)
    try:
        tensors = torch.load(pickled, map_location="cpu", weights_only=True)
        contiguous = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    except (
        OSError,
        EOFError,
        RuntimeError,
        AttributeError,
        TypeError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
    ) as error:
        raise HarnessError(
            f"backbone {backbone.name}: {pickled} must hold only tensors: {first_line(error)}"
        ) from None
    try:
        with atomic_write(path, shared=True) as temporary:
            save_file(contiguous, temporary)
    except (OSError, SafetensorError) as error:
        raise HarnessError(
            f"backbone {backbone.name}: cannot write its weights to {path}: {error}"
        ) from None
    return (path,)


def _load(
    model: EncoderModel,
    tensors: dict[str, Tensor],
    targets: dict[str, list[str]],
    backbone: Backbone,
) -> WeightsReport:
    """Copy the tensors into the model and report which were loaded, left out and fresh.

    `targets` maps the name of a checkpoint tensor to the model tensors that receive it.

    Raises: HarnessError as `pretrained` does.
    """
    state = model.state_dict()
    left_out = sorted(
        source
        for source in tensors
        if source not in targets and source.startswith(NAMES[backbone.family].left_out)
    )
    missing = sorted(source for source in targets if source not in tensors)
    unexpected = sorted(set(tensors) - set(targets) - set(left_out))
    mismatches = [
        f"{source} {list(tensors[source].shape)} (expected {list(state[target].shape)})"
        for source, names in targets.items()
        for target in names
        if source in tensors and tensors[source].shape != state[target].shape
    ]
    shapes = list(dict.fromkeys(mismatches))
    if missing or unexpected or shapes:
        problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        details = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:3])}"
            for kind, names in problems.items()
            if names
        )
        raise HarnessError(f"backbone {backbone.name}: weights do not match the model: {details}")
    broken = [source for source in targets if not tensors[source].isfinite().all()]
    if broken:
        raise HarnessError(
            f"backbone {backbone.name}: values of {broken[0]} are infinite or not a number"
            + (f", and of {len(broken) - 1} other tensors" if broken[1:] else "")
        )
    with torch.no_grad():
        for source, names in targets.items():
            for target in names:
                state[target].copy_(tensors[source])
    loaded = {target for names in targets.values() for target in names}
    return WeightsReport(len(targets), _patterns(left_out), _patterns(set(state) - loaded))


def _patterns(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names sorted, merging those that differ only in numbers.

    A merged name looks like `exits.*.classifier.bias (6)`.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[re.sub(r"\d+", "*", name)].append(name)
    return tuple(
        sorted(
            f"{pattern} ({len(group)})" if group[1:] else group[0]
            for pattern, group in groups.items()
        )
    )


def copy_encoder(source: EncoderModel, target: EncoderModel) -> None:
    """Copy the embedding and the layers from one model to another of the same shape.

    Raises: ValueError if the shapes differ.
    """
    shapes = source.config.shape, target.config.shape
    if shapes[0] != shapes[1]:
        raise ValueError(f"cannot copy an encoder of shape {shapes[0]} to one of {shapes[1]}")
    target.embedding.load_state_dict(source.embedding.state_dict())
    target.layers.load_state_dict(source.layers.state_dict())


def exit_heads(model: MultiExitModel) -> list[ExitHead]:
    """Return the model's exits, first to last."""
    heads = (model.exit_after(layer - 1) for layer in model.exit_layers)
    return [head for head in heads if isinstance(head, ExitHead)]


def save_model(model: MultiExitModel, folder: Path) -> None:
    """Write config.json and model.safetensors; shared tensors are written once.

    Raises: IncompleteError if the files cannot be written, for example on a full disk.
    """
    if not isinstance(model, EncoderModel):
        raise TypeError(f"cannot save a {type(model).__name__}: it has no config")
    try:
        (folder / CONFIG).write_text(to_json(model.config), encoding="utf-8")
        save_tensors(model, str(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise IncompleteError(f"cannot write the model: {error}; is the disk full?") from None


def save_truncated(source: Path, layers: int, folder: Path) -> None:
    """Write the static model of the first `layers` layers: those layers and the exit after them.

    Raises: IncompleteError if `source` holds no valid model or the files cannot be written;
    ValueError if the layer has no exit.
    """
    model = load_model(source)
    tensors = model.truncated(layers).state_dict()
    config, shape = model.config, model.config.shape
    short = replace(
        config,
        shape=replace(shape, heads=shape.heads[:layers], ffn=shape.ffn[:layers]),
        exits=(*[None] * (layers - 1), config.exits[layers - 1]),
        masked_lm=False,
    )
    truncated = EncoderModel(short)
    truncated.load_state_dict(tensors)
    save_model(truncated, folder)


def load_model(folder: Path) -> EncoderModel:
    """Build the model of config.json on the CPU, load all its tensors and set evaluation mode.

    Raises: IncompleteError if the folder does not hold a valid model of ours.
    """
    try:
        model = EncoderModel(_config(folder))
        load_tensors(model, str(folder / WEIGHTS), strict=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, LookupError) as error:
        raise IncompleteError(f"{folder} holds no valid model: {first_line(error)}") from None
    return model.eval()


def check_model(folder: Path) -> None:
    """Check that names and shapes of the tensors in model.safetensors match config.json.

    Raises: IncompleteError if they differ or a file cannot be read.
    """
    try:
        config = _config(folder)
        if config.shape.layers > MAX_LAYERS:
            raise ValueError(f"{config.shape.layers} layers, expected at most {MAX_LAYERS}")
        with torch.device("meta"):
            expected = EncoderModel(config).state_dict(keep_vars=True)
        with safe_open(folder / WEIGHTS, "pt") as file:
            names = file.keys()  # the file itself is not iterable
            found = {name: list(file.get_slice(name).get_shape()) for name in names}
    except (
        OSError,
        SafetensorError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
    ) as error:
        raise IncompleteError(f"{folder} holds no valid model: {first_line(error)}") from None
    differing = [
        name
        for name, shape in found.items()
        if name not in expected or list(expected[name].shape) != shape
    ]
    # The file holds a shared tensor under one of its names, so compare tensors by identity.
    present = {id(expected[name]) for name in found if name in expected}
    differing += [name for name, tensor in expected.items() if id(tensor) not in present]
    if differing:
        raise IncompleteError(
            f"{folder} holds no valid model: {CONFIG} and {WEIGHTS} differ in "
            f"{len(differing)} tensors: {differing[0][:60]}"
        )


def _config(folder: Path) -> ModelConfig:
    path = folder / CONFIG
    return from_json(ModelConfig, path.read_text(encoding="utf-8"), str(path))
