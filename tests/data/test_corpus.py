"""Sentences to pre-train on, none of them from a part that is held out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.command_line import Say

from baselines.distillation import masked_lm
from harness.data.corpus import Corpus, packed
from harness.data.dataset import Split, Tokens
from harness.data.loading import load_data
from harness.data.tasks import GROUPS, TASKS
from harness.errors import HarnessError
from harness.models.backbones import Backbone
from harness.records import Sources
from harness.store.results import ResultsStore


def texts(corpus: Corpus) -> tuple[list[str], list[str]]:
    return [text for (text,) in corpus.data.train.texts], [text for (text,) in corpus.data.selection.texts]


def encode(texts: Sequence[tuple[str, ...]], max_length: int) -> Tokens:
    """A token a word, one in front of the row and one behind each text."""
    words = [sum((len(text.split()) + 1 for text in row), 1) for row in texts]
    rows = tuple(np.zeros(min(count, max_length), np.int32) for count in words)
    return Tokens(rows, rows, sum(count > max_length for count in words))


def lines(folder: Path, name: str, count: int, first: int = 0) -> Path:
    path = folder / name
    path.write_text("".join(f"sentence number {number}\n" for number in range(first, first + count)), encoding="utf-8")
    return path


def test_every_distinct_line_of_the_files_is_in_one_part(tmp_path: Path) -> None:
    files = lines(tmp_path, "a.txt", 300), lines(tmp_path, "b.txt", 300, first=200)
    train, held = texts(Corpus(files))
    assert sorted(train + held) == sorted(f"sentence number {number}" for number in range(500))
    assert len(held) == 25


def test_the_order_of_files_and_empty_lines_do_not_matter(tmp_path: Path) -> None:
    one, other = lines(tmp_path, "a.txt", 60), lines(tmp_path, "b.txt", 60, first=60)
    plain = Corpus((one, other)).data
    other.write_text("\ufeff\n" + other.read_text(encoding="utf-8").replace("\n", "  \r\n\r\n"), encoding="utf-8")
    again = Corpus((other, one)).data
    assert again.train.texts == plain.train.texts
    assert again.fingerprint == plain.fingerprint
    assert Corpus((one,)).data.fingerprint != plain.fingerprint


def test_without_files_the_tasks_training_parts_give_their_texts_and_no_held_out_one() -> None:
    train, held = texts(Corpus())
    found = [load_data(TASKS[name], None) for name in GROUPS["demo"]]
    trained = {text for data in found for row in data.train.texts for text in row}
    kept_away = {text for data in found for part in (data.selection, data.calibration, data.dev) for row in part.texts for text in row}
    left = trained - kept_away - set(train) - set(held)
    assert set(train) | set(held) <= trained - kept_away
    assert all(any(f" {text} " in f" {whole} " for whole in held) for text in left)
    assert not any(f" {text} " in f" {other} " for text in held for other in train)
    assert len(train) > 1000


def test_a_sentence_that_is_held_out_in_one_task_is_not_taken_from_anothers_train(tmp_path: Path) -> None:
    """RTE and WNLI of 900 rows each; a sentence of WNLI's dev part stands in RTE's train."""

    def write(task: str, part: str, numbers: list[int], label: str) -> None:
        (tmp_path / task).mkdir(exist_ok=True)
        rows = "".join(f"{number}\tpremise {number}\tclaim {number}\t{label}\n" for number in numbers)
        (tmp_path / task / f"{part}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + rows, encoding="utf-8")

    write("RTE", "train", [*range(900), 5001], "entailment")
    write("RTE", "dev", [4000], "entailment")
    write("WNLI", "train", list(range(1000, 1900)), "1")
    write("WNLI", "dev", [5001, 5002], "1")
    train, held = texts(Corpus(data_dir=tmp_path, tasks=("rte", "wnli")))
    numbers = {int(text.split()[1]) for text in train + held}
    assert not numbers & {4000, 5001, 5002}
    assert len(numbers & set(range(900))) > 300
    assert len(numbers & set(range(1000, 1900))) > 300


def test_a_quick_look_takes_few_sentences() -> None:
    train, held = texts(Corpus(limit=60))
    assert (len(train), len(held)) == (40, 20)
    assert set(train + held) <= set().union(*texts(Corpus()))


# --- rows


def sentences(count: int, words: int) -> Split:
    return Split(np.arange(count), tuple((f"s{number}" + " word" * (words - 1),) for number in range(count)), np.zeros(count))


def test_every_sentence_is_in_one_row_in_its_order_and_no_row_of_several_is_too_long() -> None:
    rows = packed(sentences(2000, 5), encode, 64)
    assert " ".join(text for row in rows.texts for text in row).split() == " ".join(t for (t,) in sentences(2000, 5).texts).split()
    tokens = encode(rows.texts, 64)
    assert tokens.truncated == 0
    assert rows.ids.tolist() == list(range(len(rows)))


def test_rows_have_one_text_or_two_and_many_lengths() -> None:
    """The logarithm of the room is uniform from 8 to 128 tokens, a sentence takes 4: half of the rows have up to 8 sentences, the longest
    31, of two words each. A row of several is a pair half of the time."""
    rows = packed(sentences(20_000, 2), encode, 128)
    lengths = encode(rows.texts, 128).lengths
    assert np.quantile(lengths, (0.0, 0.5, 1.0)) == pytest.approx((6, 18, 65), abs=2)
    assert np.mean([len(row) for row in rows.texts]) == pytest.approx(1.5, abs=0.03)
    assert all(row[0] and row[-1] for row in rows.texts)


def test_a_sentence_that_is_too_long_stands_alone_and_is_cut() -> None:
    parts = [sentences(3, 4), sentences(1, 100), sentences(3, 4)]
    mixed = Split(np.arange(7), tuple(row for part in parts for row in part.texts), np.zeros(7))
    rows = packed(mixed, encode, 32)
    assert parts[1].texts[0] in rows.texts
    assert encode(rows.texts, 32).truncated == 1


def test_rows_are_made_of_their_own_part_and_named_by_how_they_are_made(micro: Backbone, tmp_path: Path) -> None:
    corpus = Corpus((lines(tmp_path, "a.txt", 300),))
    found, shorter = (corpus.encoded(micro.encode, length) for length in (64, 48))
    for part, whole in ((found.train, corpus.data.train), (found.selection, corpus.data.selection)):
        assert len(part) < len(whole)
        assert sorted(" ".join(t for row in part.texts for t in row).split()) == sorted(" ".join(t for (t,) in whole.texts).split())
        assert [row.tolist() for row in part.tokens.ids] == [row.tolist() for row in micro.encode(part.texts, 64).ids]
        assert {int(row.max()) for row in part.tokens.types} == {0, 1}
    assert found.train.texts != shorter.train.texts
    assert len({found.fingerprint, shorter.fingerprint, corpus.data.encoded(micro.encode, 64).fingerprint}) == 3
    assert Corpus(corpus.files).encoded(micro.encode, 64).train.texts == found.train.texts


def test_words_are_what_stands_between_spaces_and_is_of_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"The film n't was-it Good, {number} !\n" for number in range(100)), encoding="utf-8")
    assert Corpus((path,)).words == {"the", "film"}


# --- what is refused


@pytest.mark.parametrize("content", [None, b"caf\xe9\n" * 100, b"one\ntwo\n", b""])
def test_a_corpus_that_cannot_serve_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "corpus.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"corpus\.txt|distinct sentences"):
        _ = Corpus((path,)).data


# --- the corpus of a run


def identities(say: Say, *words: str) -> dict[str, str]:
    """Method -> run id, as --dry-run shows them."""
    answer = say("run", "--methods", "bert,distilbert", "--tasks", "demo-pair", "--limit", "8", "--no-latency", "--dry-run", *words)
    assert answer.code == 0
    return {line.split()[1]: line.split()[5] for line in answer.out.splitlines()[2:]}


def test_the_corpus_names_a_run_of_a_method_that_pre_trains_and_no_other(say: Say, own_folders: None, tmp_path: Path) -> None:
    plain = identities(say)
    one, other = (identities(say, "--corpus", str(lines(tmp_path, name, 60, first))) for name, first in (("a.txt", 0), ("b.txt", 100)))
    assert plain["bert"] == one["bert"] == other["bert"]
    assert len({plain["distilbert"], one["distilbert"], other["distilbert"]}) == 3
    assert identities(say, "--corpus", str(tmp_path / "a.txt")) == one


def test_a_run_that_pre_trains_tells_its_corpus_and_what_it_lacks_and_one_that_does_not_tells_nothing(
    say: Say, own_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lm, "FEWEST_RIGHT", 1.01)
    words = ("--set", "distilbert.pretraining_epochs=1", "--epochs", "1", "--corpus", str(lines(tmp_path, "a.txt", 60)))
    quick = ("--tasks", "demo-pair", "--limit", "8", "--no-latency", "--threads", "1", "--results-dir", "r", "--cache-dir", "c")
    answer = say("run", "--methods", "bert,distilbert", *quick, *words)
    assert answer.code == 0
    found = {record.spec.method: record for record in ResultsStore(Path("r")).records()[0]}
    assert found["bert"].data.sources == Sources()
    assert found["distilbert"].data.sources == Sources(corpus=Corpus((tmp_path / "a.txt",), limit=8).data.data_fingerprint)
    assert [use.report.name for use in found["distilbert"].stages] == ["masked-lm", "distil-cosine", "fine-tune"]
    (lacking,) = found["distilbert"].remarks
    assert lacking.startswith("pre-training learns hidden states alone: the masked-LM head tells 0.")
    assert f"harness: warning: demo-pair distilbert seed 1: {lacking}" in answer.lines
    assert found["bert"].remarks == ()


def test_a_corpus_that_is_not_there_is_said_in_one_line(say: Say, own_folders: None) -> None:
    answer = say("run", "--methods", "distilbert", "--tasks", "demo-pair", "--limit", "8", "--dry-run", "--corpus", "absent.txt")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "cannot read absent.txt" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--methods", "bert", "--corpus", "a.txt"), "--corpus: no method of this grid pre-trains"),
        (("--methods", "bert", "--glove", "a.txt"), "--glove: no method of this grid augments"),
        (("--methods", "tinybert", "--glove", "absent.txt"), "--glove: cannot read absent.txt"),
        (("--methods", "tinybert", "--glove", "a.txt"), "--glove: a.txt line 1"),
        (("--methods", "bert,distilbert", "--corpus", "few.txt"), "3 distinct sentences"),
    ],
    ids=str,
)
def test_what_pre_training_reads_is_checked_before_anything_is_fitted(
    say: Say, own_folders: None, words: tuple[str, ...], said: str
) -> None:
    Path("a.txt").write_text("one sentence\n" * 50)
    Path("few.txt").write_text("one\ntwo\nthree\n")
    quick = ("--tasks", "demo-pair", "--limit", "8", "--no-latency", "--threads", "1", "--results-dir", "r", "--cache-dir", "c", "-q")
    answer = say("run", *quick, *words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert said in answer.err
    assert not (Path("c") / "stages").exists()


def test_a_sentence_that_is_held_out_in_another_spelling_is_not_taken(tmp_path: Path) -> None:
    """STS-B holds sentences of MRPC that were split into words by another hand."""

    def write(task: str, part: str, rows: list[str]) -> None:
        (tmp_path / task).mkdir(exist_ok=True)
        lines_ = [f"{number}\t{row}\tclaim {task} {number}\tentailment\n" for number, row in enumerate(rows)]
        (tmp_path / task / f"{part}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(lines_), encoding="utf-8")

    write("RTE", "train", [*(f"premise {number}" for number in range(900)), "The firm 's shares , up 3 % ."])
    write("RTE", "dev", ["The firm's shares, up 3%."])
    train, held = texts(Corpus(data_dir=tmp_path, tasks=("rte",)))
    assert not any("shares" in text for text in train + held)
    assert len(train) > 900
