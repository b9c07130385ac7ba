"""The typed record of a run. It needs the standard library and annotated_types, so that a reader needs nothing else."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, Protocol, Self, TypeVar

from annotated_types import Gt, MinLen

RECORD_BYTES = 10_240
"""A record's JSON stays below this for models of up to 12 layers, in bytes: it is read by people and kept in git."""


Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Gt(0)]
"""Of what every model has: MACs, parameters."""


class Number(Protocol):
    """An int, a float or a numpy array of lengths."""

    def __add__(self, other: int | Self, /) -> Self: ...
    def __radd__(self, other: int, /) -> Self: ...
    def __mul__(self, other: int | Self, /) -> Self: ...
    def __rmul__(self, other: int, /) -> Self: ...


N = TypeVar("N", bound=Number)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a user asked for: everything that names a cell of the comparison."""

    method: str
    """Family or preset name, as typed."""
    task: str
    backbone: str
    seed: int
    train_rows: int | None
    """Training rows drawn from the training part; None is all of it."""
    max_length: int
    """Tokens, special ones included, after which a text is cut."""
    limit: int | None
    """Rows per split of a quick look; None is a full run. Never averaged with full runs."""
    settings: dict[str, object]
    """JSON values: all hyper-parameters of the method, nested methods (a teacher) included."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where the run happened. Never a path, host or user name."""

    device: str
    """Name of the processor or accelerator that ran the model."""
    device_type: str
    """cpu or cuda."""
    precision: str
    """Arithmetic of training: float32 or bfloat16 (autocast). Traces are always computed in float32."""
    threads: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Sources:
    """Fingerprints of what a method learned from beside the task's rows and the backbone; None where it does not read such."""

    corpus: str | None = None
    """Sentences that it was pre-trained on."""
    vectors: str | None = None
    """A file of word vectors."""
    checkpoint: str | None = None
    """A published student."""


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Which rows were used."""

    rows: dict[str, int]
    """Rows per split: train (after train_rows), selection, calibration, dev."""
    truncated: dict[str, int]
    """Rows per split that were longer than max_length tokens."""
    repeated: int
    """Dev rows whose texts stand word for word among the training rows."""
    dev_tokens: float
    """Mean real length of the dev rows, in tokens."""
    data: str
    """Fingerprint of the files' rows."""
    splits: str
    """Fingerprint of the held-out rows' ids."""
    backbone: str
    """Fingerprint of shape, weights and vocabulary of the backbone."""
    sources: Sources = Sources()
    """What the method learned from beside these rows."""


FIXED_LENGTH = 128
"""Tokens of the field's fixed-length figure."""


@dataclass(frozen=True, slots=True)
class Polynomial:
    """MACs of a piece of the model as an exact function of the sequence length t: c0 + c1 t + c2 t^2."""

    c0: int
    c1: int
    c2: int

    def at(self, length: N) -> N:
        """MACs at a length in tokens (a number or an array of them)."""
        return self.c0 + length * (self.c1 + length * self.c2)


@dataclass(frozen=True, slots=True)
class Costs:
    """MACs of each piece of a multi-exit model, counted one by one.

    Layer i is the i-th to run, from 0; a module that several layers share is charged each time it runs.
    """

    embedding: Polynomial
    layers: tuple[Polynomial, ...]
    exits: tuple[Polynomial | None, ...]
    """None where a layer has no exit."""

    def static(self, layer: int, length: N) -> N:
        """MACs of the truncated model: the layers up to `layer` (from 0) and its exit alone."""
        own = self.exits[layer]
        assert own is not None, f"layer {layer} has no exit"
        return sum(
            (piece.at(length) for piece in self.layers[: layer + 1]), self.embedding.at(length)
        ) + own.at(length)

    def path(self, layer: int, length: N) -> N:
        """MACs of an example that leaves at `layer` (from 0) on its way past all earlier exits."""
        on_the_way = [piece for piece in self.exits[:layer] if piece is not None]
        return sum((piece.at(length) for piece in on_the_way), self.static(layer, length))


STABLE_SPREAD = 1.3
"""A clock is disturbed whose third quartile is more than so many times the first."""


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Wall-clock milliseconds of one batch."""

    q1: Positive
    median: Positive
    q3: Positive

    @property
    def spread(self) -> float:
        """q3 / q1: 1 for a clock that nothing disturbs."""
        return self.q3 / self.q1


@dataclass(frozen=True, slots=True)
class ExitMeasurement:
    """One exit of the model, on dev."""

    layer: int
    """Layers run before this exit, from 1."""
    scores: dict[str, float]
    """Metric name -> score of the truncated model, as a fraction (not per cent)."""
    macs: Positive
    """Mean MACs per dev row of the truncated model, at each row's real length."""
    macs_128: Count
    """MACs of the truncated model at 128 tokens, the field's fixed-length figure."""
    parameters: Count
    """Parameters of the truncated model; shared ones count once."""
    static_ms: dict[str, Quartiles]
    """Batch size -> milliseconds per batch of the truncated model."""
    path_ms: dict[str, Quartiles]
    """Batch size -> milliseconds per batch when every row leaves here, earlier exits and decisions included."""


