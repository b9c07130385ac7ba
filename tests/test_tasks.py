"""Reading GLUE's files, and the splits that every method and seed shares."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from harness import demo
from harness.errors import HarnessError
from harness.splits import whole_sentences
from harness.tasks import GROUPS, TASKS, Split, TaskData, Tokens, find_tasks, load_data, read_tsv

Row = tuple[tuple[str, ...], str]

HEADERS = {
    "cola": None,
    "sst2": "sentence\tlabel",
    "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
}
FOLDERS = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "rte": "RTE", "wnli": "WNLI"}
LINES: dict[str, Callable[[int, tuple[str, ...], str], str]] = {
    "cola": lambda number, texts, label: f"gj04\t{label}\t*\t{texts[0]}",
    "sst2": lambda number, texts, label: f"{texts[0]} \t{label}",
    "mrpc": lambda number, texts, label: f"{label}\t{7000 + number}\t{8000 + number}\t{texts[0]}\t{texts[1]}",
    "stsb": lambda number, texts, label: f"{number}\tcaptions\tMSRvid\t2012\t{number:04}\tnone\tnone\t{texts[0]}\t{texts[1]}\t{label}",
    "rte": lambda number, texts, label: f"{number}\t{texts[0]}\t{texts[1]}\t{label}",
    "wnli": lambda number, texts, label: f"{number}\t{texts[0]}\t{texts[1]}\t{label}",
}


def write(folder: Path, task: str, split: str, rows: Iterable[Row], newline: str = "\n", end: str = "\n") -> Path:
    """A file as the GLUE archive has it."""
    header = HEADERS[task]
    lines = [] if header is None else [header]
    lines += [LINES[task](number, texts, label) for number, (texts, label) in enumerate(rows)]
    path = folder / FOLDERS[task] / f"{split}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((newline.join(lines) + end).encode())
    return path


def load(
    folder: Path, task: str, train: Sequence[Row], dev: Sequence[Row] | None = None, rows: int | None = None, limit: int | None = None
) -> TaskData:
    write(folder, task, "train", train)
    write(folder, task, "dev", train[:2] if dev is None else dev)
    return load_data(TASKS[task], folder, rows, limit)


def singles(count: int, share: float = 0.3) -> list[Row]:
    """Distinct sentences of which this share has label 1."""
    return [((f"sentence {number} stands alone",), "1" if number * share % 1 < share else "0") for number in range(count)]


def pairs(count: int) -> list[Row]:
    return [((f"premise {number}", f"claim {number}"), "entailment" if number % 2 else "not_entailment") for number in range(count)]


def content(split: Split) -> list[tuple[tuple[str, ...], float]]:
    return sorted(zip(split.texts, split.labels.tolist(), strict=True))


def one_line(error: pytest.ExceptionInfo[HarnessError]) -> str:
    line = str(error.value)
    assert "\n" not in line
    return line


def inside(part: str, whole: str) -> bool:
    """Whether the words of a text occur in a row in another, different text."""
    return part != whole and f" {part} " in f" {whole} "


# --- reading


@pytest.mark.parametrize(
    ("task", "rows", "labels"),
    [
        ("cola", [(("They drank the pub.",), "0"), (("Bill sang.",), "1")], [0, 1]),
        ("sst2", [(("a gorgeous film",), "1"), (("dull",), "0")], [1, 0]),
        ("mrpc", [(("He said so .", "So he said ."), "1"), (("A", "B"), "0")], [1, 0]),
        ("stsb", [(("A plane.", "An air plane."), "5.000"), (("A", "B"), "0.25")], [5.0, 0.25]),
        ("rte", [(("A", "B"), "not_entailment"), (("C", "D"), "entailment")], [1, 0]),
        ("wnli", [(("A", "B"), "0"), (("C", "D"), "1")], [0, 1]),
    ],
)
def test_rows_of_each_glue_file_are_read_with_their_labels(tmp_path: Path, task: str, rows: list[Row], labels: list[float]) -> None:
    split = read_tsv(TASKS[task], write(tmp_path, task, "dev", rows))
    assert split.texts == tuple(texts for texts, _ in rows)
    assert split.labels.tolist() == labels
    assert split.ids.tolist() == [0, 1]


def test_unbalanced_quotes_alter_no_text_and_swallow_no_row(tmp_path: Path) -> None:
    rows = [
        (('"They said', 'he left "early'), "1"),
        (('"', "''"), "0"),
        (('a "quoted" word', 'half "" of it"'), "1"),
        (("plain", "rows"), "0"),
    ]
    assert read_tsv(TASKS["mrpc"], write(tmp_path, "mrpc", "dev", rows)).texts == tuple(texts for texts, _ in rows)


def test_byte_order_mark_does_not_become_part_of_the_first_label(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(b"\xef\xbb\xbfgj04\t1\t\tBill sang.\n")
    assert read_tsv(TASKS["cola"], path).texts == (("Bill sang.",),)


def test_sst2_space_at_the_end_of_a_sentence_is_no_part_of_it(tmp_path: Path) -> None:
    path = write(tmp_path, "sst2", "dev", [(("dull",), "0")])
    assert b"dull \t0" in path.read_bytes()
    assert read_tsv(TASKS["sst2"], path).texts == (("dull",),)


@pytest.mark.parametrize(
    ("newline", "end"), [("\n", ""), ("\n", "\n\n"), ("\r\n", "\r\n"), ("\r\n", ""), ("\r\n", "\r\n\r\n"), ("\n\n", "\n")]
)
def test_line_ends_and_empty_lines_do_not_matter(tmp_path: Path, newline: str, end: str) -> None:
    rows = [(("A", "B"), "1.5"), (("C", "D"), "3")]
    split = read_tsv(TASKS["stsb"], write(tmp_path, "stsb", "dev", rows, newline, end))
    assert split.texts == (("A", "B"), ("C", "D"))
    assert split.labels.tolist() == [1.5, 3.0]


def test_unicode_line_separators_inside_a_text_do_not_end_the_row(tmp_path: Path) -> None:
    text = "one\u2028two\x85three\x0bfour"
    assert read_tsv(TASKS["cola"], write(tmp_path, "cola", "dev", [((text,), "1")])).texts == ((text,),)


@pytest.mark.parametrize("task", ["sst2", "mrpc", "stsb", "rte", "wnli"])
def test_a_first_line_that_is_a_row_or_of_another_task_is_refused(task: str, tmp_path: Path) -> None:
    """A lost header would cost a row, or read another column, without a word."""
    header = HEADERS[task]
    assert header is not None
    path = tmp_path / "train.tsv"
    path.write_text("\t".join(f"cell{place}" for place in range(len(header.split("\t")))) + "\n", encoding="utf-8")
    with pytest.raises(HarnessError, match=r"line 1: the columns .* are named cell\d, .*wanted ") as caught:
        read_tsv(TASKS[task], path)
    assert str(path) in str(caught.value)


def test_header_less_cola_keeps_its_first_row_and_the_others_drop_their_header(tmp_path: Path) -> None:
    for task in HEADERS:
        label = {"stsb": "1.0", "rte": "entailment"}.get(task, "1")
        rows = [(("A", "B")[: len(TASKS[task].layout.texts)], label)] * 3  # type: ignore[union-attr]
        assert len(read_tsv(TASKS[task], write(tmp_path, task, "dev", rows))) == 3


@pytest.mark.parametrize(("line", "got"), [("1\tonly one text\tentailment", 3), ("1\tA\tB\tentailment\tmore", 5)])
def test_row_of_another_width_is_named_with_file_line_and_both_widths(tmp_path: Path, line: str, got: int) -> None:
    path = write(tmp_path, "rte", "train", pairs(2))
    path.write_text(path.read_text() + f"\n{line}\n")
    with pytest.raises(HarnessError) as error:
        read_tsv(TASKS["rte"], path)
    said = one_line(error)
    assert str(path) in said
    assert "line 5" in said  # header, two rows, an empty line
    assert f"got {got} columns, wanted 4" in said


@pytest.mark.parametrize(
    ("task", "label", "wanted"),
    [
        ("cola", "2", "0, 1"),
        ("cola", "", "0, 1"),
        ("rte", "neutral", "entailment, not_entailment"),
        ("stsb", "5.1", "0 to 5"),
        ("stsb", "-0.1", "0 to 5"),
        ("stsb", "nan", "0 to 5"),
        ("stsb", "inf", "0 to 5"),
        ("stsb", "high", "0 to 5"),
    ],
)
def test_label_that_does_not_belong_to_the_task_is_named_with_what_is_allowed(tmp_path: Path, task: str, label: str, wanted: str) -> None:
    texts = ("A", "B")[: len(TASKS[task].layout.texts)]  # type: ignore[union-attr]
    good = {"cola": "1", "rte": "entailment", "stsb": "2.5"}[task]
    path = write(tmp_path, task, "train", [(texts, good), (texts, label)])
    with pytest.raises(HarnessError) as error:
        read_tsv(TASKS[task], path)
    said = one_line(error)
    number = 2 if task == "cola" else 3
    assert str(path) in said
    assert f"line {number}" in said
    assert repr(label) in said
    assert wanted in said


def test_missing_file_names_the_file_and_the_option(tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["mrpc"], tmp_path)
    said = one_line(error)
    assert str(tmp_path / "MRPC" / "train.tsv") in said
    assert "--data-dir" in said


def test_glue_task_without_a_data_folder_names_the_option_and_the_subfolder() -> None:
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["sst2"], None)
    said = one_line(error)
    assert "--data-dir" in said
    assert "SST-2/" in said


def test_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes("gj04\t1\t\tcaf\u00e9\n".encode("latin-1"))
    with pytest.raises(HarnessError) as error:
        read_tsv(TASKS["cola"], path)
    said = one_line(error)
    assert str(path) in said
    assert "UTF-8" in said


@pytest.mark.parametrize("rows", ["", "sentence\tlabel\n", "sentence\tlabel\n\n\n"])
def test_file_without_rows_is_an_error(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(rows)
    with pytest.raises(HarnessError) as error:
        read_tsv(TASKS["sst2"], path)
    assert "no rows" in one_line(error)


# --- splits


@pytest.mark.parametrize(
    ("count", "selection", "calibration"), [(1_200, 100, 300), (2_500, 125, 300), (8_551, 428, 855), (30_000, 1_000, 2_000)]
)
def test_held_out_parts_have_their_share_within_the_bounds_and_the_label_shares_of_the_file(
    tmp_path: Path, count: int, selection: int, calibration: int
) -> None:
    data = load(tmp_path, "cola", singles(count))
    assert (len(data.selection), len(data.calibration)) == (selection, calibration)
    assert np.concatenate([part.ids for part in (data.train, data.selection, data.calibration)]).size == count
    share = np.mean([label == "1" for _, label in singles(count)])
    for part in (data.train, data.selection, data.calibration):
        assert abs(part.labels.sum() - share * len(part)) <= 1


@pytest.mark.parametrize("count", [1_000, 1_234, 2_077, 5_749])
def test_regression_is_stratified_by_fifths_of_the_label_range(tmp_path: Path, count: int) -> None:
    rng = random.Random(count)
    rows = [((f"left {i}", f"right {i}"), f"{5 * rng.random() ** 0.5:.3f}") for i in range(count)]
    data = load(tmp_path, "stsb", rows)
    assert 100 <= len(data.selection) <= 1_000
    assert 300 <= len(data.calibration) <= 2_000
    values = np.array([float(label) for _, label in rows])
    for part in (data.selection, data.calibration):
        for low in range(5):
            high = low + 1 if low < 4 else 5.5
            share = np.mean((values >= low) & (values < high))
            held = np.sum((part.labels >= low) & (part.labels < high))
            assert abs(held - share * len(part)) <= 1.5


def test_parts_are_disjoint_and_cover_the_file_and_dev_is_untouched(tmp_path: Path) -> None:
    rows, dev = pairs(1_000), pairs(40)[20:]
    data = load(tmp_path, "rte", rows, dev)
    ids = np.concatenate([part.ids for part in (data.train, data.selection, data.calibration)])
    assert sorted(ids.tolist()) == list(range(1_000))
    for part in (data.train, data.selection, data.calibration):
        assert part.ids.tolist() == sorted(part.ids.tolist())
        assert part.texts == tuple(rows[i][0] for i in part.ids)
        assert part.labels.tolist() == [float(rows[i][1] == "not_entailment") for i in part.ids]
    assert data.dev.texts == tuple(texts for texts, _ in dev)


def assert_independent_of_the_order(tmp_path: Path, task: str, rows: list[Row]) -> None:
    first = load(tmp_path / "a", task, rows)
    for seed in range(3):
        shuffled = random.Random(seed).sample(rows, len(rows))
        second = load(tmp_path / str(seed), task, shuffled)
        for name in ("train", "selection", "calibration"):
            assert content(second.splits()[name]) == content(first.splits()[name]), name


def test_splits_of_separate_rows_do_not_depend_on_their_order_in_the_file(tmp_path: Path) -> None:
    assert_independent_of_the_order(tmp_path, "cola", singles(1_000))


def test_splits_of_groups_with_both_labels_do_not_depend_on_their_order_in_the_file(tmp_path: Path) -> None:
    rng = random.Random(7)
    rows: list[Row] = [
        ((f"shared {group}", f"claim {group} {place}"), rng.choice(["entailment", "not_entailment"]))
        for group in range(450)
        for place in range(rng.choice([1, 2, 3]))
    ]
    assert_independent_of_the_order(tmp_path, "rte", rows)


def test_splits_of_repeated_sentences_with_both_labels_do_not_depend_on_their_order_in_the_file(tmp_path: Path) -> None:
    rows: list[Row] = [((f"w{number} x{number}",), label) for number in range(700) for label in ("01" if number % 2 else "1")]
    assert_independent_of_the_order(tmp_path, "sst2", rows)


def test_splits_are_the_ones_they_have_always_been(tmp_path: Path) -> None:
    """Frozen, after a separate computation had given the same: selection and calibration are the front of each label's rows by SHA-256."""
    data = load(tmp_path, "cola", singles(1_000))
    assert data.selection.ids[:8].tolist() == [0, 12, 23, 26, 32, 47, 48, 53]
    assert data.calibration.ids[:8].tolist() == [4, 10, 11, 14, 15, 19, 22, 29]
    assert data.split_fingerprint == "6de28755abfb0487"


