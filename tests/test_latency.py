import io
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import nn

from baselines.encoder import EncoderModel, Head, ModelConfig
from baselines.weights import save_model
from harness import latency
from harness.backbones import Backbone
from harness.batches import collate
from harness.errors import IncompleteError
from harness.inference import answer_early
from harness.latency import (
    LatencyJob,
    LatencySamples,
    measure_exits,
    paired_ratio,
    quartiles,
    rows_of,
    run_job,
    time_variants,
    timing_batches,
)
from harness.model import Batch
from harness.policies import Confidence, Entropy, Patience, Policy
from harness.progress import Advance, Progress
from harness.records import ExitMeasurement, Quartiles, from_json
from harness.tasks import TaskData, Tokens
from harness.trace import Floats

QUIET = Progress(-1)


def _tokens(lengths: Sequence[int]) -> Tokens:
    """Rows filled with their own length."""
    rows = tuple(np.full(length, length, np.int32) for length in lengths)
    return Tokens(rows, tuple(np.zeros_like(row) for row in rows), 0)


def _job(**changes: object) -> LatencyJob:
    plain = LatencyJob("", None, {}, "cpu", "float32", 1, None, 0.1, None, seconds=60.0)
    return replace(plain, **changes)


LENGTHS = (4, 9, 1, 6, 3, 8, 2, 7, 5)


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (1, [[3], [5], [7]]),
        (3, [[2, 3, 4], [4, 5, 6], [6, 7, 8]]),
        (6, [[1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9]]),
        (20, [[1, 2, 3, 4, 5, 6, 7, 8, 9]] * 3),
    ],
)
def test_timed_batches_hold_the_rows_at_the_quartiles_of_the_lengths(batch_size: int, expected: list[list[int]]) -> None:
    batches = timing_batches(_tokens(LENGTHS), batch_size)
    assert [[len(row) for row in batch] for batch in batches] == expected
    assert all(set(row) == {len(row)} for batch in batches for row in batch)


def test_rows_of_gives_the_ids_of_the_rows_asked_for() -> None:
    assert rows_of(_tokens((1, 3, 2)), np.array([2, 0])) == ((2, 2), (1,))


def test_quartiles_by_hand() -> None:
    assert quartiles([5.0, 1.0, 4.0, 2.0, 3.0]) == Quartiles(2.0, 3.0, 4.0)
    assert quartiles([1.0, 2.0]) == Quartiles(1.25, 1.5, 1.75)
    assert quartiles([7.0]) == Quartiles(7.0, 7.0, 7.0)


def test_quartiles_keep_four_digits_of_large_and_small_numbers() -> None:
    assert quartiles([123456.7]) == Quartiles(123500.0, 123500.0, 123500.0)
    assert quartiles([0.000123456]).median == 0.0001235


def test_ratios_are_taken_round_by_round() -> None:
    slow, fast = [10.0, 100.0, 30.0], [10.0, 25.0, 10.0]
    assert paired_ratio(slow, fast) == Quartiles(2.0, 3.0, 3.5)
    assert np.median(slow) / np.median(fast) == 3.0
    assert paired_ratio([10.0, 100.0, 30.0], [25.0, 10.0, 10.0]).median == 3.0
    with pytest.raises(ValueError, match="zip"):
        paired_ratio(slow, fast[:2])


