"""`/v1/jobs/{id}/logs` as text and `/v1/jobs/{id}/events` as server-sent events.

An answer ends when the client disconnects or Runway shuts down. A client recognizes an incomplete answer by its missing
last chunk: curl exits with 18. https://www.rfc-editor.org/rfc/rfc9112#section-7.1
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Annotated, Any, Final

import msgspec
import structlog
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.types import Message, Receive, Scope, Send

from runway import errors
from runway.api import dependencies as deps
from runway.api.problems import operation_id, responses
from runway.jobs.models import JobView
from runway.services.job_logs import LogQuery, open_log
from runway.services.watch_job import Heartbeat, JobDeleted, JobUpdated, watch_job
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

log = structlog.get_logger()
router = APIRouter(tags=["jobs"], dependencies=deps.CHECKED_PARAMETERS, generate_unique_id_function=operation_id)

ATTEMPT_HEADER: Final = "Runway-Attempt"
FIRST_LINE_HEADER: Final = "Runway-Log-First-Line"
WARNING_HEADER: Final = "Runway-Log-Warning"
HALF_CLOSED: Final = "runway.half_closed"
"""The ASGI extension with the event that the client has closed its sending side, and may still read."""
HALF_CLOSED_SECONDS: Final = 5.0
_UNBUFFERED: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
"""A proxy must pass on each line at once, without compressing it. nginx and others understand X-Accel-Buffering.

https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.6
"""
RETRY_MILLISECONDS: Final = 2000
"""The delay before a browser reconnects after the end of a stream."""


class LogParameters(deps.QueryParameters):
    """The selection of an attempt and of the lines of its log."""

    follow: bool = False
    """Wait until the container starts, and send its log until it ends; with `attempt`, wait for that attempt too."""
    tail: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Only the last lines. A line of more than 16 KiB counts as several, as in the container runtime."""
    attempt: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The number of the attempt: 1 is the first, as in the view. Default: the last attempt."""
    timestamps: bool = False
    """Start each line with its time, in nanoseconds."""


_LOG: Final[dict[str, Any]] = {
    "description": "The log, byte for byte. It is complete if the answer ends regularly; otherwise Runway breaks the "
    "connection off",
    "content": {"text/plain": {"schema": {"type": "string"}}},
    "headers": {
        ATTEMPT_HEADER: {
            "description": "The number of the attempt: use it as `attempt` to continue after a break",
            "schema": {"type": "integer"},
        },
        FIRST_LINE_HEADER: {
            "description": "The time of the first line that the node still has, also with `tail`",
            "schema": {"type": "string", "format": "date-time"},
        },
        WARNING_HEADER: {
            "description": "Earlier lines may be missing: the log begins some time after its container. Then the "
            "container was silent, or the node removed the beginning of a large log",
            "schema": {"type": "string"},
        },
    },
}


@router.get(
    "/v1/jobs/{job_id}/logs",
    response_class=Response,
    openapi_extra=deps.SCOPED,
    summary="Read a job's log",
    responses={
        200: _LOG,
        **responses(
            *deps.JOB_ERRORS, errors.LogsNotReady, errors.LogsGone, errors.KubernetesUnavailable, errors.TooBusy
        ),
    },
)
async def read_logs(
    request: Request, job_id: deps.JobIdPath, scope: deps.ReadScope, query: Annotated[LogParameters, Query()]
) -> Response:
    """Read the log of one attempt from its pod. After the pod is deleted: 410 with the stored excerpt."""
    use = deps.app_state(request)
    key = deps.find_job(use, job_id, scope)
    # HEAD reads no line and waits for none, but has the status and headers of GET.
    head = request.state.head
    selection = LogQuery(query.attempt, query.follow and not head, 0 if head else query.tail, query.timestamps)

    async def opened() -> Body:
        opened = await open_log(use.kubernetes, use.cluster, key, selection, use.log_turn, now=use.now)
        headers = {FIRST_LINE_HEADER: opened.first_line_at, WARNING_HEADER: opened.warning}
        known = {name: value for name, value in headers.items() if value is not None}
        return Body(opened.chunks, {ATTEMPT_HEADER: str(opened.attempt), **known})

    return StreamingResponse(use, scope, opened, "text/plain; charset=utf-8", is_endless=selection.follow)


_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One event",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "A hash of the view; send it as `Last-Event-ID` after a break"},
        "event": {"type": "string", "enum": ["message", "gone"], "description": "`gone` if the Job is deleted"},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "The job view, on one line"},
    },
}
_EVENTS: Final[dict[str, Any]] = {
    "description": """One event for each change. Its data is the job view on one line, its id a hash of that view.

