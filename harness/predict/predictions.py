"""Answers of a fitted model to rows that have no labels."""

import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.dataset import Tokens
from harness.errors import IncompleteError, first_line
from harness.evaluation.policies import Rule
from harness.measure.inference import predict_early
from harness.models.batches import collate, sorted_batches
from harness.models.multi_exit import MultiExitModel


class RowPredictions(NamedTuple):
    """In the order of the rows."""

    logits: NDArray[np.float32]
    """[n, c] of the exit at which each row left."""
    layers: NDArray[np.int64]
    """[n] layers that each row ran."""
    milliseconds: NDArray[np.float64]
    """[n] the wall-clock time of each row's batch in the model, shared equally by its rows."""


def predict_rows(
    model: MultiExitModel,
    tokens: Tokens,
    classes: int,
    rule: Rule,
    batch_size: int,
    device: torch.device,
) -> RowPredictions:
    """Each row decides for itself: the answers do not depend on the batches beyond float rounding.

    Raises: HarnessError for a rule that cannot serve; IncompleteError when the model cannot read the rows, or an answer is not finite.
    """
    policy, cut = rule.ready(classes)
    model = (model.truncated(len(model.layers)) if rule.policy is None else model).to(device).eval()
    run = np.array(model.exit_layers, dtype=np.int64)
    count = len(tokens.ids)
    found = RowPredictions(
        np.empty((count, classes), np.float32),
        np.empty(count, np.int64),
        np.empty(count, np.float64),
    )
    for rows in sorted_batches(tokens.lengths, batch_size):
        started = time.perf_counter()
        try:
            answers = predict_early(model, collate(tokens, rows).to(device), policy, cut)
            found.logits[rows] = answers.logits.float().cpu().numpy()
        except (IndexError, RuntimeError, ValueError) as error:
            raise IncompleteError(
                f"the model cannot read the rows that its tokenizer makes: {first_line(error)}"
            ) from None
        found.layers[rows] = run[answers.exits.cpu().numpy()]
        found.milliseconds[rows] = 1e3 * (time.perf_counter() - started) / len(rows)
    if not np.isfinite(found.logits).all():
        raise IncompleteError("the model gives an answer that is not a finite number")
    return found
