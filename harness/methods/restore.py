"""Find the backbone and the fitted model of a stored run."""

from pathlib import Path

from harness.errors import HarnessError, IncompleteError, NotComparableError
from harness.models.backbones import Backbone, find_backbone, listed_backbones
from harness.records import RunRecord
from harness.store.stage_cache import MODEL, stage_folder


def run_backbone(record: RunRecord, name: str) -> Backbone:
    """Return the run's backbone by its name or folder.

    Raises: HarnessError if it is a local folder that was not given and does not exist here.
    """
    if (
        name == record.spec.backbone
        and name not in listed_backbones()
        and "/" not in name
        and not Path(name).is_dir()
    ):
        raise HarnessError(
            f"run {record.short_id} uses the local folder {record.spec.backbone}: "
            "pass its path with --backbone FOLDER"
        )
    return find_backbone(name)


def model_folder(record: RunRecord, cache: Path) -> Path:
    """Return the folder of the run's model.

    Raises: IncompleteError if the model is no longer cached.
    """
    folder = stage_folder(cache, record.stages[-1].report.key) / MODEL
    if not folder.is_dir():
        advice = (
            "if it was fitted with another --cache-dir, give that one; else fit it again by "
            "harness run with its options and a new --results-dir"
        )
        raise IncompleteError(f"the model of run {record.short_id} is not in {cache}: {advice}")
    return folder


def check_fingerprint(what: str, got: str, expected: str, record: RunRecord) -> None:
    """Raise NotComparableError if a fingerprint differs from the run's."""
    if got != expected:
        raise NotComparableError(
            f"{what} has fingerprint {got}, but run {record.short_id} used {expected}: "
            f"give the same {what} as in the run"
        )
