"""Tokenizers: those of the transformers library, and word pieces built from a list.

The transformers library decides what a folder's tokenizer is: its class, settings, special and
added tokens. It is imported where a folder is read; a list of word pieces and an exported
tokenizer.json need the tokenizers library alone.
"""

import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from logging import ERROR
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from harness.data.dataset import Tokens
from harness.errors import HarnessError, first_line
from harness.files.digests import digest, file_digest
from harness.models.checkpoint_files import CONFIG, VOCABULARY, read_json
from harness.models.shapes import EncoderShape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

BERT_SPECIAL_TOKENS = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}

Texts = tuple[str, ...]
"""One or two texts of an example."""


class TextTokenizer(Protocol):
    """Turns texts into token ids."""

    @property
    def has_types(self) -> bool:
        """Whether a model is given token types by this tokenizer; otherwise they are all 0."""

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token, added ones included, and its id."""

    @property
    def special(self) -> frozenset[int]:
        """Ids of the special tokens."""

    @property
    def fingerprint_text(self) -> str:
        """Text that differs for tokenizers that may give different ids."""

    def encode(self, examples: Sequence[Texts], max_length: int) -> Tokens:
        """Return the tokens of each example; the longer text of a pair is truncated first."""

    def exported(self, max_length: int) -> str:
        """Return a tokenizer.json that encodes as `encode` does, truncation included.

        Raises: HarnessError if the tokenizer cannot be stored in this format.
        """


@dataclass(frozen=True)
class FastTokenizer:
    """A tokenizer of the tokenizers library."""

    tokenizer: Tokenizer
    """It neither pads nor truncates on its own."""
    truncation_side: str = "right"
    """End of a text at which tokens are dropped: left or right."""
    has_types: bool = True
    """Whether a model is given token types by this tokenizer; otherwise they are all 0."""
    splits_special: bool = False
    """Special tokens inside a text are tokenized like other words."""
    from_words: bool = False
    """It was read from BERT's vocab.txt. Earlier versions of the harness did not recognise its
    special tokens inside texts, and took the fingerprint without them."""

    def __post_init__(self) -> None:
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = self.splits_special

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token, added ones included, and its id."""
        return self.tokenizer.get_vocab()

    @property
    def special(self) -> frozenset[int]:
        """Ids of the special tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(id_ for id_, token in added.items() if token.special)

    @property
    def fingerprint_text(self) -> str:
        """Its tokenizer.json, and settings that this file cannot hold if they are not the usual."""
        usual = (self.truncation_side, self.splits_special) == ("right", False)
        settings = "" if usual else f"{self.truncation_side} {self.splits_special}"
        if not self.from_words:
            return self.tokenizer.to_str() + settings
        plain = Tokenizer(self.tokenizer.model)
        plain.normalizer = self.tokenizer.normalizer
        plain.pre_tokenizer = self.tokenizer.pre_tokenizer
        plain.post_processor = self.tokenizer.post_processor
        plain.decoder = self.tokenizer.decoder
        return plain.to_str() + settings

    def encode(self, examples: Sequence[Texts], max_length: int) -> Tokens:
        """Return the tokens of each example; the longer text of a pair is truncated first."""
        with self._truncating(max_length):
            encodings = self.tokenizer.encode_batch(
                [texts if len(texts) > 1 else texts[0] for texts in examples]
            )
        ids = tuple(np.array(encoding.ids, dtype=np.int32) for encoding in encodings)
        types = tuple(
            np.array(encoding.type_ids, dtype=np.int32) if self.has_types else np.zeros_like(row)
            for encoding, row in zip(encodings, ids, strict=True)
        )
        truncated = sum(bool(encoding.overflowing) for encoding in encodings)
        return Tokens(ids, types, truncated, self._mark(examples))

    def _mark(self, examples: Sequence[Texts]) -> str:
        """Return the mark of tokens that earlier versions did not give."""
        names = self.tokenizer.get_added_tokens_decoder().values() if self.from_words else ()
        found = any(name.content in text for name in names for texts in examples for text in texts)
        return "with special tokens" if found else ""

    def exported(self, max_length: int) -> str:
        """Return a tokenizer.json that encodes as `encode` does, truncation included.

        Raises: HarnessError if the tokenizer cannot be stored in this format.
        """
        if self.splits_special:
            raise HarnessError("tokenizer.json cannot store the setting split_special_tokens")
        with self._truncating(max_length):
            content = json.loads(self.tokenizer.to_str())
        if not self.has_types:
            content["post_processor"] = _without_types(content["post_processor"])
        text = json.dumps(content, ensure_ascii=False)
        if not self.has_types and any(Tokenizer.from_str(text).encode("a", "b").type_ids):
            raise HarnessError(
                "tokenizer.json cannot store that the tokenizer gives no token types"
            )
        return text

    @contextmanager
    def _truncating(self, max_length: int) -> "Iterator[None]":
        self.tokenizer.enable_truncation(
            max_length, strategy="longest_first", direction=self.truncation_side
        )
        try:
            yield
        finally:
            self.tokenizer.no_truncation()  # the fingerprint must not depend on the last call


@dataclass(frozen=True)
class PythonTokenizer:
    """A tokenizer of the transformers library that has no tokenizer.json."""

    tokenizer: "PreTrainedTokenizerBase"
    folder: Path = field(repr=False)

    @property
    def has_types(self) -> bool:
        """Whether a model is given token types by this tokenizer; otherwise they are all 0."""
        return "token_type_ids" in self.tokenizer.model_input_names

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token, added ones included, and its id."""
        return dict(self.tokenizer.get_vocab())

    @property
    def special(self) -> frozenset[int]:
        """Ids of the special tokens."""
        return frozenset(self.tokenizer.all_special_ids)

    @cached_property
    def fingerprint_text(self) -> str:
        """Class of the tokenizer and hash of its files."""
        files = [self.folder / name for name in VOCABULARY]
        return " ".join(
            [
                type(self.tokenizer).__name__,
                digest(f"{file.name} {file_digest(file)}" for file in files if file.is_file()),
            ]
        )

    def encode(self, examples: Sequence[Texts], max_length: int) -> Tokens:
        """Return the tokens of each example; the longer text of a pair is truncated first."""
        ids, types, truncated = [], [], 0
        for texts in examples:
            # Lists, because the library drops an empty second text that is not in one.
            batch = [[text] for text in texts]
            found = self.tokenizer(*batch, truncation="longest_first", max_length=max_length)
            row = np.array(found["input_ids"][0], dtype=np.int32)
            ids.append(row)
            types.append(
                np.array(found["token_type_ids"][0], dtype=np.int32)
                if self.has_types
                else np.zeros_like(row)
            )
            if len(row) >= max_length:
                whole = self.tokenizer(*batch, truncation=False, verbose=False)["input_ids"][0]
                truncated += len(whole) > len(row)
        return Tokens(tuple(ids), tuple(types), truncated)

    def exported(self, max_length: int) -> str:
        """Raise HarnessError: there is no tokenizer.json of these tokenizers."""
        raise HarnessError(
            f"the tokenizer {type(self.tokenizer).__name__} runs in Python and cannot be stored as"
            f" tokenizer.json with truncation to {max_length} tokens"
        )


