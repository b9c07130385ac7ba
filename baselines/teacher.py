"""A frozen teacher, whose answers on the training rows are computed once."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.training import EVALUATION_BATCH, Examples
from harness.batches import collate, sorted_batches
from harness.model import AllExits, Batch, MultiExitModel
from harness.stages import StageRun
from harness.tasks import Split

KEPT_BYTES = 4 * 2**30
"""Hidden states of the training rows that need more than this are computed again for every batch."""


@dataclass(frozen=True)
class Answers:
    """What a model says of all rows of a split."""

    logits: Tensor
    """[e, n, c]"""
    hiddens: tuple[Tensor, ...]
    """The embedding's output and each layer's [tokens, d], one row's tokens after another's; none where nobody asked for them."""


_latest: dict[str, Answers] = {}
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
        self.model = model.to(run.compute.device).eval().requires_grad_(False)
        self.places = {int(id_): place for place, id_ in enumerate(rows.ids)}
        lengths = rows.tokens.lengths
        self.firsts = np.cumsum(lengths) - lengths
        """[n] where the tokens of each row begin in the kept hidden states."""
        self.answers = None if hiddens and self._bytes(rows) > KEPT_BYTES else self._all(rows, run, hiddens)

    def __call__(self, examples: Examples) -> AllExits:
        """Logits [e, n, c] and hidden states [n, t, d] (any finite value at padding), without gradients."""
        if self.answers is None:
            return self._answer(examples.batch)
        mask = examples.batch.mask
        rows = np.array([self.places[int(id_)] for id_ in examples.ids])
        tokens = torch.from_numpy(self.firsts[rows])[:, None] + torch.arange(mask.shape[1])  # [n, t]
        tokens = tokens.masked_fill(~mask.cpu(), 0)
        logits = self.answers.logits[:, torch.from_numpy(rows)].to(mask.device)
        return AllExits(logits, tuple(hidden[tokens].to(mask.device) for hidden in self.answers.hiddens))

    def _answer(self, batch: Batch) -> AllExits:
        with torch.no_grad(), self.compute.autocast():
            answer: AllExits = self.model(batch)
        return answer

    def _bytes(self, rows: Split) -> int:
        """What the hidden states of all rows need."""
        answer = self._answer(collate(rows.tokens, np.zeros(1, np.int64)).to(self.compute.device))
        return sum(hidden[0, 0].nbytes for hidden in answer.hiddens) * int(rows.tokens.lengths.sum())

    def _all(self, rows: Split, run: StageRun, hiddens: bool) -> Answers:
        """The answers on all rows, found again where the last teacher was this one."""
        key = self._fingerprint(rows)
        if key in _latest and not (hiddens and not _latest[key].hiddens):
            return _latest[key]
        _latest.clear()
        order = sorted_batches(rows.tokens.lengths, EVALUATION_BATCH)
        parts: list[Tensor] = []
        states: list[list[Tensor]] = []
        with run.compute.progress.work(f"{run.label}: the teacher's answers", len(order)) as advance:
            for index in order:
                batch = collate(rows.tokens, index).to(self.compute.device)
                answer = self._answer(batch)
                parts.append(answer.logits.cpu())
                states.append([hidden[batch.mask].cpu() for hidden in answer.hiddens] if hiddens else [])
                advance()
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        tokens = np.concatenate([self._tokens(row, rows) for index in order for row in index])
        places = torch.from_numpy(np.argsort(tokens))
        found = tuple(torch.cat([part.pop(0) for part in states])[places] for _ in range(len(states[0])))
        _latest[key] = Answers(torch.cat(parts, 1)[:, back], found)
        return _latest[key]

    def _tokens(self, row: int, rows: Split) -> NDArray[np.int64]:
        return np.arange(self.firsts[row], self.firsts[row] + rows.tokens.lengths[row])

    def _fingerprint(self, rows: Split) -> str:
        """Of everything that the answers depend on."""
        digest = hashlib.sha256(f"{self.compute.precision} {self.compute.device} {self.compute.threads}".encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        for piece in (*rows.tokens.ids, *rows.tokens.types):
            digest.update(piece.tobytes() + b"|")
        return digest.hexdigest()
