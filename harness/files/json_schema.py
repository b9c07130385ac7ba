"""JSON Schema (draft 2020-12) of the project's JSON files, generated from their dataclasses."""

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import DataclassSchema

from harness.files.typed_json import field_docstrings


class _StrictSchema(GenerateJsonSchema):
    """Forbid unknown fields, and describe each field by its docstring instead of a title."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def dataclass_schema(self, schema: DataclassSchema) -> JsonSchemaValue:
        kind: type = schema["cls"]
        generated = super().dataclass_schema(schema) | {"additionalProperties": False}
        for name, docstring in field_docstrings(kind).items():
            generated["properties"][name]["description"] = docstring
        return generated


def json_schema_of(kind: type) -> dict[str, object]:
    """Return the schema of a file.

    `typed_json.from_json` accepts the same files, but is stricter in numbers (1.0 is not an
    integer), in the characters of texts and in the depth of free-form values.
    """
    return {
        "$schema": _StrictSchema.schema_dialect,
        **TypeAdapter(kind).json_schema(schema_generator=_StrictSchema),
    }
