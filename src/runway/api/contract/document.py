"""The OpenAPI document, put together: the routes as FastAPI sees them, and all that they do not say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from fastapi import FastAPI

from runway.api.contract import errors, examples
from runway.api.contract.fields import DESCRIPTIONS, EXTRA_MEMBERS, FIELDS, PROBLEM, REQUEST_ID, TENANT, Form
from runway.api.contract.spec import JOB_SPEC
from runway.api.problems import MEDIA_TYPE

Json = dict[str, Any]

METHODS: Final = ("post", "get", "put", "patch", "delete")

_ABOUT: Final = """Teams submit batch jobs, GPU training included. Runway decides whether a job may enter, turns it into
a Kubernetes Job, and shows what Kubernetes and Linux did with it.

- JSON in and out, `snake_case`. Amounts are Kubernetes quantities (`500m`, `8Gi`), durations whole seconds, money USD
  as a decimal string, times RFC 3339 in UTC.
- Every answer has `X-Request-ID`. Every error is a problem document (RFC 9457) with a stable `code`, and with all
  violations at once.
- What is not acceptable HTTP/1.1, such as a request line and headers of more than 64 KiB or 128 fields, a missing
  `Host` or an `Upgrade`, is 400 `malformed_request`; a path that does not exist is 404 `not_found`; a method that a
  path does not take is 405 `method_not_allowed`, with `Allow`. A query parameter that a call does not know, or that is
  sent twice, is 422 `invalid_parameter`.
- There is no authentication: `X-Tenant-ID` is a claim, and the network decides who can make it."""

TAGS: Final = [
    {"name": "jobs", "description": "Submit, follow, explain and cancel jobs."},
    {"name": "platform", "description": "Quota, policy, health and metrics."},
]

_PARAMETERS: Final[dict[str, Json]] = {
    "X-Tenant-ID": {
        "description": "The tenant, as the policy names it. Sent once",
        "schema": {"type": "string", **TENANT},
        "example": examples.TENANT,
    },
    "Idempotency-Key": {
        "description": "Makes a retry safe: one key is one job, as long as that job is remembered. Sent once",
        "schema": {"type": "string", "pattern": "^[ -~]{1,255}$"},
        "example": "train-resnet-2026-11-24",
    },
    "Last-Event-ID": {"description": "The id of the last event that was seen", "schema": {"type": "string"}},
    "job_id": {
        "description": "The job's id, as `POST /v1/jobs` returned it",
        "schema": {"type": "string"},
        "example": examples.RUNNING_GPU_JOB.id,
    },
    "tenant": {"schema": {"type": "string", **TENANT}},
    "cursor": {"schema": {"type": "string", "maxLength": 400}},
}
"""Laid over the parameters of these names; the routes read them strictly by themselves."""
_HEADERS_READ: Final = {"tenant_required": "X-Tenant-ID", "idempotency_conflict": "Idempotency-Key"}
"""The headers that FastAPI does not know of, by a code that only a call which reads them can answer with."""

_REQUEST_ID_PARAMETER: Final[Json] = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "echoed, and in Runway's log, if it is 1 to 128 letters, digits, `.`, `_` or `-`; else replaced",
    "schema": {"type": "string"},
}

_HEADERS: Final[dict[str, Json]] = {
    "X-Request-ID": {
        "required": True,
        "description": "The request's id: the caller's, or one that was made",
        "schema": {"type": "string", **REQUEST_ID},
    },
    "Retry-After": {
        "required": True,
        "description": "Whole seconds after which it is worth trying again",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Location": {
        "description": "The path of the job",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Idempotent-Replay": {
        "description": "Sent where the job was there before",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_SENT_WITH: Final = {("submit_job", "201"): ["Location"], ("submit_job", "200"): ["Location", "Idempotent-Replay"]}
_LINKS: Final[dict[tuple[str, str], Json]] = {
    ("submit_job", "201"): {
        operation: {"operationId": operation, "parameters": {"job_id": "$response.body#/id"}, "description": text}
        for operation, text in (
            ("read_job", "The job"),
            ("read_events", "Its views as they come"),
            ("read_logs", "Its log"),
            ("read_usage", "What it uses"),
            ("cancel_job", "Its end"),
        )
    },
    ("list_jobs", "200"): {
        "list_jobs": {
            "operationId": "list_jobs",
            "parameters": {"cursor": "$response.body#/next_cursor"},
            "description": "The next page, unless `next_cursor` is null",
        }
    },
}
_RETRY_STATUSES: Final = ("429", "503")


def describe(app: FastAPI) -> None:
    """Have the app serve the whole document; it is put together when it is first asked for."""
    plain: Callable[[], Json] = app.openapi

    def whole() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = complete(plain())
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def complete(document: Json) -> Json:
    """The document with everything added that FastAPI cannot know. Changes the one that it is given."""
    document["info"]["description"] = _ABOUT
    document["tags"] = TAGS
    components = document["components"]
    components["headers"] = _HEADERS
    components["parameters"] = {"X-Request-ID": _REQUEST_ID_PARAMETER}
    components["schemas"] = _schemas(components["schemas"])
    answers, problems = examples.answers(), errors.problem_examples()
    for _, method, operation in operations(document):
        possible = {code for response in operation["responses"].values() for code in codes(response)}
        headers = [header for code, header in _HEADERS_READ.items() if code in possible]
        _parameters(operation, headers, required={"X-Tenant-ID"} if method in ("post", "delete") else set())
        _responses(operation, answers.get(operation["operationId"], {}), problems)
    document["paths"]["/v1/jobs"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/JobSpec"},
                "examples": examples.requests(),
            }
        },
    }
    return document


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Each path, method and operation, in the order of the document."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def codes(response: Json) -> list[str]:
    """The error codes that a response of the document can carry."""
    schema = response.get("content", {}).get(MEDIA_TYPE, {}).get("schema", {})
    return [
        code for part in schema.get("allOf", []) for code in part.get("properties", {}).get("code", {}).get("enum", [])
    ]


def _schemas(found: dict[str, Json]) -> dict[str, Json]:
    """The components: FastAPI's own error schemas dropped, ours added, each field with its meaning and form."""
    schemas = {name: schema for name, schema in found.items() if name not in ("HTTPValidationError", "ValidationError")}
    for name, schema in schemas.items():
        if name in DESCRIPTIONS:
            schema["description"] = DESCRIPTIONS[name]
        for field, member in schema.get("properties", {}).items():
            member.pop("title", None)
            _lay_over(member, FIELDS.get(name, {}).get(field, ""))
    return dict(sorted((schemas | {"Problem": PROBLEM, "JobSpec": JOB_SPEC}).items()))


