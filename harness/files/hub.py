"""Files of data sets on the Hugging Face hub, and a short check of whether it is reachable."""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import huggingface_hub.constants
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import logging

from harness.errors import HarnessError, first_line
from harness.files.digests import digest

PROBE_S = 5.0
"""Seconds after which the hub counts as unreachable (a dead name server alone can take 20)."""

_timeouts: list[str] = []
"""Error message of the first request that timed out; no further request is made after it."""


def cached_files(repository: str, revision: str, patterns: Sequence[str] | None) -> Path | None:
    """Return the cached folder of a data set's revision, or None if there is none.

    The folder may be incomplete. `patterns` choose the files; None means all.
    """
    with suppress(LocalEntryNotFoundError):
        return Path(
            snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                allow_patterns=patterns,
                local_files_only=True,
            )
        )
    return None


def lacks_files(repository: str, revision: str, patterns: Sequence[str] | None) -> bool:
    """Return whether `download_files` was interrupted, or only ever downloaded other files.

    Nothing is known of a folder that something else has written.
    """
    notes = _notes(repository, revision)
    known = {path.name: path.read_text(encoding="utf-8") for path in notes.glob("*.txt")}
    return bool(known) and COMPLETE not in (known.get(_note(patterns)), known.get(_note(None)))


def download_files(
    repository: str, revision: str, patterns: Sequence[str] | None, probed_file: str
) -> Path:
    """Download files of a data set's revision and return their folder.

    `probed_file` is requested first, to check whether the others can be downloaded. A note in the
    hub's cache says which files are complete.
    Raises: HarnessError with the reason, within seconds, if they cannot be downloaded.
    """
    problem = unreachable_reason(repository, probed_file, revision, "dataset")
    note = _notes(repository, revision) / _note(patterns)
    try:
        if problem is None:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text("incomplete", encoding="utf-8")
            folder = snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                allow_patterns=patterns,
                etag_timeout=PROBE_S,
            )
            note.write_text(COMPLETE, encoding="utf-8")
            return Path(folder)
    except Exception as error:  # the client also raises the errors of its HTTP library
        problem = first_line(error)
    raise HarnessError(f"{repository} is not cached and cannot be downloaded: {problem}")


def has_all_shards(paths: Iterable[Path]) -> bool:
    """Return whether no file is missing among those with names such as `train-00000-of-00003`."""
    counts: Counter[tuple[str, int]] = Counter()
    for path in paths:
        shard = _SHARD.search(path.name)
        if shard:
            counts[str(path.parent / path.name[: shard.start()]), int(shard[1])] += 1
    return all(total == count for (_, total), count in counts.items())


_SHARD = re.compile(r"-\d{5}-of-(\d{5})(?=[.-])")

COMPLETE = "complete"
"""Content of a note on files that were downloaded completely."""


def _notes(repository: str, revision: str) -> Path:
    """Return the folder of the notes on a data set's revision, beside the hub's own files."""
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    return cache / repo_folder_name(repo_id=repository, repo_type="dataset") / "harness" / revision


def _note(patterns: Sequence[str] | None) -> str:
    """Return the name of the note on these files."""
    return f"{digest(['all'] if patterns is None else ['some', *patterns])}.txt"


def unreachable_reason(
    repository: str, file: str, revision: str | None, kind: str = "model"
) -> str | None:
    """Return the reason why a file cannot be downloaded, or None if it can.

    `kind` is model or dataset. The answer is cached: otherwise nine tasks would wait nine times.
    """
    return (
        "offline mode is on"
        if huggingface_hub.constants.HF_HUB_OFFLINE
        else _probe(repository, file, revision, kind)
    )


def probe_hub(repository: str, file: str, revision: str | None, kind: str) -> None:
    """Make the requests that precede a download: one for the file, one for the repository.

    Nothing is written to the cache, where a single file would look like a complete repository.
    """
    get_hf_file_metadata(
        hf_hub_url(repository, file, repo_type=kind, revision=revision), timeout=PROBE_S
    )
    HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=PROBE_S)


def forget_probes() -> None:
    """Clear the cached answers, so that the hub is asked again."""
    _probe.cache_clear()
    _timeouts.clear()


@cache
def _probe(repository: str, file: str, revision: str | None, kind: str) -> str | None:
    if _timeouts:
        return _timeouts[0]
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            probe_hub(repository, file, revision, kind)
            reasons.append(None)
        except HfHubHTTPError as error:  # the hub itself answered
            reasons.append(first_line(error))
        except Exception as error:  # the HTTP library failed; the client may wrap its error
            reasons.append(first_line(error.__cause__ or error))

    logging.set_verbosity_error()  # otherwise the client warns about every retry
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_S)
    if not reasons:
        _timeouts.append(f"no answer within {PROBE_S:g} s")
    return reasons[0] if reasons else _timeouts[0]
