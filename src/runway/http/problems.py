"""Every error as a problem document: `application/problem+json`, https://www.rfc-editor.org/rfc/rfc9457"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from runway.errors import (
    InvalidParameter,
    MethodNotAllowed,
    PublicError,
    RouteNotFound,
    Violation,
)

MEDIA_TYPE: Final = "application/problem+json"

_encoder = msgspec.json.Encoder()

PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id", "violations"],
    "properties": {
        "type": {"type": "string", "description": "A URI reference that identifies the kind of problem"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable; made for programs"},
        "request_id": {"type": "string"},
        "violations": {
            "type": "array",
            "description": "All of them at once",
            "items": {
                "type": "object",
                "required": ["field", "code", "message", "observed", "limit", "hint"],
                "properties": {
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "observed": {"type": ["string", "null"]},
                    "limit": {"type": ["string", "null"]},
                    "hint": {"type": ["string", "null"]},
                },
            },
        },
    },
}


def problem(error: PublicError, request_id: str) -> Response:
    """The answer that tells of an error."""
    document = {
        "type": f"urn:runway:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
        "violations": error.violations,
        **error.extra,
    }
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(_encoder.encode(document), status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


def responses(*errors: type[PublicError]) -> dict[int | str, dict[str, Any]]:
    """What a route declares in OpenAPI for the errors it can answer with."""
    by_status: dict[int, list[type[PublicError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": "; ".join(f"`{error.code}`: {error.title}" for error in several),
            "content": {
                MEDIA_TYPE: {
                    "schema": {
                        **PROBLEM_SCHEMA,
                        "properties": {
                            **PROBLEM_SCHEMA["properties"],
                            "code": {"type": "string", "enum": [error.code for error in several]},
                        },
                    }
                }
            },
        }
        for status, several in by_status.items()
    }


def install(app: FastAPI) -> None:
    """Have every error of a route, ours or the framework's, answered as a problem."""
    app.add_exception_handler(PublicError, _public)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(HTTPException, _framework)


async def _public(request: Request, error: Exception) -> Response:
    assert isinstance(error, PublicError)  # noqa: S101 (registered for this type)
    return problem(error, request.state.request_id)


async def _parameters(request: Request, error: Exception) -> Response:
    """Path and query parameters that FastAPI could not convert; bodies are read by `jobs.spec`."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for this type)
    violations = tuple(
        Violation(
            field=".".join(str(part) for part in fault["loc"][1:]) or "request",
            code=str(fault["type"]),
            message=str(fault["msg"]),
            observed=None if fault.get("input") is None else repr(fault["input"])[:80],
        )
        for fault in error.errors()
    )
    return problem(InvalidParameter("a parameter is not acceptable", violations=violations), request.state.request_id)


async def _framework(request: Request, error: Exception) -> Response:
    """What Starlette's router raises: no such path, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for this type)
    known: PublicError
    if error.status_code == 405:
        known = MethodNotAllowed(f"{request.method} is not possible here; try {(error.headers or {}).get('Allow', '')}")
    else:
        known = RouteNotFound(f"nothing is at {request.url.path[:200]!r}; /docs lists what there is")
    answer = problem(known, request.state.request_id)
    answer.headers.update(error.headers or {})
    return answer