def read_tokenizer(folder: Path, family: str) -> TextTokenizer:
    """Return the tokenizer that the transformers library makes of a folder.

    The family counts where config.json names none. Code in the folder is not run, and nothing is
    downloaded.
    Raises: HarnessError if there is no tokenizer, or it cannot be read or cannot encode a text and
        a pair.
    """
    from transformers import AutoConfig, AutoTokenizer  # takes a second
    from transformers.utils import logging

    present = [name for name in VOCABULARY if (folder / name).is_file()]
    pair = {"vocab.json", "merges.txt"}
    if not present or ("tokenizer.json" not in present and len(pair.intersection(present)) == 1):
        raise HarnessError(
            f"{folder} has no tokenizer: expected tokenizer.json, or the vocabulary of the family, "
            "such as vocab.txt, or vocab.json with merges.txt"
        )
    names_family = (folder / CONFIG).is_file() and read_json(folder / CONFIG).get("model_type")
    verbosity = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        with _must_read(f"{folder}: the tokenizer ({', '.join(present)})"):
            library = AutoTokenizer.from_pretrained(
                str(folder),
                config=None if names_family else AutoConfig.for_model(family),
                local_files_only=True,
                trust_remote_code=False,
            )
            _check_files(folder, library)
            library(["a"])
            library(["a"], ["b"])
    finally:
        logging.set_verbosity(verbosity)
    if not library.is_fast:
        return PythonTokenizer(library, folder)
    return FastTokenizer(
        library.backend_tokenizer,
        library.truncation_side,
        "token_type_ids" in library.model_input_names,
        bool(library.split_special_tokens),
        "tokenizer.json" not in present and _has_bert_words(library.backend_tokenizer),
    )


