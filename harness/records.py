"""The typed record of a run.

This file needs only the standard library and annotated_types, and so does a reader of records.
"""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, Protocol, Self, TypeVar

from annotated_types import Gt, MinLen

RECORD_BYTES = 10_240
"""Largest size in bytes of the JSON of a record for models of up to 12 layers.

A record is small because it is read by people and kept in git."""


Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Gt(0)]
"""Number of something that every model has: MACs or parameters."""


class Number(Protocol):
    """A length or an array of lengths: an int, a float or a numpy array."""

    def __add__(self, other: int | Self, /) -> Self: ...
    def __radd__(self, other: int, /) -> Self: ...
    def __mul__(self, other: int | Self, /) -> Self: ...
    def __rmul__(self, other: int, /) -> Self: ...


N = TypeVar("N", bound=Number)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """The cell of a comparison, as the user requested it."""

    method: str
    """Name of the method, as given by the user."""
    task: str
    backbone: str
    seed: int
    train_rows: int | None
    """Number of examples drawn from the training split; None means all."""
    max_length: int
    """Length in tokens, including special tokens, to which a text is truncated."""
    limit: int | None
    """Examples per split of a quick run; None for a full run. The two are never averaged."""
    settings: dict[str, object]
    """All hyper-parameters as JSON values, including those of nested methods (a teacher)."""


PRECISION_OPTIONS = {"float32": "fp32", "bfloat16": "bf16"}
"""Precision of training, as a record has it -> value of --precision."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Hardware and software of a run. It never holds a path, host name or user name."""

    device: str
    """Name of the processor or accelerator that ran the model."""
    device_type: str
    """cpu or cuda."""
    precision: str
    """Training precision: float32 or bfloat16 (autocast). Traces are always computed in float32."""
    threads: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Sources:
    """Fingerprints of the training inputs besides the task's data and the backbone.

    None means that the method does not use this input.
    """

    corpus: str | None = None
    """Sentences used for pre-training."""
    vectors: str | None = None
    """File of word vectors."""
    checkpoint: str | None = None
    """Published checkpoint of a student."""


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The data that a run used."""

    rows: dict[str, int]
    """Examples per split: train (after train_rows), selection, calibration, dev."""
    truncated: dict[str, int]
    """Examples per split that were longer than max_length tokens."""
    repeated: int
    """Number of dev examples whose texts also occur, word for word, among the training examples."""
    dev_tokens: float
    """Mean length of the dev examples in tokens, without padding."""
    data: str
    """Fingerprint of the rows of the task's files."""
    splits: str
    """Fingerprint of the ids of the held-out examples."""
    backbone: str
    """Fingerprint of the shape, weights and vocabulary of the backbone."""
    sources: Sources = Sources()
    """Further training inputs of the method."""


FIXED_LENGTH = 128
"""Sequence length in tokens at which the literature reports fixed-length MACs."""


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Exact MACs of a piece of the model at sequence length t: c0 + c1 t + c2 t^2."""

    c0: int
    c1: int
    c2: int

    def at(self, length: N) -> N:
        """Return the MACs at a length in tokens (a number or an array)."""
        return self.c0 + length * (self.c1 + length * self.c2)


@dataclass(frozen=True, slots=True)
class Costs:
    """MACs of each piece of a multi-exit model, counted separately.

    Layer i is the i-th to run, from 0. A module shared by layers is counted each time it runs.
    """

    embedding: Polynomial
    layers: tuple[Polynomial, ...]
    exits: tuple[Polynomial | None, ...]
    """None where a layer has no exit."""

    def static(self, layer: int, length: N) -> N:
        """Return the MACs of the truncated model: layers up to `layer` (from 0) and its exit."""
        last = self.exits[layer]
        assert last is not None, f"layer {layer} has no exit"
        return sum(
            (piece.at(length) for piece in self.layers[: layer + 1]), self.embedding.at(length)
        ) + last.at(length)

    def path(self, layer: int, length: N) -> N:
        """Return the MACs of an example that exits at `layer` (from 0), including earlier exits."""
        earlier = [piece for piece in self.exits[:layer] if piece is not None]
        return sum((piece.at(length) for piece in earlier), self.static(layer, length))


STABLE_SPREAD = 1.3
"""Largest ratio q3 / q1 of stable timing; above it the timing is noisy."""


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Quartiles of a timing: milliseconds per batch, or a ratio of two timings."""

    q1: Positive
    median: Positive
    q3: Positive

    @property
    def spread(self) -> float:
        """Return q3 / q1, which is 1 for perfectly stable timing."""
        return self.q3 / self.q1


