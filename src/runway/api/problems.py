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
_MESSAGES: Final = {
    "int_parsing": ("must be a whole number", "write it in decimal digits"),
    "int_from_float": ("must be a whole number", "write it in decimal digits"),
    "int_parsing_size": ("is too large", "use a smaller number"),
    "bool_parsing": ("must be true or false", "use true or false"),
}
"""Message and hint by pydantic's error type."""
_BOUNDS: Final = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


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
        if request.method == "OPTIONS" and request.scope["path"] == "*":  # The probe of some load balancers.
            return Response(status_code=204, headers={"Allow": "GET, HEAD, POST, DELETE, OPTIONS"})
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
    """Describe an invalid parameter in plain words. The code is that of pydantic."""
    # The position of a repeated parameter is no part of its name.
    name = shorten(".".join(str(part) for part in fault["loc"][1:] if not isinstance(part, int)))
    kind, given, context = str(fault["type"]), fault.get("input"), fault.get("ctx", {})
    observed = None if given is None else shorten(given) if isinstance(given, str) else repr(given)[:80]
    if kind in ("enum", "literal_error"):
        values = context["expected"].replace("'", "")
        return Violation(name, kind, "is not a known value", observed, values, f"use {values}")
    if kind in _MESSAGES:
        message, hint = _MESSAGES[kind]
        return Violation(name, kind, message, observed, hint=hint)
    if kind == "string_pattern_mismatch":
        hint = "use a value of the form that the limit gives"
        return Violation(name, kind, "has an invalid form", observed, context["pattern"], hint)
    if kind == "string_too_long":
        most = f"{context['max_length']} characters"
        return Violation(name, kind, "is too long", f"{len(str(given))} characters", most, f"use at most {most}")
    for bound, words in _BOUNDS.items():
        if bound in context:
            limit = f"{words} {context[bound]}"
            return Violation(name, kind, f"must be {limit}", observed, limit, f"use a value of {limit}")
    return Violation(name, kind, str(fault["msg"]), observed)


def _methods(request: Request) -> list[str]:
    """List the methods of a path; the router's own error has only those of its first route."""
    place = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    routed = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**place, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return [*(["GET", "HEAD"] if "GET" in routed else []), *(name for name in routed if name != "GET"), "OPTIONS"]
