"""Predictions of a fitted model for examples without labels."""

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


class ExamplePredictions(NamedTuple):
    """Predictions in the order of the examples."""

    logits: NDArray[np.float32]
    """[n, c] logits of the exit that each example takes."""
    layers: NDArray[np.int64]
    """[n] number of layers that each example runs."""
    milliseconds: NDArray[np.float64]
    """[n] wall-clock time of each example's batch in the model, divided by the batch's size."""


def predict_examples(
    model: MultiExitModel,
    tokens: Tokens,
    classes: int,
    rule: Rule,
    batch_size: int,
    device: torch.device,
) -> ExamplePredictions:
    """Predict each example at the exit that the rule gives.

    Each example exits on its own: predictions depend on the batch only by float rounding.
    Raises: HarnessError if the rule is invalid or cannot serve the task; IncompleteError if the
    model cannot read the tokens or a logit is not finite.
    """
    policy, score_threshold = rule.policy_and_score_threshold(classes)
    model = (model.truncated(len(model.layers)) if rule.policy is None else model).to(device).eval()
    exit_layers = np.array(model.exit_layers, dtype=np.int64)
    count = len(tokens.ids)
    found = ExamplePredictions(
        np.empty((count, classes), np.float32),
        np.empty(count, np.int64),
        np.empty(count, np.float64),
    )
    for batch in sorted_batches(tokens.lengths, batch_size):
        started = time.perf_counter()
        try:
            inputs = collate(tokens, batch).to(device)
            predicted = predict_early(model, inputs, policy, score_threshold)
            found.logits[batch] = predicted.logits.float().cpu().numpy()
        except (IndexError, RuntimeError, ValueError) as error:
            raise IncompleteError(
                f"the model cannot read the tokens of its tokenizer: {first_line(error)}"
            ) from None
        found.layers[batch] = exit_layers[predicted.exits.cpu().numpy()]
        found.milliseconds[batch] = 1e3 * (time.perf_counter() - started) / len(batch)
    if not np.isfinite(found.logits).all():
        raise IncompleteError("a logit of the model is not a finite number")
    return found
