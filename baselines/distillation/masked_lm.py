"""Masked language modelling: masking tokens, and a stage that trains the masked-LM head.

Source: Devlin et al., NAACL 2019, section 3.1.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from baselines.encoders.encoder import EncoderModel, MaskedLmHead
from baselines.encoders.weights import has_masked_lm_head, pretrained
from baselines.training.finetune import model_config, single_exit
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
"""Share of the real tokens that is masked, at least one in each example."""
MIN_WORDS = 4
"""Smallest number of words in a sentence to mask.

In a shorter one `MASKED_SHARE` is less than half a token, and the rest says little about the masked
word.
"""
MASK_TOKEN_SHARE, RANDOM_TOKEN_SHARE = 0.8, 0.1
"""Shares of the masked tokens replaced by [MASK] and by a random word piece; the rest stay."""
MASK = ("[MASK]", "<mask>")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<pad>", "<unk>", "<s>", "</s>")
"""Names of the special tokens in vocabularies: BERT's, then those of RoBERTa and ALBERT."""
EVALUATION_SEED = 1
"""Seed of the positions masked when a model is evaluated."""


class Pieces(NamedTuple):
    """The word pieces of a vocabulary that masking treats specially."""

    mask: int
    special: tuple[int, ...]
    """Ids of the pieces in `MASK` and `SPECIAL`, which are never masked and never inserted."""
    size: int
    """Number of word pieces in the vocabulary."""

    @classmethod
    def of(cls, backbone: Backbone) -> "Pieces":
        """Look up the special pieces of a backbone's vocabulary.

        Raises: HarnessError if it has no [MASK].
        """
        vocabulary = backbone.tokenizer.vocabulary
        special = {vocabulary[name] for name in (*SPECIAL, *MASK) if name in vocabulary}
        masks = [vocabulary[name] for name in MASK if name in vocabulary]
        if not masks:
            raise HarnessError(
                f"backbone {backbone.name}: the vocabulary has no [MASK] for masked language "
                "modelling; set distilbert.pretraining=false or tinybert.augmentation=0"
            )
        return cls(
            masks[0],
            tuple(sorted(special | backbone.tokenizer.special)),
            min(len(vocabulary), backbone.shape.vocabulary),
        )


class Masked(NamedTuple):
    """A batch with some of its tokens masked."""

    batch: Batch
    positions: Tensor
    """[n, t] bool: True at masked tokens."""
    targets: Tensor
    """[m] original token ids, in the order of `positions`."""


def mask_tokens(batch: Batch, pieces: Pieces) -> Masked:
    """Mask a share of each example's tokens, drawn from torch's global generator."""
    special = torch.tensor(pieces.special, device=batch.ids.device)
    eligible = batch.mask & ~torch.isin(batch.ids, special)
    draws = torch.rand(batch.ids.shape, device=batch.ids.device).masked_fill(~eligible, 2.0)
    counts = (MASKED_SHARE * eligible.sum(1)).round().clamp(min=1).minimum(eligible.sum(1)).long()
    ranks = draws.argsort(1).argsort(1)
    positions = ranks < counts[:, None]
    kind = torch.rand(batch.ids.shape, device=batch.ids.device)
    ids = torch.where(positions & (kind < MASK_TOKEN_SHARE), pieces.mask, batch.ids)
    words = _ordinary_pieces(pieces, batch.ids.device)
    random = words[torch.randint(len(words), batch.ids.shape, device=batch.ids.device)]
    is_random = (kind >= MASK_TOKEN_SHARE) & (kind < MASK_TOKEN_SHARE + RANDOM_TOKEN_SHARE)
    ids = torch.where(positions & is_random, random, ids)
    return Masked(batch._replace(ids=ids), positions, batch.ids[positions])


def maskable(rows: Split, pieces: Pieces) -> Split:
    """Return the examples with at least `MIN_WORDS` tokens that may be masked.

    Raises: HarnessError if there is none.
    """
    counts = [int((~np.isin(ids, pieces.special)).sum()) for ids in rows.tokens.ids]
    kept = np.flatnonzero(np.array(counts) >= MIN_WORDS)
    if not len(kept):
        raise HarnessError(
            f"the corpus has no sentence of at least {MIN_WORDS} words that the vocabulary knows: "
            "give another --corpus"
        )
    return rows.rows(kept)


def log_frequencies(rows: Split, vocabulary: int) -> Tensor:
    """Return the log share [V] of each word piece among the tokens, with add-one smoothing.

    It is the initial bias of a head: the prediction without any context.
    """
    counts = np.bincount(np.concatenate(rows.tokens.ids), minlength=vocabulary) + 1.0
    return torch.from_numpy(np.log(counts / counts.sum())).float()


def _ordinary_pieces(pieces: Pieces, device: torch.device) -> Tensor:
    """Return the ids of all pieces but the special ones."""
    everything = torch.arange(pieces.size, device=device)
    return everything[~torch.isin(everything, torch.tensor(pieces.special, device=device))]


