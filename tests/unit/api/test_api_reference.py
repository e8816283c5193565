"""docs/api.md is the reference that the code makes."""

from __future__ import annotations

from pathlib import Path

from runway.api.contract.document import operations
from runway.api_reference import main, reference

REFERENCE = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_committed_reference_is_that_of_the_code(tmp_path: Path) -> None:
    """After a change that is meant: `python -m runway.api_reference docs/api.md`"""
    made = tmp_path / "api.md"
    main(str(made))
    assert REFERENCE.read_text(encoding="utf-8") == made.read_text(encoding="utf-8")


def test_a_call_is_told_with_parameters_fields_answers_errors_and_a_command() -> None:
    document = {
        "info": {"description": "About."},
        "components": {
            "parameters": {"X-Request-ID": {"name": "X-Request-ID", "description": "echoed"}},
            "schemas": {
                "Problem": {"description": "An error.", "properties": {}},
                "Thing": {
                    "description": "A thing.",
                    "required": ["size"],
                    "properties": {
                        "size": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How | large"},
                    },
                },
            },
        },
        "paths": {
            "/things/{id}": {
                "get": {
                    "operationId": "read_thing",
                    "summary": "Read a thing",
                    "description": "All of it.",
                    "parameters": [
                        {"name": "id", "in": "path", "required": True, "description": "Its id", "example": "t-1",
                         "schema": {"type": "string", "pattern": "^(a|b)$"}},
                        {"$ref": "#/components/parameters/X-Request-ID"},
                    ],
                    "responses": {
                        "200": {"description": "The thing", "headers": {"X-Request-ID": {}}, "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Thing"},
                                                 "examples": {"one": {"summary": "Small", "value": {"size": 1}}}}}},
                        "404": {"description": "no", "headers": {"X-Request-ID": {}}, "content": {
                            "application/problem+json": {
                                "schema": {"allOf": [{}, {"properties": {"code": {"enum": ["gone"]}}}]},
                                "examples": {"gone": {"summary": "It is gone", "description": "stop asking",
                                                      "value": {"status": 404}}}}}},
                    },
                }
            }
        },
    }  # fmt: skip
    text = reference(document)
    assert [path for path, _, _ in operations(document)] == ["/things/{id}"]
    assert "| `GET /things/{id}` | [Read a thing](#read-a-thing) | All of it. |" in text
    assert "| `id` | path | string, `^(a\\|b)$`, required | Its id |" in text
    assert 'curl "$RUNWAY_URL/things/t-1"' in text
    assert "| 200 | The thing | `application/json`: [Thing](#thing) |  |" in text
    assert "<summary>200: Small</summary>" in text
    assert "| 404 | [`gone`](#gone) | It is gone | stop asking |" in text
    assert "| `size` | integer, 1 to 9, required | How \\| large |" in text
