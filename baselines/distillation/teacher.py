"""A frozen teacher, whose answers on the training rows are computed once."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baselines.training.loop import EVALUATION_BATCH, Examples
from harness.data.dataset import Split
from harness.methods.compute import Compute
from harness.methods.stages import StageRun
from harness.models.batches import collate, sorted_batches
from harness.models.multi_exit import AllExits, Batch, MultiExitModel

KEPT_BYTES = 4 * 2**30
"""Hidden states of the training rows that need more than this are computed again for every batch."""


@dataclass(frozen=True)
class TeacherOutputs:
    """What a model says of all rows of a split, in the order in which it was asked: shortest first."""

    logits: Tensor
    """[e, n, c]"""
    hiddens: tuple[Tensor, ...]
    """The embedding's output and each layer's [tokens, d], one row's tokens after another's; none where nobody asked for them."""


_latest: dict[str, TeacherOutputs] = {}
"""Fingerprint -> answers, of one model: the stages of a method that share a teacher follow one another."""


class Teacher:
    """A model in evaluation mode and the training's precision, asked about training rows.

    It answers all rows in one pass over batches of similar length, so that a student that sees a row in ten epochs costs one forward
    pass of its teacher, not ten. The answers do not depend on the order of training, and an interrupted stage finds the same again.
    They are kept in the host's memory. Hidden states that are too large to keep (`KEPT_BYTES`) are computed for every batch.
    """

    def __init__(self, model: MultiExitModel, rows: Split, run: StageRun, hiddens: bool) -> None:
        """`hiddens`: whether hidden states are wanted; without, `__call__` need not give any."""
        self.compute = run.compute
        model = model.to(run.compute.device).eval().requires_grad_(False)
        order = np.concatenate(sorted_batches(rows.tokens.lengths, EVALUATION_BATCH))
        self.places = {int(rows.ids[row]): place for place, row in enumerate(order)}
        """`Split.ids` -> place in the order of the answers."""
        lengths = rows.tokens.lengths[order]
        self.firsts = np.cumsum(lengths) - lengths
        """[n] where the tokens at each place begin."""
        too_large = hiddens and _state_bytes(model, rows, run.compute) > KEPT_BYTES
        self.source: TeacherOutputs | MultiExitModel = (
            model if too_large else _answers(model, rows, run, hiddens)
        )

    def __call__(self, examples: Examples) -> AllExits:
        """Logits [e, n, c] and hidden states [n, t, d] (any finite value at padding), without gradients."""
        if not isinstance(self.source, TeacherOutputs):
            return _ask(self.source, examples.batch, self.compute)
        mask = examples.batch.mask
        places = np.array([self.places[int(id_)] for id_ in examples.ids])
        tokens = torch.from_numpy(self.firsts[places])[:, None] + torch.arange(
            mask.shape[1]
        )  # [n, t]
        tokens = tokens.masked_fill(~mask.cpu(), 0)
        logits = self.source.logits[:, torch.from_numpy(places)].to(mask.device)
        return AllExits(
            logits, tuple(hidden[tokens].to(mask.device) for hidden in self.source.hiddens)
        )


def _ask(model: MultiExitModel, batch: Batch, compute: Compute) -> AllExits:
    with torch.no_grad(), compute.autocast():
        answer: AllExits = model(batch)
    return answer


def _state_bytes(model: MultiExitModel, rows: Split, compute: Compute) -> int:
    """What the hidden states of all rows need."""
    answer = _ask(model, collate(rows.tokens, np.zeros(1, np.int64)).to(compute.device), compute)
    return sum(hidden[0, 0].nbytes for hidden in answer.hiddens) * int(rows.tokens.lengths.sum())


def _answers(model: MultiExitModel, rows: Split, run: StageRun, hiddens: bool) -> TeacherOutputs:
    """The answers on all rows, found again where the last teacher was this one."""
    key = _fingerprint(model, rows, run.compute)
    if key in _latest and (_latest[key].hiddens or not hiddens):
        return _latest[key]
    _latest.clear()
    batches = sorted_batches(rows.tokens.lengths, EVALUATION_BATCH)
    logits: list[Tensor] = []
    states: list[list[Tensor]] = []
    with run.compute.progress.track(f"{run.label}: the teacher's answers", len(batches)) as advance:
        for index in batches:
            batch = collate(rows.tokens, index).to(run.compute.device)
            answer = _ask(model, batch, run.compute)
            logits.append(answer.logits.cpu())
            states.append(
                [hidden[batch.mask].cpu() for hidden in answer.hiddens] if hiddens else []
            )
            advance()
    joined = tuple(
        torch.cat([state.pop(0) for state in states]) for _ in range(len(states[0]))
    )  # a layer's parts go as they are joined
    _latest[key] = TeacherOutputs(torch.cat(logits, 1), joined)
    return _latest[key]


def _fingerprint(model: MultiExitModel, rows: Split, compute: Compute) -> str:
    """Of everything that the answers depend on."""
    how = getattr(
        model, "config", None
    )  # equal tensors may be pooled, or activated, in several ways
    digest = hashlib.sha256(
        f"{compute.precision} {compute.device} {compute.threads} {how!r}".encode()
    )
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    for piece in (*rows.tokens.ids, *rows.tokens.types):
        digest.update(piece.tobytes() + b"|")
    return digest.hexdigest()
