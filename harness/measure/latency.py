"""Wall-clock latency to each exit and of live early exit, next to a reference model.

All timing happens in one fresh child process under a machine-wide lock. Variants take turns within
each round, because timing them one after another on a shared machine is wrong by up to 30 %. Ratios
are paired round by round, and medians and quartiles are kept.
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
from harness.files.atomic import hold_lock
from harness.files.typed_json import from_json
from harness.measure.idle_threads import chosen_policy, users_environment
from harness.measure.inference import predict_early
from harness.methods.registry import Reference, model_format
from harness.models.backbones import Backbone
from harness.models.batches import collate
from harness.models.multi_exit import Batch, MultiExitModel
from harness.progress import Progress
from harness.records import (
    LIBRARY_DEFAULT,
    STABLE_SPREAD,
    ExitMeasurement,
    LatencyConditions,
    Quartiles,
)

LENGTH_QUANTILES = (0.25, 0.5, 0.75)
"""Quantiles of the dev split's lengths at which the timed batches are taken."""
MIN_ROUNDS, MAX_ROUNDS = 2, 40
"""Rounds per batch size, unless the job sets their number."""
ENOUGH_ROUNDS = 3
"""A round times all batches if this many such rounds fit into the requested seconds."""
ROUND_PREFIX = "harness.measure.latency: round"
"""Start of the line that the child process prints after each round."""
WAITING_PREFIX = "harness.measure.latency: waiting"
"""Start of the line that it prints while another process is timing."""


@dataclass(frozen=True)
class LatencyJob:
    """Input of the child process.

    Models are given as folders. Only the reference's shape affects its latency, not its weights.
    """

    model: str
    reference: str | None
    batches: dict[str, tuple[tuple[tuple[int, ...], ...], ...]]
    """Batch size -> batches -> examples -> word-piece ids."""
    device: str
    precision: str
    threads: int
    policy: str | None
    """Name of a policy that fits the model's task."""
    tolerance: float
    threshold: float | None
    """Threshold at which live early exit is timed; None to time each exit instead."""
    seconds: float
    """Time for each batch size, of which the warm-up is a part. Where it is too short for three
    rounds of all batches, fewer batches and rounds are timed."""
    rounds: int | None = None
    """Number of rounds of all batches, however long they take; None to keep to `seconds`."""


@dataclass(frozen=True)
class LatencySamples:
    """Output of the child process."""

    milliseconds: dict[str, dict[str, tuple[float, ...]]]
    """Batch size -> variant -> milliseconds per batch, one value per round."""
    batches: dict[str, tuple[int, ...]]
    """Batch size -> indices of the job's batches that were timed."""


