"""The file of a baseline: what is one, what --update replaces, and answers packed and unpacked."""

from pathlib import Path

import numpy as np
import pytest
from support.command_line import Say
from support.gate_runs import Check, record, trace

from harness.errors import HarnessError
from harness.gate.baseline import packed, unpacked
from harness.store.results import RECORD


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read the baseline"),
        ("{", "is not JSON"),
        ("[]", "expected an object"),
        ('{"schema": 3, "runs": []}', "has schema 3, this version reads 2"),
        ('{"schema": 2, "runs": [], "more": 1}', "unexpected ['more']"),
        ('{"schema": 2, "runs": [{"run_id": "a"}]}', "missing"),
    ],
)
def test_a_file_that_is_no_baseline_is_the_users_mistake(tmp_path: Path, say: Say, text: str | None, words: str) -> None:
    path = tmp_path / "baseline.json"
    if text is not None:
        path.write_text(text)
    answer = say("check", "--baseline", str(path), "--results-dir", str(tmp_path))
    assert answer.code == 2
    (line,) = answer.lines
    assert words in line
    assert "--update" in line


@pytest.mark.parametrize("text", ["{", '{"schema": 1, "runs": []}', '{"schema": caf'])
def test_updating_replaces_a_baseline_that_is_damaged_and_says_what_it_was(tmp_path: Path, baseline: str, say: Say, text: str) -> None:
    whole = Path(baseline).read_bytes()
    Path(baseline).write_text(text)
    answer = say("check", "--baseline", baseline, "--update", "--results-dir", str(tmp_path / "old"))
    assert answer.code == 0
    assert answer.out.startswith(f"before: {baseline} ")
    assert Path(baseline).read_bytes() == whole


def test_updating_leaves_the_file_as_it_is_when_a_run_cannot_be_read(tmp_path: Path, baseline: str, say: Say) -> None:
    before = Path(baseline).read_bytes()
    (path,) = (tmp_path / "old").rglob(RECORD)
    path.write_text("{")
    answer = say("check", "--baseline", baseline, "--update", "--results-dir", str(tmp_path / "old"))
    assert answer.code == 3
    assert "stays as it is" in answer.err
    assert Path(baseline).read_bytes() == before


def test_updating_says_what_the_old_baseline_would_have_said_and_then_passes(tmp_path: Path, check: Check, baseline: str, say: Say) -> None:
    assert check(record(), trace(wrong=60))[0] == 1
    where = ("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    answer = say(*where, "--update")
    assert answer.code == 0
    before, *further = answer.out.splitlines()
    assert before.startswith("before: regression: rte deebert on tiny, seed 1: accuracy at exit 4: 0.9000 -> 0.7000")
    assert further[-2].startswith("failed: 1 cells, 24 figures compared: regression 2")
    assert further[-1] == f"{baseline}: 1 runs"
    assert say(*where).code == 0


@pytest.mark.parametrize("text", ['{"name": "my-package"}', "[tool]", "schema"])
def test_updating_leaves_files_of_other_things_alone(tmp_path: Path, check: Check, say: Say, text: str) -> None:
    check(record(), trace())
    other = tmp_path / "other.json"
    other.write_text(text)
    answer = say("check", "--baseline", str(other), "--results-dir", str(tmp_path / "new"), "--update")
    assert answer.code == 2
    assert "other.json is a file of something else" in answer.err
    assert other.read_text() == text


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_answers_come_back_as_they_were(classes: int) -> None:
    random = np.random.default_rng(classes)
    answers = random.normal(size=30).astype(np.float32) if classes == 1 else random.integers(0, classes, 30).astype(np.float64)
    assert np.array_equal(unpacked(packed(answers, classes), classes, 30), answers)


@pytest.mark.parametrize("text", ["", "?", "AAAA", packed(np.zeros(29), 2), packed(np.zeros(10**6), 2), packed(np.zeros(30), 1)])
def test_answers_of_another_number_of_rows_are_refused(text: str) -> None:
    with pytest.raises(HarnessError, match="answers of the baseline"):
        unpacked(text, 2, 30)
