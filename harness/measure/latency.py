"""Wall-clock latency: to each exit (static and path) and of live early exit, against a reference model in the same rounds.

Everything is timed in one fresh child process under a machine-wide lock. Variants take turns within each round (on a shared machine
one after the other is wrong by up to 30 %), ratios are paired round by round, and the median and quartiles are kept.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from harness.data.dataset import Tokens
from harness.data.tasks import Task
from harness.errors import IncompleteError
from harness.evaluation.policies import Policy, make_policy
from harness.evaluation.trace import Floats
from harness.files.locks import held
from harness.files.typed_json import from_json
from harness.measure.inference import predict_early
from harness.methods.registry import Reference, model_format
from harness.models.backbones import Backbone
from harness.models.batches import collate
from harness.models.multi_exit import Batch, MultiExitModel
from harness.progress import Progress
from harness.records import STABLE_SPREAD, ExitMeasurement, LatencyConditions, Quartiles

LENGTH_QUANTILES = (0.25, 0.5, 0.75)
"""Where in the dev split's lengths the timed batches are taken."""
MIN_ROUNDS, MAX_ROUNDS = 5, 40
LONGEST = 3.0
"""A timing that is not `STABLE_SPREAD` goes on, up to so many times the seconds asked for."""
ROUND, WAITING = "harness.measure.latency: round", "harness.measure.latency: waiting"
"""How the child process begins the line that it says after a round, and when another child is timing."""


@dataclass(frozen=True)
class LatencyJob:
    """What the child process is told. Models are folders; the reference's weights do not matter to the clock, only its shape."""

    model: str
    reference: str | None
    batches: dict[str, tuple[tuple[tuple[int, ...], ...], ...]]
    """Batch size -> batches -> rows -> word-piece ids."""
    device: str
    precision: str
    threads: int
    policy: str | None
    """One that can serve the model's task."""
    tolerance: float
    threshold: float | None
    """None: time each exit. A number: time live early exit at this threshold."""
    seconds: float
    """Timing of one batch size stops after this long, once there are min_rounds and every variant is steady."""
    min_rounds: int = MIN_ROUNDS
    max_rounds: int = MAX_ROUNDS


@dataclass(frozen=True)
class LatencySamples:
    """What the child process answers: batch size -> variant -> milliseconds per batch, one a round."""

    milliseconds: dict[str, dict[str, tuple[float, ...]]]


