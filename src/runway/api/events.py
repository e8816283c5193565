"""`/v1/jobs/{id}/events`: a job's views as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from runway.api.dependencies import (
    JOB_ERRORS,
    NO_PARAMETERS,
    SCOPED,
    JobIdPath,
    ReadScope,
    app_state,
    find_job,
    view_for_scope,
)
from runway.api.problems import operation_id, responses
from runway.api.streaming import Body, StreamingResponse
from runway.errors import JobNotFound, TooBusy
from runway.jobs.models import JobView
from runway.services.watch_job import Heartbeat, JobDeleted, JobUpdated, watch_job
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

router = APIRouter(tags=["jobs"], dependencies=NO_PARAMETERS, generate_unique_id_function=operation_id)

RETRY_MILLISECONDS: Final = 2000
"""The delay before a browser reconnects after the end of a stream."""

_DESCRIPTION: Final = """One event for each change. Its data is the job view on one line, its id a hash of that view.

The stream ends after the view of a finished job, or after an event `gone` if the Job is deleted. Reconnect after any
other end with `Last-Event-ID`: Runway sends the current view first, unless it has that id. Runway may skip views, but
never the last one. It sends a comment after 15 s without a change."""
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
_STREAM: Final[dict[str, Any]] = {"text/event-stream": {"schema": _EVENT}}


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=Response,
    openapi_extra=SCOPED,
    summary="Follow a job",
    responses={
        200: {"description": _DESCRIPTION, "content": _STREAM},
        204: {"description": "The job is finished, and `Last-Event-ID` is its last view: do not reconnect"},
        **responses(*JOB_ERRORS, TooBusy),
    },
)
async def read_events(
    request: Request,
    job_id: JobIdPath,
    scope: ReadScope,
    last: Annotated[str | None, Header(alias="Last-Event-ID", description="The id of the last received event")] = None,
) -> Response:
    """Send the job view now and at each change, as server-sent events, until the job is finished."""
    use = app_state(request)
    key = find_job(use, job_id, scope)
    view = use.cluster.view(key)
    if view is None:
        raise JobNotFound(job_id)
    show = partial(view_for_scope, scope=scope)
    if view.is_finished and JobUpdated.of(show(view)).id == last:
        # A browser reconnects after every end; 204 stops it.
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    async def opened() -> Body:
        return Body(_events(use.cluster, key, last, show))

    return StreamingResponse(use, scope, opened, "text/event-stream")


async def _events(
    cluster: ClusterState, key: JobKey, last: str | None, show: Callable[[JobView], JobView]
) -> AsyncGenerator[bytes, None]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    async with aclosing(watch_job(cluster, key, last, show)) as news:
        async for item in news:
            yield event(item, key.name)


def event(item: JobUpdated | Heartbeat | JobDeleted, job_id: str) -> bytes:
    if isinstance(item, Heartbeat):
        return b": no change\n\n"
    if isinstance(item, JobDeleted):
        # Browsers do not dispatch an event without data.
        return b"event: gone\ndata: " + msgspec.json.encode({"id": job_id}) + b"\n\n"
    return b"id: " + item.id.encode() + b"\ndata: " + item.document + b"\n\n"
