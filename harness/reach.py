"""Whether the hub can be had: asked for one small file, once, and not for long."""

import threading
from functools import cache

import huggingface_hub.constants
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import logging

from harness.errors import first_line

PROBE_S = 5.0
"""Seconds after which the hub is out of reach, whatever keeps its answer (a dead name server alone can take 20)."""

_given_up: list[str] = []
"""What was said when it did not answer in time: then nothing else is asked of it."""


def out_of_reach(repository: str, file: str, revision: str | None, kind: str = "model") -> str | None:
    """Why the file cannot be fetched, None when it now is in the cache. Of a repository (`kind`: model or dataset) it is asked once: nine
    tasks would wait nine times."""
    return "this is offline" if huggingface_hub.constants.HF_HUB_OFFLINE else _asked(repository, file, revision, kind)


def forget() -> None:
    """Ask again."""
    _asked.cache_clear()
    _given_up.clear()


@cache
def _asked(repository: str, file: str, revision: str | None, kind: str) -> str | None:
    if _given_up:
        return _given_up[0]
    answers: list[str | None] = []

    def ask() -> None:
        try:
            hf_hub_download(repository, file, revision=revision, repo_type=kind, etag_timeout=PROBE_S, force_download=True)
            answers.append(None)
        except HfHubHTTPError as error:  # the hub's own answer
            answers.append(first_line(error))
        except Exception as error:  # of the client's HTTP library, as the client's cause or as it is
            answers.append(first_line(error.__cause__ or error))

    logging.set_verbosity_error()  # it warns of every time that it tries again
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_S)
    if not answers:
        _given_up.append(f"no answer within {PROBE_S:g} s")
    return answers[0] if answers else _given_up[0]
