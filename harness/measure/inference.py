"""Running a fitted model: one pass for the trace, and early answers with rows that really leave."""

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
    """The logits of every exit on every row, in the data's order, computed in float32 in one pass.

    Batches hold rows of similar length; the result does not depend on them beyond float rounding.
    """
    model = model.to(device).eval()
    lengths = split.tokens.lengths
    batches = sorted_batches(lengths, batch_size)
    logits: NDArray[np.float32] | None = None
    with (progress or Progress(-1)).track("tracing", len(batches)) as advance:
        for rows in batches:
            answers = model(collate(split.tokens, rows).to(device)).logits.float().cpu().numpy()
            if logits is None:
                logits = np.empty((len(answers), len(split), answers.shape[-1]), dtype=np.float32)
            logits[:, rows] = answers
            advance()
    assert logits is not None, "a split has at least one row"
    return Trace(
        split.ids, logits, split.labels, lengths, np.array(model.exit_layers, dtype=np.int64)
    )


class ExitScore(Protocol):
    """What early answering needs of a policy."""

    def score(self, seen: Floats) -> NDArray[np.float64]:
        """Sureness [n] at the last of the exits seen [e', n, c]."""
        ...


class EarlyPredictions(NamedTuple):
    """What early exit answered."""

    logits: Tensor
    """[n, c] of the exit at which each row left."""
    exits: Tensor
    """[n] index of that exit, from 0."""


@torch.inference_mode()
def predict_early(
    model: MultiExitModel, batch: Batch, policy: ExitScore, cut: float
) -> EarlyPredictions:
    """Answer each row at the first exit where the policy's score exceeds `score_threshold`; rows that have left run no further layer.

    Decisions are the policy's numpy lines, the same that run on a trace. Each row decides for itself.
    """
    state = model.embed(batch)
    open_rows = torch.arange(len(batch.ids), device=batch.ids.device)
    exits = torch.empty_like(open_rows)
    answers: Tensor | None = None
    last = len(model.layers) - 1
    for index, layer in enumerate(model.layers):
        state = state.after(layer(state.hiddens[-1], state.context), model.lookback)
        leave = model.exit_after(index)
        if leave is None:
            continue
        logits = leave(state)
        state = state.answered(logits)
        if answers is None:
            answers = torch.empty_like(logits)
        leaving = _leaving(state, policy, cut) if index < last else None
        if leaving is None or leaving.all():
            answers[open_rows], exits[open_rows] = logits, len(state.logits) - 1
            break
        if leaving.any():
            gone, stays = (
                torch.from_numpy(np.flatnonzero(part)).to(open_rows.device)
                for part in (leaving, ~leaving)
            )
            answers[open_rows[gone]], exits[open_rows[gone]] = logits[gone], len(state.logits) - 1
            state, open_rows = state.rows(stays), open_rows[stays]
    assert answers is not None, "the last layer has an exit"
    return EarlyPredictions(answers, exits)


def _leaving(state: State, policy: ExitScore, cut: float) -> NDArray[np.bool_]:
    """[n] whether each row is sure enough at the exit that has just answered."""
    seen = torch.stack(state.logits).float().cpu().numpy()
    sure: NDArray[np.bool_] = policy.score(seen) > cut
    return sure