def stated_length(folder: Path) -> int | None:
    """Return the maximum length that tokenizer_config.json states, or None if it states none."""
    path = folder / "tokenizer_config.json"
    stated = read_json(path).get("model_max_length") if path.is_file() else None
    # the library writes 10^30 where there is no limit
    return int(stated) if isinstance(stated, int | float) and stated < 10**9 else None


def _has_bert_words(tokenizer: Tokenizer) -> bool:
    """Return whether these are word pieces, with no added tokens but BERT's special ones."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return (
        isinstance(tokenizer.model, models.WordPiece)
        and added <= BERT_SPECIAL_TOKENS
        and len(tokenizer.get_vocab()) == len(tokenizer.get_vocab(with_added_tokens=False))
    )


def _check_files(folder: Path, library: "PreTrainedTokenizerBase") -> None:
    """Check that the tokenizer was made of files, as the library makes up those that are missing.

    Raises: HarnessError if there is neither tokenizer.json nor the vocabulary of the class.
    """
    missing = [
        name
        for key, name in library.vocab_files_names.items()
        if key in ("vocab_file", "merges_file") and not (folder / name).is_file()
    ]
    if missing and not (folder / "tokenizer.json").is_file():
        raise HarnessError(
            f"{folder} lacks {' and '.join(missing)} of {type(library).__name__}, and has no "
            "tokenizer.json"
        )


def read_exported_tokenizer(file: Path) -> FastTokenizer:
    """Return the tokenizer of an exported model; it truncates at the side that the file names.

    Raises: HarnessError if the file cannot be read or its tokenizer cannot encode.
    """
    with _must_read(str(file)):
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.encode("a")
        tokenizer.encode("a", "b")
        side = (tokenizer.truncation or {}).get("direction", "right")
    return FastTokenizer(tokenizer, side)


@contextmanager
def _must_read(what: str) -> "Iterator[None]":
    """Turn every failure of the libraries into a HarnessError that names what was read.

    They raise errors of all kinds for a malformed file, and their Rust core a panic that is not an
    Exception.
    """
    try:
        yield
    except (HarnessError, KeyboardInterrupt):
        raise
    except BaseException as error:
        reason = first_line(error)
        if "sentencepiece" in str(error) or "tiktoken" in str(error):  # the library's last resort
            reason = "it needs the packages sentencepiece and protobuf, or a tokenizer.json"
        raise HarnessError(f"{what} cannot be read: {reason}") from None


def word_pieces(vocabulary: Sequence[str]) -> FastTokenizer:
    """Return BERT's uncased tokenizer with this vocabulary, which holds BERT's special tokens.

    It encodes [CLS] a [SEP], or [CLS] a [SEP] b [SEP] with token types 0 and 1. Special tokens
    inside a text are not recognised.
    """
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return FastTokenizer(tokenizer)


def encode(
    tokenizer: TextTokenizer,
    shape: EncoderShape,
    name: str,
    examples: Sequence[Texts],
    max_length: int,
) -> Tokens:
    """Return the tokens of each example for an encoder of this shape, named in messages.

    Raises: HarnessError if max_length is outside the encoder's range, or if a token or a token type
    has no row in the embedding.
    """
    if not 4 <= max_length <= shape.positions:
        raise HarnessError(
            f"--max-length {max_length}: {name} accepts 4 to {shape.positions} tokens"
        )
    tokens = tokenizer.encode(examples, max_length)
    if not examples:
        return tokens
    largest = max(int(row.max(initial=0)) for row in tokens.ids)
    if largest >= shape.vocabulary:
        piece = next(piece for piece, id_ in tokenizer.vocabulary.items() if id_ == largest)
        raise HarnessError(
            f"{name}: the tokenizer gives the token {piece!r} the id {largest}, but the embedding "
            f"has {shape.vocabulary} rows"
        )
    count = shape.token_types
    if count and any(row.max(initial=0) >= count for row in tokens.types):
        raise HarnessError(
            f"{name}: the tokenizer uses more token types than the {count} of the embedding"
        )
    return tokens


def _without_types(content: object) -> object:
    """Return a part of a tokenizer.json with all token types 0."""
    if isinstance(content, dict):
        return {
            key: 0 if key == "type_id" else _without_types(value) for key, value in content.items()
        }
    return [_without_types(item) for item in content] if isinstance(content, list) else content
