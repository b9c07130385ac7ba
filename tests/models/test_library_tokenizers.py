"""Tokens of folders, compared with the transformers library's own call on the same folder."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.families import write_family
from support.messages import assert_message
from support.odd_texts import PAIRS, TEXTS
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from harness.data import demo
from harness.data.dataset import Split, Tokens
from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.errors import HarnessError
from harness.models.backbones import Backbone, find_backbone
from harness.models.tokenizers import PythonTokenizer, read_exported_tokenizer, read_tokenizer
from harness.store.encoded_rows import RowsKey, load_encoded_rows, save_encoded_rows

LENGTHS = (6, 24, 60)
EXAMPLES: list[tuple[str, ...]] = [*((text,) for text in TEXTS), *PAIRS]
ADDED = ("[E1]", "[/E1]", "<e1>", "@user")


def settings(**values: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "tokenizer_config.json").write_text(json.dumps(values)) and None


def added_tokens(folder: Path) -> None:
    size = len(read_tokenizer(folder, "bert").vocabulary)
    ids = {token: size + index for index, token in enumerate(ADDED)}
    (folder / "added_tokens.json").write_text(json.dumps(ids))


def added_tokens_decoder(folder: Path) -> None:
    size = len(read_tokenizer(folder, "bert").vocabulary)
    flags = {"lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
    tokens = {
        str(size + index): {"content": token, "special": index < 2, **flags}
        for index, token in enumerate(ADDED)
    }
    settings(added_tokens_decoder=tokens)(folder)


def special_tokens_map(folder: Path) -> None:
    """Name a word of the vocabulary and an added token as special tokens."""
    tokens = {"additional_special_tokens": ["the", "[E1]"]}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))


def saved(folder: Path, **changes: object) -> None:
    """Let the library save the tokenizer as tokenizer.json, then change settings beside it."""
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def no_settings(folder: Path) -> None:
    """Leave the vocabulary alone."""


FOLDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    **{family: (family, no_settings) for family in ("bert", "distilbert", "electra", "albert")},
    "roberta": ("roberta", no_settings),
    **{
        f"{family}, {change.__name__}": (family, change)
        for family in ("bert", "roberta", "distilbert")
        for change in (added_tokens, added_tokens_decoder, special_tokens_map, saved)
    },
    "bert with case": ("bert", settings(do_lower_case=False)),
    "bert with accents": ("bert", settings(strip_accents=False)),
    "bert with case and no accents": ("bert", settings(do_lower_case=False, strip_accents=True)),
    "bert with Chinese words": ("bert", settings(tokenize_chinese_chars=False)),
    "bert truncated at the left": ("bert", settings(truncation_side="left")),
    "bert without types": ("bert", settings(model_input_names=["input_ids", "attention_mask"])),
    "bert with other special tokens": ("bert", settings(sep_token="the", cls_token="film")),
    "bert, case of the settings": ("bert", lambda folder: saved(folder, do_lower_case=False)),
    "bert, side of the settings": ("bert", lambda folder: saved(folder, truncation_side="left")),
    "bert by the plain class": (
        "bert",
        lambda folder: saved(folder, tokenizer_class="PreTrainedTokenizerFast"),
    ),
    "roberta with a prefix space": ("roberta", settings(add_prefix_space=True)),
    "roberta, prefix space of the settings": (
        "roberta",
        lambda folder: saved(folder, add_prefix_space=True),
    ),
    "roberta without trimmed offsets": ("roberta", settings(trim_offsets=False)),
    "albert with case": ("albert", lambda folder: saved(folder, do_lower_case=False)),
    "distilbert by its class": ("distilbert", settings(tokenizer_class="DistilBertTokenizer")),
    "electra by its class": ("electra", settings(tokenizer_class="ElectraTokenizer")),
}


def expected(folder: Path, max_length: int) -> Tokens:
    """Return what the library's own call gives for batches of one example.

    A call on a text and an empty second text that are not in lists drops the second text.
    """
    library = AutoTokenizer.from_pretrained(str(folder))
    ids, types, truncated = [], [], 0
    for example in EXAMPLES:
        batch = [[text] for text in example]
        found = library(*batch, truncation=True, max_length=max_length)
        ids.append(np.array(found["input_ids"][0], dtype=np.int32))
        given = found.get("token_type_ids", np.zeros((1, len(ids[-1]))))
        types.append(np.array(given[0], dtype=np.int32))
        if len(ids[-1]) == max_length:
            truncated += len(library(*batch)["input_ids"][0]) > max_length
    return Tokens(tuple(ids), tuple(types), truncated)


def assert_equal(found: Tokens, wanted: Tokens) -> None:
    for example, *rows in zip(
        EXAMPLES, found.ids, wanted.ids, found.types, wanted.types, strict=True
    ):
        ids, library_ids, types, library_types = (row.tolist() for row in rows)
        assert (example, ids, types) == (example, library_ids, library_types)


def with_room(folder: Path) -> Backbone:
    """Return the folder's backbone with enough positions and rows for every case."""
    backbone = find_backbone(str(folder))
    return replace(backbone, shape=replace(backbone.shape, positions=64, vocabulary=500))


