"""Vocabularies: the tokenizer that a backbone's folder holds, or one made from a list of word pieces."""

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

BYTE_PAIR_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""RoBERTa's; they are found in a text too."""


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder: tokenizer.json, or vocab.json with merges.txt (RoBERTa's byte pairs), or vocab.txt (BERT's word pieces).

    Raises: HarnessError when there is none, or it cannot be read.
    """
    if (folder / "tokenizer.json").is_file():
        return _tried(folder / "tokenizer.json")
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_pairs(folder)
    if not (folder / "vocab.txt").is_file():
        raise HarnessError(
            f"{folder} has neither tokenizer.json nor vocab.txt nor vocab.json with merges.txt"
        )
    lowercase = bool(_setting(folder, "do_lower_case", True))
    try:
        lines = (
            (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        )  # splitlines() also cuts at U+2028 and others
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{folder}/vocab.txt cannot be read: {reason(error)}") from None
    return word_pieces(lines[:-1] if lines[-1] == "" else lines, lowercase)


def _tried(file: Path) -> Tokenizer:
    """A tokenizer's file that also encodes a text and a pair: one whose template names a piece that it does not have stops there.

    Raises: HarnessError when it cannot be read, or does not.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.encode("a")
        tokenizer.encode("a", "b")
    except BaseException as error:  # the library raises bare Exception for any malformed file, its core a panic that is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        raise HarnessError(f"{file} cannot be read: {first_line(error)}") from None
    return tokenizer


def _setting(folder: Path, name: str, default: bool) -> str | float | bool:
    """What tokenizer_config.json says, where there is one."""
    config = folder / "tokenizer_config.json"
    return read_json(config).get(name, default) if config.is_file() else default


def word_pieces(vocabulary: list[str], lowercase: bool) -> Tokenizer:
    """BERT's tokenizer over a vocabulary: [CLS] a [SEP], or [CLS] a [SEP] b [SEP] with token types 0 and 1.

    Raises: HarnessError when the vocabulary has no special pieces.
    """
    index = {piece: number for number, piece in enumerate(vocabulary)}
    _check_special(index, ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
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


def _byte_pairs(folder: Path) -> Tokenizer:
    """RoBERTa's tokenizer: <s> a </s>, or <s> a </s></s> b </s>, all of token type 0.

    Raises: HarnessError when the files cannot be read or the vocabulary has no special pieces.
    """
    spaced = bool(_setting(folder, "add_prefix_space", False))
    try:
        index = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        pairs = [
            (first, second)
            for first, second in (
                line.split(" ") for line in lines if line and not line.startswith("#version")
            )
        ]
        model = models.BPE(index, pairs)
    except (
        Exception
    ) as error:  # the library raises bare Exception for merges that do not fit the vocabulary
        raise HarnessError(
            f"{folder}: vocab.json and merges.txt cannot be read: {first_line(error)}"
        ) from None
    _check_special(index, BYTE_PAIR_SPECIAL)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", index["</s>"]), ("<s>", index["<s>"]), True, spaced
    )
    tokenizer.add_special_tokens(
        [
            AddedToken(piece, lstrip=piece == "<mask>", normalized=False)
            for piece in BYTE_PAIR_SPECIAL
        ]
    )
    return tokenizer


def _check_special(index: dict[str, int], wanted: tuple[str, ...]) -> None:
    missing = [piece for piece in wanted if piece not in index]
    if missing:
        raise HarnessError(f"the vocabulary of {len(index)} pieces has no {', '.join(missing)}")
