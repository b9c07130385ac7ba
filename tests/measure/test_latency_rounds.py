"""Rounds of timing with a fake clock: batches, turns, samples, quartiles and paired ratios."""

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from support.messages import names_all, names_in_order
from support.synthetic import make_job

from harness.data.dataset import Tokens
from harness.measure import latency
from harness.measure.latency import (
    paired_ratio,
    quartiles,
    time_variants,
    timing_batches,
    token_ids,
)
from harness.models.batches import collate
from harness.models.multi_exit import Batch
from harness.progress import Progress
from harness.records import Quartiles


def _tokens(lengths: Sequence[int]) -> Tokens:
    """Return examples whose word-piece ids all equal the example's length."""
    rows = tuple(np.full(length, length, np.int32) for length in lengths)
    return Tokens(rows, tuple(np.zeros_like(row) for row in rows), 0)


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
def test_timed_batches_hold_quartile_examples(batch_size: int, expected: list[list[int]]) -> None:
    """Timed batches hold the examples at the quartiles of the lengths."""
    batches = timing_batches(_tokens(LENGTHS), batch_size)
    assert [[len(row) for row in batch] for batch in batches] == expected
    assert all(set(row) == {len(row)} for batch in batches for row in batch)


def test_token_ids_returns_requested_ids() -> None:
    """`token_ids` returns the ids of the requested examples."""
    assert token_ids(_tokens((1, 3, 2)), np.array([2, 0])) == ((2, 2), (1,))


def test_quartiles_computed_by_hand() -> None:
    assert quartiles([5.0, 1.0, 4.0, 2.0, 3.0]) == Quartiles(2.0, 3.0, 4.0)
    assert quartiles([1.0, 2.0]) == Quartiles(1.25, 1.5, 1.75)
    assert quartiles([7.0]) == Quartiles(7.0, 7.0, 7.0)


def test_quartiles_keep_four_digits() -> None:
    """Quartiles keep four significant digits of large and small numbers."""
    assert quartiles([123456.7]) == Quartiles(123500.0, 123500.0, 123500.0)
    assert quartiles([0.000123456]).median == 0.0001235


def test_ratios_are_paired_by_round() -> None:
    """Ratios are taken round by round."""
    slow, fast = [10.0, 100.0, 40.0], [10.0, 20.0, 25.0]
    assert paired_ratio(slow, fast) == Quartiles(1.3, 1.6, 3.3)
    assert np.median(slow) / np.median(fast) == 2.0
    assert paired_ratio([10.0, 100.0, 30.0], [25.0, 10.0, 10.0]).median == 3.0
    with pytest.raises(ValueError, match="zip"):
        paired_ratio(slow, fast[:2])


class FakeClock:
    """A clock that advances only while a variant runs."""

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
    monkeypatch.setattr(
        latency,
        "time",
        SimpleNamespace(perf_counter=fake.perf_counter, perf_counter_ns=fake.perf_counter_ns),
    )
    return fake


def _batches(*lengths: int) -> list[Batch]:
    return [collate(_tokens((length,)), np.array([0])) for length in lengths]


def test_variants_take_shuffled_turns(clock: FakeClock) -> None:
    """Variants take turns, in a new random order in each round."""
    variants = {name: clock.variant(name, 1.0) for name in "abc"}
    time_variants(variants, _batches(4, 6), make_job(rounds=40))
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


def test_first_call_of_turn_is_untimed(clock: FakeClock) -> None:
    """The first call of a turn, which may be slow, is not timed."""
    last = {"name": ""}

    def cold(name: str) -> Callable[[Batch], None]:
        variant = clock.variant(name, 1.0)

        def call(batch: Batch) -> None:
            clock.now_ns += 0 if last["name"] == name else 10**9
            last["name"] = name
            variant(batch)

        return call

    samples, _ = time_variants({name: cold(name) for name in "ab"}, _batches(4), make_job(rounds=3))
    assert samples == {"a": (4.0,) * 3, "b": (4.0,) * 3}


def test_samples_exclude_the_warm_up(clock: FakeClock) -> None:
    """Samples are milliseconds per batch and exclude the warm-up."""
    warm = {"done": False}
    variant = clock.variant("a", 0.5)

    def slow_at_first(batch: Batch) -> None:
        clock.now_ns += 0 if warm["done"] else 10**9
        warm["done"] = True
        variant(batch)

    samples, _ = time_variants(
        {"a": slow_at_first, "b": clock.variant("b", 2.0)}, _batches(4, 8), make_job(rounds=3)
    )
    assert samples == {"a": (3.0, 3.0, 3.0), "b": (12.0, 12.0, 12.0)}


def test_given_rounds_always_run(clock: FakeClock) -> None:
    """A given number of rounds is run, however long they take."""
    samples, batches = time_variants(
        {"a": clock.variant("a", 10_000.0)}, _batches(5, 5), make_job(rounds=5, seconds=4.0)
    )
    assert (samples, batches) == ({"a": (50_000.0,) * 5}, (0, 1))


@pytest.mark.parametrize(
    ("seconds", "batches", "rounds"),
    [
        (20.0, (0, 1, 2), 5),
        (16.5, (0, 1, 2), 4),
        (13.5, (1,), 6),
        (9.0, (1,), 4),
        (6.0, (1,), 4),
        (1.0, (1,), 2),
    ],
)
def test_rounds_shrink_to_given_seconds(
    clock: FakeClock, seconds: float, batches: tuple[int, ...], rounds: int
) -> None:
    """Little time is spent on the middle batch alone, and in the end without a warm run.

    Two variants take 0.5 s for each batch: a round of all batches takes 4 s with the warm runs, one
    of the middle batch 2 s, and 1 s without them. Each of the two passes before the rounds takes
    1 s; there is only one if 3 s are too long.
    """
    variants = {name: clock.variant(name, 100.0) for name in "ab"}
    samples, timed = time_variants(variants, _batches(5, 5, 5), make_job(seconds=seconds))
    assert timed == batches
    assert {name: len(values) for name, values in samples.items()} == {"a": rounds, "b": rounds}
    assert clock.perf_counter() == pytest.approx(max(seconds, 3.0), abs=2.0)


def test_cold_first_pass_does_not_shrink_rounds(clock: FakeClock) -> None:
    """Where a pass is short, a second one decides what fits, since the first may be slow."""
    calls = itertools.count()

    def slow_at_first(batch: Batch) -> None:
        clock.now_ns += 10**9 if next(calls) == 0 else 10**7

    _, batches = time_variants({"a": slow_at_first}, _batches(5, 5, 5), make_job(seconds=3.5))
    assert batches == (0, 1, 2)


def test_noisy_timing_is_reported() -> None:
    """A noisy timing is reported with its spread and batch size."""
    lines: list[str] = []

    class RecordingProgress(Progress):
        def info(self, line: str) -> None:
            lines.append(line)

    stable, noisy = (4.0, 4.4, 4.8), (4.0, 5.0, 8.0)
    samples = {"1": {"a": stable}, "8": {"a": noisy}, "32": {"a": stable, "b": noisy}}
    latency._report_noise(samples, RecordingProgress())
    (line,) = lines
    spread = f"{6.5 / 4.5:.2f}"
    assert names_in_order(line, spread, 8, spread, 32)
    assert not names_all(line, f"{4.6 / 4.2:.2f}")


def test_rounds_never_exceed_the_maximum(clock: FakeClock) -> None:
    samples, _ = time_variants({"a": clock.variant("a", 0.01)}, _batches(5), make_job(seconds=4.0))
    assert len(samples["a"]) == latency.MAX_ROUNDS
