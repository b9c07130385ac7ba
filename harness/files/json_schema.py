"""The form of our JSON files as JSON Schema (draft 2020-12), made from the dataclasses that are written and read."""

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import DataclassSchema

from harness.files.typed_json import field_notes


class _Strict(GenerateJsonSchema):
    """No further fields, and each field with the docstring under it in the place of a title, which would be its name."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def dataclass_schema(self, schema: DataclassSchema) -> JsonSchemaValue:
        kind: type = schema["cls"]
        made = super().dataclass_schema(schema) | {"additionalProperties": False}
        for name, note in field_notes(kind).items():
            made["properties"][name]["description"] = note
        return made


def schema_of(kind: type) -> dict[str, object]:
    """Return the schema of a file: what `typed_json.from_json` accepts, before it is `NARROWER`."""
    return {
        "$schema": _Strict.schema_dialect,
        **TypeAdapter(kind).json_schema(schema_generator=_Strict),
    }