@dataclass(frozen=True, slots=True)
class ExitMeasurement:
    """Scores and costs of one exit on dev."""

    layer: int
    """Number of layers run before this exit, from 1."""
    scores: dict[str, float]
    """Metric name -> score of the truncated model, as a fraction (not a percentage)."""
    macs: Positive
    """Mean MACs per dev example of the truncated model, at each example's real length."""
    macs_128: Count
    """MACs of the truncated model at 128 tokens, the usual fixed-length figure."""
    parameters: Count
    """Parameters of the truncated model; shared parameters count once."""
    static_ms: dict[str, Quartiles]
    """Batch size -> milliseconds per batch of the truncated model."""
    path_ms: dict[str, Quartiles]
    """Batch size -> milliseconds per batch if all examples exit here.

    Earlier exits and their decisions are included."""


LIBRARY_DEFAULT = "the library's default"
"""Wait policy of timings whose user has set none."""


@dataclass(frozen=True, slots=True)
class LatencyConditions:
    """Conditions and reference of a record's latency measurement."""

    device: str
    precision: str
    threads: int
    rounds: dict[str, int]
    """Batch size -> number of interleaved rounds."""
    tokens: dict[str, tuple[int, ...]]
    """Batch size -> padded length in tokens of each timed batch."""
    reference: str | None
    """Reference method, measured in the same rounds."""
    reference_ms: dict[str, Quartiles]
    """Batch size -> milliseconds per batch of the reference's last exit."""
    reference_ratio: dict[str, tuple[Quartiles, ...]]
    """Batch size -> for each exit, reference time / static time, paired round by round."""
    path_ratio: dict[str, tuple[Quartiles, ...]]
    """Batch size -> for each exit, reference time / path time, paired round by round."""
    wait_policy: str | None = None
    """How idle threads waited: `LIBRARY_DEFAULT`, or the user's variables as NAME=VALUE.

    None in records older than this field."""


@dataclass(frozen=True, slots=True)
class Training:
    """Summary of a training loop."""

    rows: int
    steps: int
    """Optimiser steps over all epochs."""
    seconds: float
    """Wall-clock seconds."""
    final_loss: float
    """Mean training loss over the last epoch."""
    selection: tuple[float, ...]
    """Score on `selection` after each epoch; the weights of the best epoch are kept."""
    best_epoch: int
    """Best epoch, from 1: the last one if there are no scores, 0 if the stage trains nothing."""


@dataclass(frozen=True, slots=True)
class StageReport(Training):
    """One cached stage of training."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class StageUse:
    """A stage as used by one run."""

    report: StageReport
    reused: bool
    """True if the stage was fitted by an earlier run."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One value of a hyper-parameter tried on `selection`, always with the seed of the search."""

    stage: str
    field: str
    value: float
    score: float | None
    """Score of the best epoch; None if the loss was not finite."""
    seconds: float | None
    """Wall-clock seconds of the training."""
    chosen: bool


RANDOM_WEIGHTS = "all: random backbone"
"""Entry of `WeightsReport.fresh` of a model on a random backbone."""


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """Report on the tensors of a pretrained checkpoint."""

    loaded: int
    left_out: tuple[str, ...]
    """Tensors of the file that were deliberately not loaded."""
    fresh: tuple[str, ...]
    """Tensors of the model that are missing from the file."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """Description of a custom task, whose file may no longer exist."""

    labels: tuple[str, ...]
    """Class names in the order of their indices; empty for regression."""
    metrics: tuple[str, ...]
    """Metric names, of which the first is the main metric."""
    scale: float
    """Divisor of regression labels in training."""
    texts: int | None = None
    """Number of texts per example; None in records older than this field."""
    columns: tuple[str, ...] | None = None
    """Names of the text columns in the task's files; None in records older than this field."""
    label: str | None = None
    """Name of the label column; None in records older than this field."""
    values: tuple[str, ...] | None = None
    """Spelling of each class in the files; None in records older than this field."""
    bounds: tuple[float, float] | None = None
    """Smallest and largest label of a regression, if the smallest is not 0."""


