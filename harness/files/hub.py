"""Whether the hub can be had: asked about one small file, once, and not for long."""

import threading
from functools import cache

import huggingface_hub.constants
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import logging

from harness.errors import first_line

PROBE_S = 5.0
"""Seconds after which the hub is out of reach, whatever keeps its answer (a dead name server alone can take 20)."""

_given_up: list[str] = []
"""What was said when it did not answer in time: then nothing else is asked of it."""


def out_of_reach(
    repository: str, file: str, revision: str | None, kind: str = "model"
) -> str | None:
    """Why the file cannot be fetched, None when it can. Of a repository (`kind`: model or dataset) it is asked once: nine
    tasks would wait nine times."""
    return (
        "this is offline"
        if huggingface_hub.constants.HF_HUB_OFFLINE
        else _asked(repository, file, revision, kind)
    )


def ask_hub(repository: str, file: str, revision: str | None, kind: str) -> None:
    """What the client asks before it fetches: the file's server about the file, the hub about the repository. Nothing comes into the cache,
    where a file alone would look like a whole repository."""
    get_hf_file_metadata(
        hf_hub_url(repository, file, repo_type=kind, revision=revision), timeout=PROBE_S
    )
    HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=PROBE_S)


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
            ask_hub(repository, file, revision, kind)
            answers.append(None)
        except HfHubHTTPError as error:  # the hub's own answer
            answers.append(first_line(error))
        except (
            Exception
        ) as error:  # of the client's HTTP library, as the client's cause or as it is
            answers.append(first_line(error.__cause__ or error))

    logging.set_verbosity_error()  # it warns of every time that it tries again
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_S)
    if not answers:
        _given_up.append(f"no answer within {PROBE_S:g} s")
    return answers[0] if answers else _given_up[0]
