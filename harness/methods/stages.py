"""A content-addressed cache of fitted stages: a teacher is trained once and used by many, an interruption costs one epoch."""

import hashlib
import json
import random
import shutil
from dataclasses import Field, asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch

from harness.data.corpus import Corpus
from harness.data.dataset import TaskData
from harness.errors import IncompleteError
from harness.files.locks import held
from harness.files.typed_json import from_json, to_json
from harness.methods.compute import Compute
from harness.models.backbones import Backbone
from harness.models.format import ModelFormat
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import hashed
from harness.records import StageReport, StageUse, Training, Trial, WeightsReport
from harness.store.stage_cache import (
    DIVERGED,
    MODEL,
    STORED,
    WANTED,
    Stored,
    stage_folder,
    stage_lock,
    stage_scratch,
    unfinished_stage,
)

SEARCH_SEED = 1
"""Hyper-parameters are searched with this seed, whatever the run's, so that all seeds of a cell use the same ones."""

PRETRAINING_SEED = 1
"""Stages that read the corpus have this seed, so that they run once for all tasks and seeds."""

MODELS_WRITTEN = 2 * (1 + 2 + 1) + 1
"""Free disk space that a stage asks for, in times its backbone: after an epoch the state (the model, AdamW's two moments, the best epoch)
stands beside the one before it, and the fitted model comes to them."""

SPARE_BYTES = 2**28
"""The same for all else: positions, biases, exits, logs."""


@dataclass(frozen=True)
class StageRun:
    """What a stage is given to fit with."""

    compute: Compute
    cell: str
    """For progress lines."""
    stage: str
    """For progress lines and errors."""
    seed: int
    """Of this stage alone: drawn from the run's seed and the stage's key."""
    scratch: Path
    """A folder for the state after each epoch; it goes when the stage is finished."""

    @property
    def label(self) -> str:
        """Cell and stage."""
        return f"{self.cell}: {self.stage}"


@dataclass(frozen=True)
class FreshFit:
    """What `Stage.fit` returns."""

    model: MultiExitModel
    training: Training
    weights: WeightsReport | None = None
    """Of the pretrained checkpoint, where the stage loaded one."""


class Stage(Protocol):
    """A frozen dataclass whose fields are the settings of one piece of training."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    """What `dataclasses.asdict` asks for."""

    @property
    def name(self) -> str:
        """Stable name, part of the key."""
        ...

    @property
    def revision(self) -> int:
        """Raised when the same settings may give other results."""
        ...

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Train. The parents' models are this call's own copies."""
        ...


class DivergedError(IncompleteError):
    """A training whose loss is no longer finite."""


@dataclass(frozen=True)
class FittedStage:
    """A stage in the cache. Its model is read when somebody asks for it."""

    folder: Path
    reused: bool
    parents: tuple["FittedStage", ...]
    stored: Stored
    formats: ModelFormat

    @property
    def key(self) -> str:
        """The stage's content address."""
        return self.stored.report.key

    @property
    def model_folder(self) -> Path:
        """Where the model is."""
        return self.folder / MODEL

    @cached_property
    def model(self) -> MultiExitModel:
        """The fitted model in evaluation mode, on the CPU."""
        return self.formats.load_model(self.model_folder)

    def drop_model(self) -> None:
        """Keep the report alone, unless some run uses the model."""
        with held(stage_lock(self.folder)):
            if not (self.folder / WANTED).exists() and self.model_folder.is_dir():
                away = self.folder / ".dropped"
                self.model_folder.replace(away)
                shutil.rmtree(away, ignore_errors=True)

    def uses(self) -> tuple[StageUse, ...]:
        """This stage and all before it, in the order they ran, each once."""
        before = [use for parent in self.parents for use in parent.uses()]
        own = StageUse(self.stored.report, self.reused)
        return tuple({use.report.key: use for use in (*before, own)}.values())

    def weights(self) -> WeightsReport:
        """The report of the pretrained weights that this stage or the first before it loaded."""
        return self.stored.weights or self.parents[0].weights()


@dataclass(frozen=True)
class Fitted:
    """What `Method.fit` returns."""

    stage: FittedStage
    """The last stage."""
    trials: tuple[Trial, ...] = ()
    """Hyper-parameters that were searched."""
    also: tuple[FittedStage, ...] = ()
    """Stages that had a part in it without being the last one's ancestors: who made training rows."""
    remarks: tuple[str, ...] = ()
    """What could not be done as the method's settings say."""

    def uses(self) -> tuple[StageUse, ...]:
        """All stages in the order they ran, each once."""
        every = [use for stage in (*self.also, self.stage) for use in stage.uses()]
        return tuple({use.report.key: use for use in every}.values())


