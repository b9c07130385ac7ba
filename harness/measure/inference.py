"""Inference with a fitted model.

`collect` records the logits of all exits in one pass. `predict_early` removes examples from the
batch as they exit.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.dataset import Split
from harness.evaluation.trace import Floats, Trace
from harness.models.batches import collate, sorted_batches
from harness.models.multi_exit import Batch, MultiExitModel, State
from harness.progress import Progress


@torch.inference_mode()
def collect(
    model: MultiExitModel,
    split: Split,
    batch_size: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Trace:
    """Return the logits of every exit for every example, in the data's order.

    They are computed in float32 in one pass over batches of examples of similar length; batching
    affects only float rounding.
    """
    model = model.to(device).eval()
    lengths = split.tokens.lengths
    batches = sorted_batches(lengths, batch_size)
    logits: NDArray[np.float32] | None = None
    with (progress or Progress(-1)).track("tracing", len(batches)) as advance:
        for indices in batches:
            outputs = model(collate(split.tokens, indices).to(device)).logits.float().cpu().numpy()
            if logits is None:
                logits = np.empty((len(outputs), len(split), outputs.shape[-1]), dtype=np.float32)
            logits[:, indices] = outputs
            advance()
    assert logits is not None, "a split has at least one example"
    return Trace(
        split.ids, logits, split.labels, lengths, np.array(model.exit_layers, dtype=np.int64)
    )


class ExitScore(Protocol):
    """The part of an exit policy that early exit needs."""

    def score(self, seen: Floats) -> NDArray[np.float64]:
        """Return the score [n] at the last of the exits whose logits [e', n, c] are given."""
        ...


class EarlyPredictions(NamedTuple):
    """Predictions of early exit."""

    logits: Tensor
    """[n, c] logits at the exit that each example took."""
    exits: Tensor
    """[n] index of that exit, from 0."""


@torch.inference_mode()
def predict_early(
    model: MultiExitModel, batch: Batch, policy: ExitScore, score_threshold: float
) -> EarlyPredictions:
    """Predict each example at the first exit where the policy's score exceeds `score_threshold`.

    Examples that have exited run no further layers, and each example's decision is independent of
    the others. Decisions use the same numpy code as on a trace.
    """
    state = model.embed(batch)
    active = torch.arange(len(batch.ids), device=batch.ids.device)
    exits = torch.empty_like(active)
    predicted: Tensor | None = None
    last = len(model.layers) - 1
    for index, layer in enumerate(model.layers):
        state = state.after(layer(state.hiddens[-1], state.context), model.lookback)
        exit_head = model.exit_after(index)
        if exit_head is None:
            continue
        logits = exit_head(state)
        state = state.with_logits(logits)
        if predicted is None:
            predicted = torch.empty_like(logits)
        exiting = _exiting(state, policy, score_threshold) if index < last else None
        if exiting is None or exiting.all():
            predicted[active], exits[active] = logits, len(state.logits) - 1
            break
        if exiting.any():
            exited, remaining = (
                torch.from_numpy(np.flatnonzero(part)).to(active.device)
                for part in (exiting, ~exiting)
            )
            predicted[active[exited]] = logits[exited]
            exits[active[exited]] = len(state.logits) - 1
            state, active = state.rows(remaining), active[remaining]
    assert predicted is not None, "the last layer has an exit"
    return EarlyPredictions(predicted, exits)


def _exiting(state: State, policy: ExitScore, score_threshold: float) -> NDArray[np.bool_]:
    """Return [n] whether each example exits at the exit that has just run."""
    seen = torch.stack(state.logits).float().cpu().numpy()
    exceeded: NDArray[np.bool_] = policy.score(seen) > score_threshold
    return exceeded
