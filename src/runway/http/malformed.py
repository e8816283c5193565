"""What is not even HTTP, or never becomes a request: a broken request line, header or chunk, and a head without end.

No application sees any of it, so it is dealt with in the server's library, which has no setting for this.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runway.errors import MalformedRequest
from runway.http.problems import MEDIA_TYPE, problem_document

HEAD_BYTES: Final = 64 << 10
"""A request's line and headers may have so many, as with an AWS load balancer.

https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
"""
HEAD_SECONDS: Final = 20.0
"""They are to arrive within so many, as a body is."""

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 1 << 20
"""Of what a refused client still sends so much is read, for so long: closed at once, the connection would be reset, and
the answer lost on its way (https://www.rfc-editor.org/rfc/rfc9112#section-9.6)."""

_made, _lost = HttpToolsProtocol.connection_made, HttpToolsProtocol.connection_lost
_received = HttpToolsProtocol.data_received
_begun, _complete = HttpToolsProtocol.on_message_begin, HttpToolsProtocol.on_headers_complete


def guard_server(seconds: float = HEAD_SECONDS) -> None:
    """Have the server of this process answer what is not HTTP as a problem, and bound the head of a request.

    A connection on which none begins, or none ends, within `seconds` is closed. Between two requests the server's own
    bound on idle connections holds.
    """

    def wait_for_head(self: Any) -> None:
        if self.head_timer is None:
            self.head_timer = self.loop.call_later(seconds, self.transport.close)

    def connection_made(self: Any, transport: Any) -> None:
        _made(self, transport)
        self.head_timer, self.head_bytes, self.heads, self.lingering = None, 0, 0, None
        wait_for_head(self)

    def on_message_begin(self: Any) -> None:
        self.head_bytes, self.heads = 0, self.heads + 1
        wait_for_head(self)
        _begun(self)

    HttpToolsProtocol.connection_made = connection_made  # type: ignore[method-assign]
    HttpToolsProtocol.connection_lost = _connection_lost  # type: ignore[method-assign,assignment]
    HttpToolsProtocol.data_received = _data_received  # type: ignore[method-assign]
    HttpToolsProtocol.on_message_begin = on_message_begin  # type: ignore[method-assign]
    HttpToolsProtocol.on_headers_complete = _on_headers_complete  # type: ignore[method-assign]
    HttpToolsProtocol.send_400_response = _send_problem  # type: ignore[method-assign,assignment]


def _stop_waiting(self: Any) -> None:
    if self.head_timer is not None:
        self.head_timer.cancel()
        self.head_timer = None


def _connection_lost(self: Any, error: Exception | None) -> None:
    _stop_waiting(self)
    _lost(self, error)


def _data_received(self: Any, data: bytes) -> None:
    """The parser keeps what it has of a head that goes on, so what comes of it after its first piece is counted."""
    if self.lingering is not None:
        self.lingering += len(data)
        if self.lingering > LINGER_BYTES:
            self.transport.close()
        return
    heads = self.heads
    _received(self, data)
    if self.head_timer is not None and self.heads == heads and self.lingering is None:
        self.head_bytes += len(data)
        if self.head_bytes > HEAD_BYTES:
            self.send_400_response(_TOO_LARGE)


def _on_headers_complete(self: Any) -> None:
    """However it came, it is measured as a whole: the parser takes an exception for a malformed request."""
    _stop_waiting(self)
    self.head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
    if self.head_bytes > HEAD_BYTES:
        raise ValueError(_TOO_LARGE)
    _complete(self)


_TOO_LARGE: Final = f"the request line and the headers have more than {HEAD_BYTES} bytes"


def _send_problem(self: Any, reason: str) -> None:
    """Answer, and end the connection: where the next request would begin is not known."""
    request_id = uuid.uuid4().hex
    error = MalformedRequest(_TOO_LARGE if self.head_bytes > HEAD_BYTES else reason)
    body = msgspec.json.encode(problem_document(error, request_id))
    head = (
        "HTTP/1.1 400 Bad Request",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        f"x-request-id: {request_id}",
        "connection: close",
    )
    self.transport.write("".join(f"{line}\r\n" for line in (*head, "")).encode() + body)
    _stop_waiting(self)
    if self.cycle is not None and not self.cycle.response_complete:
        self.transport.close()  # What is still at work must learn that nobody reads its answer.
        return
    self.transport.write_eof()
    self.head_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
    self.lingering = 0
