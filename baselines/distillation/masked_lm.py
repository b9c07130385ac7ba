"""Masked language modelling (Devlin et al., NAACL 2019, section 3.1): masking rows, and a stage that trains a head to tell the words."""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from baselines.encoders.encoder import EncoderModel, MaskedLmHead
from baselines.encoders.weights import has_masked_lm_head, pretrained
from baselines.training.finetune import last_only, model_config
from baselines.training.loop import EVALUATION_BATCH, Examples, train
from baselines.training.recipe import Schedule
from harness.data.dataset import Split, TaskData
from harness.errors import HarnessError
from harness.methods.compute import Compute
from harness.methods.stages import FitContext, FittedStage, FreshFit, StageRun
from harness.models.backbones import Backbone
from harness.models.batches import collate, sorted_batches
from harness.models.multi_exit import Batch, MultiExitModel
from harness.records import Training

MASKED_SHARE = 0.15
"""Of the real tokens; at least one a row."""
FEWEST_WORDS = 4
"""Fewer, and the share of them is less than half a token: what is left of such a sentence says little of the word that is gone."""
AS_MASK, AS_RANDOM = 0.8, 0.1
"""What becomes of a masked token: [MASK], a random word piece, or (the rest) itself."""
MASK = ("[MASK]", "<mask>")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<pad>", "<unk>", "<s>", "</s>")
"""What vocabularies call them: BERT's, and RoBERTa's and ALBERT's."""
MASKS_SEED = 1
"""Of the places that a model is judged by."""


class Pieces(NamedTuple):
    """The word pieces of a vocabulary that masking treats apart."""

    mask: int
    special: tuple[int, ...]
    """Never masked, never put in: what `MASK` and `SPECIAL` name."""
    size: int

    @classmethod
    def of(cls, backbone: Backbone) -> "Pieces":
        """Raises: HarnessError when the backbone's vocabulary has no [MASK]."""
        ids = {name: backbone.tokenizer.token_to_id(name) for name in (*SPECIAL, *MASK)}
        masks = [id_ for name in MASK if (id_ := ids[name]) is not None]
        if not masks:
            raise HarnessError(
                f"backbone {backbone.name}: the vocabulary has no [MASK], which masked language modelling needs; "
                "distilbert goes without by pretraining=false, tinybert by augmentation=0"
            )
        return cls(
            masks[0],
            tuple(id_ for id_ in ids.values() if id_ is not None),
            backbone.tokenizer.get_vocab_size(),
        )


class Masked(NamedTuple):
    """Rows with some of their tokens masked."""

    batch: Batch
    places: Tensor
    """[n, t] bool: where something is to be told."""
    targets: Tensor
    """[m] what stood there, in the order of `places`."""


def masked(batch: Batch, pieces: Pieces) -> Masked:
    """Mask a share of each row's tokens, drawn from torch's generator."""
    special = torch.tensor(pieces.special, device=batch.ids.device)
    free = batch.mask & ~torch.isin(batch.ids, special)
    draws = torch.rand(batch.ids.shape, device=batch.ids.device).masked_fill(~free, 2.0)
    counts = (MASKED_SHARE * free.sum(1)).round().clamp(min=1).minimum(free.sum(1)).long()
    ranks = draws.argsort(1).argsort(1)
    places = ranks < counts[:, None]
    fate = torch.rand(batch.ids.shape, device=batch.ids.device)
    ids = torch.where(places & (fate < AS_MASK), pieces.mask, batch.ids)
    words = _words(pieces, batch.ids.device)
    random = words[torch.randint(len(words), batch.ids.shape, device=batch.ids.device)]
    ids = torch.where(places & (fate >= AS_MASK) & (fate < AS_MASK + AS_RANDOM), random, ids)
    return Masked(batch._replace(ids=ids), places, batch.ids[places])


def maskable(rows: Split, pieces: Pieces) -> Split:
    """The rows with `FEWEST_WORDS` or more tokens that may be masked.

    Raises: HarnessError when there is none.
    """
    counts = [int((~np.isin(ids, pieces.special)).sum()) for ids in rows.tokens.ids]
    kept = np.flatnonzero(np.array(counts) >= FEWEST_WORDS)
    if not len(kept):
        raise HarnessError(
            f"the corpus has no sentence of {FEWEST_WORDS} words that the vocabulary knows"
        )
    return rows.rows(kept)


def log_frequencies(rows: Split, vocabulary: int) -> Tensor:
    """[V] log of each word piece's share of the rows' tokens, each counted once more: where a head that knows no context begins."""
    counts = np.bincount(np.concatenate(rows.tokens.ids), minlength=vocabulary) + 1.0
    return torch.from_numpy(np.log(counts / counts.sum())).float()


