"""The middleware adds the security headers once to every response."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope, Send

from runway.api.middleware import SECURITY_HEADERS, RequestContext, with_security_headers
from runway.telemetry import Metrics


def test_own_header_of_a_response_is_kept_once() -> None:
    own = [(b"content-type", b"text/html"), (b"content-security-policy", b"script-src 'self'")]
    names = [name for name, _ in with_security_headers(own)]
    assert sorted(names) == sorted({b"content-type", *dict(SECURITY_HEADERS)})
    assert dict(with_security_headers(own))[b"content-security-policy"] == b"script-src 'self'"


async def test_response_start_has_security_headers() -> None:
    sent: list[Message] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"one")]}
    await RequestContext(app, Metrics())(scope, receive, send)
    assert sent[0]["headers"] == [*SECURITY_HEADERS, (b"x-request-id", b"one")]
    assert "headers" not in sent[1]
