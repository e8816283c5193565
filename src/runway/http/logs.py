"""`/v1/jobs/{id}/logs`: the log of an attempt, as text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from runway.errors import (
    ClusterError,
    InvalidParameter,
    JobNotFound,
    KubernetesUnavailable,
    LogsGone,
    LogsNotReady,
    NotReady,
    TenantRequired,
    TooBusy,
    UnknownTenant,
)
from runway.flow.logs import open_log
from runway.http.jobs import find_job
from runway.http.problems import responses
from runway.http.services import Services, services
from runway.http.tenancy import OptionalTenant

router = APIRouter(tags=["jobs"])
log = structlog.get_logger()


@router.get(
    "/v1/jobs/{job_id}/logs",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The log", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **responses(
            TenantRequired, UnknownTenant, JobNotFound, LogsNotReady, LogsGone, InvalidParameter, NotReady,
            KubernetesUnavailable, TooBusy,
        ),
    },
)  # fmt: skip
async def read_logs(
    request: Request,
    job_id: str,
    scope: OptionalTenant,
    follow: Annotated[bool, Query(description="Go on until the container ends")] = False,
    tail: Annotated[int | None, Query(ge=0, le=100_000, description="Only the last lines")] = None,
    attempt: Annotated[int | None, Query(ge=1, le=1000, description="1 is the first; the last by default")] = None,
    timestamps: Annotated[bool, Query(description="Start each line with its time")] = False,
) -> StreamingResponse:
    """A job's log. Once its pod is gone, 410 with the excerpt that was kept."""
    use = services(request)
    key = find_job(use, job_id, scope)
    if use.streams >= use.settings.max_streams:
        raise TooBusy(f"{use.streams} log streams are open; at most {use.settings.max_streams} may be")
    chunks = await open_log(
        use.kubernetes, use.observer, key, attempt=attempt, follow=follow, tail=tail, timestamps=timestamps
    )
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(_counted(use, chunks), media_type="text/plain; charset=utf-8", headers=headers)


async def _counted(use: Services, chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The chunks, counted as an open stream until the log or the caller ends."""
    use.streams += 1
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    except ClusterError as error:
        # The status is long sent: breaking the connection is the only way left to say that the log is not whole.
        log.warning("log stream broke", reason=str(error))
        raise
    finally:
        use.streams -= 1
