"""A frozen teacher, whose answers on the training rows are computed once."""

import numpy as np
import torch
from torch import Tensor

from baselines.training import EVALUATION_BATCH, Examples
from harness.batches import collate, sorted_batches
from harness.model import AllExits, Batch, MultiExitModel
from harness.stages import StageRun
from harness.tasks import Split

KEPT_BYTES = 4 * 2**30
"""Hidden states of the training rows that need more than this are computed again for every batch."""


class Teacher:
    """What a model says of training rows, in evaluation mode and the training's precision.

    The rows are answered in one pass over batches of similar length, so that a student that sees a row in ten epochs costs one forward pass
    of its teacher, not ten. What is kept does not depend on the order of training, and an interrupted stage finds the same again.
    """

    def __init__(self, model: MultiExitModel, rows: Split, run: StageRun, hiddens: bool) -> None:
        """`hiddens`: whether hidden states are asked for; without, `__call__` gives none."""
        self.model = model.to(run.compute.device).eval().requires_grad_(False)
        self.compute = run.compute
        self.places = {int(id_): place for place, id_ in enumerate(rows.ids)}
        lengths = rows.tokens.lengths
        self.firsts = np.cumsum(lengths) - lengths
        """[n] where the tokens of each row begin in the kept hidden states."""
        self.logits, self.hiddens = self._all(rows, run, hiddens)

    def __call__(self, examples: Examples) -> AllExits:
        """Logits [e, n, c] and hidden states [n, t, d] (any value at padding), without gradients."""
        if self.hiddens is None:
            return self._answer(examples.batch)
        device, mask = self.compute.device, examples.batch.mask
        rows = np.array([self.places[int(id_)] for id_ in examples.ids])
        tokens = torch.from_numpy(self.firsts[rows]).to(device)[:, None] + torch.arange(mask.shape[1], device=device)
        tokens = tokens.masked_fill(~mask, 0)
        return AllExits(self.logits[:, torch.from_numpy(rows).to(device)], tuple(kept[tokens] for kept in self.hiddens))

    def _answer(self, batch: Batch) -> AllExits:
        with torch.no_grad(), self.compute.autocast():
            answer: AllExits = self.model(batch)
        return answer

    def _all(self, rows: Split, run: StageRun, hiddens: bool) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Logits [e, n, c] of all rows, and hidden states [tokens, d], one row's tokens after another's; None where these are too large."""
        lengths, device = rows.tokens.lengths, self.compute.device
        logits, kept = torch.empty(0), tuple[Tensor, ...]()
        batches = sorted_batches(lengths, EVALUATION_BATCH)
        with run.compute.progress.work(f"{run.label}: the teacher's answers", len(batches)) as advance:
            for number, index in enumerate(batches):
                batch = collate(rows.tokens, index).to(device)
                answer = self._answer(batch)
                if number == 0:
                    exits, _, classes = answer.logits.shape
                    logits = answer.logits.new_empty(exits, len(rows), classes)
                    if hiddens:
                        if sum(hidden[0, 0].nbytes for hidden in answer.hiddens) * int(lengths.sum()) > KEPT_BYTES:
                            return logits, None
                        kept = tuple(hidden.new_empty(int(lengths.sum()), hidden.shape[-1]) for hidden in answer.hiddens)
                logits[:, torch.from_numpy(index).to(device)] = answer.logits
                tokens = np.concatenate([np.arange(self.firsts[row], self.firsts[row] + lengths[row]) for row in index])
                for whole, hidden in zip(kept, answer.hiddens, strict=False):
                    whole[torch.from_numpy(tokens).to(device)] = hidden[batch.mask]
                advance()
        return logits, kept
