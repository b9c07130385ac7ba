"""The official files of QQP, MNLI and QNLI, and the row counts of GLUE."""

from pathlib import Path

import pytest
from support.command_line import assert_names
from support.glue_files import Row, read_tsv, write_glue
from support.synthetic import one_line

from harness.data.loading import load_data
from harness.data.tasks import GROUPS, TASKS
from harness.errors import HarnessError


def test_glue_has_nine_tasks() -> None:
    assert GROUPS["glue"] == ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
    assert TASKS["mnli"].labels == ("entailment", "neutral", "contradiction")
    official = {  # GLUE's counts; QQP's are those of the hub's copy, which lacks three broken rows
        "cola": (8551, 1043), "sst2": (67349, 872), "mrpc": (3668, 408), "stsb": (5749, 1500),
        "qqp": (363846, 40430),
        "mnli": (392702, 9815, 9832), "qnli": (104743, 5463), "rte": (2490, 277), "wnli": (635, 71),
    }  # fmt: skip
    assert {name: TASKS[name].source.counts for name in GROUPS["glue"]} == official


@pytest.mark.parametrize(
    ("task", "name", "rows", "labels"),
    [
        ("qqp", "train", [(("How old?", "What age?"), "1"), (('A "', "B"), "0")], [1, 0]),
        ("qqp", "dev", [(("How old?", "What age?"), "0")], [0]),
        (
            "qnli",
            "train",
            [(("Who?", "He did."), "entailment"), (("A", "B"), "not_entailment")],
            [0, 1],
        ),
        (
            "mnli",
            "train",
            [(("A", "B"), "neutral"), (("C", "D"), "entailment"), (("E", "F"), "contradiction")],
            [1, 0, 2],
        ),
        ("mnli", "dev_matched", [(("A", "B"), "contradiction"), (("C", "D"), "neutral")], [2, 1]),
        ("mnli", "dev_mismatched", [(("A", "B"), "entailment")], [0]),
    ],
)
def test_official_files_are_read_with_labels(
    tmp_path: Path, task: str, name: str, rows: list[Row], labels: list[float]
) -> None:
    """The rows of each official file are read with their labels."""
    split = read_tsv(task, write_glue(tmp_path, task, name, rows))
    assert split.texts == tuple(texts for texts, _ in rows)
    assert split.labels.tolist() == labels


def test_mnli_dev_has_more_columns(tmp_path: Path) -> None:
    """MNLI's dev files have more columns than its train file."""
    path = write_glue(tmp_path, "mnli", "train", [(("A", "B"), "neutral")])
    path.rename(path.with_name("dev_matched.tsv"))
    with pytest.raises(HarnessError) as caught:
        read_tsv("mnli", path.with_name("dev_matched.tsv"))
    assert_names(one_line(caught), path.with_name("dev_matched.tsv"), (1, 12, 16))


def test_short_qqp_rows_are_skipped(tmp_path: Path) -> None:
    """QQP's rows with missing cells are skipped, and rows with too many are refused."""
    rows = [(("A", "B"), "1"), (("C", "D"), "0")]
    path = write_glue(tmp_path, "qqp", "train", rows)
    path.write_text(path.read_text() + "12\t13\t14\tonly one question\n" + "7\t8\t9\tE\tF\t1\n")
    assert read_tsv("qqp", path).texts == (("A", "B"), ("C", "D"), ("E", "F"))
    path.write_text(path.read_text() + "7\t8\t9\tE\tF\t1\tmore\n")
    with pytest.raises(HarnessError) as caught:
        read_tsv("qqp", path)
    assert_names(one_line(caught), path, (6, 7, 6))


def mnli_rows(start: int, count: int) -> list[Row]:
    labels = ("entailment", "neutral", "contradiction")
    return [
        ((f"premise {number}", f"claim {number}"), labels[number % 3])
        for number in range(start, start + count)
    ]


def write_mnli(folder: Path) -> Path:
    for name, start, count in (
        ("train", 0, 600),
        ("dev_matched", 1_000, 30),
        ("dev_mismatched", 2_000, 20),
    ):
        write_glue(folder, "mnli", name, mnli_rows(start, count))
    return folder


def test_mnli_has_two_dev_splits(tmp_path: Path) -> None:
    data = load_data(TASKS["mnli"], write_mnli(tmp_path))
    assert list(data.splits()) == ["train", "selection", "calibration", "dev", "mismatched"]
    assert data.dev.texts[0] == ("premise 1000", "claim 1000")
    assert data.mismatched is not None
    assert data.mismatched.texts[0] == ("premise 2000", "claim 2000")
    assert len(load_data(TASKS["mnli"], tmp_path, limit=7).splits()["mismatched"]) == 7


def test_mismatched_rows_change_the_fingerprint(tmp_path: Path) -> None:
    """The fingerprints depend on the rows of mismatched."""
    complete = load_data(TASKS["mnli"], write_mnli(tmp_path))
    write_glue(tmp_path, "mnli", "dev_mismatched", mnli_rows(2_000, 19))
    shortened = load_data(TASKS["mnli"], tmp_path)
    assert shortened.data_fingerprint != complete.data_fingerprint
    assert shortened.fingerprint != complete.fingerprint


def test_missing_mismatched_file_is_named(tmp_path: Path) -> None:
    (write_mnli(tmp_path) / "MNLI" / "dev_mismatched.tsv").unlink()
    with pytest.raises(HarnessError) as error:
        load_data(TASKS["mnli"], tmp_path)
    assert_names(one_line(error), tmp_path / "MNLI" / "dev_mismatched.tsv")


def test_unofficial_row_counts_are_remarked(tmp_path: Path) -> None:
    """Each number of rows that differs from GLUE's causes a remark with both numbers."""
    remarks = load_data(TASKS["mnli"], write_mnli(tmp_path)).remarks
    names = (("train", 600, 392_702), ("dev_matched", 30, 9_815), ("dev_mismatched", 20, 9_832))
    for remark, expected in zip(remarks, names, strict=True):
        assert_names(remark, expected)


def test_official_row_counts_need_no_remark(tmp_path: Path) -> None:
    for name, count, start in (("train", 635, 0), ("dev", 71, 1_000)):
        write_glue(
            tmp_path,
            "wnli",
            name,
            [((f"a {n}", f"b {n}"), str(n % 2)) for n in range(start, start + count)],
        )
    assert load_data(TASKS["wnli"], tmp_path).remarks == ()
    assert load_data(TASKS["demo-pair"], None).remarks == ()
