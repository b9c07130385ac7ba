"""Records with traces in a results folder."""

from dataclasses import replace
from pathlib import Path

from support.synthetic import make_exit, make_record, random_trace, save_run

from harness.files.typed_json import from_json
from harness.records import RunRecord
from harness.store.results import ResultsStore

SINGLE, DYNAMIC, REGRESSION = (
    replace(
        make_record("bert", 1, [make_exit(4, {"accuracy": 0.75}, 400.0, 4.0, 4.0)]),
        run_id="51e0" + "0" * 12,
    ),
    replace(
        make_record(
            "deebert",
            1,
            [make_exit(layer, {"accuracy": 0.7}, 100.0 * layer, layer, layer) for layer in (2, 4)],
            "entropy",
        ),
        run_id="d1e0" + "0" * 12,
    ),
    replace(
        make_record(
            "pabee",
            1,
            [
                make_exit(layer, {"pearson": 0.7, "spearman": 0.6}, 100.0 * layer, layer, layer)
                for layer in (2, 4)
            ],
            "patience",
            task="stsb",
        ),
        run_id="4e90" + "0" * 12,
    ),
)


def store_run(folder: Path, record: RunRecord, classes: int = 2) -> None:
    layers = [exit_.layer for exit_ in record.exits]
    traces = {
        split: random_trace(seed, layers, classes=classes)
        for seed, split in enumerate(("dev", "selection", "calibration"))
    }
    save_run(ResultsStore(folder), record, traces)


def record_in(folder: Path) -> RunRecord:
    (path,) = folder.rglob("record.json")
    return from_json(RunRecord, path.read_text(encoding="utf-8"), str(path))


def record_of(folder: Path, method: str) -> RunRecord:
    """Return the only stored record of a method."""
    (record,) = [one for one in ResultsStore(folder).records()[0] if one.spec.method == method]
    return record
