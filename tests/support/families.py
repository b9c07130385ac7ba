"""Small random models and tokenizers of every family, saved in the library's format."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    AlbertTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from harness.data import demo

HIDDEN, NARROW, VOCABULARY = 32, 12, 400
PIECES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ALBERT_PIECES = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")

SIZES: dict[str, object] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
"""Sizes of all families but DistilBERT."""
LIBRARY: dict[str, tuple[type[PreTrainedModel], PreTrainedConfig]] = {
    "bert": (BertModel, BertConfig(**SIZES)),
    "distilbert": (
        DistilBertModel,
        DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=HIDDEN,
            n_layers=3,
            n_heads=4,
            hidden_dim=48,
            max_position_embeddings=40,
        ),
    ),
    "roberta": (
        RobertaModel,
        RobertaConfig(
            **SIZES | {"max_position_embeddings": 42}, type_vocab_size=1, layer_norm_eps=1e-5
        ),
    ),
    "electra": (ElectraModel, ElectraConfig(**SIZES, embedding_size=NARROW)),
    "electra of one width": (ElectraModel, ElectraConfig(**SIZES, embedding_size=HIDDEN)),
    "albert": (AlbertModel, AlbertConfig(**SIZES, embedding_size=NARROW)),
    "albert of one width": (AlbertModel, AlbertConfig(**SIZES, embedding_size=HIDDEN)),
}
"""Case -> the library's class and config."""
FAMILIES = ("bert", "distilbert", "roberta", "electra", "albert")


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter far from its initial value, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(
            parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.2, generator=generator
        )
    return model.eval()


def library_model(case: str) -> nn.Module:
    kind, config = LIBRARY[case]
    return randomised(kind(config))


def write_family(folder: Path, case: str, model: nn.Module | None = None) -> Path:
    """Write config.json, the weights of this or a random model, and a vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    made = library_model(case) if model is None else model
    (folder / "config.json").write_text(json.dumps(LIBRARY[case][1].to_dict()))
    save_file(
        {name: tensor.clone() for name, tensor in made.state_dict().items()},
        folder / "model.safetensors",
    )
    writers = {"roberta": write_byte_pairs, "albert": write_unigrams}
    writers.get(case.partition(" ")[0], write_words)(folder)
    return folder


def write_words(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(demo.demo_vocabulary()) + "\n", encoding="utf-8")


def texts() -> Iterator[str]:
    return (
        text for task in demo.LABELS for row in demo.demo_rows(task, "dev") for text in row.texts
    )


def write_byte_pairs(folder: Path) -> RobertaTokenizer:
    """Write vocab.json and merges.txt, and return the library's tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(PIECES),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.model.save(str(folder))
    return RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def write_unigrams(folder: Path) -> AlbertTokenizer:
    """Write tokenizer.json, and return the library's tokenizer."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=list(ALBERT_PIECES), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    library = AlbertTokenizer(
        vocab=[(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    )
    library.save_pretrained(folder / "tokenizer")
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer.json")
    return library
