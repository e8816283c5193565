"""HTTP/1.1 protocol for uvicorn, with bounds on the bytes and time of each client.

Start uvicorn with `--http runway.http_server.protocol:BoundedHttpProtocol --ws none`. A request that this module
refuses never reaches the application. Invariants, with the figures of `http_server.bounds`:

- A connection holds a bounded number of bytes, whatever the client sends and whether or not it reads.
- Every wait for the client ends: for a head, for the rest of a request, for a client that does not read.
- Responses keep the order of the requests: a refusal follows the responses to earlier requests.
- A client that has closed only its sending side gets its responses, except those without an end.
"""

from __future__ import annotations

import asyncio
import http
import socket
import struct
import sys
import uuid
from contextlib import suppress
from enum import Enum, auto
from itertools import chain
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary

import httptools
import msgspec
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from runway.api.middleware import SECURITY_HEADERS
from runway.api.problems import MEDIA_TYPE, problem_document
from runway.api.streaming import HALF_CLOSED
from runway.errors import MalformedRequest, PublicError, TooBusy
from runway.http_server import bounds as limit
from runway.http_server.bounds import Bounds, ConnectionTable
from runway.http_server.request_head import head_fault, origin_form

log = structlog.get_logger()

_METHODS_WITH_BODY: Final = (b"POST", b"PUT", b"PATCH")
_TOO_LARGE: Final = f"the request line and headers, or the trailers, exceed {limit.MAX_HEAD_BYTES} bytes"
_TOO_MANY_FIELDS: Final = f"the request has more than {limit.MAX_HEAD_FIELDS} header or trailer fields"


class _Awaited(Enum):
    NEXT_REQUEST = auto()
    HEAD = auto()
    REST_OF_REQUEST = auto()
    LAST_BYTES = auto()


class _Refused(Exception):
    """Raised in a callback of the parser. `error` is the response; None closes after earlier responses."""

    def __init__(self, error: PublicError | None) -> None:
        super().__init__()
        self.error = error


