"""The baseline file: how it is read, what --update replaces, and how predictions are packed."""

from pathlib import Path

import numpy as np
import pytest
from support.command_line import RunCli, assert_names, assert_one_line
from support.gate_runs import Check, Judge, record, trace
from support.messages import figures, names_all
from support.synthetic import one_line

from harness.errors import HarnessError
from harness.gate.baseline import pack_predictions, read_baseline, unpack_predictions
from harness.gate.findings import Verdict
from harness.store.results import RECORD


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, []),
        ("{", []),
        ("[]", []),
        ('{"schema": 3, "runs": []}', [("schema", 3, 2)]),
        ('{"schema": 2, "runs": [], "more": 1}', ["more"]),
        ('{"schema": 2, "runs": [{"run_id": "a"}]}', ["spec"]),
    ],
)
def test_file_must_be_a_baseline(
    tmp_path: Path, run_cli: RunCli, text: str | None, names: list[object]
) -> None:
    path = tmp_path / "baseline.json"
    if text is not None:
        path.write_text(text)
    assert_one_line(
        run_cli("check", "--baseline", str(path), "--results-dir", str(tmp_path)),
        2,
        [path, "--update", *names],
    )


@pytest.mark.parametrize("text", ["{", '{"schema": 1, "runs": []}', '{"schema": caf'])
def test_update_replaces_a_damaged_baseline(
    tmp_path: Path, baseline: str, run_cli: RunCli, text: str
) -> None:
    """--update replaces a damaged baseline and names the file."""
    intact = Path(baseline).read_bytes()
    Path(baseline).write_text(text)
    result = run_cli(
        "check", "--baseline", baseline, "--update", "--results-dir", str(tmp_path / "old")
    )
    assert result.code == 0
    assert [baseline in line for line in result.out.splitlines()] == [True, True], (
        "the old file and the new one"
    )
    assert Path(baseline).read_bytes() == intact


def test_results_folder_holds_the_default_baseline(
    tmp_path: Path, baseline: str, run_cli: RunCli
) -> None:
    """Without --baseline the file is baseline.json in the results folder; --deep reads none."""
    folder = ["--results-dir", str(tmp_path / "old")]
    path = tmp_path / "old" / "baseline.json"
    assert_one_line(run_cli("check", *folder), 2, [path, "--update"])
    assert run_cli("check", "--deep", *folder).code == 0
    assert run_cli("check", "--update", *folder).code == 0
    assert path.read_bytes() == Path(baseline).read_bytes()
    assert run_cli("check", *folder).code == 0


def test_update_needs_every_run(tmp_path: Path, baseline: str, run_cli: RunCli) -> None:
    """--update leaves the file as it is if a run cannot be read."""
    before = Path(baseline).read_bytes()
    (path,) = (tmp_path / "old").rglob(RECORD)
    path.write_text("{")
    result = run_cli(
        "check", "--baseline", baseline, "--update", "--results-dir", str(tmp_path / "old")
    )
    assert_one_line(result, 3, [Path(baseline), path])
    assert Path(baseline).read_bytes() == before


def test_update_prints_the_old_verdict(
    tmp_path: Path, judge: Judge, baseline: str, run_cli: RunCli
) -> None:
    """--update first prints the check against the old baseline; afterwards the check passes."""
    found = judge(record(), trace(wrong=60))
    assert found.code == 1
    where = ("check", "--baseline", baseline, "--results-dir", str(tmp_path / "new"))
    old = run_cli(*where).out.splitlines()
    result = run_cli(*where, "--update")
    assert result.code == 0
    first, *lines, last = result.out.splitlines()
    assert (first.endswith(old[0]), lines) == (True, old[1:])
    assert names_all(
        first, Verdict.REGRESSION, "rte", "deebert", "tiny", "accuracy", 4, "0.9000", "0.7000"
    )
    assert {1, 24, 2} <= set(figures(lines[-1]))
    assert_names(last, Path(baseline), 1)
    assert len(read_baseline(Path(baseline)).runs) == 1
    assert run_cli(*where).code == 0


@pytest.mark.parametrize("text", ['{"name": "my-package"}', "[tool]", "schema"])
def test_update_leaves_other_files_alone(
    tmp_path: Path, check: Check, run_cli: RunCli, text: str
) -> None:
    """--update refuses to replace a file that is not a baseline."""
    check(record(), trace())
    other = tmp_path / "other.json"
    other.write_text(text)
    result = run_cli(
        "check", "--baseline", str(other), "--results-dir", str(tmp_path / "new"), "--update"
    )
    assert result.code == 2
    assert_names(result.err, other, "--baseline")
    assert other.read_text() == text


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_packed_predictions_are_restored(classes: int) -> None:
    random = np.random.default_rng(classes)
    predictions = (
        random.normal(size=30).astype(np.float32)
        if classes == 1
        else random.integers(0, classes, 30).astype(np.float64)
    )
    packed = pack_predictions(predictions, classes)
    assert np.array_equal(unpack_predictions(packed, classes, 30), predictions)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", [30]),
        ("?", []),
        ("AAAA", []),
        *(
            (pack_predictions(np.zeros(rows), classes), [30])
            for rows, classes in ((29, 2), (10**6, 2), (30, 1))
        ),
    ],
)
def test_predictions_must_fit_the_examples(text: str, names: list[int]) -> None:
    with pytest.raises(HarnessError) as caught:
        unpack_predictions(text, 2, 30)
    assert_names(one_line(caught), *names)
