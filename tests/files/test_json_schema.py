"""JSON Schema of the project's files, checked by an independent validator."""

import inspect
import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support.command_line import RunCli
from support.synthetic import make_exit, make_record, make_timing, timed

from harness.cli.catalogue import SCHEMA_CLASSES
from harness.errors import IncompleteError
from harness.files.json_schema import json_schema_of
from harness.files.typed_json import SCHEMA, from_json, to_json
from harness.gate.baseline import Baseline
from harness.records import Quartiles, RunRecord, RunSpec, Timing

ROOT = Path(__file__).parents[2]

RECORD = json.loads(
    to_json(timed(make_record("pabee", 1, [make_exit(4, {"f1": 0.5}, 1.0, 1.0, 1.0)]), "bert", 1.0))
)


def validator(kind: type) -> Draft202012Validator:
    schema = json_schema_of(kind)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_written_files_match_schema() -> None:
    validator(RunRecord).validate(RECORD)
    validator(Timing).validate(json.loads(to_json(make_timing("c0ffee", 0.5))))
    validator(Baseline).validate({"schema": SCHEMA, "runs": []})


def test_committed_records_match_schema() -> None:
    check = validator(RunRecord)
    records = sorted((ROOT / "results").rglob("record.json"))
    assert records
    for path in records:
        check.validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": SCHEMA + 1},
        {"parameters": "many"},
        {"parameters": 1.5},
        {"exits": [{}]},
        {"more": 1},
        {"latency": []},
        {"spec": RECORD["spec"] | {"seed": None}},
        {"latency": RECORD["latency"] | {"reference": 3}},
    ],
)
def test_schema_rejects_what_reader_refuses(change: dict[str, object]) -> None:
    with pytest.raises(IncompleteError):
        from_json(RunRecord, json.dumps(RECORD | change), "a record")
    assert not validator(RunRecord).is_valid(RECORD | change)


@pytest.mark.parametrize("missing", ["parameters", "spec"])
def test_record_without_a_field_fails(missing: str) -> None:
    assert not validator(RunRecord).is_valid(
        {name: value for name, value in RECORD.items() if name != missing}
    )


def test_default_fields_may_be_missing() -> None:
    """Fields that have a default may be missing."""
    data = {name: value for name, value in RECORD["data"].items() if name != "sources"}
    from_json(RunRecord, json.dumps(RECORD | {"data": data}), "a record")
    validator(RunRecord).validate(RECORD | {"data": data})


@pytest.mark.parametrize("what", SCHEMA_CLASSES)
def test_command_prints_the_described_schema(run_cli: RunCli, what: str) -> None:
    """The command prints the schema with a description of each type and field."""
    result = run_cli("schema", what)
    assert (result.code, result.err) == (0, "")
    schema = json.loads(result.out)
    assert schema == json_schema_of(SCHEMA_CLASSES[what])
    assert schema["$defs"]["Quartiles"]["description"] == inspect.getdoc(Quartiles)


def test_field_descriptions_come_from_source() -> None:
    """The docstring under a field is its description."""
    defs = json_schema_of(RunRecord)["$defs"]
    assert isinstance(defs, dict)
    words = defs["RunSpec"]["properties"]["limit"]["description"]
    source = " ".join(inspect.getsource(RunSpec).split())
    assert re.search(rf' limit: [^"]*"""{re.escape(words)}""" \w+:', source)
