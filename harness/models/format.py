"""How a model is kept in a folder."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from harness.models.multi_exit import MultiExitModel


class ModelFormat(Protocol):
    """How a model is kept in a folder (safetensors and a config)."""

    def save_model(self, model: "MultiExitModel", folder: "Path") -> None:
        """Write the model."""
        ...

    def load_model(self, folder: "Path") -> "MultiExitModel":
        """Read it back, in evaluation mode, on the CPU."""
        ...

    def check_model(self, folder: "Path") -> None:
        """Of a folder from elsewhere: whether its config describes its tensors, found out before anything of their size is made.

        Raises: IncompleteError when it does not.
        """
        ...
