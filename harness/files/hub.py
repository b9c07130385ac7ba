"""A check of whether the Hugging Face hub is reachable: one short request per repository."""

import threading
from functools import cache

import huggingface_hub.constants
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import logging

from harness.errors import first_line

PROBE_S = 5.0
"""Seconds after which the hub counts as unreachable (a dead name server alone can take 20)."""

_timeouts: list[str] = []
"""Error message of the first request that timed out; no further request is made after it."""


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