def _lay_over(member: Json, meaning: Form) -> None:
    """A field's meaning, and its form where it is not null."""
    text, form = meaning if isinstance(meaning, tuple) else (meaning, {})
    if text:
        member["description"] = text
    target = next((option for option in member.get("anyOf", []) if option.get("type") != "null"), member)
    target.update(form)


def _parameters(operation: Json, headers: list[str], required: set[str]) -> None:
    """`headers` are added to those that FastAPI knows; `required` are those that must be sent."""
    found = operation.get("parameters", [])
    found += [{"name": name, "in": "header", "required": name in required} for name in headers]
    for parameter in found:
        parameter.get("schema", {}).pop("title", None)
        parameter.update(_PARAMETERS.get(parameter["name"], {}))
    operation["parameters"] = [*found, {"$ref": "#/components/parameters/X-Request-ID"}]


def _responses(operation: Json, answers: dict[str, dict[str, Json]], problems: dict[str, Json]) -> None:
    """Headers and examples. A response that FastAPI adds for validation of its own is dropped: none is ever sent."""
    responses = operation["responses"]
    for status, response in list(responses.items()):
        content = response.get("content", {})
        if "HTTPValidationError" in str(content.get("application/json", {}).get("schema", "")):
            del responses[status]
            continue
        sent = ["X-Request-ID", *_SENT_WITH.get((operation["operationId"], status), [])]
        sent += ["Retry-After"] if status in _RETRY_STATUSES else []
        references = {name: {"$ref": f"#/components/headers/{name}"} for name in sent}
        response["headers"] = references | response.get("headers", {})
        if (links := _LINKS.get((operation["operationId"], status))) is not None:
            response["links"] = links
        for media_type, media in content.items():
            media.get("schema", {}).pop("title", None)
            found = answers.get(status, {})
            if media_type == MEDIA_TYPE:
                known = [code for code in codes(response) if code in problems]
                found = {code: _example_of(problems[code]) for code in known}
                _extra_members(media["schema"], codes(response))
            if found:
                media["examples"] = found
    operation["responses"] = dict(sorted(responses.items()))


def _example_of(problem: Json) -> Json:
    return {"summary": problem["title"], "description": errors.ADVICE[problem["code"]], "value": problem}


def _extra_members(schema: Json, possible: list[str]) -> None:
    more = {name: member for code in possible for name, member in EXTRA_MEMBERS.get(code, {}).items()}
    schema["allOf"][1]["properties"].update(more)
