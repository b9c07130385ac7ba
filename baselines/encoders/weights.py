"""Pretrained checkpoints -> our encoder, every tensor accounted for; and our own models' files (safetensors and a config)."""

import pickle
import re
from collections import defaultdict
from collections.abc import Iterable
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
from harness.files.atomic import whole
from harness.files.digests import file_digest
from harness.files.typed_json import from_json, to_json
from harness.models.backbones import Backbone
from harness.models.checkpoint_files import CONFIG, WEIGHTS
from harness.models.multi_exit import MultiExitModel
from harness.records import WeightsReport

MOST_LAYERS = 512
"""Of a model from elsewhere."""


def pretrained(backbone: Backbone, config: ModelConfig) -> tuple[EncoderModel, WeightsReport]:
    """A model of this config with the backbone's weights (random ones for a random backbone) and fresh exits.

    A [CLS] pooler in the checkpoint becomes the dense pooler of the exits when the pooling is [CLS].
    Raises: HarnessError naming every tensor that is missing, unexpected or of another shape.
    """
    model = EncoderModel(config)
    if backbone.folder is None:
        return model, WeightsReport(0, (), ("all: random backbone",))
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
    backbone: Backbone, config: ModelConfig, places: tuple[int, ...]
) -> tuple[EncoderModel, WeightsReport]:
    """A model of this config, of one dense exit, with the weights of a classifier that is fine-tuned already; its output i is the
    checkpoint's output places[i].

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
            parameter.copy_(parameter[list(places)])
    return model, report


def has_masked_lm_head(backbone: Backbone) -> bool:
    """Whether the backbone's checkpoint holds the head that it was pre-trained with."""
    if backbone.folder is None:
        return False
    names = NAMES[backbone.family]
    with safe_open(_safetensors(backbone, backbone.folder), "pt") as file:
        return names.has_masked_lm(map(names.plain, file.keys()))


def _tensors(backbone: Backbone, folder: Path) -> dict[str, Tensor]:
    """Raises: HarnessError when the file cannot be read."""
    path = _safetensors(backbone, folder)
    try:
        return {
            NAMES[backbone.family].plain(name): tensor for name, tensor in load_file(path).items()
        }
    except (OSError, SafetensorError) as error:
        raise HarnessError(
            f"backbone {backbone.name}: {path} cannot be read: {reason(error)}"
        ) from None


def _safetensors(backbone: Backbone, folder: Path) -> Path:
    """The backbone's weights as safetensors, for a pickled file written beside it when they are first asked for.

    Raises: HarnessError when a pickled file holds anything but tensors, or the folder cannot be written.
    """
    if not backbone.pickled:
        return folder / WEIGHTS
    pickled = folder / backbone.weights_name
    path = folder / f"{pickled.stem}.{file_digest(pickled)[:16]}.safetensors"
    if path.is_file():
        return path
    try:
        tensors = torch.load(pickled, map_location="cpu", weights_only=True)
        plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
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
            f"backbone {backbone.name}: {pickled} does not hold tensors alone: {first_line(error)}"
        ) from None
    try:
        with whole(path, shared=True) as beside:
            save_file(plain, beside)
    except (OSError, SafetensorError) as error:
        raise HarnessError(
            f"backbone {backbone.name}: cannot keep its weights as {path}: {error}"
        ) from None
    return path


