"""A stage for tests of the stage cache, which draws a random model and counts its calls."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from baselines.encoders.encoder import EncoderModel, ModelConfig
from harness.data.dataset import TaskData
from harness.methods.stages import FreshFit, StageRun
from harness.models.backbones import Backbone
from harness.models.multi_exit import MultiExitModel
from harness.records import Training, WeightsReport


@dataclass(frozen=True)
class Drawing:
    """A stage that draws a random model, trains nothing, and counts its calls."""

    setting: float = 0.5
    name: str = "drawing"
    touch: str = ""
    """File to create when the fit begins."""
    until: str = ""
    """File to wait for, at most a minute."""
    revision: ClassVar[int] = 1
    calls: ClassVar[list["Call"]] = []

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        Drawing.calls.append(Call(parents, run, run.scratch.is_dir()))
        if self.touch:
            Path(self.touch).touch()
        give_up = time.monotonic() + 60
        while self.until and not Path(self.until).exists() and time.monotonic() < give_up:
            time.sleep(0.01)
        (run.scratch / "state").write_text("after an epoch")
        model = EncoderModel(
            ModelConfig(
                backbone.shape, backbone.pooling, data.task.classes, 1.0, (None, None, "plain")
            )
        )
        weights = None if parents else WeightsReport(3, ("left",), ("fresh",))
        return FreshFit(model, Training(len(data.train), 4, 0.5, 0.25, (0.5, 0.75), 2), weights)


@dataclass(frozen=True)
class Call:
    parents: tuple[MultiExitModel, ...]
    run: StageRun
    scratch_was_there: bool


def stage_folders(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "stages").iterdir() if path.is_dir())