def components(texts: Sequence[tuple[str, ...]]) -> list[set[int]]:
    """Rows that hang together by a shared text, found by flooding."""
    rows_of: dict[str, set[int]] = {}
    for row, both in enumerate(texts):
        for text in both:
            rows_of.setdefault(text, set()).add(row)
    left, found = set(range(len(texts))), []
    while left:
        queue, seen = [left.pop()], set[int]()
        while queue:
            row = queue.pop()
            seen.add(row)
            near = {other for text in texts[row] for other in rows_of[text]} & left
            left -= near
            queue += near
        found.append(seen)
    return found


def test_rows_that_share_a_text_directly_or_by_a_chain_are_never_split_between_parts(tmp_path: Path) -> None:
    rng = random.Random(3)
    pool = [f"text {number}" for number in range(2_400)]
    rows: list[Row] = [((rng.choice(pool), rng.choice(pool)), str(rng.randrange(2))) for _ in range(1_100)]
    data = load(tmp_path, "mrpc", rows)
    part_of = {int(row): name for name in ("train", "selection", "calibration") for row in data.splits()[name].ids}
    found = components([texts for texts, _ in rows])
    assert max(map(len, found)) >= 5
    assert any(len(group) > 2 and part_of[min(group)] != "train" for group in found)
    for group in found:
        assert len({part_of[row] for row in group}) == 1
    assert 95 <= len(data.selection) <= 105
    assert 290 <= len(data.calibration) <= 310


