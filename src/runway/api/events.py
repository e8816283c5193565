"""`/v1/jobs/{id}/events`: a job's views as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.params import Header
from fastapi.responses import Response

from runway.api.app_state import app_state
from runway.api.jobs import find_job
from runway.api.problems import operation_id, responses
from runway.api.query import only_known_parameters
from runway.api.streaming import Body, StreamingResponse
from runway.api.tenancy import ReadScope, view_for_scope
from runway.controllers.sync import Observer
from runway.errors import (
    InvalidParameter,
    JobNotFound,
    NotReady,
    RateLimited,
    RouteNotFound,
    TenantRequired,
    TooBusy,
    UnknownTenant,
)
from runway.jobs.view import JobView
from runway.services.watch_job import Heartbeat, JobDeleted, JobUpdated, watch_job
from runway.state.job_store import JobKey

router = APIRouter(
    tags=["jobs"], dependencies=[Depends(only_known_parameters)], generate_unique_id_function=operation_id
)

RETRY_MILLISECONDS: Final = 2000
"""After so long a browser connects again when the stream has ended or broken."""

_DESCRIPTION: Final = """One event for each change; its data is the job view on one line, its id a hash of that view.

The stream ends after the view of a job that is over, or after an event `gone` where the Job was deleted. One that ends
in any other way was cut off: connect again with `Last-Event-ID`, and the view as it is now is sent first, unless it has
that id. Views between may be left out, the last one never is. A comment is sent after 15 s without a change."""
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One event",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "A hash of the view; send it as `Last-Event-ID` after a break"},
        "event": {"type": "string", "enum": ["message", "gone"], "description": "`gone` where the Job was deleted"},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "The job view, on one line"},
    },
}
_STREAM: Final[dict[str, Any]] = {"text/event-stream": {"schema": _EVENT}}


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=Response,
    summary="Follow a job",
    responses={
        200: {"description": _DESCRIPTION, "content": _STREAM},
        204: {"description": "The job is over, and `Last-Event-ID` is its last view: do not connect again"},
        **responses(
            TenantRequired, UnknownTenant, JobNotFound, RouteNotFound, InvalidParameter, RateLimited, NotReady, TooBusy
        ),
    },
)
async def read_events(
    request: Request,
    job_id: str,
    scope: ReadScope,
    last: Annotated[str | None, Header(alias="Last-Event-ID", description="The id of the last event seen")] = None,
) -> Response:
    """Server-sent events: the job view now, and again whenever it changes, until the job is over."""
    use = app_state(request)
    key = find_job(use, job_id, scope)
    view = use.observer.view(key)
    if view is None:
        raise JobNotFound(job_id)
    show = partial(view_for_scope, scope=scope)
    if view.state.is_finished and JobUpdated.of(show(view)).id == last:
        # A browser connects again after every end; this is the answer that makes it stop.
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    async def opened() -> Body:
        return Body(_events(use.observer, key, last, show))

    return StreamingResponse(use, scope, opened, "text/event-stream")


async def _events(
    observer: Observer, key: JobKey, last: str | None, show: Callable[[JobView], JobView]
) -> AsyncGenerator[bytes, None]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    async with aclosing(watch_job(observer, key, last, show)) as news:
        async for item in news:
            yield event(item, key.name)


def event(item: JobUpdated | Heartbeat | JobDeleted, job_id: str) -> bytes:
    """A piece of the stream."""
    if isinstance(item, Heartbeat):
        return b": no change\n\n"
    if isinstance(item, JobDeleted):
        # An event without data would not be dispatched.
        return b"event: gone\ndata: " + msgspec.json.encode({"id": job_id}) + b"\n\n"
    return b"id: " + item.id.encode() + b"\ndata: " + item.document + b"\n\n"
