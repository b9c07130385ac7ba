"""How long each part of COST-EFF trains, and how wide the encoder is after each round of pruning."""

from dataclasses import dataclass, replace

from harness.backbones import EncoderShape

FEW_ROWS = 10_000
"""Tasks that the authors did not script take the epochs of MRPC up to so many training rows, those of SST-2 above."""


@dataclass(frozen=True)
class Epochs:
    """Passes over the training rows, from the authors' run.sh: for 2 and for 6 of 12 heads kept."""

    assistant: int
    """Of the assistant; a third of them on hidden states alone comes before."""
    period: float
    """Between two rounds of pruning."""
    hidden_share: float
    """Part of a period on hidden states alone."""
    hidden: tuple[int, int]
    """Of recovery on hidden states alone."""
    prediction: tuple[int, int]
    """Of recovery on hidden states and answers."""

    def at(self, kept_share: float, of: tuple[int, int]) -> float:
        """One of the pairs at a share of heads kept, on the line between the authors' two points and level outside."""
        few, many = of
        place = min(max((kept_share - 2 / 12) / (4 / 12), 0.0), 1.0)
        return few + place * (many - few)


EPOCHS: dict[str, Epochs] = {
    "mrpc": Epochs(12, 2.0, 0.5, (20, 12), (10, 5)),
    "sst2": Epochs(5, 0.5, 0.7, (10, 8), (6, 3)),
    "qnli": Epochs(5, 0.5, 0.7, (8, 6), (5, 3)),
    "mnli": Epochs(3, 0.3, 0.7, (5, 3), (3, 2)),
    "cola": Epochs(8, 2.0, 0.5, (20, 10), (10, 5)),
    "qqp": Epochs(3, 0.3, 0.7, (5, 3), (3, 2)),
}
"""Task -> the authors' epochs (run.sh)."""


def epochs_for(task: str, rows: int) -> Epochs:
    """The authors' epochs of a task, or those of the scripted task that is most like it in size."""
    return EPOCHS.get(task) or EPOCHS["mrpc" if rows <= FEW_ROWS else "sst2"]


def scaled(epochs: float) -> int:
    """A whole number of epochs, at least 1."""
    return max(1, round(epochs))


def smaller(shape: EncoderShape, heads: float, ffn: float, rank: float) -> EncoderShape:
    """The shape with these shares of its heads, neurons and (of the hidden size) embedding rank, rounded, at least 1."""

    def part(share: float, whole: int) -> int:
        return max(1, round(share * whole))

    return replace(
        shape,
        heads=tuple(part(heads, count) for count in shape.heads),
        ffn=tuple(part(ffn, count) for count in shape.ffn),
        embedding_rank=part(rank, shape.hidden),
    )


def between(start: EncoderShape, end: EncoderShape, number: int, rounds: int) -> EncoderShape:
    """The shape after round `number` (from 1) of `rounds`: every width on the line from start to end."""

    def on_the_way(one: int, other: int) -> int:
        return one + round((other - one) * number / rounds)

    return replace(
        end,
        heads=tuple(map(on_the_way, start.heads, end.heads)),
        ffn=tuple(map(on_the_way, start.ffn, end.ffn)),
        embedding_rank=on_the_way(start.embedding_rank or start.hidden, end.embedding_rank or end.hidden),
    )


def rounds_of(start: EncoderShape, end: EncoderShape) -> int:
    """Rounds of pruning: one head goes in each, at least one round."""
    return max(1, *(one - other for one, other in zip(start.heads, end.heads, strict=True)))