@dataclass(frozen=True, slots=True)
class SplitScores:
    """Scores on an additional evaluation split (MNLI's mismatched)."""

    constant: dict[str, float]
    """Metric -> score of the majority-class baseline."""
    exits: tuple[dict[str, float], ...]
    """For each exit, metric -> score of the truncated model."""


def short_id(run_id: str) -> str:
    """Return the first digits of a run id, which commands show and take as well."""
    return run_id[:8]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that is stored of a run except its traces.

    Absolute figures are stored and ratios are derived, except latency ratios paired within rounds.
    """

    schema: Literal[2]
    """Version of this format; a reader refuses any other version."""
    run_id: str
    created: str
    """UTC date and time, ISO 8601."""
    spec: RunSpec
    environment: Environment
    data: DataSummary
    constant_scores: dict[str, float]
    """Metric -> dev score of the majority-class baseline (regression: the training mean)."""
    policy: str | None
    """Default exit policy of the method; None for a model with one exit."""
    tolerance: float
    """Patience on a regression task: predictions agree if they differ by less, in label units."""
    parameters: Count
    """Parameters of the model including all exits; shared parameters count once."""
    costs: Costs
    exits: Annotated[tuple[ExitMeasurement, ...], MinLen(1)]
    latency: LatencyConditions | None
    """None if latency was not measured (--no-latency)."""
    stages: Annotated[tuple[StageUse, ...], MinLen(1)]
    search: tuple[Trial, ...]
    weights: WeightsReport
    seconds: float
    """Wall-clock seconds of the whole cell."""
    own_task: TaskSummary | None = None
    """Description of a custom task; None for a built-in task."""
    mismatched: SplitScores | None = None
    """Scores on MNLI's mismatched split; None for other tasks."""
    remarks: tuple[str, ...] = ()
    """Notes on settings that the method could not follow."""
    changed: dict[str, object] | None = None
    """Dotted setting name -> value, where it differs from the method's default on this backbone.

    None in records older than this field."""
    batch_size: int | None = None
    """Batch size of the trace and of the second latency figure (--batch-size); None in records
    older than this field."""
    latency_seconds: float | None = None
    """Seconds of timing at each batch size (--latency-seconds), 0 without timing; None in records
    older than this field."""

    @property
    def trained(self) -> bool:
        """Whether the run trained a model; a checkpoint is only loaded."""
        return any(use.report.steps for use in self.stages)

    @property
    def short_id(self) -> str:
        """First digits of the run id."""
        return short_id(self.run_id)


@dataclass(frozen=True, slots=True)
class Timing:
    """A live timing of early exit (`harness time`), stored next to the record.

    Examples that exit are removed from the batch.
    """

    run_id: str
    created: str
    """UTC date and time, ISO 8601; of timings with equal conditions the newest one counts."""
    policy: str
    threshold: float
    """Threshold in the policy's unit: nats, a probability or a number of agreements."""
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
    """Scores of the live predictions on the timed examples."""
    early_ms: Quartiles
    """Milliseconds per batch with early exit."""
    reference: str | None
    """Method whose last exit was timed in the same rounds; None for the model's own last exit."""
    reference_ms: Quartiles
    """Milliseconds per batch of the reference."""
    ratio: Quartiles
    """Reference time / early-exit time, paired round by round."""


def variant(record: RunRecord) -> dict[str, object]:
    """Return everything that distinguishes a run from others of its method on the same task.

    These are its settings, its further training inputs, its device and its number of threads.
    """
    environment = record.environment
    hardware = {"device": environment.device, "threads": environment.threads}
    return record.spec.settings | {"sources": asdict(record.data.sources)} | hardware


def flat(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Return settings with nested ones under dotted names (`teacher.epochs`), as in --set."""
    found: dict[str, object] = {}
    for name, value in settings.items():
        found |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return found


def canonical(settings: dict[str, object]) -> str:
    """Return a text that is equal for equivalent settings.

    1 equals 1.0, and a field that is None equals a missing one.
    """

    def normalized(value: object) -> object:
        if isinstance(value, list):
            return [normalized(item) for item in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return json.dumps(
        {name: normalized(value) for name, value in flat(settings).items() if value is not None},
        sort_keys=True,
    )