@dataclass(frozen=True)
class FitContext:
    """The circumstances of a run: seed and device come from outside."""

    seed: int
    compute: Compute
    cache: Path
    """Folder of the stages."""
    formats: ModelFormat
    label: str = ""
    """The cell, for progress lines."""
    corpus: Corpus = field(default_factory=Corpus)
    """What pre-training stages read."""
    vectors: Path | None = None
    """A file of word vectors for augmentation, in GloVe's format; None: the backbone's own input embeddings."""

    def at_seed(self, seed: int) -> "FitContext":
        """The same circumstances with another seed: for a search, or for a pre-training that all seeds share."""
        return (
            self
            if seed == self.seed
            else replace(self, seed=seed, label=f"{self.label} (at seed {seed})")
        )

    def fitted(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...] = (),
    ) -> FittedStage:
        """Fit a stage, or reuse it when one with the same key is in the cache; one process fits, others wait for it.

        Raises: IncompleteError when the disk is too full to fit it; DivergedError when the loss is not finite.
        """
        return self._reached(stage, data, backbone, parents, wanted=True)

    def pretrained(
        self,
        stage: Stage,
        backbone: Backbone,
        max_length: int,
        parents: tuple[FittedStage, ...] = (),
    ) -> FittedStage:
        """Fit a stage on the corpus, whatever the run's task and seed, or reuse it.

        Raises: what `fitted` raises; HarnessError for a corpus that cannot be read.
        """
        data = self.corpus.encoded(backbone.encode, max_length)
        return self.at_seed(PRETRAINING_SEED).fitted(stage, data, backbone, parents)

    def tried(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...] = (),
    ) -> FittedStage | None:
        """Like `fitted`, for a search: of a stage in the cache the report is enough. None when the loss was not finite."""
        try:
            return self._reached(stage, data, backbone, parents, wanted=False)
        except DivergedError as error:
            self.compute.progress.debug(f"{self.label}: {error}")
            return None

    def _reached(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...],
        wanted: bool,
    ) -> FittedStage:
        key = self.key(stage, data, backbone, parents)
        folder = stage_folder(self.cache, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        waiting = partial(
            self.compute.progress.info,
            f"{self.label}: {stage.name}: another process is fitting it; waiting",
        )
        with held(stage_lock(folder), waiting):
            if (folder / DIVERGED).is_file():
                raise DivergedError((folder / DIVERGED).read_text(encoding="utf-8"))
            reused = (folder / STORED).is_file() and ((folder / MODEL).is_dir() or not wanted)
            if not reused:
                self._fit(stage, data, backbone, parents, folder)
            shutil.rmtree(stage_scratch(folder), ignore_errors=True)
            if wanted:
                (folder / WANTED).touch()
        stored = from_json(Stored, (folder / STORED).read_text(encoding="utf-8"), f"stage {key}")
        return FittedStage(folder, reused, parents, stored, self.formats)

    def key(
        self, stage: Stage, data: TaskData, backbone: Backbone, parents: tuple[FittedStage, ...]
    ) -> str:
        """Hash of everything that the result of a stage depends on."""
        parts = {
            "stage": stage.name,
            "revision": stage.revision,
            "settings": hashed(stage),
            "parents": [parent.key for parent in parents],
            "data": data.fingerprint,
            "backbone": backbone.fingerprint,
            "seed": self.seed,
            "precision": self.compute.precision,
            "device": self.compute.device.type,
            "threads": self.compute.threads,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _fit(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...],
        folder: Path,
    ) -> None:
        self._check_disk(backbone)
        scratch, unfinished = stage_scratch(folder), unfinished_stage(folder)
        shutil.rmtree(unfinished, ignore_errors=True)
        for place in (scratch, unfinished / MODEL):
            place.mkdir(parents=True, exist_ok=True)
        seed = seed_all(self.seed, folder.name)
        copies = tuple(self.formats.load_model(parent.model_folder) for parent in parents)
        try:
            fresh = stage.fit(
                copies,
                data,
                backbone,
                StageRun(self.compute, self.label, stage.name, seed, scratch),
            )
        except DivergedError as error:
            shutil.rmtree(unfinished / MODEL)
            (unfinished / DIVERGED).write_text(str(error), encoding="utf-8")
            unfinished.replace(folder)
            shutil.rmtree(scratch)
            raise
        report = StageReport(**asdict(fresh.training), name=stage.name, key=folder.name)
        self.formats.save_model(fresh.model, unfinished / MODEL)
        (unfinished / STORED).write_text(to_json(Stored(report, fresh.weights)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # a report without its model
        unfinished.replace(folder)

    def _check_disk(self, backbone: Backbone) -> None:
        """Raises: IncompleteError when there is less room than a stage writes."""
        shape = backbone.shape
        layers = (4 * shape.hidden**2 + 2 * shape.hidden * max(shape.ffn)) * (
            1 if shape.shared_layers else shape.layers
        )
        needed = (
            MODELS_WRITTEN * 4 * (shape.vocabulary * shape.embedding_width + layers) + SPARE_BYTES
        )
        free = shutil.disk_usage(self.cache).free
        if free < needed:
            raise IncompleteError(
                f"the cache folder's disk has {free / 1e9:.1f} GB free, a stage needs {needed / 1e9:.1f} GB: "
                "make room or give another --cache-dir"
            )


def seed_all(seed: int, key: str) -> int:
    """Seed Python, numpy and torch from a run's seed and a stage's key; returns the seed drawn."""
    drawn = int(hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()[:8], 16)
    random.seed(drawn)
    np.random.seed(drawn)
    torch.manual_seed(drawn)
    return drawn
