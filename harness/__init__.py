"""Accuracy, FLOPs and measured latency of early-exit and compressed encoders, all in one tool.

The names in `__all__` are the Python interface; each is loaded when it is first used. Type checkers
read them in `__init__.pyi`.
"""

from importlib import import_module

__version__ = "0.1.0"

_MODULES = {
    "Backbone": "harness.models.backbones",
    "HarnessError": "harness.errors",
    "Method": "harness.methods.protocol",
    "MultiExitModel": "harness.models.multi_exit",
    "Policy": "harness.evaluation.policies",
    "Results": "harness.api",
    "RunRecord": "harness.records",
    "Task": "harness.data.tasks",
    "Trace": "harness.evaluation.trace",
    "compare": "harness.api",
    "load_model": "harness.api",
    "load_results": "harness.api",
    "plot": "harness.api",
    "run": "harness.api",
}
"""Public name -> the module that defines it."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    found = getattr(import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