@pytest.mark.parametrize("swapped", [False, True])
def test_group_too_large_for_a_held_out_part_stays_in_train(tmp_path: Path, swapped: bool) -> None:
    chain = [(f"link {a}", f"link {b}") for a, b in pairwise(range(41))]
    chain = [(b, a) if swapped and place % 2 else (a, b) for place, (a, b) in enumerate(chain)]
    rows = [*pairs(1_000), *((texts, "entailment") for texts in chain)]
    data = load(tmp_path, "rte", rows)
    assert set(range(1_000, 1_040)) <= set(data.train.ids.tolist())


@pytest.mark.parametrize("count", [60, 150, 390])
def test_file_with_too_few_rows_to_hold_any_out_is_an_error(tmp_path: Path, count: int) -> None:
    with pytest.raises(HarnessError) as error:
        load(tmp_path, "cola", singles(count))
    assert str(count) in one_line(error)


# --- SST-2's rule


def phrases(seed: int, count: int, words: Sequence[str], longest: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(25))
def test_whole_sentences_are_those_of_a_pairwise_comparison(seed: int) -> None:
    texts = phrases(seed, 60, ["a", "aa", "b", "ab", "c", "'s"], 7)
    expected = {text: {other for other in texts if inside(other, text)} for text in texts if not any(inside(text, t) for t in texts)}
    assert whole_sentences(texts) == expected


