"""Device, precision and threads of the computation."""

import math
import os
import platform
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from harness.errors import HarnessError, unknown
from harness.progress import Progress
from harness.records import PRECISION_OPTIONS

CGROUPS, PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self")
"""Folders in which Linux describes control groups and this process."""


def device_name(device: torch.device) -> str:
    """Return the name of the accelerator, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Compute:
    """Device, precision, threads, progress and tracker of a run."""

    device: torch.device
    precision: str
    """float32, or bfloat16 for autocast in training."""
    threads: int
    progress: Progress = field(default_factory=lambda: Progress(-1))
    tracker: str | None = None
    """Name of an accelerate tracker (tensorboard, wandb, ...)."""

    def autocast(self) -> torch.autocast:
        """Return the autocast context of training, for code outside the training loop."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )


def make_compute(
    device: str, precision: str, threads: int | None, verbosity: int, tracker: str | None = None
) -> Compute:
    """Build a `Compute` from command-line options; `threads` None means `default_threads`.

    Raises: HarnessError if the device or the tracker is not available.
    """
    if tracker is not None:
        _check_tracker(tracker)
    resolved = resolve_device(device)
    return Compute(
        resolved,
        resolve_precision(precision, resolved),
        threads or default_threads(),
        Progress(verbosity),
        tracker,
    )


def default_threads() -> int:
    """Return OMP_NUM_THREADS if it is set, else the number of cores that this process may use.

    The cores are limited by the process's affinity (taskset) and by a container's CPU quota.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(math.ceil(min(cores or 1, _quota())), 1)


def _quota() -> float:
    """Return the cores that the CPU quota of a container or job allows; infinity without one.

    Each control group from the process's own up to the root may have a quota (cgroup version 2).
    """
    try:
        lines = (PROCESS / "cgroup").read_text(encoding="ascii").splitlines()
        own = [line.removeprefix("0::/") for line in lines if line.startswith("0::")]
    except (OSError, UnicodeDecodeError):
        own = []
    paths = [path for name in own for path in (Path(name), *Path(name).parents)]
    groups = {CGROUPS, *(CGROUPS / path for path in paths)}
    quotas = [math.inf]
    for group in groups:
        with suppress(OSError, ValueError, ZeroDivisionError):  # no file, or "max" for no quota
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            quotas.append(int(quota) / int(period))
    return min(quotas)


def _check_tracker(name: str) -> None:
    """Raise for an unavailable tracker, which Accelerate would silently leave out."""
    known = [kind.value for kind in LoggerType if kind is not LoggerType.ALL]
    if name not in known:
        raise unknown("--tracker", name, known)
    if name not in [str(getattr(kind, "value", kind)) for kind in get_available_trackers()]:
        raise HarnessError(f"--tracker {name} is not installed: install it with pip")


def resolve_device(name: str) -> torch.device:
    """Return the named device; `auto` is the accelerator if there is one, else the CPU.

    Raises: HarnessError if the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise HarnessError("--device cuda: torch finds no CUDA device: use --device cpu or auto")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """Return the named precision; `auto` is bfloat16 on hardware that supports it, else float32."""
    if name != "auto":
        return {option: precision for precision, option in PRECISION_OPTIONS.items()}[name]
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8") if info.is_file() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