def timing_batches(tokens: Tokens, batch_size: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Real rows at the quartiles of the split's lengths, neighbours in length together."""
    order = np.argsort(tokens.lengths, kind="stable")
    size = min(batch_size, len(order))
    starts = [round(quantile * (len(order) - 1)) - size // 2 for quantile in LENGTH_QUANTILES]
    picked = [order[max(0, min(start, len(order) - size)) :][:size] for start in starts]
    return tuple(rows_of(tokens, rows) for rows in picked)


def rows_of(tokens: Tokens, rows: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """Word-piece ids of the rows at these positions."""
    return tuple(tuple(int(piece) for piece in tokens.ids[row]) for row in rows)


def run_job(job: LatencyJob, progress: Progress) -> LatencySamples:
    """Run a job in a fresh process, one timing at a time on this machine. Keep other work off it: trainings do not wait.

    Raises: IncompleteError with the child's last line when it fails.
    """
    torch.cuda.empty_cache()  # what training left reserved would be missing to the child
    rounds = (
        f"{job.min_rounds} to {job.max_rounds}"
        if job.min_rounds < job.max_rounds
        else str(job.max_rounds)
    )
    work = progress.track(f"timing, {rounds} rounds a batch size", None)
    with (
        work as advance,
        tempfile.TemporaryFile("w+") as told,
        tempfile.TemporaryFile("w+") as answer,
    ):
        told.write(json.dumps(asdict(job)))
        told.seek(0)
        command = [
            sys.executable,
            "-P",
            "-m",
            "harness.measure.latency",
        ]  # -P: a harness.py in the current folder is not ours
        said = ["no message"]
        with subprocess.Popen(
            command, stdin=told, stdout=answer, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stderr is not None
            for line in child.stderr:
                if line.startswith(WAITING):
                    progress.info("waiting for another timing on this machine")
                elif line.startswith(ROUND):
                    advance(line.removeprefix(ROUND).strip())
                elif line.strip():
                    said.append(line.strip())
        if child.returncode:
            raise IncompleteError(f"timing failed with status {child.returncode}: {said[-1]}")
        answer.seek(0)
        return from_json(LatencySamples, answer.read(), "the timing process's answer")


def measure_exits(
    exits: Sequence[ExitMeasurement], job: LatencyJob, reference: str | None, progress: Progress
) -> tuple[tuple[ExitMeasurement, ...], LatencyConditions]:
    """The exits with their milliseconds, and how these were measured."""
    samples = run_job(job, progress).milliseconds
    walked = "path" if job.policy is not None else "static"
    _warn_of_disturbance(samples, progress)
    timed = []
    for exit_ in exits:
        static = {
            size: quartiles(variants[f"static/{exit_.layer}"]) for size, variants in samples.items()
        }
        path = {
            size: quartiles(variants[f"{walked}/{exit_.layer}"])
            for size, variants in samples.items()
        }
        timed.append(replace(exit_, static_ms=static, path_ms=path))
    with_reference = samples if job.reference is not None else {}
    conditions = LatencyConditions(
        device=job.device,
        precision=job.precision,
        threads=job.threads,
        rounds={size: len(next(iter(variants.values()))) for size, variants in samples.items()},
        tokens={
            size: tuple(max(len(row) for row in batch) for batch in batches)
            for size, batches in job.batches.items()
        },
        reference=reference,
        reference_ms={
            size: quartiles(variants["reference"]) for size, variants in with_reference.items()
        },
        reference_ratio={
            size: tuple(
                paired_ratio(variants["reference"], variants[f"static/{exit_.layer}"])
                for exit_ in exits
            )
            for size, variants in with_reference.items()
        },
        path_ratio={
            size: tuple(
                paired_ratio(variants["reference"], variants[f"{walked}/{exit_.layer}"])
                for exit_ in exits
            )
            for size, variants in with_reference.items()
        },
    )
    return tuple(timed), conditions


def _warn_of_disturbance(
    samples: dict[str, dict[str, tuple[float, ...]]], progress: Progress
) -> None:
    worst = {
        size: max(quartiles(values).spread for values in variants.values())
        for size, variants in samples.items()
    }
    disturbed = [
        f"{spread:.2f} times at batch size {size}"
        for size, spread in worst.items()
        if spread > STABLE_SPREAD
    ]
    if disturbed:
        progress.info(
            f"the clock was disturbed: quartiles of one variant lie apart {', '.join(disturbed)}; "
            "ratios are paired and suffer less; keep other work off the machine"
        )


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Median and quartiles, to four digits."""
    return Quartiles(*(float(f"{value:.4g}") for value in np.quantile(samples, (0.25, 0.5, 0.75))))


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Quartiles:
    """Quartiles of the ratios round by round."""
    return quartiles([a / b for a, b in zip(numerator, denominator, strict=True)])


@dataclass(frozen=True)
class _LeaveAt:
    """Makes a policy's decision at each exit, pays for it, and leaves at one given exit all the same."""

    policy: Policy
    exits: int

    def score(self, seen: Floats) -> NDArray[np.float64]:
        self.policy.score(seen)
        return np.full(seen.shape[1], 1.0 if len(seen) == self.exits else -1.0)


def time_variants(
    variants: dict[str, Callable[[Batch], object]],
    batches: Sequence[Batch],
    job: LatencyJob,
    finished: Callable[[], None] = lambda: None,
) -> dict[str, tuple[float, ...]]:
    """Milliseconds per batch of each variant in each round, after a warm-up.

    Every round has an order of its own, and a variant runs once untimed before it is timed, so that none profits from its predecessor.
    `finished` is called after each round.
    """
    device = torch.device(job.device)
    names = list(variants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        for batch in batches:
            _milliseconds(variants[name], batch, device)
    started, generator = time.perf_counter(), np.random.default_rng(0)
    for number in range(job.max_rounds):
        spent = time.perf_counter() - started
        if (
            number >= job.min_rounds
            and spent > job.seconds
            and (_steady(samples) or spent > LONGEST * job.seconds)
        ):
            break
        for name in generator.permutation(names).tolist():
            variants[name](batches[0])
            samples[name].append(
                sum(_milliseconds(variants[name], batch, device) for batch in batches)
                / len(batches)
            )
        finished()
    return {name: tuple(values) for name, values in samples.items()}


def _steady(samples: dict[str, list[float]]) -> bool:
    return all(quartiles(values).spread <= STABLE_SPREAD for values in samples.values())


def _milliseconds(variant: Callable[[Batch], object], batch: Batch, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter_ns()
    variant(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter_ns() - started) / 1e6


def _variants(
    model: MultiExitModel, reference: MultiExitModel | None, job: LatencyJob
) -> dict[str, Callable[[Batch], object]]:
    """Name -> what is timed: static/LAYER, path/LAYER, live, reference."""
    variants: dict[str, Callable[[Batch], object]] = {}
    if reference is not None:
        variants["reference"] = reference.truncated(len(reference.layers))
    policy = None if job.policy is None else make_policy(job, None)
    if job.threshold is not None:
        assert policy is not None
        cut = policy.score_threshold(job.threshold)
        variants.setdefault("reference", model.truncated(len(model.layers)))
        return variants | {"live": partial(predict_early, model, policy=policy, cut=cut)}
    for place, layer in enumerate(model.exit_layers):
        variants[f"static/{layer}"] = model.truncated(layer)
        if policy is not None:
            variants[f"path/{layer}"] = partial(
                predict_early, model, policy=_LeaveAt(policy, place + 1), cut=0.0
            )
    return variants


def _load(folder: str, device: torch.device) -> MultiExitModel:
    return model_format().load_model(Path(folder)).to(device).eval()


def main() -> None:
    """The child process: a job on standard input, samples on standard output."""
    job = from_json(LatencyJob, sys.stdin.read(), "the timing job")
    lock = FileLock(Path(tempfile.gettempdir()) / "harness-latency.lock", mode=0o666)
    with held(
        lock, lambda: print(WAITING, file=sys.stderr, flush=True)
    ):  # no other child times meanwhile; the lock goes with the process
        print(json.dumps({"milliseconds": _time_all(job)}))


def _time_all(job: LatencyJob) -> dict[str, dict[str, tuple[float, ...]]]:
    """Batch size -> variant -> milliseconds per batch, one a round."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    model = _load(job.model, device)
    reference = None if job.reference is None else _load(job.reference, device)
    variants = _variants(model, reference, job)
    samples = {}
    half = torch.autocast(device.type, torch.bfloat16, enabled=job.precision == "bfloat16")
    with torch.inference_mode(), half:
        for size, batches in job.batches.items():
            padded = [_batch(rows).to(device) for rows in batches]
            samples[size] = time_variants(variants, padded, job, partial(_say_round, size))
    return samples


def _say_round(size: str) -> None:
    print(f"{ROUND} at batch size {size}", file=sys.stderr, flush=True)


def _batch(rows: tuple[tuple[int, ...], ...]) -> Batch:
    """Token types do not change the clock: all are 0."""
    ids = tuple(np.array(row, dtype=np.int32) for row in rows)
    return collate(Tokens(ids, tuple(np.zeros_like(row) for row in ids), 0), np.arange(len(rows)))


if __name__ == "__main__":
    main()


def save_reference(
    reference: Reference | None, backbone: Backbone, task: Task, folder: Path
) -> str | None:
    """A model of the reference's shape in a folder, for the clock: its weights are random."""
    if reference is None:
        return None
    model_format().save_model(reference.method.build(backbone, task), folder)
    return str(folder)
