"""Models exported by `harness export`. They need only this package and their folder.

    import harness

    model = harness.load_model("my-model")
    for prediction in model.predict(["a fine film", "dull"]):
        print(prediction.answer, prediction.exit, prediction.probability)

The folder holds harness.json (`Card`), config.json and model.safetensors (the model),
tokenizer.json and README.md. None of them contains code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Predicate
from numpy.typing import NDArray

from harness.data.dataset import Tokens
from harness.data.loading import make_split
from harness.data.sources import RawSplit, Row, Unavailable
from harness.data.tasks import Task
from harness.errors import HarnessError, IncompleteError, counted, reason
from harness.evaluation.metrics import scores, scores_text
from harness.evaluation.policies import Confidence, Rule
from harness.evaluation.trace import predictions
from harness.files.text import same_text
from harness.files.typed_json import from_json
from harness.methods.registry import model_format
from harness.models.checkpoint_files import CONFIG
from harness.models.multi_exit import MultiExitModel
from harness.models.shapes import EncoderShape
from harness.models.tokenizers import TextTokenizer, encode, read_exported_tokenizer
from harness.predict.inputs import Columns, TextRow
from harness.predict.predictions import predict_examples

CARD, TOKENIZER, README = "harness.json", "tokenizer.json", "README.md"

LARGEST_JSON_BYTES = 2**20
"""Largest accepted size of a card or config; exported ones are smaller."""


@dataclass(frozen=True)
class Card:
    """Contents of `harness.json`: what prediction needs besides the tensors, and dev scores."""

    form: Literal[1]
    """Version of the file format."""
    harness: str
    """Version of the package that wrote the file."""
    run_id: str
    method: str
    task: str
    backbone: str
    labels: tuple[Annotated[str, Predicate(str.isprintable)], ...]
    """Class names in index order; empty for a regression."""
    texts: int | None
    """Number of texts per example; None if unknown, for older runs of a custom task."""
    metrics: tuple[str, ...]
    max_length: int
    """Number of tokens to which an example is truncated."""
    shape: EncoderShape
    """Shape of the backbone to which the tokenizer belongs."""
    rule: Rule
    """Exit policy and threshold."""
    scores: dict[str, float]
    """Metric -> score on dev under this rule."""
    constant_scores: dict[str, float]
    """Metric -> score on dev of the majority-class baseline (the mean label for a regression)."""
    macs: float
    """Mean MACs per dev example under this rule."""
    layers: float
    """Mean number of layers that a dev example runs under this rule."""
    full_scores: dict[str, float] | None = None
    """Metric -> score on dev of the run's last exit; None in folders older than this field."""
    full_macs: float | None = None
    """Mean MACs per dev example up to the run's last exit."""
    full_layers: int | None = None
    """Number of layers of the run's model."""
    columns: tuple[str, ...] | None = None
    """Names of the text columns of a custom task's files."""
    label_column: str | None = None
    """Name of the label column of a custom task's files."""
    values: tuple[str, ...] | None = None
    """Spelling of each class in the task's files; None in folders older than this field."""
    label_range: tuple[float, float] | None = None
    """Smallest and largest label of a regression; None for classes, or in older folders."""

    @property
    def other_full_scores(self) -> dict[str, float] | None:
        """Scores of the run's last exit if this model is less than that; None if it is not."""
        return None if self.macs == self.full_macs else self.full_scores

    def compared_with_full(self) -> str:
        """Return scores, layers and MACs, beside those of the full model if it is another one."""
        own = f"{scores_text(self.scores)} at layer {self.layers:.3g}"
        if self.other_full_scores is None or self.full_macs is None:
            return own
        return (
            f"{own} and {self.macs / self.full_macs:.0%} of the full model's MACs on dev; the full "
            f"model: {scores_text(self.other_full_scores)} at layer {self.full_layers}"
        )

    @property
    def classes(self) -> int:
        """Number of outputs of the model; 1 for a regression."""
        return len(self.labels) or 1


class Prediction(NamedTuple):
    """The prediction for one example."""

    answer: str | float
    """Predicted class name, or predicted value in label units."""
    exit: int
    """Number of layers that the example ran."""
    probability: float | None
    """Probability of the predicted class at that exit; None for a regression."""
    milliseconds: float
    """Time of the example's batch in the model, divided by the batch's size."""


