"""What happens when a command starts."""

import subprocess
import sys


def test_threads_sleep_before_torch_is_imported() -> None:
    """torch reads the wait policy when it is imported, so that `run` must set it before."""
    code = """
import sys
from harness.measure import idle_threads
from harness.__main__ import main

def record():
    print("torch" in sys.modules)

idle_threads.let_idle_threads_sleep = record
main(["run", "--tasks", "no-such-task", "--methods", "bert"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", done
