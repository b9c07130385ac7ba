"""How torch's idle threads wait for work.

By default OpenMP's threads spin. Beside another busy process each then waits for a core that a spinning thread holds: an epoch of
fine-tuning on two shared cores took 45 to 77 s so, and 12 to 14 s with threads that sleep; on a quiet machine sleeping cost 7 %.
"""

import os

_NAME, _OURS = "OMP_WAIT_POLICY", "passive"
"""In lower case, which OpenMP takes as well, so that it can be told from a user's own PASSIVE."""


def sleep_when_idle() -> None:
    """Let idle threads sleep, unless the user has said otherwise. To be called before torch is imported."""
    os.environ.setdefault(_NAME, _OURS)


def users_environment() -> dict[str, str]:
    """The environment without that: the clock runs under the library's default, or what the user has said."""
    return {name: value for name, value in os.environ.items() if (name, value) != (_NAME, _OURS)}