class FakeClock:
    """Stands still unless a variant runs."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.calls: list[tuple[str, int]] = []

    def perf_counter(self) -> float:
        return self.now_ns / 1e9

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def variant(self, name: str, ms_per_token: float) -> Callable[[Batch], object]:
        def run(batch: Batch) -> None:
            self.calls.append((name, batch.ids.shape[1]))
            self.now_ns += round(ms_per_token * batch.ids.shape[1] * 1e6)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=fake.perf_counter, perf_counter_ns=fake.perf_counter_ns))
    return fake


def _batches(*lengths: int) -> list[Batch]:
    return [collate(_tokens((length,)), np.array([0])) for length in lengths]


def test_variants_take_turns_in_an_order_of_its_own_each_round(clock: FakeClock) -> None:
    variants = {name: clock.variant(name, 1.0) for name in "abc"}
    time_variants(variants, _batches(4, 6), _job(min_rounds=40, max_rounds=40))
    calls = clock.calls[6:]
    rounds = [calls[start : start + 9] for start in range(0, len(calls), 9)]
    assert len(rounds) == 40
    orders = []
    for one in rounds:
        turns = [one[start : start + 3] for start in (0, 3, 6)]
        for turn in turns:
            assert len({name for name, _ in turn}) == 1
            assert [length for _, length in turn] == [4, 4, 6]
        orders.append("".join(turn[0][0] for turn in turns))
    assert set(orders) == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_a_slow_first_call_of_a_turn_is_not_timed(clock: FakeClock) -> None:
    last = {"name": ""}

    def cold(name: str) -> Callable[[Batch], None]:
        plain = clock.variant(name, 1.0)

        def call(batch: Batch) -> None:
            clock.now_ns += 0 if last["name"] == name else 10**9
            last["name"] = name
            plain(batch)

        return call

    samples = time_variants({name: cold(name) for name in "ab"}, _batches(4), _job(min_rounds=3, max_rounds=3))
    assert samples == {"a": (4.0,) * 3, "b": (4.0,) * 3}


def test_samples_are_milliseconds_per_batch_without_the_warm_up(clock: FakeClock) -> None:
    warm = {"done": False}
    plain = clock.variant("a", 0.5)

    def slow_at_first(batch: Batch) -> None:
        clock.now_ns += 0 if warm["done"] else 10**9
        warm["done"] = True
        plain(batch)

    samples = time_variants({"a": slow_at_first, "b": clock.variant("b", 2.0)}, _batches(4, 8), _job(min_rounds=3, max_rounds=3))
    assert samples == {"a": (3.0, 3.0, 3.0), "b": (12.0, 12.0, 12.0)}


def test_the_fewest_rounds_are_run_however_long_they_take(clock: FakeClock) -> None:
    samples = time_variants({"a": clock.variant("a", 10_000.0)}, _batches(5), _job(min_rounds=5, max_rounds=40, seconds=4.0))
    assert samples == {"a": (50_000.0,) * 5}


def test_timing_stops_after_the_given_seconds(clock: FakeClock) -> None:
    samples = time_variants({"a": clock.variant("a", 100.0)}, _batches(5), _job(min_rounds=2, max_rounds=40, seconds=4.2))
    assert len(samples["a"]) == 5


def test_no_more_than_the_most_rounds_are_run(clock: FakeClock) -> None:
    variants = {name: clock.variant(name, 0.01) for name in "ab"}
    samples = time_variants(variants, _batches(5), _job(min_rounds=2, max_rounds=7, seconds=4.0))
    assert {name: len(values) for name, values in samples.items()} == {"a": 7, "b": 7}


@dataclass(frozen=True)
class Counting:
    """A policy that notes how many exits it was asked about."""

    inner: Policy
    asked: list[int]

    def score(self, seen: Floats) -> NDArray[np.float64]:
        self.asked.append(len(seen))
        return self.inner.score(seen)


def _model(backbone: Backbone, exits: tuple[Head | None, ...] = ("dense",) * 3) -> EncoderModel:
    return EncoderModel(ModelConfig(backbone.shape, "mean", 2, 1.0, exits)).eval()


@pytest.mark.parametrize("policy", [Entropy(), Confidence(), Patience()], ids=lambda policy: policy.name)
@pytest.mark.parametrize("exits", [("dense",) * 3, ("plain", None, "plain")], ids=["every layer", "some layers"])
def test_walking_to_an_exit_pays_for_the_decisions_on_the_way_and_leaves_there(
    micro: Backbone, few_rows: TaskData, policy: Policy, exits: tuple[Head | None, ...]
) -> None:
    model = _model(micro, exits)
    batch = collate(few_rows.dev.tokens, np.arange(6))
    for place in range(len(model.exit_layers)):
        counting = Counting(policy, [])
        leave: Policy = latency._LeaveAt(counting, place + 1)  # type: ignore[arg-type,assignment]
        assert answer_early(model, batch, leave, 0.0).exits.tolist() == [place] * 6
        last = place == len(model.exit_layers) - 1
        assert counting.asked == list(range(1, place + 1 if last else place + 2))


@pytest.fixture(scope="module")
def folders(micro: Backbone, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model with exits at layers 1 and 3, and a reference."""
    own, reference = (tmp_path_factory.mktemp(name) for name in ("model", "reference"))
    save_model(_model(micro, ("dense", None, "dense")), own)
    save_model(_model(micro, (None, None, "dense")), reference)
    return str(own), str(reference)