def timing_batches(tokens: Tokens, batch_size: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return batches of real examples around the quartiles of the split's lengths."""
    order = np.argsort(tokens.lengths, kind="stable")
    size = min(batch_size, len(order))
    starts = [round(quantile * (len(order) - 1)) - size // 2 for quantile in LENGTH_QUANTILES]
    batches = [order[max(0, min(start, len(order) - size)) :][:size] for start in starts]
    return tuple(token_ids(tokens, batch) for batch in batches)


def token_ids(tokens: Tokens, indices: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """Return the word-piece ids of the examples at these indices."""
    return tuple(tuple(int(piece) for piece in tokens.ids[index]) for index in indices)


def run_job(job: LatencyJob, progress: Progress) -> LatencySamples:
    """Run a job in a fresh process, with only one timing at a time on this machine.

    Other work on the machine is not kept out: training does not wait for a timing.

    Raises: IncompleteError with the child's last line if the child fails.
    """
    torch.cuda.empty_cache()  # frees memory that training left reserved, for the child
    tracking = progress.track("timing, rounds", None)
    # -P keeps a harness.py in the current folder from being run
    command = [sys.executable, "-P", "-m", "harness.measure.latency"]
    messages = ["no message"]
    with (
        tracking as advance,
        tempfile.TemporaryFile("w+") as job_file,
        tempfile.TemporaryFile("w+") as output,
    ):
        job_file.write(json.dumps(asdict(job)))
        job_file.seek(0)
        with subprocess.Popen(
            command,
            stdin=job_file,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env=users_environment(),
        ) as child:
            assert child.stderr is not None
            for line in child.stderr:
                if line.startswith(WAITING_PREFIX):
                    progress.info("waiting for another timing on this machine")
                elif line.startswith(ROUND_PREFIX):
                    advance(line.removeprefix(ROUND_PREFIX).strip())
                elif line.strip():
                    messages.append(line.strip())
        if child.returncode:
            raise IncompleteError(f"timing failed with status {child.returncode}: {messages[-1]}")
        output.seek(0)
        return from_json(LatencySamples, output.read(), "the timing process's output")


def save_reference(
    reference: Reference | None, backbone: Backbone, task: Task, folder: Path
) -> str | None:
    """Save a model of the reference's shape with random weights, and return its folder."""
    if reference is None:
        return None
    model_format().save_model(reference.method.build(backbone, task), folder)
    return str(folder)


def measure_exits(
    exits: Sequence[ExitMeasurement], job: LatencyJob, reference: str | None, progress: Progress
) -> tuple[tuple[ExitMeasurement, ...], LatencyConditions]:
    """Return the exits with their latencies, and the conditions of measurement."""
    measured = run_job(job, progress)
    samples = measured.milliseconds
    path_kind = "path" if job.policy is not None else "static"
    _report_noise(samples, progress)
    timed = []
    for exit_ in exits:
        static = {
            size: quartiles(variants[f"static/{exit_.layer}"]) for size, variants in samples.items()
        }
        path = {
            size: quartiles(variants[f"{path_kind}/{exit_.layer}"])
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
            size: tuple(max(len(row) for row in batches[index]) for index in measured.batches[size])
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
                paired_ratio(variants["reference"], variants[f"{path_kind}/{exit_.layer}"])
                for exit_ in exits
            )
            for size, variants in with_reference.items()
        },
        wait_policy=chosen_policy(users_environment()) or LIBRARY_DEFAULT,
    )
    return tuple(timed), conditions


def _report_noise(samples: dict[str, dict[str, tuple[float, ...]]], progress: Progress) -> None:
    largest = {
        size: max(quartiles(values).spread for values in variants.values())
        for size, variants in samples.items()
    }
    noisy = [
        f"{spread:.2f} at batch size {size}"
        for size, spread in largest.items()
        if spread > STABLE_SPREAD
    ]
    if noisy:
        progress.info(
            f"harness: warning: {progress.label or 'timing'}: noisy timing (Q3/Q1 of the "
            f"milliseconds is {', '.join(noisy)}): other work was running; compare ratios, and "
            "time again on an idle machine for figures to quote"
        )


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Return the quartiles, rounded to four significant digits."""
    return Quartiles(*(float(f"{value:.4g}") for value in np.quantile(samples, (0.25, 0.5, 0.75))))


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Quartiles:
    """Return the quartiles of the ratios of each round."""
    return quartiles([a / b for a, b in zip(numerator, denominator, strict=True)])


@dataclass(frozen=True)
class _ExitAt:
    """A policy that computes another policy's score at each exit, but exits at a fixed one."""

    policy: Policy
    exits: int

    def score(self, seen: Floats) -> NDArray[np.float64]:
        self.policy.score(seen)
        return np.full(seen.shape[1], 1.0 if len(seen) == self.exits else -1.0)


Variant = Callable[[Batch], object]


@dataclass(frozen=True)
class Round:
    """A round of timing runs each variant on some of the batches."""

    batches: tuple[int, ...]
    """Indices of the batches that are timed."""
    warm: bool
    """Whether the variant first runs once untimed, so that it does not depend on which variant ran
    before it."""


def time_variants(
    variants: dict[str, Variant],
    batches: Sequence[Batch],
    job: LatencyJob,
    after_round: Callable[[], None] = lambda: None,
) -> tuple[dict[str, tuple[float, ...]], tuple[int, ...]]:
    """Return the milliseconds per batch of each variant in each round, and which batches they are.

    The variants are shuffled in each round. `after_round` is called after each round.
    """
    device = torch.device(job.device)
    names = list(variants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    started, generator = time.perf_counter(), np.random.default_rng(0)
    one = _warm_up(variants, batches, job, started)
    first_round = time.perf_counter()
    while not _finished(len(samples[names[0]]), started, first_round, job):
        for name in generator.permutation(names).tolist():
            if one.warm:
                variants[name](batches[one.batches[0]])
            timed = [_milliseconds(variants[name], batches[i], device) for i in one.batches]
            samples[name].append(sum(timed) / len(timed))
        after_round()
    return {name: tuple(values) for name, values in samples.items()}, one.batches


def _warm_up(
    variants: dict[str, Variant], batches: Sequence[Batch], job: LatencyJob, started: float
) -> Round:
    """Run each variant without timing it, and return the longest kind of round that fits the job.

    A round times all batches, or else the middle one, or else the middle one without a warm run.
    """
    device = torch.device(job.device)
    every, middle = tuple(range(len(batches))), (len(batches) // 2,)

    def run_all(indices: tuple[int, ...]) -> float:
        """Return the seconds of one run of each variant on these batches."""
        each = [
            _milliseconds(variant, batches[index], device)
            for variant in variants.values()
            for index in indices
        ]
        return sum(each) / 1e3

    if job.rounds is not None:
        run_all(every)
        return Round(every, warm=True)
    pass_s = run_all(middle)
    if 3 * pass_s <= job.seconds:  # the first pass was cold
        pass_s = run_all(middle)
    left_s = job.seconds - (time.perf_counter() - started)
    for one in (Round(every, warm=True), Round(middle, warm=True)):
        if ENOUGH_ROUNDS * pass_s * (len(one.batches) + 1) <= left_s:
            return one
    return Round(middle, warm=False)


def _finished(rounds: int, started: float, first_round: float, job: LatencyJob) -> bool:
    """Return whether another round would end further from the requested seconds than now."""
    if job.rounds is not None:
        return rounds == job.rounds
    if rounds < MIN_ROUNDS:
        return False
    now = time.perf_counter()
    half_round = (now - first_round) / rounds / 2
    return rounds == MAX_ROUNDS or now - started + half_round > job.seconds


def _milliseconds(variant: Variant, batch: Batch, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter_ns()
    variant(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter_ns() - started) / 1e6


def _variants(
    model: MultiExitModel, reference: MultiExitModel | None, job: LatencyJob
) -> dict[str, Variant]:
    """Return the models to time, by name: static/LAYER, path/LAYER, live, reference."""
    variants: dict[str, Variant] = {}
    if reference is not None:
        variants["reference"] = reference.truncated(len(reference.layers))
    policy = None if job.policy is None else make_policy(job, None)
    if job.threshold is not None:
        assert policy is not None
        score_threshold = policy.score_threshold(job.threshold)
        variants.setdefault("reference", model.truncated(len(model.layers)))
        live = partial(predict_early, model, policy=policy, score_threshold=score_threshold)
        return variants | {"live": live}
    for index, layer in enumerate(model.exit_layers):
        variants[f"static/{layer}"] = model.truncated(layer)
        if policy is not None:
            variants[f"path/{layer}"] = partial(
                predict_early, model, policy=_ExitAt(policy, index + 1), score_threshold=0.0
            )
    return variants


def _load(folder: str, device: torch.device) -> MultiExitModel:
    return model_format().load_model(Path(folder)).to(device).eval()


def main() -> None:
    """Time the job on standard input and print its samples; runs in the child process."""
    job = from_json(LatencyJob, sys.stdin.read(), "the timing job")
    lock = FileLock(Path(tempfile.gettempdir()) / "harness-latency.lock", mode=0o666)
    # only one process times at once; the lock is released when the process ends
    with hold_lock(lock, lambda: print(WAITING_PREFIX, file=sys.stderr, flush=True)):
        print(json.dumps(asdict(_time_all(job))))


def _time_all(job: LatencyJob) -> LatencySamples:
    """Time every variant at each batch size."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    model = _load(job.model, device)
    reference = None if job.reference is None else _load(job.reference, device)
    variants = _variants(model, reference, job)
    samples = LatencySamples({}, {})
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=job.precision == "bfloat16")
    with torch.inference_mode(), autocast:
        for size, batches in job.batches.items():
            padded = [_batch(ids).to(device) for ids in batches]
            samples.milliseconds[size], samples.batches[size] = time_variants(
                variants, padded, job, partial(_report_round, size)
            )
    return samples


def _report_round(size: str) -> None:
    print(f"{ROUND_PREFIX} at batch size {size}", file=sys.stderr, flush=True)


def _batch(examples: tuple[tuple[int, ...], ...]) -> Batch:
    """Return a padded batch. Token types do not affect latency and are all 0."""
    ids = tuple(np.array(example, dtype=np.int32) for example in examples)
    types = tuple(np.zeros_like(example) for example in ids)
    return collate(Tokens(ids, types, 0), np.arange(len(examples)))


if __name__ == "__main__":
    main()
