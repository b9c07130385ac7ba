"""The corpus of pre-training: its sentences, rows and errors, and its use in a run."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.command_line import RunCli, assert_names, assert_one_line
from support.messages import figures, names_all
from support.synthetic import one_line

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
    return [text for (text,) in corpus.data.train.texts], [
        text for (text,) in corpus.data.selection.texts
    ]


def encode(texts: Sequence[tuple[str, ...]], max_length: int) -> Tokens:
    """Return one token per word, one before the row and one after each text."""
    words = [sum((len(text.split()) + 1 for text in row), 1) for row in texts]
    rows = tuple(np.zeros(min(count, max_length), np.int32) for count in words)
    return Tokens(rows, rows, sum(count > max_length for count in words))


def write_lines(folder: Path, name: str, count: int, first: int = 0) -> Path:
    path = folder / name
    path.write_text(
        "".join(f"sentence number {number}\n" for number in range(first, first + count)),
        encoding="utf-8",
    )
    return path


def test_every_line_is_in_one_part(tmp_path: Path) -> None:
    """Every distinct line of the files belongs to one part."""
    files = write_lines(tmp_path, "a.txt", 300), write_lines(tmp_path, "b.txt", 300, first=200)
    train, held = texts(Corpus(files))
    assert sorted(train + held) == sorted(f"sentence number {number}" for number in range(500))
    assert len(held) == 25


def test_file_order_never_matters(tmp_path: Path) -> None:
    """The order of the files and empty lines change nothing."""
    first, second = write_lines(tmp_path, "a.txt", 60), write_lines(tmp_path, "b.txt", 60, first=60)
    data = Corpus((first, second)).data
    second.write_text(
        "\ufeff\n" + second.read_text(encoding="utf-8").replace("\n", "  \r\n\r\n"),
        encoding="utf-8",
    )
    reordered = Corpus((second, first)).data
    assert reordered.train.texts == data.train.texts
    assert reordered.fingerprint == data.fingerprint
    assert Corpus((first,)).data.fingerprint != data.fingerprint


def test_tasks_give_only_training_texts() -> None:
    """Without files the corpus has texts of the tasks' training parts, and no held-out ones."""
    train, held = texts(Corpus())
    tasks = [load_data(TASKS[name], None) for name in GROUPS["demo"]]
    training_texts = {text for data in tasks for row in data.train.texts for text in row}
    held_out_texts = {
        text
        for data in tasks
        for part in (data.selection, data.calibration, data.dev)
        for row in part.texts
        for text in row
    }
    omitted = training_texts - held_out_texts - set(train) - set(held)
    assert set(train) | set(held) <= training_texts - held_out_texts
    assert all(any(f" {text} " in f" {sentence} " for sentence in held) for text in omitted)
    assert not any(f" {text} " in f" {other} " for text in held for other in train)
    assert len(train) > 1000


def test_held_out_sentences_are_never_taken(tmp_path: Path) -> None:
    """A sentence that one task holds out is not taken from another task's train.

    RTE and WNLI have 900 rows each; RTE's train repeats a sentence of WNLI's dev."""

    def write(task: str, part: str, numbers: list[int], label: str) -> None:
        (tmp_path / task).mkdir(exist_ok=True)
        rows = "".join(
            f"{number}\tpremise {number}\tclaim {number}\t{label}\n" for number in numbers
        )
        (tmp_path / task / f"{part}.tsv").write_text(
            "index\tsentence1\tsentence2\tlabel\n" + rows, encoding="utf-8"
        )

    write("RTE", "train", [*range(900), 5001], "entailment")
    write("RTE", "dev", [4000], "entailment")
    write("WNLI", "train", list(range(1000, 1900)), "1")
    write("WNLI", "dev", [5001, 5002], "1")
    train, held = texts(Corpus(data_dir=tmp_path, tasks=("rte", "wnli")))
    numbers = {int(text.split()[1]) for text in train + held}
    assert not numbers & {4000, 5001, 5002}
    assert len(numbers & set(range(900))) > 300
    assert len(numbers & set(range(1000, 1900))) > 300


def test_limit_bounds_the_sentences() -> None:
    train, held = texts(Corpus(limit=60))
    assert (len(train), len(held)) == (40, 20)
    assert set(train + held) <= set().union(*texts(Corpus()))


# --- rows


def sentences(count: int, words: int) -> Split:
    return Split(
        np.arange(count),
        tuple((f"s{number}" + " word" * (words - 1),) for number in range(count)),
        np.zeros(count),
    )