@pytest.mark.slow
@pytest.mark.parametrize("case", FOLDERS)
def test_tokens_equal_library(tmp_path: Path, case: str) -> None:
    """Encoded, cached and exported examples have the library's ids, types and truncation."""
    assert len(EXAMPLES) >= 400
    family, change = FOLDERS[case]
    folder = write_family(tmp_path / "model", family)
    change(folder)
    backbone = with_room(folder)
    for max_length in LENGTHS:
        wanted = expected(folder, max_length)
        found = backbone.encode(EXAMPLES, max_length)
        assert_equal(found, wanted)
        assert found.truncated == wanted.truncated

        key = RowsKey("data", backbone.fingerprint, max_length, None)
        numbers = np.arange(len(EXAMPLES))
        split = Split(numbers, tuple(EXAMPLES), numbers.astype(float), found)
        save_encoded_rows(tmp_path, key, split)
        cached = load_encoded_rows(tmp_path, key)
        assert cached is not None
        assert_equal(cached.tokens, wanted)

        file = tmp_path / "tokenizer.json"
        file.write_text(backbone.tokenizer.exported(max_length), encoding="utf-8")
        assert_equal(read_exported_tokenizer(file).encode(EXAMPLES, max_length), wanted)
        alone = Tokenizer.from_file(str(file))
        encodings = [alone.encode(*example) for example in EXAMPLES]
        assert_equal(
            Tokens(
                tuple(np.array(encoding.ids) for encoding in encodings),
                tuple(np.array(encoding.type_ids) for encoding in encodings),
                0,
            ),
            wanted,
        )


def test_special_tokens_can_be_split(tmp_path: Path) -> None:
    """Special tokens in a text are words if the settings say so; tokenizer.json cannot say so."""
    folder = write_family(tmp_path / "model", "bert")
    settings(split_special_tokens=True)(folder)
    backbone = with_room(folder)
    assert_equal(backbone.encode(EXAMPLES, 24), expected(folder, 24))
    plain = write_family(tmp_path / "plain", "bert")
    assert backbone.fingerprint != find_backbone(str(plain)).fingerprint
    with pytest.raises(HarnessError) as error:
        backbone.tokenizer.exported(24)
    assert_message(error, "split_special_tokens")


def write_python_tokenizer(folder: Path) -> Path:
    """Write a BERT with a tokenizer of the library that runs in Python."""
    write_family(folder, "bert")
    settings(
        tokenizer_class="BertJapaneseTokenizer",
        word_tokenizer_type="basic",
        subword_tokenizer_type="wordpiece",
    )(folder)
    return folder


def test_python_tokenizer_equals_library(tmp_path: Path) -> None:
    """A tokenizer of the library that runs in Python gives its tokens."""
    folder = write_python_tokenizer(tmp_path / "model")
    backbone = with_room(folder)
    assert isinstance(backbone.tokenizer, PythonTokenizer)
    found, wanted = backbone.encode(EXAMPLES, 24), expected(folder, 24)
    assert_equal(found, wanted)
    assert found.truncated == wanted.truncated
    assert backbone.tokenizer.vocabulary["film"] == demo.demo_vocabulary().index("film")
    assert backbone.tokenizer.special == {0, 1, 2, 3, 4}


def test_python_tokenizer_has_no_tokenizer_file(tmp_path: Path) -> None:
    """A tokenizer that runs in Python is not exported; the message names it."""
    backbone = find_backbone(str(write_python_tokenizer(tmp_path / "model")))
    with pytest.raises(HarnessError) as error:
        backbone.tokenizer.exported(24)
    assert_message(error, "BertJapaneseTokenizer", "tokenizer.json")


def test_settings_change_fingerprint(tmp_path: Path) -> None:
    """Folders whose tokens differ have different fingerprints."""
    names = ["bert", *(name for name in FOLDERS if name.startswith("bert "))]
    names.remove("bert by the plain class")  # it gives the tokens of the class
    fingerprints = {}
    for name in names:
        folder = write_family(tmp_path / name, "bert")
        FOLDERS[name][1](folder)
        fingerprints[find_backbone(str(folder)).fingerprint] = name
    assert len(fingerprints) == len(names)
    python = find_backbone(str(write_python_tokenizer(tmp_path / "python"))).fingerprint
    assert python not in fingerprints


