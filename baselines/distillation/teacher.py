"""A frozen teacher whose outputs on the training examples are computed once."""

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
"""Largest size in bytes of hidden states to keep; larger ones are recomputed for each batch."""


@dataclass(frozen=True)
class TeacherOutputs:
    """A model's outputs on all examples of a split, in the order of evaluation: shortest first."""

    logits: Tensor
    """Logits [e, n, c] of the exits."""
    hiddens: tuple[Tensor, ...]
    """Outputs [tokens, d] of the embedding and of each layer, the examples' tokens concatenated.

    Empty if hidden states were not requested.
    """


_latest: dict[str, TeacherOutputs] = {}
"""Fingerprint -> outputs of the latest teacher only.

The stages of a method that share a teacher run one after another.
"""


class Teacher:
    """A model in evaluation mode and in the training's precision, applied to training examples.

    It processes all examples once, in batches of similar length, so that ten epochs of a student
    cost one forward pass of its teacher per example, not ten. The outputs do not depend on the
    order of training, and an interrupted stage gets the same ones again. They are kept in the
    host's memory; hidden states too large to keep (`KEPT_BYTES`) are recomputed for each batch.
    """

    def __init__(self, model: MultiExitModel, rows: Split, run: StageRun, hiddens: bool) -> None:
        """Run the model; without `hiddens`, `__call__` need not return hidden states."""
        self.compute = run.compute
        model = model.to(run.compute.device).eval().requires_grad_(False)
        order = np.concatenate(sorted_batches(rows.tokens.lengths, EVALUATION_BATCH))
        self.positions = {int(rows.ids[index]): position for position, index in enumerate(order)}
        """`Split.ids` -> position in the order of the outputs."""
        lengths = rows.tokens.lengths[order]
        self.starts = np.cumsum(lengths) - lengths
        """[n] Index of the first token of the example at each position."""
        too_large = hiddens and _state_bytes(model, rows, run.compute) > KEPT_BYTES
        self.source: TeacherOutputs | MultiExitModel = (
            model if too_large else _all_outputs(model, rows, run, hiddens)
        )

    def __call__(self, examples: Examples) -> AllExits:
        """Return logits [e, n, c] and hidden states [n, t, d] without gradients.

        Hidden states at padding have any finite value.
        """
        if not isinstance(self.source, TeacherOutputs):
            return _forward(self.source, examples.batch, self.compute)
        mask = examples.batch.mask
        positions = np.array([self.positions[int(id_)] for id_ in examples.ids])
        starts = torch.from_numpy(self.starts[positions])
        tokens = starts[:, None] + torch.arange(mask.shape[1])  # [n, t]
        tokens = tokens.masked_fill(~mask.cpu(), 0)
        logits = self.source.logits[:, torch.from_numpy(positions)].to(mask.device)
        return AllExits(
            logits, tuple(hidden[tokens].to(mask.device) for hidden in self.source.hiddens)
        )


def _forward(model: MultiExitModel, batch: Batch, compute: Compute) -> AllExits:
    with torch.no_grad(), compute.autocast():
        outputs: AllExits = model(batch)
    return outputs


def _state_bytes(model: MultiExitModel, rows: Split, compute: Compute) -> int:
    """Return the size in bytes of the hidden states of all examples."""
    first = collate(rows.tokens, np.zeros(1, np.int64)).to(compute.device)
    outputs = _forward(model, first, compute)
    return sum(hidden[0, 0].nbytes for hidden in outputs.hiddens) * int(rows.tokens.lengths.sum())


def _all_outputs(
    model: MultiExitModel, rows: Split, run: StageRun, hiddens: bool
) -> TeacherOutputs:
    """Return the outputs on all examples, reusing those of the latest teacher if it is this one."""
    key = _fingerprint(model, rows, run.compute)
    if key in _latest and (_latest[key].hiddens or not hiddens):
        return _latest[key]
    _latest.clear()
    batches = sorted_batches(rows.tokens.lengths, EVALUATION_BATCH)
    logits: list[Tensor] = []
    states: list[list[Tensor]] = []
    label = f"{run.label}: teacher predictions"
    with run.compute.progress.track(label, len(batches)) as advance:
        for index in batches:
            batch = collate(rows.tokens, index).to(run.compute.device)
            outputs = _forward(model, batch, run.compute)
            logits.append(outputs.logits.cpu())
            states.append(
                [hidden[batch.mask].cpu() for hidden in outputs.hiddens] if hiddens else []
            )
            advance()
    # popping frees the parts of a layer once they are joined
    joined = tuple(torch.cat([state.pop(0) for state in states]) for _ in range(len(states[0])))
    _latest[key] = TeacherOutputs(torch.cat(logits, 1), joined)
    return _latest[key]


def _fingerprint(model: MultiExitModel, rows: Split, compute: Compute) -> str:
    """Return a fingerprint of everything that the outputs depend on."""
    config = getattr(model, "config", None)  # equal tensors may differ in pooling or activation
    digest = hashlib.sha256(
        f"{compute.precision} {compute.device} {compute.threads} {config!r}".encode()
    )
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    for piece in (*rows.tokens.ids, *rows.tokens.types):
        digest.update(piece.tobytes() + b"|")
    return digest.hexdigest()