def test_sentences_fill_rows_in_order() -> None:
    """Rows hold every sentence once, in order, and no row of several sentences is too long."""
    rows = packed(sentences(2000, 5), encode, 64)
    assert (
        " ".join(text for row in rows.texts for text in row).split()
        == " ".join(t for (t,) in sentences(2000, 5).texts).split()
    )
    tokens = encode(rows.texts, 64)
    assert tokens.truncated == 0
    assert rows.ids.tolist() == list(range(len(rows)))


def test_rows_have_one_or_two_texts() -> None:
    """Rows have one or two texts and different lengths.

    The logarithm of a row's largest length is uniform from 8 to 128 tokens, and a sentence of two
    words counts as 4: half of the rows have up to 8 sentences, the longest have 31. Half of the
    rows with several sentences are pairs."""
    rows = packed(sentences(20_000, 2), encode, 128)
    lengths = encode(rows.texts, 128).lengths
    assert np.quantile(lengths, (0.0, 0.5, 1.0)) == pytest.approx((6, 18, 65), abs=2)
    assert np.mean([len(row) for row in rows.texts]) == pytest.approx(1.5, abs=0.03)
    assert all(row[0] and row[-1] for row in rows.texts)


def test_long_sentence_gets_own_row() -> None:
    """A sentence that is too long gets a row of its own and is truncated."""
    parts = [sentences(3, 4), sentences(1, 100), sentences(3, 4)]
    mixed = Split(np.arange(7), tuple(row for part in parts for row in part.texts), np.zeros(7))
    rows = packed(mixed, encode, 32)
    assert parts[1].texts[0] in rows.texts
    assert encode(rows.texts, 32).truncated == 1


def test_rows_never_mix_parts(micro: Backbone, tmp_path: Path) -> None:
    """Rows hold sentences of one part, and the fingerprint depends on how they are made."""
    corpus = Corpus((write_lines(tmp_path, "a.txt", 300),))
    rows, shorter_rows = (corpus.encoded(micro.encode, length) for length in (64, 48))
    for part, source in ((rows.train, corpus.data.train), (rows.selection, corpus.data.selection)):
        assert len(part) < len(source)
        assert sorted(" ".join(t for row in part.texts for t in row).split()) == sorted(
            " ".join(t for (t,) in source.texts).split()
        )
        assert [row.tolist() for row in part.tokens.ids] == [
            row.tolist() for row in micro.encode(part.texts, 64).ids
        ]
        assert {int(row.max()) for row in part.tokens.types} == {0, 1}
    assert rows.train.texts != shorter_rows.train.texts
    assert (
        len(
            {
                rows.fingerprint,
                shorter_rows.fingerprint,
                corpus.data.encoded(micro.encode, 64).fingerprint,
            }
        )
        == 3
    )
    assert Corpus(corpus.files).encoded(micro.encode, 64).train.texts == rows.train.texts


def test_words_have_only_letters(tmp_path: Path) -> None:
    """The words are the space-separated tokens of only letters, in lower case."""
    path = tmp_path / "a.txt"
    path.write_text(
        "".join(f"The film n't was-it Good, {number} !\n" for number in range(100)),
        encoding="utf-8",
    )
    assert Corpus((path,)).words == {"the", "film"}


# --- errors


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (None, ["--corpus", "corpus.txt"]),
        (b"caf\xe9\n" * 100, ["--corpus", "corpus.txt", "UTF-8"]),
        (b"one\ntwo\n", ["corpus.txt", (2, 40)]),
        (b"", ["corpus.txt", (0, 40)]),
    ],
)
def test_unusable_corpus_is_refused(
    tmp_path: Path, content: bytes | None, names: list[object]
) -> None:
    path = tmp_path / "corpus.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HarnessError) as caught:
        _ = Corpus((path,)).data
    assert_names(one_line(caught), *names)


# --- the corpus of a run


def run_ids(run_cli: RunCli, *arguments: str) -> dict[str, str]:
    """Return method -> run id, as --dry-run prints them."""
    result = run_cli(
        "run",
        "--methods",
        "bert,distilbert",
        "--tasks",
        "demo-pair",
        "--limit",
        "8",
        "--no-latency",
        "--dry-run",
        *arguments,
    )
    assert result.code == 0
    return {line.split()[1]: line.split()[5] for line in result.out.splitlines()[2:]}