@pytest.fixture(scope="module")
def job(folders: tuple[str, str], few_rows: TaskData) -> LatencyJob:
    batches = {str(size): timing_batches(few_rows.dev.tokens, size) for size in (1, 4)}
    own, reference = folders
    return _job(model=own, reference=reference, batches=batches, policy="entropy", min_rounds=2, max_rounds=2)


@pytest.fixture(scope="module")
def samples(job: LatencyJob) -> LatencySamples:
    return run_job(job, QUIET)


def test_a_child_process_times_every_variant_in_every_round(samples: LatencySamples) -> None:
    assert set(samples.milliseconds) == {"1", "4"}
    for variants in samples.milliseconds.values():
        assert set(variants) == {"reference", "static/1", "path/1", "static/3", "path/3"}
        for values in variants.values():
            assert len(values) == 2
            assert min(values) > 0


def _measured(layers: Sequence[int]) -> list[ExitMeasurement]:
    return [ExitMeasurement(layer, {"accuracy": 0.5}, 1.0, 1, 1, {}, {}) for layer in layers]


def test_exits_get_their_quartiles_and_the_reference_its_ratios(
    monkeypatch: pytest.MonkeyPatch, job: LatencyJob, samples: LatencySamples
) -> None:
    given: list[LatencyJob] = []
    monkeypatch.setattr(latency, "run_job", lambda asked, progress: given.append(asked) or samples)
    exits, conditions = measure_exits(_measured((1, 3)), job, "bert", QUIET)
    assert given == [job]
    for exit_ in exits:
        assert exit_.scores == {"accuracy": 0.5}
        for size, variants in samples.milliseconds.items():
            assert exit_.static_ms[size] == quartiles(variants[f"static/{exit_.layer}"])
            assert exit_.path_ms[size] == quartiles(variants[f"path/{exit_.layer}"])
    for size, variants in samples.milliseconds.items():
        assert conditions.reference_ms[size] == quartiles(variants["reference"])
        assert conditions.reference_ratio[size] == tuple(
            paired_ratio(variants["reference"], variants[f"static/{layer}"]) for layer in (1, 3)
        )
        assert conditions.tokens[size] == tuple(max(len(row) for row in batch) for batch in job.batches[size])
    assert conditions.rounds == {"1": 2, "4": 2}
    assert (conditions.reference, conditions.device, conditions.precision, conditions.threads) == ("bert", "cpu", "float32", 1)


def test_a_model_without_a_policy_has_the_same_path_and_static_time(monkeypatch: pytest.MonkeyPatch) -> None:
    milliseconds = {"1": {"static/3": (4.0, 2.0, 3.0)}}
    monkeypatch.setattr(latency, "run_job", lambda job, progress: LatencySamples(milliseconds))
    (exit_,), conditions = measure_exits(_measured((3,)), _job(batches={"1": (((1, 2),),)}), None, QUIET)
    assert exit_.path_ms == exit_.static_ms == {"1": Quartiles(2.5, 3.0, 3.5)}
    assert (conditions.reference, conditions.reference_ms, conditions.reference_ratio) == (None, {}, {})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_live_early_exit_is_timed_against_the_reference(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folders: tuple[str, str],
    few_rows: TaskData,
    precision: str,
) -> None:
    own, reference = folders
    batches = {"4": timing_batches(few_rows.dev.tokens, 4)}
    live = _job(model=own, reference=reference, batches=batches, policy="entropy", threshold=0.5, min_rounds=3, max_rounds=3)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asdict(replace(live, precision=precision)))))
    latency.main()
    answer = from_json(LatencySamples, capsys.readouterr().out, "the answer").milliseconds["4"]
    assert {name: len(values) for name, values in answer.items()} == {"reference": 3, "live": 3}


