"""Every error as a problem document: `application/problem+json`, https://www.rfc-editor.org/rfc/rfc9457"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from runway.errors import (
    InvalidParameter,
    MethodNotAllowed,
    PublicError,
    RouteNotFound,
    Violation,
)

MEDIA_TYPE: Final = "application/problem+json"

_encoder = msgspec.json.Encoder()


def problem(error: PublicError, request_id: str) -> Response:
    """The answer that tells of an error."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    document = _encoder.encode(problem_document(error, request_id))
    return Response(document, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


def problem_document(error: PublicError, request_id: str) -> dict[str, object]:
    """The problem as JSON is made of it."""
    return {
        "type": f"urn:runway:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
        "violations": error.violations,
        **error.extra,
    }


def operation_id(route: APIRoute) -> str:
    """What a route is called in OpenAPI: its handler's name."""
    return route.name


def responses(*errors: type[PublicError]) -> dict[int | str, dict[str, Any]]:
    """What a route declares in OpenAPI for the errors it can answer with; `contract.document` adds the examples."""
    by_status: dict[int, list[type[PublicError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": "; ".join(f"`{error.code}`: {error.title}" for error in several),
            "content": {MEDIA_TYPE: {"schema": _schema([error.code for error in several])}},
        }
        for status, several in by_status.items()
    }


def _schema(codes: list[str]) -> dict[str, Any]:
    return {
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {"type": "object", "properties": {"code": {"type": "string", "enum": codes}}},
        ]
    }


def install_error_handlers(app: FastAPI) -> None:
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
    if error.status_code == 405:
        allow = ", ".join(_methods(request))
        answer = problem(
            MethodNotAllowed(f"{request.method[:20]} is not possible here; try {allow}"), request.state.request_id
        )
        answer.headers["Allow"] = allow
        return answer
    nothing = RouteNotFound(f"nothing is at {request.url.path[:200]!r}; /docs lists what there is")
    return problem(nothing, request.state.request_id)


def _methods(request: Request) -> list[str]:
    """What the path takes; the router's own error knows only the first of its routes.

    https://www.rfc-editor.org/rfc/rfc9110#name-405-method-not-allowed
    """
    place = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**place, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