def test_word_inside_a_longer_word_is_not_a_phrase_of_it() -> None:
    assert whole_sentences(["art", "party", "the party", "heart of art"]) == {"the party": {"party"}, "heart of art": {"art"}}


def test_whole_sentences_do_not_depend_on_order_or_repetition() -> None:
    texts = phrases(1, 80, ["a", "b", "c"], 6)
    assert list(whole_sentences(texts).items()) == list(whole_sentences([*reversed(texts), *texts]).items())


@pytest.fixture(scope="module")
def treebank(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], TaskData]:
    """700 sentences with phrases of theirs, some repeated and some shared by several sentences."""
    rng = random.Random(11)
    words = [f"w{number}" for number in range(300)]
    rows: list[Row] = []
    for sentence in phrases(5, 700, words, 9):
        spans = [sentence]
        cut = sentence.split(" ")
        for _ in range(3):
            start = rng.randrange(len(cut))
            spans.append(" ".join(cut[start : rng.randint(start + 1, len(cut))]))
        rows += [((span,), str(rng.randrange(2))) for span in spans]
    rng.shuffle(rows)
    return rows, load(tmp_path_factory.mktemp("glue"), "sst2", rows)


def test_sst2_holds_out_whole_sentences_each_once(treebank: tuple[list[Row], TaskData]) -> None:
    rows, data = treebank
    texts = {text for (text,), _ in rows}
    whole = {text for text in texts if not any(inside(text, other) for other in texts)}
    held = [text for part in (data.selection, data.calibration) for (text,) in part.texts]
    assert set(held) <= whole
    assert len(set(held)) == len(held)
    assert len(data.selection) == 100
    assert len(data.calibration) == 300


