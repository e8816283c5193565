"""The content of the page `/docs`: the app's own OpenAPI document, call by call.

The texts are Markdown: `code`, and links to anchors. The template renders them as HTML.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from runway.api.openapi import codes, operations
from runway.api.problems import MEDIA_TYPE

Json = dict[str, Any]
Row = tuple[str, ...]

_TENANT: Final = """-H "X-Tenant-ID: $RUNWAY_TENANT\""""
_QUICKSTART: Final = (
    ("Set the server and your tenant", "export RUNWAY_URL=http://127.0.0.1:8000\nexport RUNWAY_TENANT=vision"),
    (
        "Submit a job",
        f"""curl "$RUNWAY_URL/v1/jobs" \\
  {_TENANT} \\
  -H "Content-Type: application/json" \\
  -d '{{
  "image": "docker.io/library/busybox:1.36",
  "command": ["sh", "-c", "echo hello"],
  "resources": {{"cpu": "100m", "memory": "64Mi"}}
}}'""",
    ),
    (
        "Follow it: its `id` is in the response",
        f"""JOB=rw-agkyxsiunucc5lqpeogd
curl -N "$RUNWAY_URL/v1/jobs/$JOB/events" \\
  {_TENANT}""",
    ),
    (
        "Read its log, also while it runs",
        f"""curl -N "$RUNWAY_URL/v1/jobs/$JOB/logs?follow=true" \\
  {_TENANT}""",
    ),
)
"""The first calls of a new user: titles and commands."""
EXAMPLE_WIDTH: Final = 72
"""Characters of a line of JSON, so that a part that fits is on one line."""
_BOUND_UNITS: Final = {"maxLength": "characters", "maxItems": "entries", "maxProperties": "entries"}


@dataclass(frozen=True, slots=True)
class Example:
    """A command or a document, under a title."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. The last cell of a row is its description."""

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
class ErrorReference:
    """One error code with its hint."""

    code: str
    status: int
    title: str
    hint: str
    example: str


@dataclass(frozen=True, slots=True)
class TypeReference:
    """One schema: its fields, or its values."""

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
    quickstart: tuple[Example, ...]
    calls: tuple[Call, ...]
    problem: tuple[Row, ...]
    problems: tuple[ErrorReference, ...]
    types: tuple[TypeReference, ...]


def reference_of(document: Json) -> Reference:
    """Build the page of an OpenAPI document."""
    return Reference(
        about=document["info"]["description"],
        request_id=document["components"]["parameters"]["X-Request-ID"]["description"],
        quickstart=tuple(Example(title, text) for title, text in _QUICKSTART),
        calls=tuple(_call(document, path, method, operation) for path, method, operation in operations(document)),
        problem=_field_rows(document["components"]["schemas"]["Problem"]),
        problems=tuple(_errors(document)),
        types=tuple(
            TypeReference(
                name, name.lower(), schema["description"], tuple(map(str, schema.get("enum", ()))), _field_rows(schema)
            )
            for name, schema in document["components"]["schemas"].items()
            if name not in ("Problem", "JobSpec")
        ),
    )


def _call(document: Json, path: str, method: str, operation: Json) -> Call:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    bodies = [(one["summary"], one["value"]) for one in body["examples"].values()] if body else [("", None)]
    answers = {status: response for status, response in operation["responses"].items() if int(status) < 400}
    return Call(
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        anchor=operation["operationId"].replace("_", "-"),
        description=operation["description"],
        commands=tuple(Example(title, _curl(path, method, operation, value)) for title, value in bodies),
        parameters=tuple(_parameter_row(one) for one in operation["parameters"] if "$ref" not in one),
        body=tuple(
            (name, form.replace(" or null", ""), description)  # A field of a request may always be null.
            for name, form, description in (_field_rows(_target(document, body["schema"])) if body else ())
        ),
        answers=tuple(_answer_row(status, response) for status, response in answers.items()),
        examples=tuple(
            Example(f"{status}: {example['summary']}", _text(example["value"]))
            for status, response in answers.items()
            for media in response.get("content", {}).values()
            for example in media.get("examples", {}).values()
        ),
        errors=tuple(
            (status, f"[`{code}`](#{code})", example["summary"], example["description"])
            for status, response in operation["responses"].items()
            for code, example in _problem_examples(response).items()
        ),
    )


