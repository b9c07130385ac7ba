"""Early exit per example and exit in plain Python, independent of the arithmetic on traces."""

import math
from dataclasses import dataclass
from itertools import pairwise

from harness.evaluation.trace import Trace
from harness.records import Costs, Polynomial


@dataclass(frozen=True)
class SimulatedExit:
    """Where one example exits, its prediction and its cost."""

    exit: int
    prediction: float
    macs: int
    layers: int


def value_at(piece: Polynomial, length: int) -> int:
    return piece.c0 + piece.c1 * length + piece.c2 * length * length


def may_exit(name: str, seen: list[list[float]], threshold: float, tolerance: float) -> bool:
    """Return whether an example with these logits at the exits so far may exit."""
    if name == "patience":
        predictions = [
            logits[0] if len(logits) == 1 else logits.index(max(logits)) for logits in seen
        ]
        differences = [abs(now - before) for before, now in pairwise(predictions)]
        agree = [
            difference < tolerance if len(seen[0]) == 1 else difference == 0
            for difference in differences
        ]
        return len(agree) >= threshold and all(agree[len(agree) - int(threshold) :])
    powers = [math.exp(logit - max(seen[-1])) for logit in seen[-1]]
    probabilities = [power / sum(powers) for power in powers]
    if name == "confidence":
        return max(probabilities) > threshold
    return -sum(p * math.log(p) for p in probabilities if p > 0) < threshold


def simulate(
    name: str, trace: Trace, costs: Costs, threshold: float, tolerance: float = 0.1
) -> list[SimulatedExit]:
    """Run the model on one example at a time, and add the cost of each piece as it runs."""
    outcome = []
    layers_of_exits = trace.exit_layers.tolist()
    for row, length in enumerate(trace.lengths.tolist()):
        paid, seen = value_at(costs.embedding, length), []
        for layer, (piece, exit_piece) in enumerate(
            zip(costs.layers, costs.exits, strict=True), start=1
        ):
            paid += value_at(piece, length)
            if exit_piece is None:
                continue
            paid += value_at(exit_piece, length)
            seen.append(trace.logits[len(seen), row].tolist())
            if layer == layers_of_exits[-1] or may_exit(name, seen, threshold, tolerance):
                last = seen[-1]
                prediction = last[0] if len(last) == 1 else last.index(max(last))
                outcome.append(SimulatedExit(len(seen) - 1, prediction, paid, layer))
                break
    return outcome
