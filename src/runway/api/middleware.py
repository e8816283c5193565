"""Request ids, log lines, metrics, internal errors and security headers."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Collection
from typing import Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runway.api.problems import problem
from runway.errors import InternalError
from runway.telemetry import Metrics

log = structlog.get_logger()

PROBE_PATHS: Final = ("/healthz", "/readyz", "/metrics")
"""The kubelet and Prometheus call these every few seconds: the log has their requests only on failure."""
SECURITY_HEADERS: Final = (
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""No cache may keep an answer, since it depends on the tenant header. https://www.w3.org/TR/CSP3/"""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """Give each request an id, log it, answer unexpected exceptions, and add `X-Request-ID` and security headers.

    A HEAD request is routed as GET, and its answer has no body.
    https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        method, started, status = scope["method"], time.perf_counter(), 0
        scope["state"]["head"] = is_head = method == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET"}

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = with_security_headers(message["headers"])
                message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
                route = getattr(scope.get("route"), "path", "none")
                seconds = self.metrics.http_seconds.labels(route, method, str(status))
                seconds.observe(time.perf_counter() - started)
            elif is_head:
                message["body"] = b""
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("client disconnected before its request was complete", path=scope["path"][:200])
        except Exception:
            self.metrics.internal_errors.inc()
            log.exception("request failed", method=method, path=scope["path"][:200])
            if status:
                raise
            error = InternalError("the log has the traceback under the request id")
            await problem(error, request_id)(scope, receive, send_with_id)
        finally:
            log.log(
                logging.DEBUG if status == 200 and scope["path"] in PROBE_PATHS else logging.INFO,
                "request",
                method=method,
                path=scope["path"][:200],
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 2),
            )


def with_security_headers(headers: Collection[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return these headers, and the security headers that are not among them."""
    found = dict(headers)
    return [*headers, *(header for header in SECURITY_HEADERS if header[0] not in found)]


def _request_id(scope: Scope) -> str:
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return sent.decode() if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
