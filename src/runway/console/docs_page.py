"""What the page `/docs` shows: the app's own OpenAPI document, call by call. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from runway.api.contract.document import operations
from runway.api.contract.reading import (
    FORMS,
    Row,
    anchor,
    answer_examples,
    answer_row,
    curl,
    error_rows,
    field_rows,
    parameter_row,
    parameters,
    problems_of,
    text_of,
)

Json = dict[str, Any]

_FIRST_CALLS: Final = {"submit_job": "Submit a job", "read_job": "Read it", "read_logs": "Read its log"}
"""By operation: the calls that someone new makes first."""


@dataclass(frozen=True, slots=True)
class Example:
    """A command or a document, under a title."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. Rows are those of `http/contract/reading.py`."""

    method: str
    path: str
    summary: str
    anchor: str
    description: str
    commands: tuple[Example, ...]
    parameters: tuple[Row, ...]
    body: tuple[Row, ...]
    answers: tuple[Row, ...]
    examples: tuple[Example, ...]
    errors: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ProblemShown:
    """One kind of error, and what its caller does next."""

    code: str
    status: int
    title: str
    advice: str
    example: str


@dataclass(frozen=True, slots=True)
class TypeShown:
    """One schema: its fields, or the values it may have."""

    name: str
    anchor: str
    description: str
    values: tuple[str, ...]
    fields: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """The whole page."""

    about: str
    request_id: str
    first: tuple[Example, ...]
    calls: tuple[Call, ...]
    problem: tuple[Row, ...]
    problem_members: tuple[Row, ...]
    problems: tuple[ProblemShown, ...]
    types: tuple[TypeShown, ...]
    forms: tuple[Row, ...]


def reference_of(document: Json) -> Reference:
    """The page of this OpenAPI document."""
    members, examples = problems_of(document)
    calls = {
        operation["operationId"]: _call(document, path, method, operation)
        for path, method, operation in operations(document)
    }
    return Reference(
        about=document["info"]["description"],
        request_id=document["components"]["parameters"]["X-Request-ID"]["description"],
        first=tuple(Example(title, calls[name].commands[0].text) for name, title in _FIRST_CALLS.items()),
        calls=tuple(calls.values()),
        problem=tuple(field_rows(document, {"$ref": "#/components/schemas/Problem"})),
        problem_members=tuple(members),
        problems=tuple(
            ProblemShown(
                code, example["value"]["status"], example["summary"], example["description"], text_of(example["value"])
            )
            for code, example in examples.items()
        ),
        types=tuple(
            _type(document, name, schema)
            for name, schema in document["components"]["schemas"].items()
            if name not in ("Problem", "JobSpec")
        ),
        forms=tuple((name, text, pattern) for pattern, (name, text) in FORMS.items()),
    )


def _call(document: Json, path: str, method: str, operation: Json) -> Call:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    bodies = [(one["summary"], one["value"]) for one in body["examples"].values()] if body else [("", None)]
    responses = operation["responses"]
    answers = {status: response for status, response in responses.items() if int(status) < 400}
    return Call(
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        anchor=anchor(operation["summary"]),
        description=operation["description"],
        commands=tuple(Example(title, curl(path, method, operation, value)) for title, value in bodies),
        parameters=tuple(map(parameter_row, parameters(document, operation))),
        body=tuple(field_rows(document, body["schema"])) if body else (),
        answers=tuple(map(answer_row, answers.items())),
        examples=tuple(Example(*example) for example in answer_examples(answers)),
        errors=tuple(row for item in responses.items() for row in error_rows(*item)),
    )


def _type(document: Json, name: str, schema: Json) -> TypeShown:
    values = tuple(map(str, schema.get("enum", ())))
    fields = () if values else tuple(field_rows(document, schema))
    return TypeShown(name, name.lower(), schema["description"], values, fields)