def test_code_in_a_folder_does_not_run(tmp_path: Path) -> None:
    """Code of a tokenizer in the folder is never run."""
    folder = write_family(tmp_path / "model", "bert")
    settings(auto_map={"AutoTokenizer": ["mine.Mine", None]}, tokenizer_class="Mine")(folder)
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    backbone = find_backbone(str(folder))
    try:
        backbone.encode([("the film",)], 16)
    except HarnessError as error:
        assert str(folder) in str(error)
    assert not (tmp_path / "ran").exists()


def test_class_that_needs_a_package_is_named(tmp_path: Path) -> None:
    """A tokenizer class that cannot be served is refused in one line."""
    folder = write_family(tmp_path / "model", "bert")
    settings(tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="nonesuch")(folder)
    with pytest.raises(HarnessError) as error:
        find_backbone(str(folder)).encode([("the film",)], 16)
    assert_message(error, "vocab.txt", "nonesuch")


def test_unused_tokens_may_exceed_the_embedding(tmp_path: Path) -> None:
    """Tokens without a row are allowed until a text has one, whose name is then in the message."""
    folder = write_family(tmp_path / "model", "bert")
    config = json.loads((folder / "config.json").read_text())
    size = len(demo.demo_vocabulary())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": size}))
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("zebra\n")
    backbone = find_backbone(str(folder))
    assert backbone.encode([("the film",)], 16).lengths.tolist() == [4]
    with pytest.raises(HarnessError) as error:
        backbone.encode([("the film",), ("a zebra",)], 16)
    assert_message(error, "model", "zebra", size)


def test_special_tokens_in_texts_mark_the_data(tmp_path: Path) -> None:
    """Old runs on word pieces keep their ids, but not if a text has a special token.

    Earlier versions did not recognise it.
    """
    write_family(tmp_path / "model", "bert")
    plain, sep = [("the film",)], [("the film [SEP] good",)]
    words = find_backbone(str(tmp_path / "model"))
    assert words.fingerprint == "f3f0d20e95be9ae2"
    assert words.encode(plain, 16).mark == ""
    assert words.encode(sep, 16).mark != ""
    saved(tmp_path / "model")
    from_file = find_backbone(str(tmp_path / "model"))
    assert from_file.fingerprint != words.fingerprint
    assert from_file.encode(sep, 16).mark == ""
    data = load_data(TASKS["demo-single"], None, limit=3)
    assert data.encoded(words.encode, 16).data_fingerprint == data.data_fingerprint
    marked = replace(data, dev=replace(data.dev, texts=(*data.dev.texts[1:], *sep)))
    again = marked.encoded(words.encode, 16)
    assert again.data_fingerprint != data.data_fingerprint
    assert again.fingerprint != marked.fingerprint


def test_truncation_of_exported_file_is_its_own(tmp_path: Path) -> None:
    """A file without truncation, as earlier versions exported, is truncated at the right."""
    folder = write_family(tmp_path / "model", "bert")
    file = tmp_path / "tokenizer.json"
    content = json.loads(read_tokenizer(folder, "bert").exported(8)) | {"truncation": None}
    file.write_text(json.dumps(content))
    rows: Sequence[tuple[str, ...]] = [("the film was not good " * 9,)]
    found = read_exported_tokenizer(file).encode(rows, 8)
    assert found.ids[0].tolist() == find_backbone(str(folder)).encode(rows, 8).ids[0].tolist()


def test_library_makes_up_no_vocabulary(tmp_path: Path) -> None:
    """The library's default for a missing file is not used."""
    folder = write_family(tmp_path / "model", "bert")
    (folder / "vocab.txt").rename(folder / "spiece.model")
    with pytest.raises(HarnessError) as error:
        read_tokenizer(folder, "bert")
    assert_message(error, "vocab.txt", "BertTokenizer")


def test_family_counts_where_the_config_names_none(tmp_path: Path) -> None:
    """A config without model_type, as in old repositories, has the family of the backbone."""
    folder = write_family(tmp_path / "model", "bert")
    rows = [("the film was good",)]
    wanted = read_tokenizer(folder, "bert").encode(rows, 16).ids[0].tolist()
    for text in ("{}", None):
        (folder / "config.json").unlink()
        if text is not None:
            (folder / "config.json").write_text(text)
        assert read_tokenizer(folder, "bert").encode(rows, 16).ids[0].tolist() == wanted
        (folder / "config.json").touch()
