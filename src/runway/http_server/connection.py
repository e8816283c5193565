"""One HTTP/1.1 connection, with bounds on what its client may send, hold and wait for.

What is refused here never becomes a request of the application. Invariants, with the figures of `http.bounds`:

- A connection holds a bounded number of bytes, whatever it sends and whether or not it reads.
- Every wait for the client ends: for a head, for the rest of a request, for a client that does not read.
- An answer goes to the request it belongs to: a refusal waits for the answers to earlier requests.
"""

from __future__ import annotations

import asyncio
import http
import math
import socket
import uuid
from contextlib import suppress
from enum import Enum, auto
from itertools import chain
from typing import Any, Final

import httptools
import msgspec
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from runway.api.problems import MEDIA_TYPE, problem_document
from runway.api.security_headers import SECURITY_HEADERS
from runway.errors import MalformedRequest, PublicError, TooBusy
from runway.http_server import bounds as limit
from runway.http_server.bounds import Bounds
from runway.http_server.connection_table import ConnectionTable
from runway.http_server.request_head import head_fault, origin_form

log = structlog.get_logger()

_METHODS_WITH_BODY: Final = (b"POST", b"PUT", b"PATCH")
_NOT_HTTP: Final = "the bytes are not an HTTP/1.1 request"
_TOO_LARGE: Final = f"the request line and the headers, or the trailers, have more than {limit.HEAD_BYTES} bytes"
_TOO_MANY_FIELDS: Final = f"the request has more than {limit.HEAD_FIELDS} header or trailer fields"
_BUSY_RETRY_SECONDS: Final = 1

_TCP_OPTIONS: Final = (
    ("TCP_KEEPIDLE", limit.KEEPALIVE_IDLE_SECONDS),
    ("TCP_KEEPINTVL", limit.KEEPALIVE_INTERVAL_SECONDS),
    ("TCP_KEEPCNT", limit.KEEPALIVE_PROBES),
    ("TCP_USER_TIMEOUT", limit.TCP_USER_TIMEOUT_SECONDS * 1000),
    ("TCP_NOTSENT_LOWAT", limit.UNSENT_BYTES),
)
"""By name, since a platform may lack one; Linux has them all."""


class _Awaited(Enum):
    """What a connection waits for from its client."""

    NOTHING = auto()
    REQUEST_AFTER_ANSWER = auto()
    HEAD = auto()
    REST_OF_REQUEST = auto()
    LAST_BYTES = auto()


class _Refused(Exception):
    """Raised in a callback of the parser. `error` is the answer; None closes once earlier requests are answered."""

    def __init__(self, error: PublicError | None) -> None:
        super().__init__()
        self.error = error


