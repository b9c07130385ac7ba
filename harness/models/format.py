"""Interface for saving models to folders and loading them."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from harness.models.multi_exit import MultiExitModel


class ModelFormat(Protocol):
    """Format of a model saved in a folder (safetensors and a config)."""

    def save_model(self, model: "MultiExitModel", folder: "Path") -> None:
        """Write the model to the folder."""
        ...

    def save_truncated(self, source: "Path", layers: int, folder: "Path") -> None:
        """Write the static model of the first `layers` layers of the saved model `source`."""
        ...

    def load_model(self, folder: "Path") -> "MultiExitModel":
        """Return the saved model in evaluation mode on the CPU."""
        ...

    def check_model(self, folder: "Path") -> None:
        """Check that the config of an untrusted folder describes its tensors.

        It does so before it allocates memory for the tensors.

        Raises: IncompleteError if the config does not describe the tensors.
        """
        ...
