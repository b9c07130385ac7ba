"""Epochs of each stage of COST-EFF and width of the encoder after each round of pruning."""

from dataclasses import dataclass, replace

from harness.models.shapes import EncoderShape

FEW_ROWS = 10_000
"""Largest number of training rows of a small task; the small ones in the authors' script are MRPC
and CoLA."""


@dataclass(frozen=True)
class Epochs:
    """Epochs per stage from the authors' run.sh; a pair is for 2 and for 6 of 12 heads kept."""

    assistant: int
    """Epochs of the assistant, after a third as many on hidden states alone."""
    period: tuple[float, float]
    """Epochs before each pruning step."""
    hidden_share: float
    """Share of a period that trains on hidden states alone."""
    hidden: tuple[int, int]
    """Epochs of recovery on hidden states alone."""
    prediction: tuple[int, int]
    """Epochs of recovery on hidden states and predictions."""

    def at(self, kept_share: float, pair: tuple[float, float]) -> float:
        """Return the epochs of one of the pairs for a share of heads kept.

        They lie on the line through the authors' numbers for 2 and for 6 of 12 heads, which ends at
        2 and at 8 heads and is constant beyond (the authors' numbers for other widths lie near it).
        """
        few, many = pair
        position = min(max((kept_share - 2 / 12) / (4 / 12), 0.0), 1.5)
        return few + position * (many - few)


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
    """Return the authors' epochs for a task, or those of one of their tasks of similar size.

    A subset of a large task trains as long as a small task: SST-2's 5 epochs are for 67,000 rows.
    """
    if rows <= FEW_ROWS:
        return EPOCHS[task if task in ("mrpc", "cola") else "mrpc"]
    return EPOCHS.get(task, EPOCHS["sst2"])


def scaled(epochs: float) -> int:
    """Round to a whole number of epochs, at least 1; halves round up."""
    return max(1, int(round(epochs, 6) + 0.5))


def smaller(shape: EncoderShape, heads: float, ffn: float, rank: float) -> EncoderShape:
    """Return the shape with these shares of its heads, neurons and embedding rank, at least 1 each.

    The rank is a share of the hidden size. A rank equal to the hidden size leaves the embedding
    unfactorised, as the two factors would be larger.
    """

    def part(share: float, total: int) -> int:
        return max(1, round(share * total))

    new_rank = part(rank, shape.hidden)
    return replace(
        shape,
        heads=tuple(part(heads, count) for count in shape.heads),
        ffn=tuple(part(ffn, count) for count in shape.ffn),
        embedding_rank=new_rank if new_rank < shape.hidden else None,
    )


def between(start: EncoderShape, end: EncoderShape, number: int, rounds: int) -> EncoderShape:
    """Return the shape after round `number` (from 1), with all widths interpolated linearly."""

    def width(first: int, last: int) -> int:
        return first + round((last - first) * number / rounds)

    return replace(
        end,
        heads=tuple(map(width, start.heads, end.heads)),
        ffn=tuple(map(width, start.ffn, end.ffn)),
        embedding_rank=end.embedding_rank
        and width(start.embedding_rank or start.hidden, end.embedding_rank),
    )


def pruning_rounds(start: EncoderShape, end: EncoderShape) -> int:
    """Return the number of pruning rounds, at least 1: each round removes one head per layer."""
    return max(1, *(one - other for one, other in zip(start.heads, end.heads, strict=True)))