def test_sst2_training_row_neither_repeats_nor_occurs_inside_a_held_out_one(treebank: tuple[list[Row], TaskData]) -> None:
    rows, data = treebank
    held = [text for part in (data.selection, data.calibration) for (text,) in part.texts]
    padded = "|".join(f" {text} " for text in held)
    assert not [text for (text,) in data.train.texts if f" {text} " in padded]
    kept = {int(row) for part in (data.train, data.selection, data.calibration) for row in part.ids}
    dropped = [rows[row][0][0] for row in range(len(rows)) if row not in kept]
    assert dropped
    assert all(f" {text} " in padded for text in dropped)


def test_sst2_rows_keep_text_and_label_together(treebank: tuple[list[Row], TaskData]) -> None:
    rows, data = treebank
    for part in (data.train, data.selection, data.calibration):
        assert [rows[row] for row in part.ids] == [(texts, f"{label:.0f}") for texts, label in zip(part.texts, part.labels, strict=True)]


# --- train_rows and limit


def test_train_rows_draws_the_same_rows_each_time_from_the_training_part(tmp_path: Path) -> None:
    whole = load(tmp_path, "cola", singles(1_000))
    first, second = (load(tmp_path, "cola", singles(1_000), rows=200) for _ in range(2))
    assert first.train.ids.tolist() == second.train.ids.tolist()
    assert len(set(first.train.ids.tolist())) == 200
    assert set(first.train.ids.tolist()) < set(whole.train.ids.tolist())
    assert first.selection.ids.tolist() == whole.selection.ids.tolist()
    assert first.calibration.ids.tolist() == whole.calibration.ids.tolist()


