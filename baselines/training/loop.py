"""The training loop of all methods."""

import math
import pickle
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Self, TypedDict, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.training.recipe import Schedule
from harness.data.dataset import Split
from harness.data.tasks import Task
from harness.errors import IncompleteError
from harness.evaluation.metrics import METRICS
from harness.evaluation.trace import predictions
from harness.files.atomic import atomic_write
from harness.methods.compute import Compute
from harness.methods.stages import DivergedError, StageRun
from harness.models.batches import collate, shuffled_batches, sorted_batches
from harness.models.multi_exit import Batch, MultiExitModel
from harness.records import Training

EVALUATION_BATCH = 64


class Examples(NamedTuple):
    """A batch of training examples, on the device."""

    batch: Batch
    labels: Tensor
    """[n] class indices, or values in label units."""
    ids: NDArray[np.int64]
    """[n] ids of the examples, from `Split.ids`."""
    step: int = 0
    """Number of optimiser steps before this one, over all epochs."""

    @classmethod
    def of(cls, rows: Split, index: NDArray[np.int64], device: torch.device, step: int = 0) -> Self:
        """Return the examples at these indices of the split."""
        labels = torch.from_numpy(rows.labels[index]).to(device, torch.float32)
        return cls(collate(rows.tokens, index).to(device), labels, rows.ids[index], step)


Loss = Callable[[MultiExitModel, Examples], Tensor]
"""Loss to minimise, as a function of a model and a batch; it returns a scalar."""

M = TypeVar("M", bound=nn.Module)
"""The trained model: a multi-exit model, or one with parts that only training needs."""

Score = Callable[[MultiExitModel], float]
"""Score of a model by which the best epoch is chosen; higher is better."""


def train(
    model: M,
    loss: Callable[[M, Examples], Tensor],
    rows: Split | tuple[Split, ...],
    score: Callable[[M], float] | None,
    schedule: Schedule,
    run: StageRun,
    name: str = "train",
) -> Training:
    """Minimise `loss` and leave the weights of the best epoch in the model.

    Without a score these are the last epoch's. The model ends on the CPU in evaluation mode. Only
    parameters that require a gradient are trained. `rows` is one split for all epochs, or a tuple
    of equally large splits, one per epoch. After each epoch the whole state is written to the
    scratch folder, so that an interrupted stage resumes from there with equal results. A stage
    that trains twice gives each training a `name`.

    Raises: DivergedError that names the step if the loss is not finite; IncompleteError if the
    state cannot be written.
    """
    device, progress = run.compute.device, run.compute.progress
    accelerator = _accelerator(schedule, run)
    model.to(device)
    optimiser = _optimiser(model, schedule)
    parts = rows if isinstance(rows, tuple) else (rows,) * schedule.epochs
    steps = schedule.steps(len(parts[0]))
    factors = _factors(steps * schedule.epochs, schedule)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factors)
    state = _State(run.scratch / f"{name}.pt", model, optimiser, scheduler, run.compute)
    label = f"{run.label}, learning rate {schedule.learning_rate:g}"
    if state.epoch:
        progress.info(f"{label}: resuming after epoch {state.epoch} of {schedule.epochs}")
    with (
        progress.track(label, steps * schedule.epochs, done=state.epoch * steps) as advance,
        _tracking(accelerator),
    ):
        for epoch in range(state.epoch, schedule.epochs):
            started = time.perf_counter()
            model.train()
            losses: list[float] = []
            order = np.random.default_rng([run.seed, epoch])
            part = parts[epoch]
            for batch in shuffled_batches(part.tokens.lengths, schedule.batch_size, order):
                total, step = 0.0, epoch * steps + len(losses)
                for index in np.array_split(batch, min(schedule.accumulation, len(batch))):
                    with accelerator.autocast():
                        value = loss(model, Examples.of(part, index, device, step))
                    value = value * (len(index) / len(batch))
                    accelerator.backward(value)
                    total += float(value.detach())
                losses.append(_finite(total, run, epoch, len(losses) + 1, schedule))
                nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
                optimiser.step()
                scheduler.step()
                optimiser.zero_grad()
                advance(f"epoch {epoch + 1}/{schedule.epochs} loss {total:.3f}")
            selection = None
            if score is not None:
                with accelerator.autocast():
                    selection = score(model)
            state.finish_epoch(float(np.mean(losses)), selection, time.perf_counter() - started)
            logged = {"loss": state.losses[-1]}
            logged |= {} if selection is None else {"selection": selection}
            accelerator.log(logged, step=epoch + 1)
            values = ", ".join(f"{name} {value:.4f}" for name, value in logged.items())
            progress.debug(f"{label}: epoch {epoch + 1}: {values}")
    model.load_state_dict(state.best)
    model.to("cpu").eval()
    return state.report(len(np.unique(np.concatenate([part.ids for part in parts]))), steps)


class _SavedState(TypedDict):
    """Content of the file that holds a training's state."""

    model: dict[str, Tensor]
    optimiser: dict[str, object]
    schedule: dict[str, object]
    random: Tensor
    cuda: Tensor | None
    losses: list[float]
    selection: list[float]
    seconds: float
    best: dict[str, Tensor]