def test_live_early_exit_is_timed_against_its_own_last_exit_when_there_is_no_reference(micro: Backbone, few_rows: TaskData) -> None:
    model = _model(micro)
    variants = latency._variants(model, None, _job(policy="confidence", threshold=1.0))
    batch = collate(few_rows.dev.tokens, np.arange(3))
    assert set(variants) == {"reference", "live"}
    with torch.no_grad():
        reference, live = (variants[name](batch) for name in ("reference", "live"))
    assert reference.logits.shape == (1, 3, 2)  # type: ignore[attr-defined]
    assert torch.equal(live.logits, reference.logits[0])  # type: ignore[attr-defined]


def test_static_variants_run_no_other_layer_and_no_other_exit(micro: Backbone, few_rows: TaskData) -> None:
    model = _model(micro)
    ran: list[str] = []
    names: dict[str, nn.Module] = {f"layer {i}": layer for i, layer in enumerate(model.layers, start=1)}
    names |= {f"exit {int(place) + 1}": leave for place, leave in model.exits.items()}
    for name, module in names.items():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    variants = latency._variants(model, None, _job(policy="entropy"))
    batch = collate(few_rows.dev.tokens, np.arange(3))
    assert set(variants) == {f"{kind}/{layer}" for kind in ("static", "path") for layer in (1, 2, 3)}
    seen = {}
    with torch.no_grad():
        for name, variant in variants.items():
            ran.clear()
            variant(batch)
            seen[name] = list(ran)
    assert seen["static/2"] == ["layer 1", "layer 2", "exit 2"]
    assert seen["path/2"] == ["layer 1", "exit 1", "layer 2", "exit 2"]
    assert seen["static/3"] == ["layer 1", "layer 2", "layer 3", "exit 3"]
    assert seen["path/1"] == seen["static/1"] == ["layer 1", "exit 1"]


def _other_child(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Another program in place of the timing one."""
    plain = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        assert command == [sys.executable, "-m", "harness.latency"]
        return plain([sys.executable, "-c", program], **options)

    monkeypatch.setattr(latency, "subprocess", SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE))


def test_a_failing_child_is_reported_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an interpreter fails: several lines, the last one says why."""
    program = "import sys; print('half'); print('Traceback', 'ValueError: no such model', sep=chr(10), file=sys.stderr); sys.exit(3)"
    _other_child(monkeypatch, program)
    with pytest.raises(IncompleteError) as caught:
        run_job(_job(), QUIET)
    assert str(caught.value) == "timing failed with status 3: ValueError: no such model"


def test_each_round_of_the_child_advances_the_progress(job: LatencyJob) -> None:
    said: list[str] = []

    class Told(Progress):
        @contextmanager
        def work(self, label: str, steps: int, done: int = 0) -> Iterator[Advance]:
            said.append(f"{label} {steps}")
            yield lambda note="": said.append(note)

    run_job(job, Told(-1))
    assert said == ["timing, rounds 4", *["at batch size 1"] * 2, *["at batch size 4"] * 2]


def test_a_timing_that_has_to_wait_for_another_says_so(job: LatencyJob) -> None:
    said = threading.Event()

    class Told(Progress):
        def say(self, line: str) -> None:
            assert line == "waiting for another timing on this machine"
            said.set()

    answers: list[LatencySamples] = []
    with FileLock(Path(tempfile.gettempdir()) / "harness-latency.lock", mode=0o666):
        waiting = threading.Thread(target=lambda: answers.append(run_job(job, Told())))
        waiting.start()
        assert said.wait(60)
        assert answers == []
    waiting.join(60)
    assert set(answers[0].milliseconds) == {"1", "4"}


def test_the_child_fails_when_the_model_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asdict(_job(model=str(tmp_path / "nothing"))))))
    with pytest.raises(IncompleteError, match="does not hold a model"):
        latency.main()


def test_a_child_that_answers_nonsense_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    _other_child(monkeypatch, "print('not json')")
    with pytest.raises(IncompleteError, match="the timing process's answer is not JSON"):
        run_job(_job(), QUIET)


def test_a_child_that_is_killed_without_a_word_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    _other_child(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(IncompleteError, match="timing failed with status -9: no message"):
        run_job(_job(), QUIET)


def test_a_job_holds_plain_json_values_only(job: LatencyJob) -> None:
    kinds = {type(value) for value in asdict(job).values()}
    assert kinds <= {str, int, float, dict, type(None)}
