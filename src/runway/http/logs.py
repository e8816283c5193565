"""`/v1/jobs/{id}/logs`: the log of an attempt, as text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from runway.errors import (
    InvalidParameter,
    JobNotFound,
    KubernetesUnavailable,
    LogsGone,
    LogsNotReady,
    NotReady,
    RateLimited,
    TenantRequired,
    TooBusy,
    UnknownTenant,
)
from runway.flow.logs import open_log
from runway.http.jobs import find_job
from runway.http.problems import responses
from runway.http.services import services
from runway.http.tenancy import ReadScope

router = APIRouter(tags=["jobs"])


@router.get(
    "/v1/jobs/{job_id}/logs",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The log", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **responses(
            TenantRequired, UnknownTenant, JobNotFound, LogsNotReady, LogsGone, InvalidParameter, RateLimited, NotReady,
            KubernetesUnavailable, TooBusy,
        ),
    },
)  # fmt: skip
async def read_logs(
    request: Request,
    job_id: str,
    scope: ReadScope,
    follow: Annotated[bool, Query(description="Go on until the container ends")] = False,
    tail: Annotated[int | None, Query(ge=0, le=100_000, description="Only the last lines")] = None,
    attempt: Annotated[int | None, Query(ge=1, le=1000, description="1 is the first; the last by default")] = None,
    timestamps: Annotated[bool, Query(description="Start each line with its time")] = False,
) -> StreamingResponse:
    """A job's log. Once its pod is gone, 410 with the excerpt that was kept."""
    use = services(request)
    key = find_job(use, job_id, scope)
    tenant = use.observer.tenant_of(key)
    use.limits.open_stream(tenant)
    try:
        chunks = await open_log(
            use.kubernetes, use.observer, key, attempt=attempt, follow=follow, tail=tail, timestamps=timestamps
        )
    except BaseException:
        use.limits.close_stream(tenant)
        raise
    return LogResponse(chunks, lambda: use.limits.close_stream(tenant))


class LogResponse(StreamingResponse):
    """Streams a log, and closes its source and gives its place back however the answer ends."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], give_back: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        super().__init__(chunks, media_type="text/plain; charset=utf-8", headers=headers)
        self._chunks = chunks
        self._give_back = give_back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._give_back()
            await self._chunks.aclose()
