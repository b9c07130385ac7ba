"""How long each part of COST-EFF trains, and how wide the encoder is after each round of pruning."""

from dataclasses import dataclass, replace

from harness.models.shapes import EncoderShape

FEW_ROWS = 10_000
"""Up to so many training rows the scripted tasks are MRPC and CoLA."""


@dataclass(frozen=True)
class Epochs:
    """Passes over the training rows, from the authors' run.sh: for 2 and for 6 of 12 heads kept."""

    assistant: int
    """Of the assistant; a third of them on hidden states alone comes before."""
    period: tuple[float, float]
    """Before each cut."""
    hidden_share: float
    """Part of a period on hidden states alone."""
    hidden: tuple[int, int]
    """Of recovery on hidden states alone."""
    prediction: tuple[int, int]
    """Of recovery on hidden states and answers."""

    def at(self, kept_share: float, of: tuple[float, float]) -> float:
        """One of the pairs at a share of heads kept: on the line through the authors' numbers for 2 and for 6 of 12 heads, up to 8, level
        outside (their numbers for other widths lie near it, not on it)."""
        few, many = of
        place = min(max((kept_share - 2 / 12) / (4 / 12), 0.0), 1.5)
        return few + place * (many - few)


EPOCHS: dict[str, Epochs] = {
    "mrpc": Epochs(12, (2.0, 2.0), 0.5, (20, 12), (10, 5)),
    "sst2": Epochs(5, (0.5, 0.5), 0.7, (10, 8), (6, 3)),
    "qnli": Epochs(5, (0.5, 0.5), 0.7, (8, 6), (5, 3)),
    "mnli": Epochs(3, (0.3, 1 / 3), 0.7, (5, 3), (3, 2)),
    "cola": Epochs(8, (2.0, 2.0), 0.5, (20, 10), (10, 5)),
    "qqp": Epochs(3, (0.3, 1 / 3), 0.7, (5, 3), (3, 2)),
}
"""Task -> the authors' epochs (run.sh)."""


def epochs_for(task: str, rows: int) -> Epochs:
    """The authors' epochs of a task, or those of the scripted task that is most like it in size.

    So a part of a large task trains as long as a small one: SST-2's 5 epochs are for 67,000 rows.
    """
    if rows <= FEW_ROWS:
        return EPOCHS[task if task in ("mrpc", "cola") else "mrpc"]
    return EPOCHS.get(task, EPOCHS["sst2"])


def scaled(epochs: float) -> int:
    """A whole number of epochs, at least 1; halves go up."""
    return max(1, int(round(epochs, 6) + 0.5))


def smaller(shape: EncoderShape, heads: float, ffn: float, rank: float) -> EncoderShape:
    """The shape with these shares of its heads, neurons and (of the hidden size) embedding rank, rounded, at least 1.

    A rank that comes to the hidden size leaves the embedding unfactorised: the product would be larger.
    """

    def part(share: float, whole: int) -> int:
        return max(1, round(share * whole))

    factors = part(rank, shape.hidden)
    return replace(
        shape,
        heads=tuple(part(heads, count) for count in shape.heads),
        ffn=tuple(part(ffn, count) for count in shape.ffn),
        embedding_rank=factors if factors < shape.hidden else None,
    )


def between(start: EncoderShape, end: EncoderShape, number: int, rounds: int) -> EncoderShape:
    """The shape after round `number` (from 1) of `rounds`: every width on the line from start to end."""

    def on_the_way(one: int, other: int) -> int:
        return one + round((other - one) * number / rounds)

    return replace(
        end,
        heads=tuple(map(on_the_way, start.heads, end.heads)),
        ffn=tuple(map(on_the_way, start.ffn, end.ffn)),
        embedding_rank=end.embedding_rank
        and on_the_way(start.embedding_rank or start.hidden, end.embedding_rank),
    )


def rounds_of(start: EncoderShape, end: EncoderShape) -> int:
    """Rounds of pruning: one head goes in each, at least one round."""
    return max(1, *(one - other for one, other in zip(start.heads, end.heads, strict=True)))