The stream ends after the view of a finished job, or after an event `gone` if the Job is deleted. Reconnect after any
other end with `Last-Event-ID`: Runway sends the current view first, unless it has that id. Runway may skip views, but
never the last one. It sends a comment after 15 s without a change.""",
    "content": {"text/event-stream": {"schema": _EVENT}},
}


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=Response,
    openapi_extra=deps.SCOPED,
    summary="Follow a job",
    responses={
        200: _EVENTS,
        204: {"description": "The job is finished, and `Last-Event-ID` is its last view: do not reconnect"},
        **responses(*deps.JOB_ERRORS, errors.TooBusy),
    },
)
async def read_events(
    request: Request,
    job_id: deps.JobIdPath,
    scope: deps.ReadScope,
    last: Annotated[str | None, Header(alias="Last-Event-ID", description="The id of the last received event")] = None,
) -> Response:
    """Send the job view now and at each change, as server-sent events, until the job is finished."""
    use = deps.app_state(request)
    key = deps.find_job(use, job_id, scope)
    view = deps.job_view(use, key)
    show = partial(deps.view_for_scope, scope=scope)
    if view.is_finished and JobUpdated.of(show(view)).id == last:
        # A browser reconnects after every end; 204 stops it.
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    async def opened() -> Body:
        return Body(_events(use.cluster, key, last, show))

    return StreamingResponse(use, scope, opened, "text/event-stream", is_endless=True)


async def _events(
    cluster: ClusterState, key: JobKey, last: str | None, show: Callable[[JobView], JobView]
) -> AsyncGenerator[bytes, None]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    async with aclosing(watch_job(cluster, key, last, show)) as news:
        async for item in news:
            yield _event(item, key.name)


def _event(item: JobUpdated | Heartbeat | JobDeleted, job_id: str) -> bytes:
    if isinstance(item, Heartbeat):
        return b": no change\n\n"
    if isinstance(item, JobDeleted):
        # Browsers do not dispatch an event without data.
        return b"event: gone\ndata: " + msgspec.json.encode({"id": job_id}) + b"\n\n"
    return b"id: " + item.id.encode() + b"\ndata: " + item.document + b"\n\n"


@dataclass(frozen=True, slots=True)
class Body:
    """An opened stream. `chunks` raises StreamInterrupted or a PublicError if it cannot continue."""

    chunks: AsyncGenerator[bytes, None]
    headers: dict[str, str] = field(default_factory=dict)


class StreamingResponse(Response):
    """An answer that starts when `opened` returns, and ends with its chunks.

    Before that, RateLimited, TooBusy and a PublicError of `opened` are answered as problems.

    A client that closes its sending side may be gone, which only a write shows. So an endless response ends then, and
    another one once it has nothing to send for `HALF_CLOSED_SECONDS`.
    """

    def __init__(
        self,
        use: deps.AppState,
        scope: str | None,
        opened: Callable[[], Awaitable[Body]],
        media_type: str,
        *,
        is_endless: bool,
    ) -> None:
        super().__init__(media_type=media_type, headers=_UNBUFFERED)
        del self.headers["content-length"]
        self._use, self._scope, self._opened = use, scope, opened
        self._is_endless = is_endless
        self._begun = self._head = self._is_sending = False
        self._sent_messages = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._head = scope["state"]["head"]
        self._use.limits.open_stream(self._scope)
        try:
            await self._answer(receive, send, scope.get("extensions", {}).get(HALF_CLOSED))
        finally:
            self._use.limits.close_stream(self._scope)

    async def _answer(self, receive: Receive, send: Send, half_closed: asyncio.Event | None) -> None:
        sending = asyncio.create_task(self._send(send))
        client_gone = asyncio.create_task(_client_gone(receive))
        closing = asyncio.create_task(self._use.closing.wait())
        tasks = [sending, client_gone, closing]
        if half_closed is not None:
            tasks.append(asyncio.create_task(self._seems_abandoned(half_closed)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
            elif closing.done() and not self._begun:
                raise errors.NotReady("this process is shutting down")
            elif not client_gone.done() and not self._begun:
                raise errors.MalformedRequest("the client closed its side of the connection of a stream")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        body = await self._opened()
        async with aclosing(body.chunks):
            self.headers.update(body.headers)
            self._begun = True
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await self._pass_on(send, start)
            try:
                async for chunk in body.chunks:
                    if self._head:
                        break
                    await self._pass_on(send, {"type": "http.response.body", "body": chunk, "more_body": True})
            except (errors.StreamInterrupted, errors.PublicError) as error:
                # Without the last message the server breaks the connection off.
                log.warning("stream interrupted", tenant=self._scope, reason=str(error))
            else:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass_on(self, send: Send, message: Message) -> None:
        self._is_sending = True
        await send(message)  # Waits for a client that reads slowly.
        self._is_sending = False
        self._sent_messages += 1

    async def _seems_abandoned(self, half_closed: asyncio.Event) -> None:
        await half_closed.wait()
        sent_before = -1
        while not self._is_endless and (self._is_sending or self._sent_messages > sent_before):
            sent_before = self._sent_messages
            await asyncio.sleep(HALF_CLOSED_SECONDS)


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextmanager
def close_streams_on_shutdown(closing: asyncio.Event) -> Iterator[None]:
    """Set `closing` at SIGINT or SIGTERM: the server ends the lifespan only after every answer has ended."""
    loop = asyncio.get_running_loop()
    wrapped: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}

    def close(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # The loop is closed: another app in this process ended before this one.
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