@pytest.mark.parametrize("count", [1, 7, 100, 333, 590])
@pytest.mark.parametrize("task", ["cola", "stsb"])
def test_train_rows_are_stratified_to_within_one_row(tmp_path: Path, task: str, count: int) -> None:
    rows = singles(1_000) if task == "cola" else [((f"a {i}", f"b {i}"), f"{i % 7 * 5 / 7:.2f}") for i in range(1_000)]
    whole, drawn = (load(tmp_path, task, rows, rows=number).train.labels for number in (None, count))
    assert len(drawn) == count
    shares = Counter(np.minimum(whole.astype(int), 4).tolist())
    got = Counter(np.minimum(drawn.astype(int), 4).tolist())
    for stratum, size in shares.items():
        assert abs(got[stratum] - count * size / len(whole)) < 1


@pytest.mark.parametrize("count", [0, 601, 10_000])
def test_train_rows_outside_the_training_part_is_an_error_with_both_numbers(tmp_path: Path, count: int) -> None:
    with pytest.raises(HarnessError) as error:
        load(tmp_path, "cola", singles(1_000), rows=count)
    said = one_line(error)
    assert f"cola={count}" in said
    assert "600" in said


def test_limit_keeps_the_first_rows_of_every_part(tmp_path: Path) -> None:
    rows = singles(1_000)
    whole = load(tmp_path, "cola", rows, rows[:50])
    cut = load(tmp_path, "cola", rows, rows[:50], limit=120)
    for name, part in cut.splits().items():
        assert part.ids.tolist() == whole.splits()[name].ids[:120].tolist()
    assert {name: len(part) for name, part in cut.splits().items()} == {"train": 120, "selection": 100, "calibration": 120, "dev": 50}


# --- constant answers


def test_constant_answer_is_the_majority_of_train_scored_on_dev(tmp_path: Path) -> None:
    mostly = [(texts, "0" if number % 4 else "1") for number, (texts, _) in enumerate(singles(1_000))]
    dev = [((f"dev {number}",), "0" if number < 3 else "1") for number in range(10)]
    assert load(tmp_path, "sst2", mostly, dev).constant_scores() == {"accuracy": 0.3}
    assert load(tmp_path, "cola", mostly, dev).constant_scores() == {"matthews": 0.0}


def test_constant_answer_of_mrpc_has_the_f1_of_always_saying_yes(tmp_path: Path) -> None:
    train: list[Row] = [((f"a {i}", f"b {i}"), "1" if i % 3 else "0") for i in range(1_000)]
    dev: list[Row] = [((f"c {i}", f"d {i}"), "1" if i < 6 else "0") for i in range(10)]
    scores = load(tmp_path, "mrpc", train, dev).constant_scores()
    assert scores == pytest.approx({"f1": 2 * 0.6 / 1.6, "accuracy": 0.6}, abs=1e-12)


def test_constant_answer_of_a_regression_does_not_correlate(tmp_path: Path) -> None:
    rows = [((f"a {i}", f"b {i}"), f"{i % 50 / 10}") for i in range(1_000)]
    assert load(tmp_path, "stsb", rows, rows[:30]).constant_scores() == {"pearson": 0.0, "spearman": 0.0}


# --- fingerprints


def characters(texts: Sequence[tuple[str, ...]], max_length: int) -> Tokens:
    """Letters as tokens: an encoder of the test's own."""
    ids = tuple(np.array([ord(letter) for letter in " ".join(row)[:max_length]], dtype=np.int32) for row in texts)
    return Tokens(ids, tuple(np.zeros_like(row) for row in ids), 0)


def test_fingerprint_is_of_the_rows_and_not_of_where_and_how_the_file_is_kept(tmp_path: Path) -> None:
    rows = pairs(700)
    first = load(tmp_path / "a", "rte", rows)
    for split, some in (("train", rows), ("dev", rows[:2])):
        write(tmp_path / "b", "rte", split, some, newline="\r\n", end="")
    second = load_data(TASKS["rte"], tmp_path / "b")
    assert first.encoded(characters, 16).fingerprint == second.encoded(characters, 16).fingerprint
    assert first.data_fingerprint == second.data_fingerprint
    assert first.split_fingerprint == second.split_fingerprint


