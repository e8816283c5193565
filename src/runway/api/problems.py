"""Every error as a problem document: `application/problem+json`.

https://www.rfc-editor.org/rfc/rfc9457
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from runway.errors import InvalidParameter, MethodNotAllowed, PublicError, RouteNotFound, Violation
from runway.text import shorten

MEDIA_TYPE: Final = "application/problem+json"
MAX_VIOLATIONS: Final = 20
"""Invalid parameters that a problem names one by one."""

_encoder = msgspec.json.Encoder()


def problem(error: PublicError, request_id: str) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    document = _encoder.encode(problem_document(error, request_id))
    return Response(document, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


def problem_document(error: PublicError, request_id: str) -> dict[str, object]:
    """Return the members of the problem: an `api.models.Problem` with the members of its code alone."""
    return {
        "type": f"urn:runway:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "hint": error.hint,
        "request_id": request_id,
        "violations": error.violations,
        **error.extra,
    }


def operation_id(route: APIRoute) -> str:
    """Name a route in OpenAPI by its handler."""
    return route.name


def responses(*errors: type[PublicError]) -> dict[int | str, dict[str, Any]]:
    """Declare the errors of a route in OpenAPI; `api.openapi` adds headers and examples."""
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
    """Answer every error of a route, ours or the framework's, as a problem."""
    app.add_exception_handler(PublicError, _public)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(HTTPException, _framework)


async def _public(request: Request, error: Exception) -> Response:
    assert isinstance(error, PublicError)  # noqa: S101 (registered for this type)
    return problem(error, request.state.request_id)


async def _invalid_parameters(request: Request, error: Exception) -> Response:
    """Answer the parameters that FastAPI refuses; `jobs.spec` reads bodies."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for this type)
    violations = tuple(_violation(request, fault) for fault in error.errors()[:MAX_VIOLATIONS])
    return problem(InvalidParameter("a parameter is invalid", violations=violations), request.state.request_id)


def known_parameters(request: Request) -> list[str]:
    """List the query parameters of the route."""
    models = [field.field_info.annotation for field in request.scope["route"].dependant.query_params]
    return [name for model in models for name in model.model_fields]


def unknown_parameter(name: str, known: list[str]) -> Violation:
    """Name the parameters of the route in the hint."""
    hint = f"parameters here: {', '.join(known)}" if known else "this path has no parameters"
    return Violation(shorten(name), "unknown_parameter", "is unknown here", hint=hint)


def _violation(request: Request, fault: dict[str, Any]) -> Violation:
    name = ".".join(str(part) for part in fault["loc"][1:])
    if fault["type"] == "extra_forbidden":
        return unknown_parameter(name, known_parameters(request))
    observed = None if fault.get("input") is None else repr(fault["input"])[:80]
    return Violation(shorten(name), str(fault["type"]), str(fault["msg"]), observed)


async def _framework(request: Request, error: Exception) -> Response:
    """Answer what Starlette's router raises: an unknown path, a method that is not allowed."""
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for this type)
    if error.status_code == 405:
        allow = ", ".join(_methods(request))
        answer = problem(
            MethodNotAllowed(f"{request.method[:20]} is not allowed; allowed: {allow}"), request.state.request_id
        )
        answer.headers["Allow"] = allow
        return answer
    missing = RouteNotFound(f"no route {request.url.path[:200]!r}")
    return problem(missing, request.state.request_id)


def _methods(request: Request) -> list[str]:
    """List the methods of a path; the router's own error has only those of its first route.

    https://www.rfc-editor.org/rfc/rfc9110#name-405-method-not-allowed
    """
    place = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**place, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
