"""The backbone and the fitted model of a stored run."""

from pathlib import Path

from harness.errors import HarnessError, IncompleteError, NotComparableError
from harness.models.backbones import Backbone, find_backbone, listed_backbones
from harness.records import RunRecord
from harness.store.stage_cache import MODEL, stage_folder


def run_backbone(record: RunRecord, name: str) -> Backbone:
    """The run's backbone, by its name or folder.

    Raises: HarnessError when it is a local folder that was not given and is not here.
    """
    if (
        name == record.spec.backbone
        and name not in listed_backbones()
        and "/" not in name
        and not Path(name).is_dir()
    ):
        raise HarnessError(
            f"run {record.run_id} is on the local folder {record.spec.backbone}: give it as --backbone FOLDER"
        )
    return find_backbone(name)


def model_folder(record: RunRecord, cache: Path) -> Path:
    """Where the run's model is.

    Raises: IncompleteError when it is no longer cached.
    """
    folder = stage_folder(cache, record.stages[-1].report.key) / MODEL
    if not folder.is_dir():
        advice = (
            "harness run with its options, this --cache-dir and another --results-dir fits it again"
        )
        raise IncompleteError(f"the model of run {record.run_id} is not in {cache}: {advice}")
    return folder


def check_same(what: str, got: str, wanted: str, record: RunRecord) -> None:
    """Raises: NotComparableError when they differ."""
    if got != wanted:
        raise NotComparableError(f"{what} {got} is not that of run {record.run_id}, {wanted}")
