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


def problem(error: PublicError, request_id: str) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    document = msgspec.json.encode(problem_document(error, request_id))
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
            "content": {MEDIA_TYPE: {"schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, _codes(several)]}}},
        }
        for status, several in by_status.items()
    }


def _codes(errors: list[type[PublicError]]) -> dict[str, Any]:
    return {"type": "object", "properties": {"code": {"type": "string", "enum": [error.code for error in errors]}}}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of a route, ours or the framework's, as a problem."""

    @app.exception_handler(PublicError)
    async def answer_public(request: Request, error: PublicError) -> Response:
        return problem(error, request.state.request_id)

    @app.exception_handler(RequestValidationError)
    async def answer_validation(request: Request, error: RequestValidationError) -> Response:
        violations = tuple(_violation(fault) for fault in error.errors()[:MAX_VIOLATIONS])
        return problem(InvalidParameter("a parameter is invalid", violations=violations), request.state.request_id)

    @app.exception_handler(HTTPException)
    async def answer_router(request: Request, error: HTTPException) -> Response:
        if error.status_code != 405:
            return problem(RouteNotFound(f"no route {request.url.path[:200]!r}"), request.state.request_id)
        allow = ", ".join(_methods(request))
        if request.method == "OPTIONS":  # https://www.rfc-editor.org/rfc/rfc9110#section-9.3.7
            return Response(status_code=204, headers={"Allow": allow})
        refused = MethodNotAllowed(f"{request.method[:20]} is not allowed; allowed: {allow}")
        answer = problem(refused, request.state.request_id)
        answer.headers["Allow"] = allow
        return answer


def _violation(fault: dict[str, Any]) -> Violation:
    # The position of a repeated parameter is no part of its name.
    name = shorten(".".join(str(part) for part in fault["loc"][1:] if not isinstance(part, int)))
    given = fault.get("input")
    observed = None if given is None else shorten(given) if isinstance(given, str) else repr(given)[:80]
    if fault["type"] == "enum":
        hint = f"use {fault['ctx']['expected']}"
        return Violation(name, "enum", "is not a known value", observed, hint=hint)
    return Violation(name, str(fault["type"]), str(fault["msg"]), observed)


def _methods(request: Request) -> list[str]:
    """List the methods of a path; the router's own error has only those of its first route."""
    place = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    routed = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**place, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return [*(["GET", "HEAD"] if "GET" in routed else []), *(name for name in routed if name != "GET"), "OPTIONS"]
