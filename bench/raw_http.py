"""A raw HTTP client over a socket, for requests that no client library sends.

It reads responses strictly: https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httptools

READ_BYTES: Final = 64 << 10
MAX_HEAD_FIELDS: Final = 100


SPEC: Final = json.dumps(
    {
        "image": "runway.local/busybox:1",
        "command": ["true"],
        "resources": {"cpu": "50m", "memory": "32Mi"},
        "timeout_seconds": 60,
    }
).encode()
"""A valid job."""


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    """Return a request without a body."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: runway", *fields, "", "")).encode()


def post_head(tenant: str, *fields: bytes, line: bytes = b"POST /v1/jobs?dry_run=true") -> bytes:
    """Return the head of a request with a JSON body, by default of a dry run, without its framing."""
    first = line + b" HTTP/1.1\r\nHost: runway\r\nX-Tenant-ID: " + tenant.encode()
    return b"\r\n".join((first, b"Content-Type: application/json", *fields, b"", b""))


def dry_run(tenant: str, *, close: bool = False) -> bytes:
    """Return the dry run of a valid job."""
    fields = [b"Content-Length: %d" % len(SPEC)] + ([b"Connection: close"] if close else [])
    return post_head(tenant, *fields) + SPEC


@dataclass(slots=True)
class Answer:
    """A response. `is_complete`: its body has the length that the server announced, or ended regularly."""

    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_complete: bool = False

    def document(self) -> Any:
        """Return the body as JSON. Raises ValueError."""
        return json.loads(self.body)


class _Callbacks:
    """Collects what the parser finds."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.answers.append(Answer())

    def on_header(self, name: bytes, value: bytes) -> None:
        fields, key = self.answers[-1].fields, name.decode("ascii").lower()
        if key in fields:
            raise ValueError(f"the header {key} is sent twice")
        if len(fields) >= MAX_HEAD_FIELDS:
            raise ValueError("too many header fields")
        fields[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.answers[-1].status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.answers[-1].body += body

    def on_message_complete(self) -> None:
        self.answers[-1].is_complete = True


def read_answers(received: bytes, *, ended: bool, to_head: bool = False) -> list[Answer]:
    """Return the responses in these bytes without `100 Continue`. Raises ValueError if they are not HTTP/1.1.

    `ended`: the connection ended regularly. `to_head`: the request was HEAD, so the response has no body.
    """
    if to_head:
        head, blank, rest = received.partition(b"\r\n\r\n")
        if not blank or rest:
            raise ValueError(f"the response to HEAD has a body of {len(rest)} bytes")
        lengths = (b"content-length:", b"transfer-encoding:")
        kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(lengths)]
        answer = read_answers(b"\r\n".join((*kept, b"content-length: 0", b"", b"")), ended=ended)[0]
        seen = (line.split(b": ", 1) for line in head.split(b"\r\n") if line.lower().startswith(lengths))
        answer.fields |= {name.decode().lower(): value.decode() for name, value in seen}
        return [answer]
    found = _Callbacks()
    try:
        found.parser.feed_data(received)
    except httptools.HttpParserError as error:
        raise ValueError(f"not a response: {error.__context__ or error}: {received[-200:]!r}") from error
    if found.answers and ended and not {"content-length", "transfer-encoding"} & set(found.answers[-1].fields):
        found.answers[-1].is_complete = True
    return [answer for answer in found.answers if answer.status != 100]


class Connection:
    """A client's socket. An asynchronous context manager; `received` has all bytes of the server."""

    def __init__(self, port: int, *, receive_buffer_bytes: int | None = None) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.received = b""
        self.has_ended = self.was_reset = False

    async def __aenter__(self) -> Self:
        try:
            await self._loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        except BaseException:
            self._socket.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Send each piece, with a pause after it. Raises ConnectionError."""
        for piece in pieces:
            await self._loop.sock_sendall(self._socket, piece)
            if pause:
                await asyncio.sleep(pause)

    def close_sending_side(self) -> None:
        """Send no more, and keep reading."""
        with suppress(OSError):  # The server may have reset the connection.
            self._socket.shutdown(socket.SHUT_WR)

    def vanish(self, *, with_reset: bool) -> None:
        """Close both sides now."""
        if with_reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    async def read(self, size: int = READ_BYTES) -> bytes:
        """Return the next bytes; none after the end or a reset."""
        try:
            chunk = await self._loop.sock_recv(self._socket, size)
        except ConnectionError:
            self.was_reset = True
            return b""
        self.has_ended = not chunk
        self.received += chunk
        return chunk

    async def read_to_end(self) -> bytes:
        """Return all bytes that the server sends until it closes the connection."""
        while await self.read():
            pass
        return self.received

    async def read_answer(self) -> Answer | None:
        """Return the next response of a connection that stays open, or None at its end. Raises ValueError."""
        while True:
            answers = read_answers(self.received, ended=self.has_ended)
            if answers and answers[0].is_complete:
                self.received = b""
                return answers[0]
            if not await self.read():
                return None
