"""Held-out rows, the complete sentences of SST-2, and rows drawn for training."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.command_line import assert_names
from support.glue_files import Row, load_tsv, pairs, singles
from support.synthetic import one_line

from harness.data.dataset import Split, TaskData
from harness.data.splits import complete_sentences
from harness.errors import HarnessError


def content(split: Split) -> list[tuple[tuple[str, ...], float]]:
    return sorted(zip(split.texts, split.labels.tolist(), strict=True))


def inside(text: str, other: str) -> bool:
    """Return whether a text is a sequence of words of another, different text."""
    return text != other and f" {text} " in f" {other} "


# --- held-out rows


@pytest.mark.parametrize(
    ("count", "selection", "calibration"),
    [(1_200, 100, 300), (2_500, 125, 300), (8_551, 428, 855), (30_000, 1_000, 2_000)],
)
def test_held_out_parts_keep_label_shares(
    tmp_path: Path, count: int, selection: int, calibration: int
) -> None:
    """Held-out parts have the expected sizes and the label shares of the file."""
    data = load_tsv(tmp_path, "cola", singles(count))
    assert (len(data.selection), len(data.calibration)) == (selection, calibration)
    assert (
        np.concatenate([part.ids for part in (data.train, data.selection, data.calibration)]).size
        == count
    )
    share = np.mean([label == "1" for _, label in singles(count)])
    for part in (data.train, data.selection, data.calibration):
        assert abs(part.labels.sum() - share * len(part)) <= 1


@pytest.mark.parametrize("count", [1_000, 1_234, 2_077, 5_749])
def test_regression_is_stratified_by_fifths(tmp_path: Path, count: int) -> None:
    """A regression is stratified by fifths of the label range."""
    rng = random.Random(count)
    rows = [((f"left {i}", f"right {i}"), f"{5 * rng.random() ** 0.5:.3f}") for i in range(count)]
    data = load_tsv(tmp_path, "stsb", rows)
    assert 100 <= len(data.selection) <= 1_000
    assert 300 <= len(data.calibration) <= 2_000
    values = np.array([float(label) for _, label in rows])
    for part in (data.selection, data.calibration):
        for low in range(5):
            high = low + 1 if low < 4 else 5.5
            share = np.mean((values >= low) & (values < high))
            held = np.sum((part.labels >= low) & (part.labels < high))
            assert abs(held - share * len(part)) <= 1.5


def test_parts_are_disjoint_and_cover(tmp_path: Path) -> None:
    """Parts are disjoint and cover the file, and dev is untouched."""
    rows, dev = pairs(1_000), pairs(40)[20:]
    data = load_tsv(tmp_path, "rte", rows, dev)
    ids = np.concatenate([part.ids for part in (data.train, data.selection, data.calibration)])
    assert sorted(ids.tolist()) == list(range(1_000))
    for part in (data.train, data.selection, data.calibration):
        assert part.ids.tolist() == sorted(part.ids.tolist())
        assert part.texts == tuple(rows[i][0] for i in part.ids)
        assert part.labels.tolist() == [float(rows[i][1] == "not_entailment") for i in part.ids]
    assert data.dev.texts == tuple(texts for texts, _ in dev)


def claims(groups: int) -> list[Row]:
    """Return groups of one to three claims about a premise, with random labels."""
    rng = random.Random(7)
    return [
        (
            (f"shared {group}", f"claim {group} {index}"),
            rng.choice(["entailment", "not_entailment"]),
        )
        for group in range(groups)
        for index in range(rng.choice([1, 2, 3]))
    ]


def repeated(count: int) -> list[Row]:
    """Return sentences of which every second one occurs twice, with both labels."""
    return [
        ((f"w{number} x{number}",), label)
        for number in range(count)
        for label in ("01" if number % 2 else "1")
    ]


@pytest.mark.parametrize(
    ("task", "rows"),
    [("cola", singles(1_000)), ("rte", claims(450)), ("sst2", repeated(700))],
    ids=["separate rows", "groups with both labels", "repeated sentences with both labels"],
)
def test_splits_ignore_the_row_order(tmp_path: Path, task: str, rows: list[Row]) -> None:
    """Splits do not depend on the order of the rows in the file."""
    first = load_tsv(tmp_path / "a", task, rows)
    for seed in range(3):
        shuffled = random.Random(seed).sample(rows, len(rows))
        second = load_tsv(tmp_path / str(seed), task, shuffled)
        for name in ("train", "selection", "calibration"):
            assert content(second.splits()[name]) == content(first.splits()[name]), name


def test_splits_equal_pinned_ones(tmp_path: Path) -> None:
    """The splits equal those of a separate computation.

    Selection and calibration are the first rows of each label, ordered by their SHA-256."""
    data = load_tsv(tmp_path, "cola", singles(1_000))
    assert data.selection.ids[:8].tolist() == [0, 12, 23, 26, 32, 47, 48, 53]
    assert data.calibration.ids[:8].tolist() == [4, 10, 11, 14, 15, 19, 22, 29]
    assert data.split_fingerprint == "6de28755abfb0487"


def components(texts: Sequence[tuple[str, ...]]) -> list[set[int]]:
    """Return the groups of rows that are linked by shared texts, found by flood fill."""
    rows_of: dict[str, set[int]] = {}
    for row, pair in enumerate(texts):
        for text in pair:
            rows_of.setdefault(text, set()).add(row)
    remaining, groups = set(range(len(texts))), []
    while remaining:
        queue, seen = [remaining.pop()], set[int]()
        while queue:
            row = queue.pop()
            seen.add(row)
            neighbours = {other for text in texts[row] for other in rows_of[text]} & remaining
            remaining -= neighbours
            queue += neighbours
        groups.append(seen)
    return groups


def test_linked_rows_are_never_split(tmp_path: Path) -> None:
    """Rows that share a text, directly or by a chain, are never split between parts."""
    rng = random.Random(3)
    pool = [f"text {number}" for number in range(2_400)]
    rows: list[Row] = [
        ((rng.choice(pool), rng.choice(pool)), str(rng.randrange(2))) for _ in range(1_100)
    ]
    data = load_tsv(tmp_path, "mrpc", rows)
    part_of = {
        int(row): name
        for name in ("train", "selection", "calibration")
        for row in data.splits()[name].ids
    }
    groups = components([texts for texts, _ in rows])
    assert max(map(len, groups)) >= 5
    assert any(len(group) > 2 and part_of[min(group)] != "train" for group in groups)
    for group in groups:
        assert len({part_of[row] for row in group}) == 1
    assert 95 <= len(data.selection) <= 105
    assert 290 <= len(data.calibration) <= 310


@pytest.mark.parametrize("swapped", [False, True])
def test_large_group_stays_in_train(tmp_path: Path, swapped: bool) -> None:
    """A group too large for a held-out part stays in train."""
    chain = [(f"link {a}", f"link {b}") for a, b in pairwise(range(41))]
    chain = [(b, a) if swapped and index % 2 else (a, b) for index, (a, b) in enumerate(chain)]
    rows = [*pairs(1_000), *((texts, "entailment") for texts in chain)]
    data = load_tsv(tmp_path, "rte", rows)
    assert set(range(1_000, 1_040)) <= set(data.train.ids.tolist())


@pytest.mark.parametrize("count", [60, 150, 390])
def test_too_few_rows_is_an_error(tmp_path: Path, count: int) -> None:
    """A file with too few rows to hold any out is an error."""
    with pytest.raises(HarnessError) as error:
        load_tsv(tmp_path, "cola", singles(count))
    assert_names(one_line(error), "cola", (count, 400))


# --- the complete sentences of SST-2


def phrases(seed: int, count: int, words: Sequence[str], longest: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(25))
def test_complete_sentences_equal_pairwise_comparison(seed: int) -> None:
    """Complete sentences and their phrases equal those of a pairwise comparison."""
    texts = phrases(seed, 60, ["a", "aa", "b", "ab", "c", "'s"], 7)
    expected = {
        text: {other for other in texts if inside(other, text)}
        for text in texts
        if not any(inside(text, other) for other in texts)
    }
    assert complete_sentences(texts) == expected


def test_part_of_word_is_no_phrase() -> None:
    """A word inside a longer word is not a phrase of it."""
    assert complete_sentences(["art", "party", "the party", "heart of art"]) == {
        "the party": {"party"},
        "heart of art": {"art"},
    }


def test_long_text_takes_linear_time() -> None:
    """A very long text is searched in time proportional to its length.

    Its 20,000 words make 200 million phrases."""
    long = " ".join(f"w{number % 977}" for number in range(20_000))
    assert complete_sentences([long, "w3 w4 w5 w6", "w4", "w6 w5", "w976 w0"]) == {
        long: {"w3 w4 w5 w6", "w4", "w976 w0"},
        "w6 w5": set(),
    }


def test_complete_sentences_ignore_order_and_repetition() -> None:
    texts = phrases(1, 80, ["a", "b", "c"], 6)
    assert list(complete_sentences(texts).items()) == list(
        complete_sentences([*reversed(texts), *texts]).items()
    )


@pytest.fixture(scope="module")
def treebank(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], TaskData]:
    """700 sentences and their phrases, some repeated and some shared by several sentences."""
    rng = random.Random(11)
    words = [f"w{number}" for number in range(300)]
    rows: list[Row] = []
    for sentence in phrases(5, 700, words, 9):
        spans = [sentence]
        tokens = sentence.split(" ")
        for _ in range(3):
            start = rng.randrange(len(tokens))
            spans.append(" ".join(tokens[start : rng.randint(start + 1, len(tokens))]))
        rows += [((span,), str(rng.randrange(2))) for span in spans]
    rng.shuffle(rows)
    return rows, load_tsv(tmp_path_factory.mktemp("glue"), "sst2", rows)


def test_sst2_holds_out_complete_sentences(treebank: tuple[list[Row], TaskData]) -> None:
    """SST-2 holds out complete sentences, each once."""
    rows, data = treebank
    texts = {text for (text,), _ in rows}
    complete = {text for text in texts if not any(inside(text, other) for other in texts)}
    held = [text for part in (data.selection, data.calibration) for (text,) in part.texts]
    assert set(held) <= complete
    assert len(set(held)) == len(held)
    assert len(data.selection) == 100
    assert len(data.calibration) == 300


def test_sst2_training_never_repeats_held_out(treebank: tuple[list[Row], TaskData]) -> None:
    """A training row of SST-2 neither repeats nor occurs inside a held-out one."""
    rows, data = treebank
    held = [text for part in (data.selection, data.calibration) for (text,) in part.texts]
    padded = "|".join(f" {text} " for text in held)
    assert not [text for (text,) in data.train.texts if f" {text} " in padded]
    kept = {int(row) for part in (data.train, data.selection, data.calibration) for row in part.ids}
    dropped = [rows[row][0][0] for row in range(len(rows)) if row not in kept]
    assert dropped
    assert all(f" {text} " in padded for text in dropped)


def test_sst2_keeps_text_and_label_together(treebank: tuple[list[Row], TaskData]) -> None:
    rows, data = treebank
    for part in (data.train, data.selection, data.calibration):
        assert [rows[row] for row in part.ids] == [
            (texts, f"{label:.0f}") for texts, label in zip(part.texts, part.labels, strict=True)
        ]


# --- train_rows


def test_train_rows_are_drawn_reproducibly(tmp_path: Path) -> None:
    """`train_rows` draws the same rows each time, from the training part alone."""
    full = load_tsv(tmp_path, "cola", singles(1_000))
    first, second = (load_tsv(tmp_path, "cola", singles(1_000), rows=200) for _ in range(2))
    assert first.train.ids.tolist() == second.train.ids.tolist()
    assert len(set(first.train.ids.tolist())) == 200
    assert set(first.train.ids.tolist()) < set(full.train.ids.tolist())
    assert first.selection.ids.tolist() == full.selection.ids.tolist()
    assert first.calibration.ids.tolist() == full.calibration.ids.tolist()


@pytest.mark.parametrize("count", [1, 7, 100, 333, 590])
@pytest.mark.parametrize("task", ["cola", "stsb"])
def test_train_rows_are_stratified(tmp_path: Path, task: str, count: int) -> None:
    """The rows drawn are stratified to within one row."""
    rows = (
        singles(1_000)
        if task == "cola"
        else [((f"a {i}", f"b {i}"), f"{i % 7 * 5 / 7:.2f}") for i in range(1_000)]
    )
    full, drawn = (
        load_tsv(tmp_path, task, rows, rows=number).train.labels for number in (None, count)
    )
    assert len(drawn) == count
    full_counts = Counter(np.minimum(full.astype(int), 4).tolist())
    drawn_counts = Counter(np.minimum(drawn.astype(int), 4).tolist())
    for stratum, size in full_counts.items():
        assert abs(drawn_counts[stratum] - count * size / len(full)) < 1