def _words(pieces: Pieces, device: torch.device) -> Tensor:
    """Ids of all pieces but the special ones."""
    everything = torch.arange(pieces.size, device=device)
    return everything[~torch.isin(everything, torch.tensor(pieces.special, device=device))]


def told(model: EncoderModel, hidden: Tensor, given: Masked) -> Tensor:
    """What the masked-LM head makes of hidden states [n, t, d] of masked rows: logits [m, V] for the masked places."""
    assert model.masked_lm is not None
    logits: Tensor = model.masked_lm(hidden[given.places], model.embedding)
    return logits


FEWEST_RIGHT = 0.30
"""Share of masked pieces that a model must tell right on held-out sentences for its words to teach anything."""

HEAD_SCHEDULE = Schedule(
    epochs=2,
    batch_size=128,
    learning_rate=5e-3,
    warmup=0.1,
    weight_decay=0.01,
    clip=1.0,
    accumulation=1,
)
"""Of a head on a frozen encoder."""


@dataclass(frozen=True)
class MaskedLm:
    """A model of the backbone's own weights with a masked-LM head: the checkpoint's where it tells `enough`, else one that is trained on
    the corpus, from the words' frequencies, the encoder frozen. The best epoch is chosen by the share of masked pieces told right on
    `selection`.
    """

    name: str
    enough: float
    """Share of masked pieces."""
    schedule: Schedule
    revision: ClassVar[int] = 2

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Load the head, or fit it on train."""
        config = replace(
            model_config(backbone, data.task, last_only(backbone.shape, "plain")), masked_lm=True
        )
        model, report = pretrained(backbone, config)
        pieces = Pieces.of(backbone)
        held = maskable(data.selection, pieces)
        if has_masked_lm_head(backbone):
            reached = masked_accuracy(model, held, pieces, run.compute)
            if reached >= self.enough:
                return FreshFit(model.to("cpu"), Training(0, 0, 0.0, 0.0, (reached,), 0), report)
        head = model.masked_lm
        assert head is not None
        rows = maskable(data.train, pieces)
        with torch.no_grad():
            head.bias.copy_(log_frequencies(rows, len(head.bias)))
        model.to(run.compute.device).eval().requires_grad_(False)
        head.requires_grad_(True)

        def loss(head: MaskedLmHead, examples: Examples) -> Tensor:
            given = masked(examples.batch, pieces)
            with torch.no_grad():
                hidden = model(given.batch).hiddens[-1]
            return functional.cross_entropy(told(model, hidden, given).float(), given.targets)

        def score(head: MaskedLmHead) -> float:
            return masked_accuracy(model, held, pieces, run.compute)

        training = train(head, loss, rows, score, self.schedule, run)
        return FreshFit(model.to("cpu").eval(), training, report)


@torch.inference_mode()
def masked_accuracy(model: EncoderModel, rows: Split, pieces: Pieces, compute: Compute) -> float:
    """Share of masked pieces that the model tells right; the same places on every call."""
    model.to(compute.device).eval()
    right = total = 0
    with torch.random.fork_rng([compute.device] if compute.device.type == "cuda" else []):
        torch.manual_seed(MASKS_SEED)
        for index in sorted_batches(rows.tokens.lengths, EVALUATION_BATCH):
            given = masked(collate(rows.tokens, index).to(compute.device), pieces)
            logits = told(model, model(given.batch).hiddens[-1], given)
            right += int((logits.argmax(-1) == given.targets).sum())
            total += len(given.targets)
    return right / max(total, 1)


class Words(NamedTuple):
    """The model that teaches words."""

    stage: FittedStage
    accuracy: float
    """Share of masked pieces that it tells right on held-out sentences."""

    @property
    def teach(self) -> bool:
        """Whether it knows enough of them."""
        return self.accuracy >= FEWEST_RIGHT

    def remarks(self, instead: str) -> tuple[str, ...]:
        """What is done where it does not."""
        if self.teach:
            return ()
        return (
            f"{instead}: the masked-LM head tells {self.accuracy:.3f} of held-out words, wanted {FEWEST_RIGHT:.2f}",
        )


def masked_lm(backbone: Backbone, max_length: int, context: FitContext) -> Words:
    """The backbone with a masked-LM head, its own or one trained on the corpus, once for all tasks and seeds."""
    stage = context.pretrained(
        MaskedLm("masked-lm", FEWEST_RIGHT, HEAD_SCHEDULE), backbone, max_length
    )
    return Words(stage, max(stage.stored.report.selection))