class _Outlet:
    """The transport that uvicorn's cycle of a request sees. Its `close` may linger."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, connection: HttpConnection) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.end


class HttpConnection(HttpToolsProtocol):
    """One connection. `_reading`: it parses bytes. `_lingering`: it writes no more, and drops `_allowance` bytes."""

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
        self._reading, self._lingering, self._half_closed = True, False, False
        self._allowance = limit.MAX_LINGER_BYTES
        self._refusal: PublicError | None = None
        self._awaited: _Awaited | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._response_deferred = False
        # The request that the client is sending.
        self._in_message = self._in_head = False
        self._takes_body = self._is_queued = False
        self._boundaries = 0
        self._held = self._excess = self._fields = self._body_bytes = self._discarded = 0

    # --- The connection: asyncio calls these -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=limit.MAX_WRITE_BUFFER_BYTES)
        _set_socket_options(transport.get_extra_info("socket"))
        self._outlet = _Outlet(self)
        if self._table.admit(self):
            self._await(_Awaited.HEAD, self._bounds.head_seconds)
        else:
            detail = f"all {self._bounds.max_connections} connections are in use"
            self._refuse_and_linger(TooBusy(detail, retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.remove(self)
        self._await_nothing()
        self._cancel_stall_timer()
        for cycle in self._unanswered():
            _disconnect(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether responses are due: the end of the client's bytes does not say that it reads no more.

        https://www.rfc-editor.org/rfc/rfc9112#section-9.6
        """
        self._half_closed = True
        if self._in_message and self._reading:
            self._refuse(MalformedRequest("the client closed its side of the connection within the request"))
        unanswered = self._unanswered()
        for cycle in unanswered:
            cast("asyncio.Event", cycle.scope["extensions"][HALF_CLOSED]).set()
        if unanswered and self._reading:
            unanswered[0].keep_alive = False
        return bool(unanswered) and self.transport.can_write_eof()

    def data_received(self, data: memoryview | bytes) -> None:
        if not self._reading:
            self._allowance -= len(data)
            if self._allowance < 0:
                self.abort("the client sends too many bytes after its last response")
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
            not_http = MalformedRequest("the bytes are not an HTTP/1.1 request")
            self._refuse(refused.error if isinstance(refused, _Refused) else not_http)
        except _Refused as refused:
            self._refuse(refused.error)
        else:
            if self._in_message or boundaries == self._boundaries:
                self._await_more()

    def pause_writing(self) -> None:
        """Stop reading too: requests of a client that does not read would fill memory with responses."""
        super().pause_writing()
        self.flow.pause_reading()
        reason = f"the client did not read for {self._bounds.stalled_seconds:g} s"
        self._stall_timer = self.loop.call_later(self._bounds.stalled_seconds, self.abort, reason)
        self._table.mark_stalled(self, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_stall_timer()
        self._table.mark_flowing(self)
        if self._response_deferred:
            self._response_deferred = False
            self.on_response_complete()
        else:
            self._resume_reading()

    def abort(self, reason: str) -> None:
        """Close at once, and drop unsent bytes."""
        log.info("connection aborted", reason=reason, client=self.client)
        self.transport.abort()

    def end(self) -> None:
        """Close after a response. Linger if the client still sends: a reset would lose the response."""
        if self._in_message and self._reading and self.transport.can_write_eof():
            self._linger(self._bounds.discard_seconds, limit.MAX_DISCARDED_BYTES)
        else:
            self.transport.close()

    # --- The request: the parser calls these -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._boundaries += 1
        self._in_message = self._in_head = True
        self._held = self._fields = self._discarded = 0
        unanswered = self._unanswered()
        self._is_queued = bool(unanswered)
        for cycle in unanswered:
            headers = list(cycle.scope["headers"])
            target_bytes = len(cycle.scope["raw_path"] or b"") + len(cycle.scope["query_string"])
            self._held += _held_bytes(target_bytes, headers)
            self._fields += len(headers)
        self._excess = self._held

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > limit.MAX_HEAD_FIELDS:
            raise self._over_bound(_TOO_MANY_FIELDS)
        if not self._in_head:
            return  # Drop trailers: the application has already read the headers.
        name, value = name.lower(), value.strip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._await_nothing()
        self._boundaries += 1
        self._excess = self._fields = 0
        if self._held + _held_bytes(len(self.url), self.headers) > limit.MAX_HEAD_BYTES:
            raise self._over_bound(_TOO_LARGE)
        if len(self.pipeline) >= limit.MAX_PIPELINED:
            raise _Refused(None)
        method, version = self.parser.get_method(), self.parser.get_http_version()
        fault = head_fault(method, version, self.headers)
        if fault is not None:
            raise _Refused(MalformedRequest(fault))
        if version == "1.0":
            self.expect_100_continue = False  # https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
        if self.parser.should_upgrade():
            return  # `_ignore_upgrade` follows.
        self.url = origin_form(self.url)
        self._takes_body = method in _METHODS_WITH_BODY
        self.scope["extensions"] = {HALF_CLOSED: asyncio.Event()}  # type: ignore[dict-item]
        super().on_headers_complete()
        self._in_head = False
        self.cycle.transport = self._outlet  # type: ignore[assignment]
        self._table.mark_busy(self)
        self._resume_reading()  # uvicorn pauses it for a queued request, but only a read detects that a client is gone.

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self.cycle.response_complete or not self._takes_body:
            self._discarded += len(body)
            if self._discarded > limit.MAX_DISCARDED_BYTES:
                detail = f"the application does not read the body, which exceeds {limit.MAX_DISCARDED_BYTES} bytes"
                raise _Refused(MalformedRequest(detail))
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

    # --- The response: uvicorn's cycle calls these -----------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self.flow.write_paused:
            self.pipeline.append((cycle, app))
            self._response_deferred = True
            return
        self._active = cycle
        if cycle.scope["http_version"] == "1.0":
            app = self._for_old_client(cycle, app)
        super()._start_asgi_task(cycle, _breaking_off(cycle, app))

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._lingering or self.transport.is_closing():
            return
        if self.flow.write_paused:
            self._response_deferred = True  # The next request waits until the client reads.
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._reading:
            self._refuse_and_linger(self._refusal)
        else:
            self._resume_reading()
            self._table.mark_idle(self)
            if self._awaited is None:
                self._await(_Awaited.NEXT_REQUEST, self._bounds.idle_seconds)

    def _for_old_client(self, cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
        """End a body of unknown length with the connection: HTTP/1.0 has no chunks, which uvicorn sends nevertheless.

        A reset marks an incomplete body. https://www.rfc-editor.org/rfc/rfc9112#section-6.1
        """

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            is_delimited = True

            async def send_without_chunks(message: Any) -> None:
                nonlocal is_delimited
                if message["type"] == "http.response.start":
                    is_delimited = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                    if not is_delimited:
                        cycle.keep_alive = cycle.chunked_encoding = False
                        cycle.expected_content_length = sys.maxsize
                elif not is_delimited and not message.get("more_body", False):
                    cycle.expected_content_length = len(message.get("body", b""))
                await send(message)

            try:
                await app(scope, receive, send_without_chunks)
            finally:
                if not is_delimited and not cycle.response_complete and not cycle.disconnected:
                    self._reset()

        return answer

    def _reset(self) -> None:
        connection = self.transport.get_extra_info("socket")
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort("the response is incomplete")

    # --- Parts -----------------------------------------------------------------------------------------------------

    def _unanswered(self) -> list[RequestResponseCycle]:
        cycles = [cycle for cycle, _ in self.pipeline]
        if self._active and not self._active.response_complete and not self._active.disconnected:
            cycles.append(self._active)
        return cycles

    def _over_bound(self, detail: str) -> _Refused:
        """Return a refusal for size. A queued request only closes the connection: sent alone it may be valid."""
        return _Refused(None if self._is_queued else MalformedRequest(detail))

    def _count_excess(self, received: int, body: int) -> None:
        """Bound an unfinished head or trailer in the parser, and chunk framing with next to no body.

        Count only reads in which no head begins or ends: the sizes of whole heads are known.
        """
        self._excess = max(0, self._excess + received - 2 * body)
        if self._excess > limit.MAX_HEAD_BYTES:
            raise self._over_bound(_TOO_LARGE)

    def _is_body_full(self) -> bool:
        """Return whether the application must read first. It reads nothing after its response."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and len(cycle.body) >= limit.MAX_BODY_BUFFER_BYTES

    def _resume_reading(self) -> None:
        if not self.flow.write_paused and not self._is_body_full():
            self.flow.resume_reading()

    def _await_more(self) -> None:
        """Bound the wait for the rest of a request, for the rest of a head, or for a head after an empty line."""
        if self._in_message and not self._in_head:
            self._await(_Awaited.REST_OF_REQUEST, self._bounds.request_seconds)
        elif self._in_message or not self._unanswered():
            self._await(_Awaited.HEAD, self._bounds.head_seconds)

    def _await(self, awaited: _Awaited, seconds: float) -> None:
        """Close the connection after `seconds`. A second call for the same part does not prolong the wait."""
        if self._awaited is awaited:
            return
        self._await_nothing()
        self._awaited = awaited
        close = self.transport.abort if awaited is _Awaited.LAST_BYTES else self.transport.close
        self._timer = self.loop.call_later(seconds, close)

    def _await_nothing(self) -> None:
        self._awaited = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the head again without its offer to upgrade, with which the parser does not recognise a body."""
        hop_by_hop = (b"connection", b"upgrade", b"http2-settings")
        fields = [name + b": " + value for name, value in self.headers if name not in hop_by_hop]
        line = self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((line, *fields, b"connection: close", b"", rest)))

    def _refuse(self, error: PublicError | None) -> None:
        """Stop parsing, since the start of a next request is unknown. Earlier requests get their responses first."""
        self._reading = False
        self._refusal = error
        self._await_nothing()
        if self._in_message and not self._in_head:
            self._withdraw()
        if not self._unanswered() and not self.transport.is_closing():
            self._refuse_and_linger(self._refusal)

    def _withdraw(self) -> None:
        """Take back a request that the application has, since the rest of it is refused."""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
        elif self.cycle.response_complete:
            self._refusal = None
        elif self.cycle.response_started:
            self.transport.close()
        else:
            _disconnect(self.cycle)

    def _refuse_and_linger(self, error: PublicError | None) -> None:
        if error is not None:
            request_id = uuid.uuid4().hex
            log.info("request refused", request_id=request_id, code=error.code, detail=error.detail, client=self.client)
            self.transport.write(_response(error, request_id))
        self._linger(self._bounds.linger_seconds, limit.MAX_LINGER_BYTES)

    def _linger(self, seconds: float, allowance: int) -> None:
        """Stop writing, and drop incoming bytes for a while so that the client can read its response."""
        self._reading, self._lingering, self._allowance = False, True, allowance
        if self._half_closed or not self.transport.can_write_eof():  # TLS cannot close one direction alone.
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._await(_Awaited.LAST_BYTES, seconds)
        self._table.mark_leaving(self)


def _held_bytes(target_bytes: int, fields: list[tuple[bytes, bytes]]) -> int:
    return limit.TARGET_COPIES * target_bytes + sum(map(len, chain.from_iterable(fields)))


def _breaking_off(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """Close the connection of a stream that the app breaks off, which is an error to uvicorn's log."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
            cycle.transport.close()
            _disconnect(cycle)

    return answer


def _disconnect(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()


def _response(error: PublicError, request_id: str) -> bytes:
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
    """Make TCP end a connection whose peer is gone, and keep the kernel's buffers small."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # The peer may be gone already.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limit.RECEIVE_BUFFER_BYTES)
        for name, value in limit.TCP_OPTIONS:
            if hasattr(socket, name):  # Linux has all of them.
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


# One server in a process, except in tests.
_tables: WeakKeyDictionary[ServerState, ConnectionTable] = WeakKeyDictionary()


class BoundedHttpProtocol(asyncio.BufferedProtocol):
    """Pass at most `READ_BYTES` at once to uvicorn's class, which is no BufferedProtocol: uvloop gives it 256 KiB."""

    bounds: ClassVar[Bounds] = Bounds()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        table = _tables.get(server_state)
        if table is None:
            table = _tables[server_state] = ConnectionTable(self.bounds)
        self._connection = HttpConnection(config, server_state, app_state, _loop, self.bounds, table)
        self._buffer = table.buffer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connection_made(transport)  # type: ignore[arg-type]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (the interface of asyncio)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.data_received(self._buffer[:nbytes])

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
