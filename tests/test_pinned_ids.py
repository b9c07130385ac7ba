"""Run ids, stage keys and generated rows do not change with file names and wording."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.committed import ABLATIONS, RUNS, each_run, method_of
from support.pins import CASES, PINNED_DATA, PINNED_STAGES, data_name, pinned_stages

from harness.data import demo
from harness.data.custom_tasks import read_task_file
from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.methods.compute import Compute
from harness.methods.registry import METHODS, find_reference
from harness.methods.stages import FitContext
from harness.models.backbones import BACKBONES
from harness.records import RunRecord
from harness.runs.cell import Cell, Options, run_id
from harness.store.encoded_rows import RowsKey
from harness.store.results import ResultsStore

BATCH_SIZE, LATENCY_SECONDS = 32, 10.0
"""Options of the committed grid; the ablations were run without latency."""


@dataclass(frozen=True)
class PinnedData:
    """Stand-in for the data of a task, as a run id needs only their fingerprint."""

    fingerprint: str


@each_run
def test_committed_run_id_is_recomputed(store: ResultsStore, record: RunRecord) -> None:
    """The id of a committed run can be recomputed."""
    data = json.loads(PINNED_DATA.read_text(encoding="utf-8"))[data_name(record)]
    assert data["rows"] == record.data.data
    backbone = replace(BACKBONES[record.spec.backbone])
    vars(backbone)["fingerprint"] = record.data.backbone
    where = record.environment
    options = Options(
        data_dir=None,
        results_dir=store.root,
        cache_dir=Path("unused"),
        compute=Compute(torch.device(where.device_type), where.precision, where.threads),
        batch_size=BATCH_SIZE,
        latency_s=0.0 if store is ABLATIONS else LATENCY_SECONDS,
        reference=find_reference("bert", {}),
        corpus=SimpleNamespace(data=SimpleNamespace(data_fingerprint=record.data.sources.corpus)),
    )
    cell = Cell(record.spec, TASKS[record.spec.task], method_of(record), backbone)
    assert run_id(cell, PinnedData(data["all"]), options) == record.run_id


def test_pinned_data_match_the_records() -> None:
    """The pinned data match the committed records."""
    assert set(json.loads(PINNED_DATA.read_text(encoding="utf-8"))) == {
        data_name(record) for _, record in RUNS
    }


@pytest.mark.parametrize("case", CASES)
def test_stage_keys_match_pinned_ones(case: str, context: FitContext) -> None:
    """The stage keys match the pinned ones."""
    assert (
        pinned_stages(case, context) == json.loads(PINNED_STAGES.read_text(encoding="utf-8"))[case]
    )


def test_every_method_has_pinned_stages() -> None:
    assert set(METHODS) <= set(CASES)


@pytest.mark.parametrize(
    ("task", "digest"), [("demo-single", "6ecd90235c8bf7d5"), ("demo-pair", "8885375ea26be9da")]
)
def test_demo_rows_match_pinned_ones(task: str, digest: str) -> None:
    """The demo's rows match the pinned ones."""
    rows = [
        [split, row.texts, row.label, row.hard]
        for split in ("train", "dev")
        for row in demo.demo_rows(task, split)
    ]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("task", "fingerprint"),
    [("demo-single", "666160606358afcc"), ("demo-pair", "0a972c6a960cd123")],
)
def test_demo_splits_match_pinned_ones(task: str, fingerprint: str) -> None:
    """The demo's splits match the pinned ones."""
    assert load_data(TASKS[task], None).fingerprint == fingerprint


def test_demo_vocabulary_matches_pinned_one() -> None:
    """The demo's vocabulary matches the pinned one."""
    assert (
        hashlib.sha256("\n".join(demo.demo_vocabulary()).encode()).hexdigest()[:16]
        == "d9c8a54247221023"
    )


@pytest.mark.parametrize(("limit", "name"), [(None, "d35eedc5f80216cd"), (64, "e424ea64b553d2be")])
def test_encoded_rows_path_is_pinned(limit: int | None, name: str) -> None:
    """The file name of encoded rows is pinned."""
    assert RowsKey("rows' fingerprint", "backbone", 128, limit).path(Path("cache")) == Path(
        f"cache/rows/{name}.npz"
    )


@pytest.mark.parametrize(
    ("metrics", "fingerprint"),
    [
        ('["accuracy"]', "ca7064e4de02fe19"),
        ('["accuracy", "evaluate:wer"]', "3cb4f6813c732d49"),
        ('["f1", "evaluate:wer", "evaluate:./own.py"]', "0689c02e5a4a3652"),
    ],
)
def test_custom_task_fingerprint_is_pinned(tmp_path: Path, metrics: str, fingerprint: str) -> None:
    """The fingerprint of a custom task is pinned.

    It includes the metrics of the `evaluate` library, and the content of scripts."""
    rows = "".join(f"text {number}\t{number % 2}\n" for number in range(500))
    (tmp_path / "train.tsv").write_text(f"sentence\tlabel\n{rows}", encoding="utf-8")
    (tmp_path / "own.py").write_text("# a metric\n", encoding="utf-8")
    keys = (
        'name = "own"\ntrain = "train.tsv"\ndev_share = 0.1\n'
        'text = "sentence"\nlabel = "label"\nlabels = ["0", "1"]\n'
    )
    (tmp_path / "task.toml").write_text(f"{keys}metrics = {metrics}\n", encoding="utf-8")
    task = read_task_file(tmp_path / "task.toml", allow_code=True)
    assert load_data(task, None).data_fingerprint == fingerprint
