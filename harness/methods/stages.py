"""Fit stages through a content-addressed cache.

A teacher is trained once and shared, and an interruption costs one epoch.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import Field, asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch

from harness.data.corpus import Corpus
from harness.data.dataset import TaskData
from harness.errors import IncompleteError
from harness.files.atomic import hold_lock
from harness.files.digests import written_fields
from harness.files.typed_json import to_json
from harness.methods.compute import Compute
from harness.models.backbones import Backbone
from harness.models.format import ModelFormat
from harness.models.multi_exit import MultiExitModel
from harness.records import StageReport, StageUse, Training, Trial, WeightsReport
from harness.store.stage_cache import (
    DIVERGED,
    MODEL,
    STORED,
    WANTED,
    Stored,
    is_fitted,
    read_stored,
    stage_folder,
    stage_lock,
    stage_scratch,
    unfinished_stage,
)

SEARCH_SEED = 1
"""Seed of every hyper-parameter search, so that all seeds of a cell use the same values."""

PRETRAINING_SEED = 1
"""Seed of stages that read the corpus, so that they run once for all tasks and seeds."""

MODELS_WRITTEN = 2 * (1 + 2 + 1) + 1
"""Free disk space that a stage needs, in multiples of its backbone's size.

Two saved states (model, AdamW's two moments, best epoch) exist at the end of an epoch, and the
fitted model is added to them."""

SPARE_BYTES = 2**28
"""Further free space for positions, biases, exits and logs."""


@dataclass(frozen=True)
class StageRun:
    """Conditions under which a stage is fitted: device, seed, labels and scratch folder."""

    compute: Compute
    cell: str
    """Label of the cell, for progress lines."""
    stage: str
    """Name of the stage, for progress lines and errors."""
    seed: int
    """Seed of this stage, derived from the run's seed and the stage's key."""
    scratch: Path
    """Folder for the state after each epoch, removed when the stage is finished."""

    @property
    def label(self) -> str:
        """Return the cell and the stage, for progress lines."""
        return f"{self.cell}: {self.stage}"


@dataclass(frozen=True)
class FreshFit:
    """A model that a stage has just fitted, with its reports."""

    model: MultiExitModel
    training: Training
    weights: WeightsReport | None = None
    """Report of the pretrained weights, if the stage loaded any."""


class Stage(Protocol):
    """A frozen dataclass whose fields are the settings of one training stage."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]
    """Required by `dataclasses.asdict`."""

    @property
    def name(self) -> str:
        """Return the stage's stable name, which is part of its key."""
        ...

    @property
    def revision(self) -> int:
        """Return the revision, which is raised when the same settings may give other results."""
        ...

    def examples(self, rows: int) -> int:
        """Return how many examples training on `rows` rows goes through, repeated ones included.

        The number serves to estimate times; it is 0 for a stage that trains nothing.
        """
        ...

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Train and return the model. The parents are copies that the stage may change."""
        ...


class DivergedError(IncompleteError):
    """Training diverged: a loss or prediction is not finite."""


@dataclass(frozen=True)
class FittedStage:
    """A stage in the cache, whose model is loaded on first use."""

    folder: Path
    reused: bool
    parents: tuple["FittedStage", ...]
    stored: Stored
    formats: ModelFormat

    @property
    def key(self) -> str:
        """Return the stage's content address."""
        return self.stored.report.key

    @property
    def model_folder(self) -> Path:
        """Return the folder of the model."""
        return self.folder / MODEL

    @cached_property
    def model(self) -> MultiExitModel:
        """Return the fitted model in evaluation mode, on the CPU."""
        return self.formats.load_model(self.model_folder)

    def drop_model(self) -> None:
        """Delete the model but keep the report, unless some run uses the model."""
        with hold_lock(stage_lock(self.folder)):
            if not (self.folder / WANTED).exists() and self.model_folder.is_dir():
                dropped = self.folder / ".dropped"
                self.model_folder.replace(dropped)
                shutil.rmtree(dropped, ignore_errors=True)

    def uses(self) -> tuple[StageUse, ...]:
        """Return this stage and its ancestors, in the order they ran, each once."""
        before = [use for parent in self.parents for use in parent.uses()]
        own = StageUse(self.stored.report, self.reused)
        return tuple({use.report.key: use for use in (*before, own)}.values())

    def weights(self) -> WeightsReport:
        """Return the report of the weights that this stage or its first ancestor loaded."""
        return self.stored.weights or self.parents[0].weights()


@dataclass(frozen=True)
class Fitted:
    """The result of `Method.fit`."""

    stage: FittedStage
    """The last stage."""
    trials: tuple[Trial, ...] = ()
    """Trials of the hyper-parameter searches."""
    contributing: tuple[FittedStage, ...] = ()
    """Contributing stages that are not ancestors of the last one: those that made training rows."""
    remarks: tuple[str, ...] = ()
    """Departures from the method's settings that could not be avoided."""

    def uses(self) -> tuple[StageUse, ...]:
        """Return all stages in the order they ran, each once."""
        uses = [use for stage in (*self.contributing, self.stage) for use in stage.uses()]
        return tuple({use.report.key: use for use in uses}.values())


class FitObserver:
    """Told which stages a fit needs; this one does nothing."""

    @contextmanager
    def fitting(self, key: str, resumed: bool) -> Iterator[str]:
        """Surround the fit of a stage, and yield the label of its progress.

        `resumed`: a part of the stage was fitted before.
        """
        yield ""

    def found(self, key: str) -> None:
        """Note that a stage is in the cache."""


@dataclass(frozen=True)
class FitContext:
    """Everything that `Method.fit` is given about the run: seed, device, cache and inputs."""

    seed: int
    compute: Compute
    cache: Path
    """The cache folder."""
    formats: ModelFormat
    label: str = ""
    """Label of the cell, for progress lines."""
    corpus: Corpus = field(default_factory=Corpus)
    """Corpus that pre-training stages read."""
    vectors: Path | None = None
    """File of word vectors for augmentation, in GloVe's format; None: the backbone's embeddings."""
    observer: FitObserver = field(default_factory=FitObserver)
    is_plan: ClassVar[bool] = False
    """Whether `fitted` only plans and its stages have no models."""

    def with_seed(self, seed: int) -> "FitContext":
        """Return this context with another seed, for searches and shared pre-training."""
        return (
            self
            if seed == self.seed
            else replace(self, seed=seed, label=f"{self.label} (seed {seed})")
        )

    def fitted(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...] = (),
    ) -> FittedStage:
        """Fit a stage, or reuse the one with the same key from the cache.

        One process fits; others that need the same stage wait for it.

        Raises: IncompleteError if the disk is too full; DivergedError if the loss is not finite.
        """
        return self._fit_or_reuse(stage, data, backbone, parents, needs_model=True)

    def pretrained(
        self,
        stage: Stage,
        backbone: Backbone,
        max_length: int,
        parents: tuple[FittedStage, ...] = (),
    ) -> FittedStage:
        """Fit or reuse a stage on the corpus, independently of the run's task and seed.

        Raises: the errors of `fitted`; HarnessError if the corpus cannot be read.
        """
        data = self.corpus.encoded(backbone.encode, max_length)
        return self.with_seed(PRETRAINING_SEED).fitted(stage, data, backbone, parents)

    def try_fit(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...] = (),
    ) -> FittedStage | None:
        """Fit or reuse a stage for a search, where a cached report without its model is enough.

        Return None if the loss was not finite.
        """
        try:
            return self._fit_or_reuse(stage, data, backbone, parents, needs_model=False)
        except DivergedError as error:
            self.compute.progress.debug(f"{self.label}: {error}")
            return None

    def _fit_or_reuse(
        self,
        stage: Stage,
        data: TaskData,
        backbone: Backbone,
        parents: tuple[FittedStage, ...],
        needs_model: bool,
    ) -> FittedStage:
        key = self.key(stage, data, backbone, parents)
        folder = stage_folder(self.cache, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        report_waiting = partial(
            self.compute.progress.info,
            f"{self.label}: {stage.name}: waiting for another process to fit it",
        )
        with hold_lock(stage_lock(folder), report_waiting):
            if (folder / DIVERGED).is_file():
                raise DivergedError((folder / DIVERGED).read_text(encoding="utf-8"))
            reused = is_fitted(folder, needs_model)
            if reused:
                self.observer.found(key)
            else:
                self._fit(stage, data, backbone, parents, folder)
            shutil.rmtree(stage_scratch(folder), ignore_errors=True)
            if needs_model:
                (folder / WANTED).touch()
        return FittedStage(folder, reused, parents, read_stored(folder), self.formats)

    def key(
        self, stage: Stage, data: TaskData, backbone: Backbone, parents: tuple[FittedStage, ...]
    ) -> str:
        """Return the hash of everything that the result of a stage depends on."""
        parts = {
            "stage": stage.name,
            "revision": stage.revision,
            "settings": written_fields(stage),
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
        resumed = scratch.is_dir() and any(scratch.iterdir())
        shutil.rmtree(unfinished, ignore_errors=True)
        for new_folder in (scratch, unfinished / MODEL):
            new_folder.mkdir(parents=True, exist_ok=True)
        seed = seed_all(self.seed, folder.name)
        copies = tuple(self.formats.load_model(parent.model_folder) for parent in parents)
        try:
            with self.observer.fitting(folder.name, resumed) as label:
                compute = replace(self.compute, progress=self.compute.progress.labelled(label))
                run = StageRun(compute, self.label, stage.name, seed, scratch)
                fresh = stage.fit(copies, data, backbone, run)
        except DivergedError as error:
            shutil.rmtree(unfinished / MODEL)
            (unfinished / DIVERGED).write_text(str(error), encoding="utf-8")
            unfinished.replace(folder)
            shutil.rmtree(scratch)
            raise
        report = StageReport(**asdict(fresh.training), name=stage.name, key=folder.name)
        self.formats.save_model(fresh.model, unfinished / MODEL)
        (unfinished / STORED).write_text(to_json(Stored(report, fresh.weights)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # may hold a report without a model
        unfinished.replace(folder)

    def _check_disk(self, backbone: Backbone) -> None:
        """Raise IncompleteError if the disk has less free space than a stage writes."""
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
                f"the disk of the cache folder has {free / 1e9:.1f} GB free, a stage needs "
                f"{needed / 1e9:.1f} GB: free some space or use another --cache-dir"
            )


def seed_all(seed: int, key: str) -> int:
    """Seed Python, numpy and torch from a run's seed and a stage's key; return the derived seed."""
    derived = int(hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()[:8], 16)
    random.seed(derived)
    np.random.seed(derived)
    torch.manual_seed(derived)
    return derived