@dataclass(frozen=True, slots=True)
class LatencyConditions:
    """How the milliseconds of a record were measured."""

    device: str
    precision: str
    threads: int
    rounds: dict[str, int]
    """Batch size -> interleaved rounds."""
    tokens: dict[str, tuple[int, ...]]
    """Batch size -> padded length in tokens of each batch that was timed."""
    reference: str | None
    """Method that was measured in the same rounds."""
    reference_ms: dict[str, Quartiles]
    """Batch size -> milliseconds per batch of the reference's last exit."""
    reference_ratio: dict[str, tuple[Quartiles, ...]]
    """Batch size -> for each exit, reference time over static time, paired round by round (a ratio, no unit)."""
    path_ratio: dict[str, tuple[Quartiles, ...]]
    """Batch size -> for each exit, reference time over path time, paired round by round."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a training loop tells of itself."""

    rows: int
    steps: int
    """Optimiser steps, over all epochs."""
    seconds: float
    """Wall-clock."""
    final_loss: float
    """Mean training loss over the last epoch."""
    selection: tuple[float, ...]
    """Score on `selection` after each epoch; the best epoch's weights are kept."""
    best_epoch: int
    """From 1; the last one when there is no score to choose by; 0 when the stage trains nothing."""


@dataclass(frozen=True, slots=True)
class StageReport(Training):
    """One cached stage of training."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class StageUse:
    """A stage as this run met it."""

    report: StageReport
    reused: bool
    """True when it was fitted by an earlier run."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One value of a hyper-parameter that was tried on `selection`, always with the seed of the search."""

    stage: str
    field: str
    value: float
    score: float | None
    """Best epoch's; None when the loss was not finite."""
    seconds: float | None
    """Wall-clock seconds of its training."""
    chosen: bool


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """What became of the tensors of a pretrained checkpoint."""

    loaded: int
    left_out: tuple[str, ...]
    """Tensors of the file that were left out on purpose."""
    fresh: tuple[str, ...]
    """Tensors of the model that the file does not have."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What a reader must know of a user's own task, whose file may be gone."""

    labels: tuple[str, ...]
    """Class names in index order; empty for a regression."""
    metrics: tuple[str, ...]
    """The first is the main one."""
    scale: float
    """Regression: what labels are divided by in training."""
    texts: int | None = None
    """Texts of a row; None in records that are older than this field."""


@dataclass(frozen=True, slots=True)
class SplitScores:
    """Scores on a further split that only scores (MNLI's mismatched)."""

    constant: dict[str, float]
    """Metric -> score of the constant answer."""
    exits: tuple[dict[str, float], ...]
    """For each exit metric -> score of the truncated model."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that is kept of a run beside its traces.

    Absolutes are stored and ratios derived, but for those that the clock paired within rounds.
    """

    schema: Literal[2]
    """Version of this form; a reader refuses every other one."""
    run_id: str
    created: str
    """UTC date and time, ISO 8601."""
    spec: RunSpec
    environment: Environment
    data: DataSummary
    constant_scores: dict[str, float]
    """Metric -> score on dev of always answering the training part's majority label (or mean value)."""
    policy: str | None
    """The method's own exit policy; None for a model with one exit."""
    tolerance: float
    """Largest difference, in label units, that patience calls agreement on a regression task."""
    parameters: Count
    """Parameters of the whole model, all exits included; shared ones count once."""
    costs: Costs
    exits: Annotated[tuple[ExitMeasurement, ...], MinLen(1)]
    latency: LatencyConditions | None
    """None when latency was not measured (--no-latency)."""
    stages: Annotated[tuple[StageUse, ...], MinLen(1)]
    search: tuple[Trial, ...]
    weights: WeightsReport
    seconds: float
    """Wall-clock seconds of the whole cell."""
    own_task: TaskSummary | None = None
    """None for a task of the table."""
    mismatched: SplitScores | None = None
    """None for a task with one dev split."""
    remarks: tuple[str, ...] = ()
    """What a method could not do as its settings say."""
    changed: dict[str, object] | None = None
    """Settings, by their names with dots, that differ from the method's own on this backbone; None in records that are older than this
    field."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A live measurement of early exit with real compaction, kept beside the record (`harness time`)."""

    run_id: str
    created: str
    """UTC date and time, ISO 8601: of several with the same conditions the newest stands."""
    policy: str
    threshold: float
    """In the policy's own unit: entropy in nats, confidence as probability, patience in agreements."""
    batch_size: int
    device: str
    precision: str
    threads: int
    rows: int
    rounds: int
    tokens: float
    """Mean padded length of the batches."""
    mean_layers: float
    scores: dict[str, float]
    """Scores of the live answers on the rows that were timed."""
    early_ms: Quartiles
    """Per batch."""
    reference: str | None
    """Method whose last exit was timed in the same rounds; None: the model's own last exit."""
    reference_ms: Quartiles
    """Per batch."""
    ratio: Quartiles
    """Reference time over early-exit time, paired round by round."""


def variant(record: RunRecord) -> dict[str, object]:
    """All that sets a run apart from others of its method on the same task: settings, what it learned from beside the rows, and where it
    ran."""
    where = record.environment
    place = {"device": where.device, "threads": where.threads}
    return record.spec.settings | {"sources": asdict(record.data.sources)} | place


def flat(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Settings with those of nested methods as `teacher.epochs`, the form in which --set takes them."""
    found: dict[str, object] = {}
    for name, value in settings.items():
        found |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return found


def canonical(settings: dict[str, object]) -> str:
    """Settings as text that is equal when they mean the same: 1 and 1.0, a field that is None and one that is missing."""

    def plain(value: object) -> object:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return json.dumps(
        {name: plain(value) for name, value in flat(settings).items() if value is not None},
        sort_keys=True,
    )
