"""The OpenAPI document of FastAPI, with the job specification and examples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter

from runway.api.models import Problem
from runway.api.problems import MEDIA_TYPE, problem_document
from runway.errors import PublicError
from runway.jobs.spec import SpecForm

Json = dict[str, Any]

DESCRIPTION: Final = """Teams submit batch jobs, GPU training included. Runway decides whether to admit a job, creates a
Kubernetes Job for it, and reports what Kubernetes and Linux do with it.

- JSON in and out, `snake_case`. Amounts are Kubernetes quantities (`500m`, `8Gi`), durations whole seconds, money USD
  as a decimal string, times RFC 3339 in UTC.
- Every answer has `X-Request-ID`. Every error is a problem document (RFC 9457) with a stable `code`, a `hint`, and all
  violations at once.
- Malformed HTTP/1.1 is 400 `malformed_request`: for example more than 64 KiB or 128 fields in the head, a missing
  `Host`, or an `Upgrade`. An unknown path is 404 `not_found`. A method that a path does not allow is 405
  `method_not_allowed`, with `Allow`. An unknown or repeated query parameter is 422 `invalid_parameter`.
- Runway has no authentication: `X-Tenant-ID` is a claim, and the network decides who can send it."""
TAGS: Final = [
    {"name": "jobs", "description": "Submit, follow, explain and cancel jobs."},
    {"name": "platform", "description": "Quota, policy, health and metrics."},
]
SPEC_SCHEMA: Final = {"$ref": "#/components/schemas/JobSpec"}

_REQUEST_ID: Final = "5f0c1e7c9b9d4b7f8f0f6a1d2c3b4a59"
_REQUEST_ID_PARAMETER: Final[Json] = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Runway echoes and logs 1 to 128 letters, digits, `.`, `_` or `-`, and replaces anything else",
    "schema": {"type": "string"},
}
_HEADERS: Final[dict[str, Json]] = {
    "X-Request-ID": {
        "required": True,
        "description": "The id of the request: the caller's, or a new one",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "Retry-After": {
        "required": True,
        "description": "Whole seconds until a retry can succeed",
        "schema": {"type": "integer", "minimum": 1},
    },
}


class DocumentedApp(FastAPI):
    """An app whose document has what FastAPI cannot know. https://fastapi.tiangolo.com/how-to/extending-openapi/"""

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            # A copy, since FastAPI puts the declarations of the routes into the document as they are.
            self.openapi_schema = _complete(deepcopy(super().openapi()))
        return self.openapi_schema


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Iterate over path, method and operation, in the order of the document."""
    for path, item in document["paths"].items():
        for method in ("post", "get", "put", "patch", "delete"):
            if method in item:
                yield path, method, item[method]


def codes(response: Json) -> list[str]:
    """List the error codes of a response."""
    schema = response.get("content", {}).get(MEDIA_TYPE, {}).get("schema", {})
    return list(schema["allOf"][1]["properties"]["code"]["enum"]) if schema else []


def _complete(document: Json) -> Json:
    components = document["components"]
    components["headers"] = _HEADERS
    components["parameters"] = {"X-Request-ID": _REQUEST_ID_PARAMETER}
    for model, name in ((Problem, "Problem"), (SpecForm, "JobSpec")):
        schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        components["schemas"] |= schema.pop("$defs", {}) | {name: schema}
    components["schemas"] = _without_titles(dict(sorted(components["schemas"].items())))
    examples = json.loads(Path(__file__).with_name("examples.json").read_text(encoding="utf-8"))
    problems = {
        error.code: _problem_example(error, examples["problems"][error.code])
        for error in public_errors(PublicError)
        if error.code in examples["problems"]
    }
    for _, _, operation in operations(document):
        parameters = operation.setdefault("parameters", [])
        for parameter in parameters:
            parameter["schema"] = _without_titles(parameter["schema"])
        parameters.append({"$ref": "#/components/parameters/X-Request-ID"})
        answers = examples["answers"].get(operation["operationId"], {})
        for status, response in operation["responses"].items():
            sent = ["X-Request-ID", *(["Retry-After"] if status in ("429", "503") else [])]
            response.setdefault("headers", {}).update({name: {"$ref": f"#/components/headers/{name}"} for name in sent})
            for media_type, media in response.get("content", {}).items():
                media["schema"].pop("title", None)
                if media_type == MEDIA_TYPE:
                    media["examples"] = {code: problems[code] for code in codes(response)}
                elif status in answers:
                    media["examples"] = answers[status]
        operation["responses"] = dict(sorted(operation["responses"].items()))
        if "requestBody" in operation:
            operation["requestBody"]["content"]["application/json"]["examples"] = examples["requests"]
    return document


def public_errors(root: type[PublicError]) -> Iterator[type[PublicError]]:
    """Iterate over the classes of all error codes: one that inherits its code is a special case of it."""
    for error in root.__subclasses__():
        if "code" in vars(error):
            yield error
        yield from public_errors(error)


def _problem_example(error: type[PublicError], members: Json) -> Json:
    instance = PublicError.__new__(error)
    PublicError.__init__(instance, members["detail"], extra={"violations": [], **members})
    return {"summary": error.title, "description": error.hint, "value": problem_document(instance, _REQUEST_ID)}


def _without_titles(node: Any) -> Any:
    """Remove the titles that pydantic derives from the names of fields: generators would name types after them."""
    if isinstance(node, dict):
        return {key: _without_titles(value) for key, value in node.items() if key != "title" or isinstance(value, dict)}
    return [_without_titles(value) for value in node] if isinstance(node, list) else node
