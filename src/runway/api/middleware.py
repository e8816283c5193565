"""Around every request: its id, its log line, its time, and the last resort for a fault of our own. Pure ASGI."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runway.api.problems import problem
from runway.errors import InternalError
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()

PROBE_PATHS: Final = ("/healthz", "/readyz", "/metrics")
"""Every few seconds, by kubelet and Prometheus: in the log such a request is worth a line only where it failed."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """Gives each request an id, echoes it as `X-Request-ID`, logs it, and answers what nothing else has answered."""

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
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                self._count(scope, status, time.perf_counter() - started)
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("client gone before its request had arrived", path=scope["path"][:200])
        except Exception:
            self.metrics.internal_errors.inc()
            log.exception("request failed", method=scope["method"], path=scope["path"][:200])
            if status:
                raise
            await problem(InternalError("the request id is in the log"), request_id)(scope, receive, send_with_id)
        finally:
            log.log(
                logging.DEBUG if status == 200 and scope["path"] in PROBE_PATHS else logging.INFO,
                "request",
                method=scope["method"],
                path=scope["path"][:200],
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 2),
            )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self.metrics.http_seconds.labels(route, scope["method"], str(status)).observe(seconds)


def _request_id(scope: Scope) -> str:
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return sent.decode() if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
