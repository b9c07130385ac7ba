"""A model in a folder of its own, as `harness export` writes it: it answers with nothing but this package.

    from harness.predict.exported import load

    model = load("my-model")
    for answer in model.answer([("a fine film",), ("dull",)]):
        print(answer.answer, answer.exit, answer.probability)

Files: harness.json (`Card`), config.json and model.safetensors (the model), tokenizer.json, README.md. Nothing in them is code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Predicate

from harness.data.dataset import Tokens
from harness.errors import HarnessError, IncompleteError, reason
from harness.evaluation.policies import Confidence, Rule
from harness.evaluation.trace import predictions
from harness.files.typed_json import from_json
from harness.methods.registry import model_format
from harness.models.backbones import Backbone
from harness.models.checkpoint_files import CONFIG
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.predict.predictions import predict_rows

CARD, TOKENIZER, ABOUT = "harness.json", "tokenizer.json", "README.md"

LARGEST_JSON_BYTES = 2**20
"""A larger card or config is not ours."""


@dataclass(frozen=True)
class Card:
    """`harness.json`: all but the tensors that answering needs, and what the model scored."""

    form: Literal[1]
    """Version of this file."""
    harness: str
    """Version of the package that wrote it."""
    run_id: str
    method: str
    task: str
    backbone: str
    labels: tuple[Annotated[str, Predicate(str.isprintable)], ...]
    """Class names in index order; empty for a regression."""
    texts: int | None
    """Texts of a row; None: of a user's own task it is not known."""
    metrics: tuple[str, ...]
    max_length: int
    """Tokens after which a row is cut."""
    shape: EncoderShape
    """Of the backbone, whose tokenizer it is."""
    rule: Rule
    """When rows leave."""
    scores: dict[str, float]
    """Metric -> score on dev under this rule."""
    constant_scores: dict[str, float]
    """Metric -> score on dev of a constant answer."""
    macs: float
    """Mean MACs per dev row under this rule."""
    layers: float
    """Mean layers that a dev row runs under this rule."""

    @property
    def classes(self) -> int:
        """Outputs of the model; 1 is a regression."""
        return len(self.labels) or 1


class Prediction(NamedTuple):
    """What the model says of a row."""

    answer: str | float
    """The label's name, or a number in label units."""
    exit: int
    """Layers that the row ran."""
    probability: float | None
    """Of the answer, by the exit at which the row left; None for a regression."""
    milliseconds: float
    """In the model: the time of the row's batch shared by its rows, so that of a batch of one it is the row's own."""


@dataclass(frozen=True)
class Exported:
    """An exported model, ready to answer."""

    card: Card
    model: MultiExitModel
    backbone: Backbone
    """Its tokenizer."""
    device: torch.device

    def answer(self, rows: Sequence[tuple[str, ...]], batch_size: int = 32) -> list[Prediction]:
        """The answers to rows of one or two texts, in their order; they do not depend on the batch.

        Raises: HarnessError for a row that is not the task's; IncompleteError when the files do not fit each other.
        """
        return self.answer_tokens(self.encode(rows), batch_size) if rows else []

    def encode(self, rows: Sequence[tuple[str, ...]]) -> Tokens:
        """The rows as the model reads them, cut at the longest length that it was trained with.

        Raises: HarnessError for a row of another number of texts, or with a text that is no Unicode.
        """
        wanted = (1, 2) if self.card.texts is None else (self.card.texts,)
        for number, row in enumerate(rows, start=1):
            if len(row) not in wanted:
                texts = f"{' or '.join(map(str, wanted))} text{'s' * (wanted != (1,))}"
                raise HarnessError(
                    f"row {number} has {len(row)} text{'s' * (len(row) != 1)}, task {self.card.task} wants {texts}"
                )
            if any("\ud800" <= character <= "\udfff" for text in row for character in text):
                raise HarnessError(f"row {number} holds bytes that are not UTF-8 text")
        return self.backbone.encode(
            [tuple(text.strip() for text in row) for row in rows], self.card.max_length
        )

    def answer_tokens(self, tokens: Tokens, batch_size: int) -> list[Prediction]:
        """The same of rows that are encoded already."""
        found = predict_rows(
            self.model, tokens, self.card.classes, self.card.rule, batch_size, self.device
        )
        answers = predictions(found.logits)
        if not self.card.labels:
            said: list[tuple[str | float, float | None]] = [
                (round(float(value), 6), None) for value in answers
            ]
        else:
            surest = Confidence().score(found.logits[None])  # the largest probability: the answer's
            said = [
                (self.card.labels[int(place)], round(float(sure), 6))
                for place, sure in zip(answers, surest, strict=True)
            ]
        timed = zip(said, found.layers, found.milliseconds, strict=True)
        return [
            Prediction(answer, int(layer), probability, round(float(ms), 4))
            for (answer, probability), layer, ms in timed
        ]


def load(folder: str | Path, device: str = "cpu") -> Exported:
    """The model that `harness export` wrote to the folder. Its files are checked against each other before anything large is made.

    Raises: HarnessError for a folder that is not there; IncompleteError when its files are not those of an exported model.
    """
    place = Path(folder)
    if not (place / CARD).is_file():
        raise HarnessError(f"{place} has no {CARD}: wanted a folder that harness export wrote")
    card = from_json(Card, _small(place / CARD), str(place / CARD))
    _small(place / CONFIG)
    card.rule.ready(card.classes)
    formats = model_format()
    formats.check_model(place)
    backbone = Backbone(card.backbone, card.shape, "cls", f"folder:{place}", "", ())
    if not (place / TOKENIZER).is_file():
        raise IncompleteError(f"{place} has no {TOKENIZER}")
    _ = backbone.tokenizer
    model = Exported(card, formats.load_model(place), backbone, torch.device(device))
    model.answer(
        [("a",) * (card.texts if card.texts in (1, 2) else 1)]
    )  # files that do not fit each other are found out now
    return model


def _small(path: Path) -> str:
    """A file of ours is small.

    Raises: IncompleteError when it cannot be read or is large.
    """
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise IncompleteError(
                f"{path} has {path.stat().st_size} bytes, wanted at most {LARGEST_JSON_BYTES}"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IncompleteError(f"{path} cannot be read: {reason(error)}") from None