@dataclass(frozen=True)
class Exported:
    """An exported model, ready to predict."""

    card: Card
    model: MultiExitModel
    tokenizer: TextTokenizer
    device: torch.device

    def predict(
        self, rows: Sequence[str | tuple[str, ...]], batch_size: int = 32
    ) -> list[Prediction]:
        """Predict examples in order, each a text or a tuple of one or two texts.

        Predictions do not depend on the batch size.

        Raises: HarnessError if an example does not fit the task; IncompleteError if the files of
        the model do not fit each other.
        """
        texts = [(row,) if isinstance(row, str) else row for row in rows]
        return self.predict_tokens(self.encode(texts), batch_size) if texts else []

    def encode(self, rows: Sequence[tuple[str, ...]]) -> Tokens:
        """Tokenize examples, truncated to the maximum length of training.

        Raises: HarnessError if an example has a wrong number of texts, or a text is not valid
        Unicode.
        """
        allowed = (1, 2) if self.card.texts is None else (self.card.texts,)
        for number, row in enumerate(rows, start=1):
            if len(row) not in allowed:
                expected = f"{' or '.join(map(str, allowed))} text{'s' * (allowed != (1,))}"
                raise HarnessError(
                    f"example {number} has {counted(len(row), 'text')},"
                    f" expected {expected} for task {self.card.task}"
                )
            if any("\ud800" <= character <= "\udfff" for text in row for character in text):
                raise HarnessError(f"example {number} contains bytes that are not valid UTF-8")
        return encode(
            self.tokenizer,
            self.card.shape,
            f"backbone {self.card.backbone}",
            [tuple(map(self._as_in_training, row)) for row in rows],
            self.card.max_length,
        )

    def _as_in_training(self, text: str) -> str:
        """Return a text as tasks read it: those of GLUE are without surrounding spaces."""
        return text.strip() if self.card.columns is None else text

    def columns(self) -> Columns | None:
        """Return the names of the columns of the task's files, if they are known."""
        card = self.card
        if card.columns is None or card.label_column is None:
            return None
        return Columns(tuple(map(same_text, card.columns)), same_text(card.label_column))

    def expected(self, rows: Sequence[TextRow], origin: str) -> NDArray[np.float64]:
        """Return the class index or the number of each row's label; all rows must have one.

        A label is spelled as in the task's files or is the name of the class.

        Raises: HarnessError with file and line if a label is not one of the task's.
        """
        card = self.card
        values = card.values or card.labels
        spelling = dict(zip(map(same_text, card.labels), values, strict=True))
        spelling |= {same_text(value): value for value in values}
        task = Task(
            card.task,
            card.labels,
            values,
            card.metrics,
            Unavailable(card.texts),
            bounds=card.label_range or (-math.inf, math.inf),
        )
        labels = [same_text(str(row.label)) for row in rows]
        examples = [
            Row(row.texts, spelling.get(label, label), row.line)
            for row, label in zip(rows, labels, strict=True)
        ]
        return make_split(task, RawSplit("dev", examples, values, origin)).labels

    def scores(
        self, predicted: Sequence[Prediction], expected: NDArray[np.float64]
    ) -> dict[str, float]:
        """Score predictions by the class indices or numbers of their labels."""
        card = self.card
        answers = [
            float(card.labels.index(str(one.answer)) if card.labels else one.answer)
            for one in predicted
        ]
        found = scores(card.metrics, np.array(answers), expected)
        return {name: float(score) for name, score in found.items()}

    def warm_up(self, tokens: Tokens, batch_size: int) -> None:
        """Predict the longest examples once, since the first batch takes longer than the others."""
        longest = np.argsort(tokens.lengths)[-batch_size:]
        self.predict_tokens(tokens.rows(longest), batch_size)

    def predict_tokens(self, tokens: Tokens, batch_size: int) -> list[Prediction]:
        """Predict examples that have been tokenized by `encode`."""
        found = predict_examples(
            self.model, tokens, self.card.classes, self.card.rule, batch_size, self.device
        )
        predicted = predictions(found.logits)
        if not self.card.labels:
            values: list[tuple[str | float, float | None]] = [
                (round(float(value), 6), None) for value in predicted
            ]
        else:
            # The largest probability is that of the predicted class.
            probabilities = Confidence().score(found.logits[None])
            values = [
                (self.card.labels[int(index)], round(float(probability), 6))
                for index, probability in zip(predicted, probabilities, strict=True)
            ]
        timed = zip(values, found.layers, found.milliseconds, strict=True)
        return [
            Prediction(value, int(layer), probability, round(float(milliseconds), 4))
            for (value, probability), layer, milliseconds in timed
        ]


def load(folder: str | Path, device: str = "cpu") -> Exported:
    """Load a model exported by `harness export`.

    The files are checked against each other before anything large is allocated.
    Raises: HarnessError if the folder is not an exported model; IncompleteError if its files are
    damaged or do not fit each other.
    """
    path = Path(folder)
    if not (path / CARD).is_file():
        raise HarnessError(f"{path} has no {CARD}: expected a folder written by harness export")
    card = from_json(Card, _read_small(path / CARD), str(path / CARD))
    _read_small(path / CONFIG)
    card.rule.policy_and_score_threshold(card.classes)
    formats = model_format()
    formats.check_model(path)
    if not (path / TOKENIZER).is_file():
        raise IncompleteError(f"{path} has no {TOKENIZER}: export the model again")
    tokenizer = read_exported_tokenizer(path / TOKENIZER)
    model = Exported(card, formats.load_model(path), tokenizer, torch.device(device))
    # A first prediction detects files that do not fit each other.
    model.predict([("a",) * (card.texts if card.texts in (1, 2) else 1)])
    return model


def _read_small(path: Path) -> str:
    """Read a text file of at most `LARGEST_JSON_BYTES`.

    Raises: IncompleteError if it cannot be read or is larger.
    """
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise IncompleteError(
                f"{path} has {path.stat().st_size} bytes, expected at most {LARGEST_JSON_BYTES}"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IncompleteError(f"{path} cannot be read: {reason(error)}") from None
