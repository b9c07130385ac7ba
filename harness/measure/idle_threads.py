"""How threads of OpenMP (torch's library for several cores) wait for work: they spin or sleep.

Threads that spin answer sooner but occupy a core. Beside other work on the machine, training with
them takes a multiple of the time.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping

POLICY_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a user chooses, the last two for GNU's and Intel's library."""

_OURS = "_HARNESS_IDLE_THREADS"
"""Environment variable that marks OMP_WAIT_POLICY as set by `let_idle_threads_sleep`."""


def let_idle_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let idle threads of this process sleep, unless the user has chosen how they wait.

    The library reads the environment when torch is imported; later, this does nothing.
    """
    if "torch" not in sys.modules and not chosen_policy(environment):
        environment.update({POLICY_VARIABLES[0]: "PASSIVE", _OURS: "sleep"})


def users_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment without what `let_idle_threads_sleep` added."""
    added = {_OURS, POLICY_VARIABLES[0]} if _OURS in environment else set()
    return {name: value for name, value in environment.items() if name not in added}


def chosen_policy(environment: Mapping[str, str]) -> str:
    """Return the variables that set how idle threads wait, as NAME=VALUE; empty without any."""
    return " ".join(
        f"{name}={environment[name]}" for name in POLICY_VARIABLES if environment.get(name)
    )