class _Outlet:
    """The transport as a request's cycle in uvicorn sees it, with a `close` that may linger."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, connection: HttpConnection) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.end


class HttpConnection(HttpToolsProtocol):
    """One connection.

    `_reading` is False once no byte is parsed any more, and `_lingering` once no byte is written any more either. Bytes
    that still come then count against `_allowance`.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
        bounds: Bounds,
        table: ConnectionTable,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._bounds = bounds
        self._table = table
        self._active: RequestResponseCycle | None = None
        self._reading, self._lingering = True, False
        self._allowance = limit.LINGER_BYTES
        self._refusal: PublicError | None = None
        self._awaited = _Awaited.NOTHING
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._response_deferred = False
        # The message that is being received.
        self._in_message = self._in_head = False
        self._takes_body = self._is_queued = False
        self._boundaries = 0
        self._held = self._excess = self._fields = self._body_bytes = self._discarded = 0

    # --- The connection: asyncio calls these -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=limit.WRITE_BUFFER_BYTES)
        _set_socket_options(transport.get_extra_info("socket"))
        self._outlet = _Outlet(self)
        if self._table.admit(self):
            self._await(_Awaited.HEAD, self._bounds.head_seconds)
        else:
            self._answer_and_linger(TooBusy("all connections are in use", retry_after=_BUSY_RETRY_SECONDS))

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.remove(self)
        self._stop_timer()
        self._stop_stall_timer()
        for cycle in self._unanswered():
            _disconnect(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: memoryview | bytes) -> None:
        if not self._reading:
            self._allowance -= len(data)
            if self._allowance < 0:
                self.abort("the client sends too much after its request was refused")
            return
        boundaries, body_bytes = self._boundaries, self._body_bytes
        try:
            self.parser.feed_data(data)
            if boundaries == self._boundaries:
                self._count_excess(len(data), self._body_bytes - body_bytes)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(bytes(data[upgrade.args[0] :]))
        except httptools.HttpParserError as error:
            refused = error.__context__
            self._refuse(refused.error if isinstance(refused, _Refused) else MalformedRequest(_NOT_HTTP))
        except _Refused as refused:
            self._refuse(refused.error)
        else:
            if self._in_message or boundaries == self._boundaries:
                self._await_more()

    def pause_writing(self) -> None:
        """A client that does not read may not ask for more either: answers would wait in memory."""
        super().pause_writing()
        self.flow.pause_reading()
        reason = f"the client did not read for {self._bounds.stalled_seconds:g} s"
        self._stall_timer = self.loop.call_later(self._bounds.stalled_seconds, self.abort, reason)
        self._table.mark_stalled(self, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stall_timer()
        self._table.mark_flowing(self)
        if self._response_deferred:
            self._response_deferred = False
            self.on_response_complete()
        else:
            self._resume_reading()

    def abort(self, reason: str) -> None:
        """Close at once, dropping what was not sent."""
        log.info("connection aborted", reason=reason, client=self.client)
        self.transport.abort()

    def end(self) -> None:
        """Close after an answer. A client that still sends its request would be reset, and lose the answer."""
        if self._in_message and self._reading and self.transport.can_write_eof():
            self._linger(self._bounds.discard_seconds, limit.DISCARDED_BYTES)
        else:
            self.transport.close()

    # --- The request: the parser calls these -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._boundaries += 1
        self._in_message = self._in_head = True
        self._held = self._excess = self._fields = self._discarded = 0
        self._is_queued = self._is_answering()
        if self._is_queued:
            for cycle in self._unanswered():
                scope = cycle.scope
                headers = list(scope["headers"])
                self._held += _held_bytes(len(scope["raw_path"] or b"") + len(scope["query_string"]), headers)
                self._fields += len(headers)
            self._excess = self._held

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > limit.HEAD_FIELDS:
            raise self._over_bound(_TOO_MANY_FIELDS)
        if not self._in_head:
            return  # Trailers are dropped: the application has read its headers already.
        name, value = name.lower(), value.strip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._await_nothing()
        self._boundaries += 1
        self._excess = self._fields = 0
        if self._held + _held_bytes(len(self.url), self.headers) > limit.HEAD_BYTES:
            raise self._over_bound(_TOO_LARGE)
        if len(self.pipeline) >= limit.PIPELINED:
            raise _Refused(None)
        method = self.parser.get_method()
        version = self.parser.get_http_version()
        fault = head_fault(method, version, self.headers)
        if fault is not None:
            raise _Refused(MalformedRequest(fault))
        if version == "1.0":
            self.expect_100_continue = False  # https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
        if self.parser.should_upgrade():
            return  # `_ignore_upgrade` comes next.
        self.url = origin_form(self.url)
        self._takes_body = method in _METHODS_WITH_BODY
        super().on_headers_complete()
        self._in_head = False
        self.cycle.transport = self._outlet  # type: ignore[assignment]
        self._table.mark_busy(self)
        self._resume_reading()  # The queue is bounded, and only a socket that is read shows that its client is gone.

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self.cycle.response_complete or not self._takes_body:
            self._discarded += len(body)
            if self._discarded > limit.DISCARDED_BYTES:
                raise _Refused(MalformedRequest(f"a body that is not read has more than {limit.DISCARDED_BYTES} bytes"))
            return
        self.cycle.body += body
        if self._is_body_full():
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._await_nothing()
        self._in_message = False
        super().on_message_complete()

    # --- The answer: uvicorn's cycle calls these -------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self.flow.write_paused:
            self.pipeline.append((cycle, app))
            self._response_deferred = True
            return
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._lingering or self.transport.is_closing():
            return
        if self.flow.write_paused:
            self._response_deferred = True  # The next request waits until the client reads.
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._reading:
            self._finish_refused()
        else:
            self._resume_reading()
            self._table.mark_idle(self)
            if self._awaited is _Awaited.NOTHING:
                self._await(_Awaited.REQUEST_AFTER_ANSWER, self.timeout_keep_alive)

    # --- Parts -----------------------------------------------------------------------------------------------------

    def _is_answering(self) -> bool:
        """Say whether an answer is owed."""
        active = self._active
        return bool(self.pipeline) or not (active is None or active.response_complete or active.disconnected)

    def _unanswered(self) -> list[RequestResponseCycle]:
        """Return the requests whose answer is not complete."""
        queued = [cycle for cycle, _ in self.pipeline]
        active = self._active
        if active is None or active.response_complete or active.disconnected:
            return queued
        return [active, *queued]

    def _over_bound(self, detail: str) -> _Refused:
        """Refuse a request for its size, but one in a queue only closes the connection: alone it may be acceptable."""
        return _Refused(None if self._is_queued else MalformedRequest(detail))

    def _count_excess(self, received: int, body: int) -> None:
        """Bound what the parser keeps of a head or trailer without end, and framing that carries next to no body.

        Only a piece in which no head begins or ends is counted: the size of whole heads is known exactly.
        """
        self._excess = max(0, self._excess + received - 2 * body)
        if self._excess > limit.HEAD_BYTES:
            raise self._over_bound(_TOO_LARGE)

    def _is_body_full(self) -> bool:
        """Say whether the application has to take some of a body first; once it has answered, it takes none."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and len(cycle.body) >= limit.BODY_BUFFER_BYTES

    def _await_more(self) -> None:
        """Bound the wait for the rest of a request, for the rest of a head, or for a head after an empty line."""
        if self._in_message and not self._in_head:
            self._await(_Awaited.REST_OF_REQUEST, self._bounds.request_seconds)
        elif self._in_message or not self._is_answering():
            self._await(_Awaited.HEAD, self._bounds.head_seconds)

    def _await(self, awaited: _Awaited, seconds: float) -> None:
        """Close in `seconds` unless it has come by then. Awaiting the same again does not prolong the wait."""
        if self._awaited is awaited:
            return
        self._awaited = awaited
        self._deadline = self.loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._deadline:
            self._stop_timer()
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline, self._check_deadline)

    def _await_nothing(self) -> None:
        """Leave the timer as it is: most requests come whole, and one timer serves many of them."""
        self._awaited = _Awaited.NOTHING
        self._deadline = math.inf

    def _check_deadline(self) -> None:
        self._timer = None
        if self._awaited is _Awaited.NOTHING:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._check_deadline)
        elif self._awaited is _Awaited.LAST_BYTES:
            self.transport.abort()
        else:
            self.transport.close()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the head again without its offer to upgrade: with it, the parser does not know the body for one."""
        hop_by_hop = (b"connection", b"upgrade", b"http2-settings")
        fields = [name + b": " + value for name, value in self.headers if name not in hop_by_hop]
        line = self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((line, *fields, b"connection: close", b"", rest)))

    def _refuse(self, error: PublicError | None) -> None:
        """Stop parsing: where the next request would begin is not known. Earlier requests get their answers first."""
        self._reading = False
        self._refusal = error
        self._await_nothing()
        if self._in_message and not self._in_head:
            self._withdraw()
        if not self._is_answering() and not self.transport.is_closing():
            self._finish_refused()

    def _withdraw(self) -> None:
        """Take a request back from the application, since the rest of it is refused."""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
        elif self.cycle.response_complete:
            self._refusal = None
        elif self.cycle.response_started:
            self.transport.close()
        else:
            _disconnect(self.cycle)

    def _finish_refused(self) -> None:
        if self._refusal is None:
            self._linger(self._bounds.linger_seconds, limit.LINGER_BYTES)
        else:
            self._answer_and_linger(self._refusal)

    def _answer_and_linger(self, error: PublicError) -> None:
        request_id = uuid.uuid4().hex
        log.info("request refused", request_id=request_id, code=error.code, detail=error.detail, client=self.client)
        self.transport.write(_answer(error, request_id))
        self._linger(self._bounds.linger_seconds, limit.LINGER_BYTES)

    def _linger(self, seconds: float, allowance: int) -> None:
        """Write no more, and read for a while without looking, so that the client reads its answer."""
        self._reading, self._lingering, self._allowance = False, True, allowance
        if not self.transport.can_write_eof():  # TLS cannot close one direction alone.
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._await(_Awaited.LAST_BYTES, seconds)
        self._table.mark_leaving(self)

    def _resume_reading(self) -> None:
        if not self.flow.write_paused and not self._is_body_full():
            self.flow.resume_reading()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


def _held_bytes(target_bytes: int, fields: list[tuple[bytes, bytes]]) -> int:
    """Return the memory that the text of a head takes."""
    return limit.TARGET_COPIES * target_bytes + sum(map(len, chain.from_iterable(fields)))


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Have the application learn that nobody reads its answer."""
    cycle.disconnected = True
    cycle.message_event.set()


def _answer(error: PublicError, request_id: str) -> bytes:
    """Return a problem as bytes of HTTP/1.1, after which the connection ends."""
    body = msgspec.json.encode(problem_document(error, request_id))
    head = [
        f"HTTP/1.1 {error.status} {http.HTTPStatus(error.status).phrase}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        f"x-request-id: {request_id}",
        "connection: close",
        *(f"{name.decode()}: {value.decode()}" for name, value in SECURITY_HEADERS),
    ]
    if error.retry_after is not None:
        head.append(f"retry-after: {error.retry_after}")
    return "".join(f"{line}\r\n" for line in (*head, "")).encode() + body


def _set_socket_options(connection: socket.socket | None) -> None:
    """Have TCP end a connection whose peer is gone, and keep the kernel's buffers small."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # The peer may be gone already.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limit.RECEIVE_BUFFER_BYTES)
        for name, value in _TCP_OPTIONS:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