def _load(
    model: EncoderModel,
    tensors: dict[str, Tensor],
    targets: dict[str, list[str]],
    backbone: Backbone,
) -> WeightsReport:
    """Copy the tensors and say what became of each.

    Raises: HarnessError as `pretrained` does.
    """
    state = model.state_dict()
    left_out = sorted(
        theirs
        for theirs in tensors
        if theirs not in targets and theirs.startswith(NAMES[backbone.family].left_out)
    )
    missing = sorted(theirs for theirs in targets if theirs not in tensors)
    unexpected = sorted(set(tensors) - set(targets) - set(left_out))
    wrong = [
        f"{theirs} {list(tensors[theirs].shape)} (wanted {list(state[ours].shape)})"
        for theirs, all_ours in targets.items()
        for ours in all_ours
        if theirs in tensors and tensors[theirs].shape != state[ours].shape
    ]
    shapes = list(dict.fromkeys(wrong))
    if missing or unexpected or shapes:
        found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        said = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:3])}" for kind, names in found.items() if names
        )
        raise HarnessError(f"backbone {backbone.name}: the weights do not fit: {said}")
    with torch.no_grad():
        for theirs, all_ours in targets.items():
            for ours in all_ours:
                state[ours].copy_(tensors[theirs])
    loaded = {ours for all_ours in targets.values() for ours in all_ours}
    return WeightsReport(len(targets), _patterns(left_out), _patterns(set(state) - loaded))


def _patterns(names: Iterable[str]) -> tuple[str, ...]:
    """Names in order, those that differ in their numbers alone as one: `exits.*.classifier.bias (6)`."""
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
    """Copy the embedding and the layers of a model of the same shape.

    Raises: ValueError when the shapes differ.
    """
    if source.config.shape != target.config.shape:
        raise ValueError(
            f"an encoder of shape {source.config.shape} does not fit {target.config.shape}"
        )
    target.embedding.load_state_dict(source.embedding.state_dict())
    target.layers.load_state_dict(source.layers.state_dict())


def exit_heads(model: MultiExitModel) -> list[ExitHead]:
    """The model's exits, first to last."""
    heads = (model.exit_after(layer - 1) for layer in model.exit_layers)
    return [head for head in heads if isinstance(head, ExitHead)]


def save_model(model: MultiExitModel, folder: Path) -> None:
    """Write config.json and model.safetensors; shared tensors are written once.

    Raises: IncompleteError when the disk is full.
    """
    if not isinstance(model, EncoderModel):
        raise TypeError(f"{type(model).__name__} has no config to be built from again")
    try:
        (folder / CONFIG).write_text(to_json(model.config), encoding="utf-8")
        save_tensors(model, str(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise IncompleteError(f"cannot write the model: {error}; is the disk full?") from None


def load_model(folder: Path) -> EncoderModel:
    """Build the model of config.json and fill in its tensors, each of them; evaluation mode, on the CPU.

    Raises: IncompleteError when the folder does not hold a model of ours.
    """
    try:
        model = EncoderModel(_config(folder))
        load_tensors(model, str(folder / WEIGHTS), strict=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, LookupError) as error:
        raise IncompleteError(f"{folder} does not hold a model: {first_line(error)}") from None
    return model.eval()


def check_model(folder: Path) -> None:
    """Compare the tensors that config.json describes with those that model.safetensors holds, by name and shape alone.

    Raises: IncompleteError when they differ, or one of the files cannot be read.
    """
    try:
        config = _config(folder)
        if config.shape.layers > MOST_LAYERS:
            raise ValueError(f"{config.shape.layers} layers, wanted at most {MOST_LAYERS}")
        with torch.device("meta"):
            wanted = EncoderModel(config).state_dict(keep_vars=True)
        with safe_open(folder / WEIGHTS, "pt") as file:
            names = file.keys()  # the file itself cannot be iterated over
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
        raise IncompleteError(f"{folder} does not hold a model: {first_line(error)}") from None
    other = [
        name
        for name, shape in found.items()
        if name not in wanted or list(wanted[name].shape) != shape
    ]
    there = {
        id(wanted[name]) for name in found if name in wanted
    }  # of shared tensors one name stands in the file
    other += [name for name, tensor in wanted.items() if id(tensor) not in there]
    if other:
        raise IncompleteError(
            f"{folder} does not hold a model: {CONFIG} and {WEIGHTS} differ in {len(other)} tensors: {other[0][:60]}"
        )


def _config(folder: Path) -> ModelConfig:
    return from_json(
        ModelConfig, (folder / CONFIG).read_text(encoding="utf-8"), str(folder / CONFIG)
    )