def test_fingerprint_changes_with_any_text_label_part_or_length(tmp_path: Path) -> None:
    rows, dev = pairs(700), pairs(720)[700:]

    def changed(some: list[Row], row: int, texts: tuple[str, ...] | None = None, label: str | None = None) -> list[Row]:
        old_texts, old_label = some[row]
        return [*some[:row], (texts or old_texts, label or old_label), *some[row + 1 :]]

    def fingerprint(
        name: str, train: list[Row], dev: list[Row], length: int = 16, count: int | None = None, limit: int | None = None
    ) -> str:
        return load(tmp_path / name, "rte", train, dev, count, limit).encoded(characters, length).fingerprint

    found = [
        fingerprint("same", rows, dev),
        fingerprint("text", changed(rows, 13, ("premise 13", "another")), dev),
        fingerprint("swap", changed(rows, 13, rows[13][0][::-1]), dev),
        fingerprint("label", changed(rows, 14, label="entailment"), dev),
        fingerprint("dev text", rows, changed(dev, 0, ("other", "texts"))),
        fingerprint("dev label", rows, changed(dev, 0, label="entailment")),
        fingerprint("fewer", rows[:-1], dev),
        fingerprint("length", rows, dev, length=17),
        fingerprint("drawn", rows, dev, count=250),
        fingerprint("limit", rows, dev, limit=10),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint("again", rows, dev) == found[0]


def test_fingerprint_changes_when_a_row_changes_its_part(tmp_path: Path) -> None:
    data = load(tmp_path, "rte", pairs(700))
    moved = replace(data, selection=data.calibration, calibration=data.selection)
    assert moved.fingerprint != data.fingerprint


def test_data_fingerprint_tells_the_end_of_train_from_the_start_of_dev(tmp_path: Path) -> None:
    rows = pairs(720)
    here, there = (load(tmp_path / str(cut), "rte", rows[:cut], rows[cut:]) for cut in (700, 701))
    assert here.data_fingerprint != there.data_fingerprint


def test_encoded_rows_keep_their_order_and_the_length_is_noted(tmp_path: Path) -> None:
    data = load(tmp_path, "cola", singles(700)).encoded(characters, 12)
    assert data.max_length == 12
    for part in data.splits().values():
        assert ["".join(map(chr, row)) for row in part.tokens.ids] == [text[:12] for (text,) in part.texts]
        assert part.tokens.lengths.tolist() == [12] * len(part)


# --- the demo tasks


@pytest.mark.parametrize("task", GROUPS["demo"])
def test_demo_tasks_need_no_folder_and_hold_parts_out(task: str) -> None:
    data = load_data(TASKS[task], None)
    assert len(data.dev) == demo.SPLIT_SIZES["dev"]
    for part, share, least in ((data.selection, 0.05, 100), (data.calibration, 0.1, 300)):
        wanted = max(share * demo.SPLIT_SIZES["train"], least)
        assert abs(wanted - len(part)) <= 24  # demo-pair's groups have some 12 rows, and there are 2 labels
    assert TASKS[task].labels == demo.LABELS[task]


# --- names


def test_groups_are_replaced_by_their_members_each_once() -> None:
    glue = ["cola", "sst2", "mrpc", "stsb", "rte", "wnli"]
    assert [task.name for task in find_tasks(["glue"])] == glue
    mixed = ["rte", "demo-single", "demo-pair", "cola", "sst2", "mrpc", "stsb", "wnli"]
    assert [task.name for task in find_tasks(["rte", "demo", "glue", "rte"])] == mixed


@pytest.mark.parametrize(("name", "near"), [("mprc", "mrpc"), ("sst-2", "sst2"), ("gleu", "glue"), ("demo-pairs", "demo-pair")])
def test_unknown_task_gets_the_near_matches_and_all_names(name: str, near: str) -> None:
    with pytest.raises(HarnessError) as error:
        find_tasks(["cola", name])
    said = one_line(error)
    assert repr(name) in said
    assert "did you mean" in said
    assert near in said.partition("known:")[0]
    assert all(known in said.partition("known:")[2] for known in ("cola", "glue", "demo"))


def test_every_group_holds_known_tasks_and_every_task_describes_itself() -> None:
    assert {member for members in GROUPS.values() for member in members} <= set(TASKS)
    for name, task in TASKS.items():
        assert task.name == name
        assert task.about
        assert task.metrics
        assert len(task.labels) == len(task.values) == len(set(task.values))
        assert task.classes == (len(task.labels) or 1)
        assert task.regression == (task.labels == ())
