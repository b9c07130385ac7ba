"""Device, precision and threads of the computation."""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from harness.errors import HarnessError, unknown
from harness.progress import Progress


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
    """Build a `Compute` from command-line options; `threads` None means all usable cores.

    Raises: HarnessError if the device or the tracker is not available.
    """
    if tracker is not None:
        _check_tracker(tracker)
    resolved = resolve_device(device)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Compute(
        resolved,
        resolve_precision(precision, resolved),
        threads or usable or 1,
        Progress(verbosity),
        tracker,
    )


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
        return {"fp32": "float32", "bf16": "bfloat16"}[name]
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8") if info.is_file() else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
