"""`/v1/jobs/{id}/logs`: the log of an attempt, as text."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from runway.api.app_state import app_state
from runway.api.jobs import find_job
from runway.api.problems import operation_id, responses
from runway.api.query import only_known_parameters
from runway.api.streaming import Body, StreamingResponse
from runway.api.tenancy import ReadScope
from runway.errors import (
    InvalidParameter,
    JobNotFound,
    KubernetesUnavailable,
    LogsGone,
    LogsNotReady,
    NotReady,
    RateLimited,
    RouteNotFound,
    TenantRequired,
    TooBusy,
    UnknownTenant,
)
from runway.services.job_logs import LogQuery, open_log

router = APIRouter(
    tags=["jobs"], dependencies=[Depends(only_known_parameters)], generate_unique_id_function=operation_id
)

ATTEMPT_HEADER: Final = "Runway-Attempt"
_FOLLOW: Final = (
    "Wait until the container has started, and go on until it has ended; with `attempt`, wait for the next attempt too"
)
_TAIL: Final = "Only the last lines; one of more than 16 KiB counts as several, as the runtime keeps it"


@router.get(
    "/v1/jobs/{job_id}/logs",
    response_class=Response,
    summary="Read a job's log",
    responses={
        200: {
            "description": "The log, byte for byte. It is whole if the answer has its regular end: an answer that is "
            "broken off was cut",
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "headers": {
                ATTEMPT_HEADER: {
                    "description": "The attempt that this is the log of: name it when you read on after a break",
                    "schema": {"type": "integer"},
                }
            },
        },
        **responses(
            TenantRequired, UnknownTenant, JobNotFound, RouteNotFound, LogsNotReady, LogsGone, InvalidParameter,
            RateLimited, NotReady, KubernetesUnavailable, TooBusy,
        ),
    },
)  # fmt: skip
async def read_logs(
    request: Request,
    job_id: str,
    scope: ReadScope,
    follow: Annotated[bool, Query(description=_FOLLOW)] = False,
    tail: Annotated[int | None, Query(ge=0, le=100_000, description=_TAIL)] = None,
    attempt: Annotated[
        int | None, Query(ge=1, le=1000, description="1 is the first, as in the view; else the last")
    ] = None,
    timestamps: Annotated[bool, Query(description="Start each line with its time, in nanoseconds")] = False,
) -> Response:
    """The log of one attempt, from the pod that wrote it. Once that pod is gone, 410 with the excerpt that was kept."""
    use = app_state(request)
    key = find_job(use, job_id, scope)
    query = LogQuery(attempt, follow, tail, timestamps)

    async def opened() -> Body:
        opened = await open_log(use.kubernetes, use.observer, key, query, use.log_turn)
        return Body(opened.chunks, {ATTEMPT_HEADER: str(opened.attempt)})

    return StreamingResponse(use, scope, opened, "text/plain; charset=utf-8")
