"""Tokenizers read from a backbone's folder or built from a list of word pieces."""

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from harness.errors import HarnessError, first_line, reason
from harness.models.checkpoint_files import read_json

ROBERTA_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""RoBERTa's special tokens, which are also recognised inside a text."""


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder.

    It is read from tokenizer.json, else from vocab.json with merges.txt (RoBERTa's byte pairs),
    else from vocab.txt (BERT's word pieces).

    Raises: HarnessError if there is no tokenizer or it cannot be read.
    """
    if (folder / "tokenizer.json").is_file():
        return _read_tokenizer_json(folder / "tokenizer.json")
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_pairs(folder)
    if not (folder / "vocab.txt").is_file():
        raise HarnessError(
            f"{folder} has no tokenizer: expected tokenizer.json, vocab.txt, or vocab.json with "
            "merges.txt"
        )
    lowercase = bool(_setting(folder, "do_lower_case", True))
    try:
        # not splitlines(), which also splits at U+2028 and others
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{folder}/vocab.txt cannot be read: {reason(error)}") from None
    return word_pieces(lines[:-1] if lines[-1] == "" else lines, lowercase)


def _read_tokenizer_json(file: Path) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json after encoding a text and a pair.

    Encoding fails if the tokenizer's template names a token missing from its vocabulary.

    Raises: HarnessError if the file cannot be read or the tokenizer cannot encode.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.encode("a")
        tokenizer.encode("a", "b")
    # For a malformed file the library raises a bare Exception, and its Rust core a panic that is
    # not an Exception.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise HarnessError(f"{file} cannot be read: {first_line(error)}") from None
    return tokenizer


def _setting(folder: Path, name: str, default: bool) -> str | float | bool:
    """Return a setting of tokenizer_config.json, if there is such a file."""
    config = folder / "tokenizer_config.json"
    return read_json(config).get(name, default) if config.is_file() else default


def word_pieces(vocabulary: list[str], lowercase: bool) -> Tokenizer:
    """Return BERT's tokenizer with this vocabulary.

    It encodes [CLS] a [SEP], or [CLS] a [SEP] b [SEP] with token types 0 and 1.

    Raises: HarnessError if the vocabulary lacks a special token.
    """
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    _check_special_tokens(ids, ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _byte_pairs(folder: Path) -> Tokenizer:
    """Return RoBERTa's tokenizer.

    It encodes <s> a </s>, or <s> a </s></s> b </s>, all with token type 0.

    Raises: HarnessError if the files cannot be read or the vocabulary lacks a special token.
    """
    prefix_space = bool(_setting(folder, "add_prefix_space", False))
    try:
        ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        pairs = [
            (first, second)
            for first, second in (
                line.split(" ") for line in lines if line and not line.startswith("#version")
            )
        ]
        model = models.BPE(ids, pairs)
    # The library raises a bare Exception for merges that do not fit the vocabulary.
    except Exception as error:
        raise HarnessError(
            f"{folder}: vocab.json and merges.txt cannot be read: {first_line(error)}"
        ) from None
    _check_special_tokens(ids, ROBERTA_SPECIAL_TOKENS)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), True, prefix_space
    )
    tokenizer.add_special_tokens(
        [
            AddedToken(token, lstrip=token == "<mask>", normalized=False)
            for token in ROBERTA_SPECIAL_TOKENS
        ]
    )
    return tokenizer


def _check_special_tokens(ids: dict[str, int], required: tuple[str, ...]) -> None:
    missing = [token for token in required if token not in ids]
    if missing:
        raise HarnessError(f"the vocabulary of {len(ids)} tokens lacks {', '.join(missing)}")
