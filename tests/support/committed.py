"""The committed records."""

from pathlib import Path

import pytest

from harness.methods.protocol import Method
from harness.methods.settings import Setting, configure
from harness.records import RunRecord
from harness.store.results import ResultsStore

ROOT = Path(__file__).parents[2]
STORE, ABLATIONS = (ResultsStore(ROOT / folder) for folder in ("results", "results/ablations"))
RECORDS, PROBLEMS = STORE.records()
ABLATED, OTHER_PROBLEMS = ABLATIONS.records()

RUNS = [(STORE, record) for record in RECORDS] + [(ABLATIONS, record) for record in ABLATED]
each_run = pytest.mark.parametrize(
    ("store", "record"),
    RUNS,
    ids=[f"{r.spec.task}-{r.spec.method}-{r.spec.seed}-{r.run_id}" for _, r in RUNS],
)


def method_of(record: RunRecord) -> Method:
    """Return the method with the settings of the record."""

    def settings(values: dict[str, object], path: tuple[str, ...] = ()) -> list[Setting]:
        found = []
        for name, value in values.items():
            if isinstance(value, dict):
                found += settings(value, (*path, name))
            else:
                text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
                found.append(Setting(record.spec.method, (*path, name), text))
        return found

    return configure([record.spec.method], settings(record.spec.settings))[record.spec.method]
