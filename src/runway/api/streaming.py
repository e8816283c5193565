"""Streaming answers. They end when the client disconnects or Runway shuts down.

A client recognizes an incomplete answer by its missing last chunk: curl exits with 18.
https://www.rfc-editor.org/rfc/rfc9112#section-7.1
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from types import FrameType

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runway.api.dependencies import AppState
from runway.errors import NotReady, PublicError, StreamInterrupted

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Body:
    """An opened stream. `chunks` raises StreamInterrupted or a PublicError if it cannot continue."""

    chunks: AsyncGenerator[bytes, None]
    headers: dict[str, str] = field(default_factory=dict)


class StreamingResponse(Response):
    """An answer that starts when `opened` returns, and ends with its chunks.

    Before that, RateLimited, TooBusy and a PublicError of `opened` are answered as problems. The source is closed when
    the client disconnects or the process shuts down.

    The stream counts against the tenant of the caller's header, or against all callers without a header.
    """

    def __init__(
        self, use: AppState, scope: str | None, opened: Callable[[], Awaitable[Body]], media_type: str
    ) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._use = use
        self._scope = scope
        self._opened = opened
        self._begun = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        self._use.limits.open_stream(self._scope)
        try:
            await self._answer(receive, send)
        finally:
            self._use.limits.close_stream(self._scope)

    async def _answer(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        client_gone = asyncio.create_task(_client_gone(receive))
        closing = asyncio.create_task(self._use.closing.wait())
        tasks = (sending, client_gone, closing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
            elif closing.done() and not self._begun:
                raise NotReady("this process is shutting down")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        body = await self._opened()
        async with aclosing(body.chunks):
            self.headers.update(body.headers)
            self._begun = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for chunk in body.chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except (StreamInterrupted, PublicError) as error:
                # Without the last message the server breaks the connection off.
                log.warning("stream interrupted", tenant=self._scope, reason=str(error))
            else:
                await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextmanager
def close_streams_on_shutdown(closing: asyncio.Event) -> Iterator[None]:
    """Set `closing` at SIGINT or SIGTERM.

    The server ends the lifespan only after every answer has ended, and streams do not end. So this wraps the server's
    signal handlers.
    """
    loop = asyncio.get_running_loop()
    wrapped: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}

    def close(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(closing.set)
        wrapped[signal.Signals(number)](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                wrapped[number] = handler
                signal.signal(number, close)
    try:
        yield
    finally:
        closing.set()
        for number, handler in wrapped.items():
            signal.signal(number, handler)