def test_corpus_identifies_only_pretraining_runs(
    run_cli: RunCli, own_folders: None, tmp_path: Path
) -> None:
    """The corpus is part of the run ids of methods that pre-train, and of no others."""
    default = run_ids(run_cli)
    first_ids, second_ids = (
        run_ids(run_cli, "--corpus", str(write_lines(tmp_path, name, 60, first)))
        for name, first in (("a.txt", 0), ("b.txt", 100))
    )
    assert default["bert"] == first_ids["bert"] == second_ids["bert"]
    assert len({default["distilbert"], first_ids["distilbert"], second_ids["distilbert"]}) == 3
    assert run_ids(run_cli, "--corpus", str(tmp_path / "a.txt")) == first_ids


def test_pretraining_run_records_its_corpus(
    run_cli: RunCli, own_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a run that pre-trains records its corpus and a remark on its inaccurate head."""
    monkeypatch.setattr(masked_lm, "MIN_MASKED_ACCURACY", 1.01)
    training = (
        "--set",
        "distilbert.pretraining_epochs=1",
        "--epochs",
        "1",
        "--corpus",
        str(write_lines(tmp_path, "a.txt", 60)),
    )
    quick = (
        "--tasks",
        "demo-pair",
        "--limit",
        "8",
        "--no-latency",
        "--threads",
        "1",
        "--results-dir",
        "r",
        "--cache-dir",
        "c",
    )
    result = run_cli("run", "--methods", "bert,distilbert", *quick, *training)
    assert result.code == 0
    records = {record.spec.method: record for record in ResultsStore(Path("r")).records()[0]}
    assert records["bert"].data.sources == Sources()
    assert records["distilbert"].data.sources == Sources(
        corpus=Corpus((tmp_path / "a.txt",), limit=8).data.data_fingerprint
    )
    assert [use.report.name for use in records["distilbert"].stages] == [
        "masked-lm",
        "distil-cosine",
        "fine-tune",
    ]
    (remark,) = records["distilbert"].remarks
    assert_names(remark, 1.01)
    assert 0 <= min(figures(remark)) < 1, "the accuracy of the masked-LM head"
    assert any(
        line.endswith(remark) and names_all(line, "demo-pair", "distilbert")
        for line in result.lines
    )
    assert records["bert"].remarks == ()


def test_missing_corpus_is_one_line(run_cli: RunCli, own_folders: None) -> None:
    result = run_cli(
        "run",
        "--methods",
        "distilbert",
        "--tasks",
        "demo-pair",
        "--limit",
        "8",
        "--dry-run",
        "--corpus",
        "absent.txt",
    )
    assert_one_line(result, 2, ["--corpus", "absent.txt", os.strerror(errno.ENOENT)])


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--methods", "bert", "--corpus", "a.txt"), ["--corpus"]),
        (("--methods", "bert", "--glove", "a.txt"), ["--glove"]),
        (("--methods", "tinybert", "--glove", "absent.txt"), ["--glove", "absent.txt"]),
        (("--methods", "tinybert", "--glove", "a.txt"), ["--glove", "a.txt", 1]),
        (("--methods", "bert,distilbert", "--corpus", "few.txt"), ["few.txt", (3, 40)]),
    ],
    ids=str,
)
def test_pretraining_inputs_are_checked_first(
    run_cli: RunCli, own_folders: None, options: tuple[str, ...], names: list[object]
) -> None:
    """The inputs of pre-training are checked before anything is fitted."""
    Path("a.txt").write_text("one sentence\n" * 50)
    Path("few.txt").write_text("one\ntwo\nthree\n")
    quick = (
        "--tasks",
        "demo-pair",
        "--limit",
        "8",
        "--no-latency",
        "--threads",
        "1",
        "--results-dir",
        "r",
        "--cache-dir",
        "c",
        "-q",
    )
    assert_one_line(run_cli("run", *quick, *options), 2, names)
    assert not (Path("c") / "stages").exists()


def test_respelled_held_out_sentences_stay_out(tmp_path: Path) -> None:
    """A sentence that is held out in another spelling is not taken either.

    STS-B has sentences of MRPC whose words are separated differently."""

    def write(task: str, part: str, rows: list[str]) -> None:
        (tmp_path / task).mkdir(exist_ok=True)
        table = [
            f"{number}\t{row}\tclaim {task} {number}\tentailment\n"
            for number, row in enumerate(rows)
        ]
        (tmp_path / task / f"{part}.tsv").write_text(
            "index\tsentence1\tsentence2\tlabel\n" + "".join(table), encoding="utf-8"
        )

    write(
        "RTE",
        "train",
        [*(f"premise {number}" for number in range(900)), "The firm 's shares , up 3 % ."],
    )
    write("RTE", "dev", ["The firm's shares, up 3%."])
    train, held = texts(Corpus(data_dir=tmp_path, tasks=("rte",)))
    assert not any("shares" in text for text in train + held)
    assert len(train) > 900