def _parameter_row(parameter: Json) -> Row:
    form = _form(parameter["schema"]) + (", required" if parameter["required"] else "")
    return f"`{parameter['name']}`", parameter["in"], form, parameter["description"]


def _field_rows(schema: Json) -> tuple[Row, ...]:
    required = schema.get("required", [])
    return tuple(
        (f"`{name}`", _form(member) + (", required" if name in required else ""), member["description"])
        for name, member in schema.get("properties", {}).items()
    )


def _answer_row(status: str, response: Json) -> Row:
    bodies = [f"`{media}`: {_form(content['schema'])}" for media, content in response.get("content", {}).items()]
    headers = [f"`{name}`" for name in response["headers"] if name != "X-Request-ID"]
    return status, " ".join(response["description"].split()), "; ".join(bodies) or "none", ", ".join(headers)


def _errors(document: Json) -> Iterator[ErrorReference]:
    examples: dict[str, Json] = {}
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            examples |= _problem_examples(response)
    for code, example in sorted(examples.items()):
        status = example["value"]["status"]
        yield ErrorReference(code, status, example["summary"], example["description"], _text(example["value"]))


def _problem_examples(response: Json) -> dict[str, Json]:
    examples = response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    return {code: examples[code] for code in codes(response)}


def _text(example: object) -> str:
    return (example if isinstance(example, str) else _pretty(example)).rstrip()


def _pretty(value: object, indent: str = "", used: int = 0) -> str:
    """Write JSON with each part on one line, if it fits after the `used` characters of its line."""
    short = json.dumps(value, ensure_ascii=False)
    if len(short) + used <= EXAMPLE_WIDTH or not isinstance(value, dict | list) or not value:
        return short
    inner = indent + "  "
    if isinstance(value, dict):
        names = [f"{inner}{json.dumps(name)}: " for name in value]
        lines = [name + _pretty(member, inner, len(name)) for name, member in zip(names, value.values(), strict=True)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _pretty(member, inner, len(inner)) for member in value) + f"\n{indent}]"


def _target(document: Json, schema: Json) -> Json:
    name = schema["$ref"].rsplit("/", 1)[1]
    return dict(document["components"]["schemas"][name])


def _form(schema: Json) -> str:
    """Describe a schema in a few words: its type and its bounds. Descriptions have the forms of texts."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return "[the job](#submit-job)" if name == "JobSpec" else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(_form, schema["anyOf"]))
    words = [_type(schema)]
    if "enum" in schema:
        words.append(f"one of {', '.join(f'`{value}`' for value in schema['enum'])}")
    if "const" in schema:
        words.append(f"`{schema['const']}`")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None and high < 2**31 - 1:
        words.append(f"{low} to {high}")
    elif low is not None and low > -(2**31):
        words.append(f"from {low}")
    words += [f"at most {schema[key]} {unit}" for key, unit in _BOUND_UNITS.items() if key in schema]
    words += [schema["format"]] if "format" in schema else []
    words += [f"default `{json.dumps(schema['default'])}`"] if schema.get("default") is not None else []
    return ", ".join(words)


def _type(schema: Json) -> str:
    kind = str(schema.get("type", "any"))
    inner = schema.get("items") if kind == "array" else schema.get("additionalProperties")
    if not isinstance(inner, dict):
        return kind
    of = _form(inner) if "$ref" in inner else f"{inner.get('type', 'any')}s"
    return f"{'list' if kind == 'array' else kind} of {of}"


def _curl(path: str, method: str, operation: Json, body: Json | None) -> str:
    """Write the call as a command. Each body has its own key: another body under the same key is 409."""
    parameters = {parameter["name"]: parameter for parameter in operation["parameters"] if "$ref" not in parameter}
    for name, parameter in parameters.items():
        if parameter["in"] == "path":
            path = path.replace(f"{{{name}}}", parameter["schema"]["examples"][0])
    command = "curl -N" if operation["operationId"] in ("read_events", "read_logs") else "curl"
    parts = [command + ("" if method == "get" else f" -X {method.upper()}") + f' "$RUNWAY_URL{path}"']
    if "X-Tenant-ID" in parameters:
        parts.append("-H 'X-Tenant-ID: vision'")
    if body is not None:
        parts += [f"-H 'Idempotency-Key: {body['name']}-2026-11-24'", "-H 'Content-Type: application/json'"]
        parts.append(f"-d {shlex.quote(_pretty(body))}")
    return " \\\n  ".join(parts)