class _State:
    """Everything that the next epoch depends on, written to one file after each epoch."""

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        compute: Compute,
    ) -> None:
        self.path, self.model, self.optimiser, self.schedule = path, model, optimiser, schedule
        self.cuda = compute.device if compute.device.type == "cuda" else None
        self.losses: list[float] = []
        self.selection: list[float] = []
        self.seconds = 0.0
        self.best: dict[str, Tensor] = {}
        saved = _read_state(path)
        if saved is not None:
            self._restore(saved)
        elif path.is_file():
            compute.progress.info(
                f"{path} is damaged or from another version: training starts again"
            )

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.losses)

    def report(self, rows: int, steps: int) -> Training:
        """Return the report of a training with this many rows and steps per epoch."""
        best = self.selection.index(max(self.selection)) + 1 if self.selection else self.epoch
        return Training(
            rows,
            steps * self.epoch,
            round(self.seconds, 1),
            self.losses[-1],
            tuple(self.selection),
            best,
        )

    def finish_epoch(self, loss: float, selection: float | None, seconds: float) -> None:
        """Record an epoch and write the state.

        The epoch's weights are saved as the best if its score is, or if there is no score.
        """
        if selection is None or not self.selection or selection > max(self.selection):
            tensors = self.model.state_dict(keep_vars=True)
            # a tensor that several names share is copied once
            copies = {tensor: tensor.detach().cpu().clone() for tensor in set(tensors.values())}
            self.best = {name: copies[tensor] for name, tensor in tensors.items()}
        self.losses.append(loss)
        if selection is not None:
            self.selection.append(selection)
        self.seconds += seconds
        saved: _SavedState = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "cuda": None if self.cuda is None else torch.cuda.get_rng_state(self.cuda),
            "losses": self.losses,
            "selection": self.selection,
            "seconds": self.seconds,
            "best": self.best,
        }
        try:
            with atomic_write(self.path) as temporary:
                torch.save(saved, temporary)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise IncompleteError(
                f"cannot write the state after epoch {self.epoch}: {error}; is the disk full?"
            ) from None

    def _restore(self, saved: _SavedState) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        if self.cuda is not None and saved["cuda"] is not None:
            torch.cuda.set_rng_state(saved["cuda"], self.cuda)
        self.losses, self.selection = saved["losses"], saved["selection"]
        self.seconds, self.best = saved["seconds"], saved["best"]


def _read_state(path: Path) -> _SavedState | None:
    """Return the state saved in a file, or None if it is missing or cannot be read."""
    try:
        saved: _SavedState = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    return (
        saved
        if isinstance(saved, dict) and set(saved) == set(_SavedState.__annotations__)
        else None
    )


def _accelerator(schedule: Schedule, run: StageRun) -> Accelerator:
    accelerator = Accelerator(
        mixed_precision="bf16" if run.compute.precision == "bfloat16" else "no",
        cpu=run.compute.device.type == "cpu",
        log_with=run.compute.tracker,
        project_dir=str(run.scratch.parent.parent / "trackers"),
    )
    if run.compute.tracker:
        accelerator.init_trackers(re.sub(r"[^\w.-]+", "-", run.label), config=asdict(schedule))
    return accelerator


@contextmanager
def _tracking(accelerator: Accelerator) -> Iterator[None]:
    """Close the trackers however the training ends."""
    try:
        yield
    finally:
        accelerator.end_training()


def _optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """Return fused AdamW over the trained parameters, with weight decay on matrices only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": schedule.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=True)


def _factors(steps: int, schedule: Schedule) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step.

    It rises linearly from 0 over the warm-up, then stays or decays linearly to 0.
    """
    warmup_steps = max(round(steps * schedule.warmup), 1)
    return lambda step: min(
        (step + 1) / warmup_steps,
        (steps - step) / max(steps - warmup_steps, 1) if schedule.decay else 1.0,
    )


def _finite(loss: float, run: StageRun, epoch: int, number: int, schedule: Schedule) -> float:
    if not math.isfinite(loss):
        raise DivergedError(
            f"{run.stage}: the loss is {loss} at epoch {epoch + 1}, batch {number} with learning "
            f"rate {schedule.learning_rate:g}: try a smaller one (--set all.learning_rates=...)"
        )
    return loss


@torch.inference_mode()
def selection_score(
    model: MultiExitModel, rows: Split, task: Task, exits: list[int], device: torch.device
) -> float:
    """Return the task's main metric on the rows, averaged over these exits (indices from 0).

    The caller sets the precision. During training it is the training's, so rounding may decide
    between two epochs with nearly equal scores.

    Raises: DivergedError if a logit is not finite.
    """
    model.eval()
    batches = sorted_batches(rows.tokens.lengths, EVALUATION_BATCH)
    parts = [
        model(collate(rows.tokens, index).to(device)).logits.float().cpu().numpy()
        for index in batches
    ]
    logits = np.concatenate(parts, axis=1)[exits]  # [e, n, c]
    labels = rows.labels[np.concatenate(batches)]
    if not np.isfinite(logits).all():
        raise DivergedError(
            "the logits on selection are not finite: "
            "try a smaller learning rate (--set all.learning_rates=...)"
        )
    return float(METRICS[task.metrics[0]](predictions(logits).astype(np.float64), labels).mean())