def masked_logits(model: EncoderModel, hidden: Tensor, masked: Masked) -> Tensor:
    """Return the masked-LM head's logits [m, V] at the masked positions of states [n, t, d]."""
    assert model.masked_lm is not None
    logits: Tensor = model.masked_lm(hidden[masked.positions], model.embedding)
    return logits


MIN_MASKED_ACCURACY = 0.30
"""Lowest accuracy on held-out masked pieces at which a model's word predictions are used."""

HEAD_SCHEDULE = Schedule(
    epochs=2,
    batch_size=128,
    learning_rate=5e-3,
    warmup=0.1,
    weight_decay=0.01,
    clip=1.0,
    accumulation=1,
)
"""Schedule for training a head on a frozen encoder."""


@dataclass(frozen=True)
class MaskedLm:
    """Give the backbone's pretrained model a masked-LM head.

    The head is the checkpoint's own if its accuracy is at least `enough`; otherwise a head is
    trained on the corpus, starting from word frequencies, with the encoder frozen. The best epoch
    has the highest accuracy on masked pieces of `selection`.
    """

    name: str
    enough: float
    """Accuracy on masked pieces from which the checkpoint's head is kept."""
    schedule: Schedule
    revision: ClassVar[int] = 2

    def examples(self, rows: int) -> int:
        """Return the number of examples of all epochs, if the head is trained."""
        return self.schedule.examples(rows)

    def fit(
        self, parents: tuple[MultiExitModel, ...], data: TaskData, backbone: Backbone, run: StageRun
    ) -> FreshFit:
        """Load the head, or fit it on the train split."""
        config = replace(
            model_config(backbone, data.task, single_exit(backbone.shape, "plain")), masked_lm=True
        )
        model, report = pretrained(backbone, config)
        pieces = Pieces.of(backbone)
        held_out = maskable(data.selection, pieces)
        if has_masked_lm_head(backbone):
            accuracy = masked_accuracy(model, held_out, pieces, run.compute)
            if accuracy >= self.enough:
                return FreshFit(model.to("cpu"), Training(0, 0, 0.0, 0.0, (accuracy,), 0), report)
        head = model.masked_lm
        assert head is not None
        rows = maskable(data.train, pieces)
        with torch.no_grad():
            head.bias.copy_(log_frequencies(rows, len(head.bias)))
        model.to(run.compute.device).eval().requires_grad_(False)
        head.requires_grad_(True)

        def loss(head: MaskedLmHead, examples: Examples) -> Tensor:
            masked = mask_tokens(examples.batch, pieces)
            with torch.no_grad():
                hidden = model(masked.batch).hiddens[-1]
            return functional.cross_entropy(
                masked_logits(model, hidden, masked).float(), masked.targets
            )

        def score(head: MaskedLmHead) -> float:
            return masked_accuracy(model, held_out, pieces, run.compute)

        training = train(head, loss, rows, score, self.schedule, run)
        return FreshFit(model.to("cpu").eval(), training, report)


@torch.inference_mode()
def masked_accuracy(model: EncoderModel, rows: Split, pieces: Pieces, compute: Compute) -> float:
    """Return the accuracy on masked pieces; every call masks the same positions."""
    model.to(compute.device).eval()
    correct = total = 0
    with torch.random.fork_rng([compute.device] if compute.device.type == "cuda" else []):
        torch.manual_seed(EVALUATION_SEED)
        for index in sorted_batches(rows.tokens.lengths, EVALUATION_BATCH):
            masked = mask_tokens(collate(rows.tokens, index).to(compute.device), pieces)
            logits = masked_logits(model, model(masked.batch).hiddens[-1], masked)
            correct += int((logits.argmax(-1) == masked.targets).sum())
            total += len(masked.targets)
    return correct / max(total, 1)


class MaskedLanguageModel(NamedTuple):
    """A fitted model with a masked-LM head."""

    stage: FittedStage
    accuracy: float
    """Accuracy on masked pieces of held-out sentences."""

    @property
    def is_accurate(self) -> bool:
        """Whether its word predictions are accurate enough to be used."""
        return self.accuracy >= MIN_MASKED_ACCURACY

    def remarks(self, fallback: str) -> tuple[str, ...]:
        """Return a remark naming the fallback, or none if the model is accurate enough."""
        if self.is_accurate:
            return ()
        return (
            f"{fallback}: the masked-LM head predicts {self.accuracy:.3f} of held-out masked "
            f"words, below {MIN_MASKED_ACCURACY:.2f}",
        )


def masked_lm(backbone: Backbone, max_length: int, context: FitContext) -> MaskedLanguageModel:
    """Return the backbone with its own masked-LM head or one trained on the corpus.

    It is fitted once for all tasks and seeds.
    """
    stage = context.pretrained(
        MaskedLm("masked-lm", MIN_MASKED_ACCURACY, HEAD_SCHEDULE), backbone, max_length
    )
    return MaskedLanguageModel(stage, max(stage.stored.report.selection))
